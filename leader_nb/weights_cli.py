"""`leader-nb weights list | fetch | verify`: the published networks, kept in the user's cache."""

from __future__ import annotations

from typing import Annotated

import typer

from leader_nb import downloads
from leader_nb.networks.published import load_published

app = typer.Typer(help="Fetch and check the published networks (CelebA-HQ, ImageNet, FFHQ).")

Name = Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(f.name for f in downloads.FILES)}.")]
Sum = Annotated[str | None, typer.Option("--sha256", help="The SHA-256 sum that the file must have.")]
Trust = Annotated[bool, typer.Option("--trust-first", help="If no sum is known, accept this copy's and remember it.")]


@app.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_command() -> None:
    """List the networks, the size of their files, and whether they are here."""
    for file in downloads.FILES:
        path = downloads.weights_path(file.name)
        state = str(path) if path.is_file() else "not fetched"
        typer.echo(f"{file.name:<14}{file.least / 1e9:>5.2f} GB   {state}")
        if file.note:
            typer.echo(f"{'':<14}{file.note}")


@app.command("fetch")
def fetch_command(
    name: Name,
    url: Annotated[str | None, typer.Option(help="Another address to fetch it from.")] = None,
    sha256: Sum = None,
    trust_first: Trust = False,
) -> None:
    """Fetch a network into the cache and check it. Running it again continues where it stopped."""
    path = downloads.fetch(name, url=url, sha256=sha256, trust_first=trust_first, fits=load_published)
    report(name, downloads.expected_sum(name, sha256) or "")
    typer.echo(f"written to {path}")


@app.command("verify")
def verify_command(name: Name, sha256: Sum = None, trust_first: Trust = False) -> None:
    """Compare a file in the cache with its SHA-256 sum, and its tensors with the network."""
    report(name, downloads.verify(name, sha256, trust_first, fits=load_published))


def report(name: str, found: str) -> None:
    typer.echo(f"{name}: SHA-256 {found}, and every tensor fits")
