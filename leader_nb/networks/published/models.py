"""The paper's networks by name, and as priors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from leader_nb.downloads import weights_path
from leader_nb.errors import InputError, unknown
from leader_nb.networks.published.adm import FFHQ, ADMConfig, ADMNet
from leader_nb.networks.published.checkpoints import fill, read_checkpoint
from leader_nb.networks.published.ddpm import DDPMConfig, DDPMNet
from leader_nb.priors import Prior, eps_prior

PublishedNet = DDPMNet | ADMNet


@dataclass(frozen=True)
class Published:
    """A network of the literature: how to build it, and how many parameters it then has.

    `call`, `kept`: bytes for each pixel of one 256 x 256 image that its activations hold at once in float32, in a call and in
    one whose gradient is taken. Counted tensor by tensor on the meta device (:class:`leader_nb.buffers.PeakMemory`).
    """

    build: Callable[[], PublishedNet]
    parameters: int
    call: int
    kept: int


PUBLISHED: dict[str, Published] = {
    "celebahq-256": Published(lambda: DDPMNet(DDPMConfig()), 113_673_219, 4_608, 32_665),
    "imagenet-256": Published(lambda: ADMNet(ADMConfig()), 552_814_086, 9_216, 80_254),
    "ffhq-256": Published(lambda: ADMNet(FFHQ), 93_563_910, 4_096, 26_999),
}


def skeleton(name: str) -> PublishedNet:
    """The network called `name` without any numbers in it, on the meta device."""
    if name not in PUBLISHED:
        raise unknown("published network", name, PUBLISHED)
    with torch.device("meta"):
        return PUBLISHED[name].build()


def load_published(name: str, path: str | Path | None = None, dtype: torch.dtype = torch.float32) -> PublishedNet:
    """The network called `name` with the weights of `path`, by default the file that `weights fetch` keeps."""
    network = skeleton(name)
    chosen = weights_path(name) if path is None else Path(path)
    if path is None and not chosen.is_file():
        raise InputError(
            f"weights: those of {name!r} are not at {chosen}; run leader-nb weights fetch {name}, or put the file there"
        )
    fill(network, read_checkpoint(chosen), dtype, f"{chosen} as {name!r}")
    return network


def published_prior(
    name: str,
    path: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Prior:
    """A published network as a prior on its own (linear) schedule: "celebahq-256", "imagenet-256" or "ffhq-256".

    `celebahq-256` takes images of exactly 256 x 256; the other two any sides that are multiples of 32, though they were
    trained at 256. They say six channels, the noise and a variance head, which the belief carries as `variance`.
    `dtype` is that of the network's arithmetic; what leaves it is combined in the dtype of the image.
    """
    return as_prior(load_published(name, path, dtype).to(device), name)


def as_prior(network: PublishedNet, name: str) -> Prior:
    """eps(x_t, t) of raw times, with the sides of the image checked at every call."""
    config, weight = network.config, next(network.parameters())

    def eps(x: Tensor, t: Tensor) -> Tensor:
        check_image(x, name, config.channels, config.stride, config.size)
        return network(x.to(weight.dtype), t.to(x.device))

    return replace(eps_prior(eps, name=name), minimum=config.size or config.stride)


def check_image(x: Tensor, name: str, channels: int, stride: int, size: int | None = None) -> None:
    """Raises `InputError` for images (B, C, H, W) of other channels, or of sides that a network cannot take."""
    height, width = x.shape[2:]
    if x.shape[1] != channels:
        raise InputError(f"x: it has {x.shape[1]} channels; the prior {name!r} takes {channels}")
    if size is not None and (height, width) != (size, size):
        raise InputError(f"x: it is {height} x {width} px; the prior {name!r} takes {size} x {size} and nothing else")
    if height % stride or width % stride:
        raise InputError(f"x: it is {height} x {width} px; the prior {name!r} needs multiples of {stride}")
