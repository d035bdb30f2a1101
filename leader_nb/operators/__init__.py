"""Linear degradations with image-shaped spectra."""

from leader_nb.operators.base import Operator
from leader_nb.operators.convolution import (
    Convolution,
    anisotropic_kernel,
    convolution,
    gaussian_kernel,
    uniform_kernel,
    wide_gaussian_line,
)
from leader_nb.operators.dense import Dense, dense
from leader_nb.operators.hadamard import (
    BlockProjection,
    Hadamard,
    block_projection,
    hadamard,
    random_slots,
    walsh_hadamard,
)
from leader_nb.operators.motion import motion_kernel
from leader_nb.operators.pixelwise import Grey, Mask, denoising, grey, inpainting
from leader_nb.operators.separable import Separable, average_pool, bicubic, blur, circular_bicubic, separable

__all__ = [
    "BlockProjection",
    "Convolution",
    "Dense",
    "Grey",
    "Hadamard",
    "Mask",
    "Operator",
    "Separable",
    "anisotropic_kernel",
    "average_pool",
    "bicubic",
    "block_projection",
    "blur",
    "circular_bicubic",
    "convolution",
    "denoising",
    "dense",
    "gaussian_kernel",
    "grey",
    "hadamard",
    "inpainting",
    "motion_kernel",
    "random_slots",
    "separable",
    "uniform_kernel",
    "walsh_hadamard",
    "wide_gaussian_line",
]
