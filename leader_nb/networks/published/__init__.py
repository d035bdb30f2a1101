"""The networks that the paper and its hosts use: CelebA-HQ 256 (DDPM), ImageNet 256 and FFHQ 256 (ADM)."""

from leader_nb.networks.published.adm import ADMConfig, ADMNet
from leader_nb.networks.published.ddpm import DDPMConfig, DDPMNet
from leader_nb.networks.published.models import PUBLISHED, load_published, published_prior, skeleton

__all__ = [
    "PUBLISHED",
    "ADMConfig",
    "ADMNet",
    "DDPMConfig",
    "DDPMNet",
    "load_published",
    "published_prior",
    "skeleton",
]
