"""Small exact priors and problems, shared by the tests."""

from __future__ import annotations

import pytest
import torch

from laws import generator, normal
from leader_nb import GaussianMixture, Prior, image_mixture, network_prior
from leader_nb.networks import Denoiser, UNetConfig

torch.set_num_threads(1)  # tensors are tiny: threads would only wait for one another

TINY = UNetConfig(channels=3, widths=(8, 12), blocks=1, embedding=16)


@pytest.fixture(scope="session")
def mixture() -> GaussianMixture:
    """Three components on 3 x 8 x 8 images."""
    return image_mixture(8, channels=3)


@pytest.fixture(scope="session")
def exact(mixture: GaussianMixture) -> Prior:
    return mixture.prior()


@pytest.fixture(scope="session")
def samples(mixture: GaussianMixture) -> torch.Tensor:
    """Five draws of the mixture, (5, 3, 8, 8) float64."""
    return mixture.sample(5, generator(1))


@pytest.fixture(scope="session")
def tiny() -> Denoiser:
    """A U-Net in float64 with random weights everywhere, also at its end, which training starts at zero."""
    net = Denoiser(TINY).double().requires_grad_(False).eval()
    for i, p in enumerate(net.parameters()):
        p.copy_(normal(*p.shape, seed=i) / max(1, p[0].numel()) ** 0.5)
    return net


@pytest.fixture(scope="session")
def network(tiny: Denoiser) -> Prior:
    return network_prior(tiny, name="tiny")
