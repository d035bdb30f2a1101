"""How good the prior `digits` is on the 500 digits it never saw: the tables of its model card.

    python benchmarks/digits_report.py [--prior digits] [--out benchmarks/results]

Two rivals know the same training digits: the best linear denoiser (Wiener), and a perfect memory, the posterior mean of a
world in which there are no digits but those. Same noise for all; intervals bootstrapped by digit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from leader_nb.digits import digits
from leader_nb.noise import noise_for
from leader_nb.oracle import exact_covariance
from leader_nb.prior_report import Denoise, bias, compare_denoisers, denoiser_of
from leader_nb.priors import Prior
from leader_nb.zoo import load_prior

PERHAPS = (0.1, 0.3, 1, 3, 10)  # noise levels at which a digit can be made out, or guessed
SIGMAS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 150)


def wiener(known: Tensor) -> Denoise:
    """x -> m + C (C + sigma^2 I)^-1 (x - m), with mean m and covariance C of the `known` digits (n, 1, 32, 32)."""
    flat = known.flatten(1).double()
    mean = flat.mean(0)
    values, basis = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        shrunk = (x.flatten(1).double() - mean) @ basis * (values / (values + sigma**2))
        return (shrunk @ basis.T + mean).view_as(x).to(x)

    return denoise


def memory(known: Tensor) -> Denoise:
    """x -> E[x0 | x] for x0 one of the `known` digits (n, 1, 32, 32), each as likely as any other."""
    flat = known.flatten(1).double()

    def denoise(x: Tensor, sigma: float) -> Tensor:
        closeness = -torch.cdist(x.flatten(1).double(), flat).square() / (2 * sigma**2)
        return (closeness.softmax(1) @ flat).view_as(x).to(x)

    return denoise


def uncertainty(prior: Prior, images: Tensor, sigma: float, batch: int = 100, exact: int = 5) -> dict[str, float]:
    """Root of the mean variance (`claimed`, one Hutchinson probe per image) and RMSE of x0 (`true`), over all images.

    `asymmetry`, `negative` (share of pixels) and `negative_sum` (their share of sum |cov|): mean over `exact` Jacobians.
    """
    noise, t = noise_for(len(images), 0), torch.full((len(images),), prior.schedule.nearest_time(sigma))
    abar = prior.schedule.abar(t, images)
    x_t, signs = abar.sqrt() * images + (1 - abar).sqrt() * noise("map", images), noise("probe", images).sign()
    claimed = true = 0.0
    for x, v, x0, time in zip(x_t.split(batch), signs.split(batch), images.split(batch), t.split(batch), strict=True):
        belief = prior(x, time, gradient=True)
        claimed += (belief.sigma**2 * belief.abar.sqrt() * v * belief.vjp(v)).sum().item() / images.numel()
        true += (belief.x0 - x0).square().sum().item() / images.numel()
    chosen = torch.linspace(0, len(images) - 1, exact).long()
    found = exact_covariance(prior, x_t[chosen], t[:exact], full=True)
    row = {"sigma": sigma, "claimed": claimed**0.5, "true": true**0.5, "asymmetry": found.asymmetry.mean().item()}
    below = -found.diagonal.clamp(max=0).sum() / found.diagonal.abs().sum()
    return row | {"negative": found.negative.mean().item(), "negative_sum": below.item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="digits")
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    prior, known, images = load_prior(args.prior), digits("train").images, digits("test").images
    rivals = {"noisy": lambda x, sigma: x, "wiener": wiener(known), "memory": memory(known), args.prior: denoiser_of(prior)}
    rows = compare_denoisers(rivals, images, [127.5 * sigma for sigma in SIGMAS])
    table = pd.DataFrame(rows)
    table["sigma"] = table["sigma"] / 127.5  # sigma_bar, for images in [-1, 1]
    biases = pd.DataFrame(bias(prior, images, SIGMAS))
    maps = pd.DataFrame([uncertainty(prior, images, sigma) for sigma in PERHAPS])
    print(*(frame.round(4).to_string(index=False) for frame in (table, biases, maps)), sep="\n\n")
    out = Path(args.out)
    table.drop(columns=["seconds_per_image", "cpu_seconds_per_image"]).round(4).to_csv(
        out / f"denoising_{args.prior}.csv", index=False
    )
    maps.round(5).to_csv(out / f"uncertainty_{args.prior}.csv", index=False)
    biases.round(5).to_csv(out / f"bias_{args.prior}.csv", index=False)


if __name__ == "__main__":
    main()
