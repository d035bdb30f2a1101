"""One large file over HTTP: continued where it broke off, and never an error page in its place."""

from __future__ import annotations

import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from leader_nb.errors import InputError, one_line

CHUNK = 1 << 20  # bytes read at a time
PATIENCE = 30.0  # seconds without a byte before the connection counts as lost
ATTEMPTS = 5  # in a row, each of which brought something
PAUSE = 1.0  # seconds before the second attempt, doubled before each later one
PAGES = ("text/", "application/json", "application/xml")  # what error pages call themselves


class DownloadError(InputError):
    """A file could not be had from an address; another one may work."""


class CutShort(DownloadError):
    """The connection broke; what has arrived is kept, to be continued."""


def transfer(url: str, part: Path, least: int, checked: bool) -> bool:
    """Bring `url` to the file `part`, continuing what an earlier call left there; True if it continued.

    `least`: bytes that the whole file has at the least, below which an answer is an error page. `checked`: the caller
    compares a hash afterwards, so that a file may be continued even where the server names no version of it.
    Raises `DownloadError` for what is wrong with the address; a full disk is an `InputError`, a broken one an `OSError`.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError("the address does not begin with http:// or https://")
    continued, pause = False, PAUSE
    for attempt in range(ATTEMPTS):
        before = size(part)
        try:
            return _attempt(url, part, least, checked) or continued
        except CutShort:
            if size(part) <= before or attempt == ATTEMPTS - 1:
                raise
        continued, pause = True, 2 * pause
        time.sleep(pause / 2)
    raise AssertionError("the last attempt returns or raises")


def size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def forget(part: Path) -> None:
    """Remove a partial file and the note beside it."""
    part.unlink(missing_ok=True)
    note_of(part).unlink(missing_ok=True)


def note_of(part: Path) -> Path:
    """Beside a partial file: the address it comes from and the server's name for the version of it."""
    return part.with_name(part.name + ".json")


def _attempt(url: str, part: Path, least: int, checked: bool) -> bool:
    version = _version(url, part)
    start = size(part) if version or (version == "" and checked) else 0
    headers = {"User-Agent": "leader-nb", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing beyond what we have: that is no part of this file
            forget(part)
            return _attempt(url, part, least, checked)
        raise DownloadError(f"HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)  # of a URLError: what the system said
        raise DownloadError(f"no connection ({' '.join(str(reason).split())[:120] or type(error).__name__})") from None
    with response:
        answer = _read_header(response, start)
        _refuse_page(response, answer.total, least)
        _require_space(part, answer.total - answer.start)
        note_of(part).write_text(json.dumps({"url": url, "version": _version_of(response)}), encoding="utf-8")
        _receive(response, part, answer)
    _check_received(part, answer.total, least)
    return answer.start > 0


def _version(url: str, part: Path) -> str | None:
    """What the server called the version of the part that is here ("": nothing); None where it is not from `url`."""
    try:
        note = json.loads(note_of(part).read_text(encoding="utf-8"))
        return str(note["version"]) if note["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _version_of(response: http.client.HTTPResponse) -> str:
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


class Answer(NamedTuple):
    """Where the bytes of an answer begin in the file, and how many the whole file has (0: not said)."""

    start: int
    total: int


def _read_header(response: http.client.HTTPResponse, start: int) -> Answer:
    length = response.length or 0
    if response.status != 206:
        return Answer(0, length)
    first, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if not first.startswith(f"{start}-"):
        raise DownloadError(f"asked for the bytes from {start} on, it answers with {first or 'no range'}")
    return Answer(start, int(total) if total.isdigit() else start + length)


def _refuse_page(response: http.client.HTTPResponse, total: int, least: int) -> None:
    kind = response.headers.get_content_type() if "Content-Type" in response.headers else ""
    if kind.startswith(PAGES):
        words = " ".join(next(_blocks(response), b"")[:400].decode("utf-8", "replace").split())[:80]
        raise DownloadError(f"it answers with a page ({kind}: {words!r}) rather than the file")
    if 0 < total < least:
        raise DownloadError(f"it offers {total} bytes; the file has at least {least}")


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise InputError(
            f"{part.parent} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed: set LEADER_NB_CACHE elsewhere"
        )


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while block := response.read(CHUNK):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise CutShort(f"the connection broke ({one_line(error)}); run it again to continue") from None


def _receive(response: http.client.HTTPResponse, part: Path, answer: Answer) -> None:
    bar = tqdm(total=answer.total or None, initial=answer.start, unit="B", unit_scale=True, leave=False, disable=None)
    with bar, part.open("ab" if answer.start else "wb") as file:
        for block in _blocks(response):
            file.write(block)
            bar.update(len(block))


def _check_received(part: Path, total: int, least: int) -> None:
    have = size(part)
    if total and have < total:
        raise CutShort(f"it sent {have} of {total} bytes; run it again to continue")
    with part.open("rb") as file:
        page = file.read(64).lstrip().startswith(b"<")
    if page or have < least or (total and have > total):
        forget(part)
        raise DownloadError("it sent a web page" if page else f"it sent {have} bytes; the file has at least {least}")
