"""Linear degradations with image-shaped spectra."""

from leader_nb.operators.base import Operator
from leader_nb.operators.convolution import Convolution, convolution, gaussian_kernel
from leader_nb.operators.pixelwise import Grey, Mask, denoising, grey, inpainting
from leader_nb.operators.separable import Separable, average_pool, bicubic, separable

__all__ = [
    "Convolution",
    "Grey",
    "Mask",
    "Operator",
    "Separable",
    "average_pool",
    "bicubic",
    "convolution",
    "denoising",
    "gaussian_kernel",
    "grey",
    "inpainting",
    "separable",
]
