"""Fetching weights, against a server of our own on this machine: ranges, broken lines, error pages, wrong files."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from typer.testing import CliRunner

from leader_nb import downloads, transfer, weights_cli
from leader_nb.downloads import FILES, RemoteFile, expected_sum, fetch, pin_path, remote_file, verify, weights_path
from leader_nb.errors import InputError
from leader_nb.networks.published import PUBLISHED, DDPMConfig, DDPMNet
from leader_nb.transfer import CutShort, DownloadError

CONTENT = bytes(range(256)) * 4000  # a little over a megabyte
SUM = hashlib.sha256(CONTENT).hexdigest()
PAGE = b"<!DOCTYPE html><html><title>Access denied</title></html>"


@dataclass
class Site:
    """What the server does; `seen` are the Range headers it was sent ("" for none)."""

    content: bytes = CONTENT
    kind: str = "application/octet-stream"
    status: int = 200
    tag: str = '"v1"'
    cut: list[int] = field(default_factory=list)  # bytes after which each of the first answers breaks off
    ranges: bool = True
    shift: int = 0  # bytes by which an answered range is off
    length: bool = True
    elsewhere: str = ""  # where it redirects to
    seen: list[str] = field(default_factory=list)
    address: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range", "")
        site.seen.append(wanted)
        if site.status >= 400:
            self.send_error(site.status)
            return
        if site.elsewhere:
            self.send_response(302)
            self.send_header("Location", site.elsewhere)
            self.end_headers()
            return
        start = self.start(wanted)
        if start > len(site.content) or (start and start == len(site.content)):
            self.send_error(416)
            return
        body = site.content[start:]
        self.send_response(206 if start else site.status)
        self.send_header("Content-Type", site.kind)
        if site.tag:
            self.send_header("ETag", site.tag)
        if start:
            first = start + site.shift
            self.send_header("Content-Range", f"bytes {first}-{len(site.content) - 1}/{len(site.content)}")
        if site.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: site.cut.pop(0)] if site.cut else body)

    def start(self, wanted: str) -> int:
        """The first byte to send: that of the range, unless the file has changed since (If-Range)."""
        fresh = self.headers.get("If-Range", self.site.tag) == self.site.tag
        return int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.site.ranges and fresh else 0

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LEADER_NB_CACHE", str(tmp_path / "cache"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    monkeypatch.setattr(transfer, "CHUNK", 50_000)
    return tmp_path / "cache"


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up on an error page is no news."""


def serve(site: Site) -> Server:
    server = Server(("127.0.0.1", 0), type("Here", (Handler,), {"site": site}))
    site.address = f"http://127.0.0.1:{server.server_address[1]}/weights.pt"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture
def site(cache: Path) -> Iterator[Site]:
    """One server that has the file."""
    site = Site()
    server = serve(site)
    yield site
    server.shutdown(), server.server_close()


@pytest.fixture
def other(cache: Path) -> Iterator[Site]:
    """A second server, the second mirror."""
    site = Site()
    server = serve(site)
    yield site
    server.shutdown(), server.server_close()


@pytest.fixture
def entry(site: Site, monkeypatch: pytest.MonkeyPatch) -> RemoteFile:
    """The registry holds one file, `toy`, with a known sum, on the first server."""
    return register(monkeypatch, RemoteFile("toy", "toy.pt", (site.address,), 1000, SUM, "https://example.org/toy"))


def register(monkeypatch: pytest.MonkeyPatch, file: RemoteFile) -> RemoteFile:
    monkeypatch.setattr(downloads, "FILES", (file,))
    return file


def files(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {"toy.pt.lock"} if cache.is_dir() else set()


# --- the whole file, and nothing but the file ---------------------------------------------------------------------


def test_a_file_is_fetched_once(entry: RemoteFile, site: Site, cache: Path) -> None:
    path = fetch("toy")
    assert path == weights_path("toy") == cache / "toy.pt" and path.read_bytes() == CONTENT
    assert files(cache) == {"toy.pt"}
    fetch("toy")
    assert site.seen == [""]


def test_a_server_that_says_no_length(entry: RemoteFile, site: Site) -> None:
    site.length = False
    assert fetch("toy").read_bytes() == CONTENT


def test_a_broken_line_is_continued(entry: RemoteFile, site: Site) -> None:
    """Within one call, from the byte it had reached, as long as every attempt brings something."""
    site.cut = [300_000, 200_000]
    assert fetch("toy").read_bytes() == CONTENT
    assert site.seen == ["", "bytes=300000-", "bytes=500000-"]


def test_a_later_call_continues(entry: RemoteFile, site: Site, cache: Path) -> None:
    site.cut = [300_000, 0]
    with pytest.raises(DownloadError, match=r"it sent 300000 of 1024000 bytes; run it again to continue"):
        fetch("toy")
    assert files(cache) == {"toy.pt.part", "toy.pt.part.json"}, "nothing under the name of the file"
    assert fetch("toy").read_bytes() == CONTENT and site.seen[-1] == "bytes=300000-"


def test_a_line_that_breaks_for_ever(entry: RemoteFile, site: Site) -> None:
    site.cut = [1000] * 9
    with pytest.raises(DownloadError, match="it sent 5000 of 1024000 bytes"):
        fetch("toy")
    assert len(site.seen) == transfer.ATTEMPTS


def test_a_file_that_changed_is_fetched_afresh(entry: RemoteFile, site: Site) -> None:
    """The server's name for its version differs from the one of the part: If-Range makes it send everything."""
    site.cut, site.content, site.tag = [300_000, 0], b"x" * len(CONTENT), '"v0"'
    with pytest.raises(DownloadError):
        fetch("toy")
    site.content, site.tag = CONTENT, '"v1"'
    assert fetch("toy").read_bytes() == CONTENT


def test_a_part_of_something_else_is_fetched_afresh(entry: RemoteFile, site: Site) -> None:
    """A continued file with a wrong sum says nothing about the mirror: it is asked once more, from the beginning."""
    site.tag, site.cut, site.content = "", [300_000, 0], b"x" * len(CONTENT)
    with pytest.raises(DownloadError):
        fetch("toy")
    site.content = CONTENT
    assert fetch("toy").read_bytes() == CONTENT and site.seen[-2:] == ["bytes=300000-", ""]


def test_a_part_that_is_too_long_is_fetched_afresh(entry: RemoteFile, site: Site, cache: Path) -> None:
    site.cut = [300_000, 0]
    with pytest.raises(DownloadError):
        fetch("toy")
    (cache / "toy.pt.part").write_bytes(CONTENT + b"more")
    assert fetch("toy").read_bytes() == CONTENT and site.seen[-2:] == ["bytes=1024004-", ""]


def test_a_server_without_ranges(entry: RemoteFile, site: Site) -> None:
    site.cut, site.ranges = [300_000], False
    assert fetch("toy").read_bytes() == CONTENT


def test_a_server_that_answers_another_range(entry: RemoteFile, site: Site) -> None:
    site.cut, site.shift = [300_000], 5
    with pytest.raises(DownloadError, match="asked for the bytes from 300000 on, it answers with 300005-"):
        fetch("toy")


# --- what is not the file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content": PAGE, "kind": "text/html"}, r"it answers with a page \(text/html: '<!DOCTYPE html>.*Access denied"),
        ({"content": b'{"error": "gone"}', "kind": "application/json"}, "it answers with a page .application/json"),
        ({"content": PAGE}, "it offers 56 bytes; the file has at least 1000"),
        ({"content": PAGE, "length": False}, "it sent a web page"),
        ({"content": b"x" * 500, "length": False}, "it sent 500 bytes; the file has at least 1000"),
        ({"content": PAGE * 100}, "it sent a web page"),
        ({"content": CONTENT[:-1] + b"!"}, "its file has SHA-256 .{64}, not " + SUM),
        ({"status": 403}, "HTTP 403 Forbidden"),
    ],
)
def test_what_is_not_the_file_is_refused(changes: dict, message: str, entry: RemoteFile, site: Site, cache: Path) -> None:
    for name, value in changes.items():
        setattr(site, name, value)
    with pytest.raises(DownloadError, match=message) as error:
        fetch("toy")
    text = str(error.value)
    assert text.startswith("no toy weights (127.0.0.1: ") and "\n" not in text
    assert text.endswith(f"put toy.pt into {cache} by hand (see https://example.org/toy) and run leader-nb weights verify toy")
    assert not files(cache) & {"toy.pt", "toy.pt.sha256", "toy.pt.part"}


# --- several mirrors, and none -------------------------------------------------------------------------------------


def test_the_next_mirror_is_asked(entry: RemoteFile, site: Site, other: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.status = 404
    register(monkeypatch, replace(entry, urls=(site.address, other.address)))
    assert fetch("toy").read_bytes() == CONTENT
    assert other.seen == [""]


def test_a_part_of_another_mirror_is_not_continued(
    entry: RemoteFile, site: Site, other: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.cut = [300_000, 0]
    register(monkeypatch, replace(entry, urls=(site.address, other.address)))
    assert fetch("toy").read_bytes() == CONTENT and other.seen == [""]


def test_a_redirection_is_followed_and_continued(entry: RemoteFile, site: Site, other: Site) -> None:
    site.elsewhere, other.cut = other.address, [300_000]
    assert fetch("toy").read_bytes() == CONTENT and other.seen == ["", "bytes=300000-"]


def test_an_address_of_ones_own(entry: RemoteFile, site: Site, other: Site) -> None:
    assert fetch("toy", url=other.address).read_bytes() == CONTENT and not site.seen
    weights_path("toy").unlink()
    for address in ("file:///etc/hostname", "toy.pt"):
        with pytest.raises(DownloadError, match="does not begin with http"):
            fetch("toy", url=address)


def test_without_a_connection(entry: RemoteFile, site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says every address that was tried, and where to put the file by hand."""
    register(monkeypatch, replace(entry, urls=("http://127.0.0.1:9/a", "http://nowhere.invalid/b")))
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1: no connection \(.*\); nowhere\.invalid: no connection") as error:
        fetch("toy")
    assert f"put toy.pt into {cache} by hand (see https://example.org/toy)" in str(error.value)


def test_two_processes_do_not_write_one_file(entry: RemoteFile, cache: Path) -> None:
    cache.mkdir()
    with FileLock(cache / "toy.pt.lock"), pytest.raises(InputError, match="another process is fetching"):
        fetch("toy")


def test_a_disk_that_is_full_or_not_writable(entry: RemoteFile, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for before the first byte is written; it is no reason to try the next mirror."""
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: type("", (), {"free": 1000})())
    with pytest.raises(InputError, match=r"0\.0 GB free, 0\.0 GB are needed: set LEADER_NB_CACHE") as error:
        fetch("toy")
    assert not isinstance(error.value, DownloadError)
    monkeypatch.undo()
    monkeypatch.setenv("LEADER_NB_CACHE", str(Path(__file__) / "below"))
    with pytest.raises(InputError, match=r"cannot write to .*: set LEADER_NB_CACHE to another folder"):
        fetch("celebahq-256")


# --- sums ---------------------------------------------------------------------------------------------------------


def test_a_file_put_there_by_hand(entry: RemoteFile, site: Site, cache: Path) -> None:
    cache.mkdir()
    with pytest.raises(InputError, match=r"there is no .*toy\.pt: run leader-nb weights fetch toy, or put toy\.pt into"):
        verify("toy")
    weights_path("toy").write_bytes(CONTENT)
    assert verify("toy") == SUM and fetch("toy") == weights_path("toy") and not site.seen
    weights_path("toy").write_bytes(CONTENT + b"!")
    for call in (verify, fetch):
        with pytest.raises(InputError, match=f"has SHA-256 .*, not {SUM}: delete it and fetch it again, or give --sha256"):
            call("toy")


def fits(name: str) -> None:
    """Stands in for the network: only CONTENT is one."""
    if weights_path(name).read_bytes() != CONTENT:
        raise InputError("no such network")


def test_a_file_without_a_known_sum(entry: RemoteFile, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never taken on trust unasked; the first copy's sum then holds."""
    register(monkeypatch, replace(entry, sha256=None))
    with pytest.raises(InputError, match="no SHA-256 is known for 'toy': give --sha256, or accept the first copy"):
        fetch("toy")
    assert not site.seen
    assert fetch("toy", trust_first=True, fits=fits).read_bytes() == CONTENT
    assert pin_path("toy").read_text() == f"{SUM}  toy.pt\n", "as sha256sum -c reads it"
    assert expected_sum("toy") == SUM == verify("toy")
    weights_path("toy").write_bytes(b"x" * 2000)
    with pytest.raises(InputError, match="not " + SUM):
        verify("toy", trust_first=True, fits=fits)
    weights_path("toy").write_bytes(CONTENT)
    pin_path("toy").unlink()
    with pytest.raises(InputError, match="none is known for 'toy': --trust-first remembers this one"):
        verify("toy")
    assert verify("toy", trust_first=True, fits=fits) == expected_sum("toy")


@pytest.mark.parametrize("how", ["sum of one's own", "trust first"])
@pytest.mark.parametrize("call", [verify, fetch])
def test_a_wrong_file_is_not_remembered(how: str, call, entry: RemoteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever vouches for a file that is no such network finds the genuine one accepted afterwards."""
    register(monkeypatch, replace(entry, sha256=None))
    weights_path("toy").parent.mkdir()
    weights_path("toy").write_bytes(b"x" * 2000)
    wrong = hashlib.sha256(b"x" * 2000).hexdigest()
    vouched = {"sha256": wrong} if how == "sum of one's own" else {"trust_first": True}
    for options in (vouched, vouched | {"fits": fits}):
        with contextlib.suppress(InputError):
            call("toy", **options)
        assert expected_sum("toy") is None and not pin_path("toy").exists()
    with pytest.raises(InputError, match="no such network"):
        call("toy", **vouched, fits=fits)
    weights_path("toy").unlink()
    assert fetch("toy", trust_first=True, fits=fits).read_bytes() == CONTENT and expected_sum("toy") == SUM


def test_a_remembered_sum_does_not_outrank_the_published_one(entry: RemoteFile, cache: Path) -> None:
    """Not even one that an earlier version wrote down."""
    cache.mkdir()
    pin_path("toy").write_text(f"{'0' * 64}  toy.pt\n")
    assert expected_sum("toy") == SUM
    assert fetch("toy", fits=fits).read_bytes() == CONTENT and verify("toy", fits=fits) == SUM


def test_without_a_sum_only_the_same_version_is_continued(
    entry: RemoteFile, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, replace(entry, sha256=None))
    site.tag, site.cut = "", [300_000]
    assert fetch("toy", trust_first=True).read_bytes() == CONTENT
    assert site.seen == ["", ""], "nothing would tell whether the two halves belong together"
    for tag, later in (('"v1"', "bytes=300000-"), ('W/"v1"', "")):
        weights_path("toy").unlink()
        site.tag, site.cut = tag, [300_000]
        assert fetch("toy", trust_first=True).read_bytes() == CONTENT and site.seen[-1] == later


def test_a_sum_of_ones_own(entry: RemoteFile, site: Site) -> None:
    """`--sha256` goes before the published sum, for a mirror whose copy is another one, and holds for that call alone."""
    site.content = CONTENT[::-1]
    own = hashlib.sha256(site.content).hexdigest()
    with pytest.raises(DownloadError, match=f"its file has SHA-256 {own}, not {SUM}"):
        fetch("toy")
    fetch("toy", sha256=own.upper(), fits=lambda name: None)
    assert verify("toy", own) == own and expected_sum("toy") == SUM and not pin_path("toy").exists()
    with pytest.raises(InputError, match=f"has SHA-256 {own}, not {SUM}"):
        verify("toy")
    with pytest.raises(InputError, match="give 64 hexadecimal digits"):
        fetch("toy", sha256="abc")


# --- the registry and the command line -----------------------------------------------------------------------------


def test_the_registry_is_that_of_the_networks() -> None:
    assert [file.name for file in FILES] == list(PUBLISHED)
    for file in FILES:
        assert file.least == 4 * PUBLISHED[file.name].parameters, "float32"
        assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
        assert all(url.startswith("https://") for url in (*file.urls, file.page)) and file.urls
        assert bool(file.note) == (len(file.urls) == 1), "a single mirror is said to be one"
    with pytest.raises(InputError, match="unknown weights 'ffhq': did you mean 'ffhq-256'"):
        remote_file("ffhq")


@pytest.fixture
def tiny(entry: RemoteFile, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """`celebahq-256` made tiny, and served."""
    config = DDPMConfig(width=32, multipliers=(1, 1), blocks=1, attention=(), size=8)
    monkeypatch.setitem(PUBLISHED, "celebahq-256", replace(PUBLISHED["celebahq-256"], build=lambda: DDPMNet(config)))
    torch.save(DDPMNet(config).state_dict(), tmp_path / "tiny.pt")
    site.content = (tmp_path / "tiny.pt").read_bytes()
    found = hashlib.sha256(site.content).hexdigest()
    register(monkeypatch, RemoteFile("celebahq-256", "toy.pt", (site.address,), 1000, found, "https://example.org"))
    return found


def run(*arguments: str):
    return CliRunner().invoke(weights_cli.app, arguments)


def test_the_list_says_which_has_one_mirror_only(cache: Path) -> None:
    lines = run("list").output.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("ffhq-256"))
    assert "one mirror only, and no other is known" in lines[place + 1] and len(lines) == len(FILES) + 1


def test_the_command_line(tiny: str, cache: Path, site: Site) -> None:
    assert "not fetched" in run("list").output
    assert run().exit_code == 0 and "verify" in run().output, "without a command: help"
    fetched = run("fetch", "celebahq-256")
    assert fetched.exit_code == 0 and f"SHA-256 {tiny}, and every tensor fits" in fetched.output
    assert str(cache / "toy.pt") in fetched.output.replace("\n", "") and str(cache / "toy.pt") in run("list").output
    verified = run("verify", "celebahq-256")
    assert verified.exit_code == 0 and tiny in verified.output
    assert site.seen == [""]


def test_the_command_line_says_what_is_wrong(tiny: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors are InputErrors, which the program prints as one line."""
    assert isinstance(run("verify", "celebahq-256").exception, InputError)
    assert isinstance(run("fetch", "nothing").exception, InputError)
    site.content = CONTENT  # a file with the right sum that is no such network
    register(monkeypatch, replace(remote_file("celebahq-256"), sha256=SUM))
    wrong = run("fetch", "celebahq-256").exception
    assert isinstance(wrong, InputError) and "is no complete checkpoint" in str(wrong)


@pytest.mark.parametrize("known", [True, False])
def test_vouching_for_a_wrong_file_leaves_the_genuine_one_welcome(
    known: bool, tiny: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:
        register(monkeypatch, replace(remote_file("celebahq-256"), sha256=None))
    path = weights_path("celebahq-256")
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    for command in ("verify", "fetch"):
        assert isinstance(run(command, "celebahq-256", "--sha256", SUM).exception, InputError)
    assert not pin_path("celebahq-256").exists()
    path.unlink()
    options = () if known else ("--trust-first",)
    assert f"SHA-256 {tiny}, and every tensor fits" in run("fetch", "celebahq-256", *options).output
    assert pin_path("celebahq-256").exists() != known
    assert run("verify", "celebahq-256").exit_code == 0


def test_cut_short_is_a_download_error() -> None:
    assert issubclass(CutShort, DownloadError) and issubclass(DownloadError, InputError)
