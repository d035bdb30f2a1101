"""Networks: a small fully convolutional U-Net with EDM preconditioning, built and read in one place."""

from leader_nb.networks.unet import Denoiser, UNet, UNetConfig

__all__ = ["Denoiser", "UNet", "UNetConfig"]
