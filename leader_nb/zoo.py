"""Priors by name: the ones shipped in the package, the published networks, or a .safetensors file of your own."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import torch

from leader_nb.downloads import weights_path
from leader_nb.errors import InputError, unknown
from leader_nb.networks.files import load_denoiser, sha256
from leader_nb.networks.published import PUBLISHED, published_prior
from leader_nb.priors import Prior, network_prior

PRIORS: tuple[str, ...] = ("photo-small", "photo-base", "digits")
FOLDER = Path(__file__).parent / "weights"


def load_prior(name: str = "photo-small", device: str | torch.device = "cpu") -> Prior:
    """The prior called `name` (one of PRIORS), or the one in a .safetensors file written by `leader-nb train`.

    Or a published network, "celebahq-256", "imagenet-256" or "ffhq-256", once `leader-nb weights fetch` has fetched it.
    """
    if name in PUBLISHED:
        return published_prior(name, device=device)
    denoiser, _ = load_denoiser(prior_path(name))
    return network_prior(denoiser.to(device), name=name)


def prior_path(name: str) -> Path:
    """Where the weights of a prior are, or will be."""
    if name in PRIORS:
        return FOLDER / f"{name}.safetensors"
    if name in PUBLISHED:
        return weights_path(name)
    if name.endswith(".safetensors"):
        return Path(name)
    raise unknown("prior", name, (*PRIORS, *PUBLISHED))


def prior_hash(name: str) -> str:
    """sha256 of the prior's file."""
    return sha256(prior_path(name))


def add_device(parser: ArgumentParser) -> None:
    """Gives a script the option --device, as `leader-nb table` has it; cpu unless told otherwise."""
    parser.add_argument("--device", type=choose_device, default="cpu", help="auto, cpu, cuda or cuda:N")


def choose_device(device: str) -> torch.device:
    """`auto` takes a GPU where PyTorch finds one; anything else must be there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: {device!r} asked for, but PyTorch finds no GPU here; use --device cpu or auto")
    try:
        return torch.device(device)
    except RuntimeError:
        raise InputError(f"device: {device!r} is not one PyTorch knows; use auto, cpu, cuda or cuda:N") from None
