"""Weights of other projects, fetched once into the user's cache and known by their SHA-256 sum.

The sums come from public listings: those of the Hugging Face repositories below, which for the two ADM files agree with
what other projects have published. A file without a known sum is accepted only on request (`trust_first`, or a sum of
one's own): once its tensors are seen to fit, the sum of that copy is written beside it, as `sha256sum -c` reads it, and
holds from then on. A published sum is never replaced: a copy with another one has to be vouched for at every call.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from leader_nb.data import atomic_write
from leader_nb.errors import InputError, one_line, unknown
from leader_nb.lpips_weights import cache_dir
from leader_nb.networks.files import sha256 as sha256_of
from leader_nb.transfer import DownloadError, forget, transfer

Fits = Callable[[str], object]  # raises InputError where the file of that name in the cache is not that network
HUB, DRIVE = "https://huggingface.co", "https://drive.google.com"


@dataclass(frozen=True)
class RemoteFile:
    """`file`: its name in the cache;  `least`: bytes it has at least (float32);  `page`: where a person finds it.

    `note`: what `weights list` says of its mirrors.
    """

    name: str
    file: str
    urls: tuple[str, ...]
    least: int
    sha256: str | None
    page: str
    note: str = ""


FILES: tuple[RemoteFile, ...] = (
    RemoteFile(
        "celebahq-256",  # SDEdit's file; whether the copy on Drive has the same bytes is not known
        "celeba_hq.ckpt",
        (
            f"{HUB}/gwang-kim/DiffusionCLIP-CelebA_HQ/resolve/main/celeba_hq.ckpt",
            "https://drive.usercontent.google.com/download?id=1wSoA5fm_d6JBZk4RZ1SzWLMgev4WqH21&export=download&confirm=t",
        ),
        4 * 113_673_219,
        "6cbb630eb856ff3ebe4854fe87af3c21a052765678955999db97ea15b5eeb8a5",
        "https://github.com/wyhuai/DDNM",
    ),
    RemoteFile(
        "imagenet-256",
        "256x256_diffusion_uncond.pt",
        (
            "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt",
            f"{HUB}/deepinv/diffunet/resolve/main/diffusion_openai.pt",
        ),
        4 * 552_814_086,
        "a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        "https://github.com/openai/guided-diffusion",
    ),
    RemoteFile(
        "ffhq-256",
        "ffhq_10m.pt",
        (f"{HUB}/deepinv/diffunet/resolve/main/diffusion_ffhq_10m.pt",),
        4 * 93_563_910,
        "81d535743156ec6be34d8668e6920da94f0614074d7793a16c8fa9e306237faa",
        f"{DRIVE}/drive/folders/1jElnRoFv7b31fG0v6pTSQkelbSX3xGZh",
        "one mirror only, and no other is known: where it fails, take the file by hand from the page of its authors",
    ),
)


def remote_file(name: str) -> RemoteFile:
    """The entry of FILES called `name`."""
    known = {file.name: file for file in FILES}
    if name not in known:
        raise unknown("weights", name, known)
    return known[name]


def weights_path(name: str) -> Path:
    """Where the file of `name` is kept, whether or not it is there yet: in $LEADER_NB_CACHE, or the user's cache."""
    return cache_dir() / remote_file(name).file


def expected_sum(name: str, given: str | None = None) -> str | None:
    """The sum that the file must have: the one `given`, else the published one, else the one remembered beside it."""
    if given is not None:
        if not re.fullmatch("[0-9a-fA-F]{64}", given):
            raise InputError(f"sha256: got {given!r}; give 64 hexadecimal digits")
        return given.lower()
    published, pin = remote_file(name).sha256, pin_path(name)
    remembered = pin.read_text(encoding="utf-8").split() if pin.is_file() else []
    return published or (remembered[0] if remembered else None)


def pin_path(name: str) -> Path:
    """The note beside a file that remembers its sum."""
    path = weights_path(name)
    return path.with_name(path.name + ".sha256")


def verify(name: str, sha256: str | None = None, trust_first: bool = False, fits: Fits | None = None) -> str:
    """Compare the file in the cache with the sum it must have, and return that sum.

    `fits(name)`, called after the comparison, says whether it is that network (:func:`load_published`). Where no sum is
    published, the sum of a file that fits is remembered; without `fits` nothing is. Raises `InputError` where the file is
    missing, another one or no such network, and, without `trust_first`, where no sum is known.
    """
    path, expected = weights_path(name), expected_sum(name, sha256)
    if not path.is_file():
        raise InputError(f"there is no {path}: run leader-nb weights fetch {name}, or {by_hand(name)}")
    found = sha256_of(path)
    if expected is None and not trust_first:
        raise InputError(f"{path} has SHA-256 {found}; none is known for {name!r}: --trust-first remembers this one")
    if expected not in (None, found):
        raise InputError(f"{path} has SHA-256 {found}, not {expected}: delete it and fetch it again, or give --sha256")
    if fits is not None:
        fits(name)
        if remote_file(name).sha256 is None:
            atomic_write(pin_path(name), lambda file: file.write(f"{found}  {path.name}\n".encode()))
    return found


def by_hand(name: str) -> str:
    file = remote_file(name)
    return f"put {file.file} into {cache_dir()} by hand (see {file.page}) and run leader-nb weights verify {name}"


def fetch(
    name: str,
    *,
    url: str | None = None,
    sha256: str | None = None,
    trust_first: bool = False,
    fits: Fits | None = None,
) -> Path:
    """The file of `name` in the cache, fetched from its mirrors in turn (or from `url`) where it is not there yet.

    An interrupted fetch is continued. Nothing appears under the file's name before its sum has been compared; `fits` is as
    in :func:`verify`. Raises `InputError` where no sum is known and none to be trusted, and `DownloadError` where no mirror
    has the file.
    """
    path, expected = weights_path(name), expected_sum(name, sha256)
    if path.is_file():
        verify(name, sha256, trust_first, fits)
        return path
    if expected is None and not trust_first:
        raise InputError(f"no SHA-256 is known for {name!r}: give --sha256, or accept the first copy by --trust-first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock"), timeout=0):
            _from_mirrors(remote_file(name), (url,) if url else remote_file(name).urls, path, expected)
            verify(name, sha256, trust_first, fits)
    except Timeout:
        raise InputError(f"another process is fetching {path}: wait for it") from None
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise InputError(f"cannot write to {path.parent} ({reason}): set LEADER_NB_CACHE to another folder") from None
    return path


def _from_mirrors(file: RemoteFile, urls: tuple[str, ...], path: Path, expected: str | None) -> None:
    part, failures = path.with_name(path.name + ".part"), []
    for url in urls:
        try:
            _obtain(url, part, file.least, expected)
        except DownloadError as error:
            failures.append(f"{urlsplit(url).hostname}: {error}")
            continue
        os.replace(part, path)
        return forget(part)
    raise DownloadError(f"no {file.name} weights ({'; '.join(failures)}): try later, or {by_hand(file.name)}")


def _obtain(url: str, part: Path, least: int, expected: str | None) -> None:
    """The whole file at `part`, with the sum it must have; a continued one that has another is fetched afresh, once."""
    found = ""
    for _ in range(2):
        continued = transfer(url, part, least, checked=expected is not None)
        found = sha256_of(part)
        if expected in (None, found):
            return
        forget(part)
        if not continued:
            break
    raise DownloadError(f"its file has SHA-256 {found}, not {expected}")
