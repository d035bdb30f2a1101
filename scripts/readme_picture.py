"""Make the picture of the README: a photograph, four degradations, and their restorations. Writes book/_static/readme.png."""

from __future__ import annotations

import argparse
from pathlib import Path

from leader_nb import host, leader, load_prior, parse_task, restore
from leader_nb.data import builtin_photo
from leader_nb.figures import plate
from leader_nb.pipeline import Case

TASKS = {
    "sr4@0.05": "super-resolution x4",
    "gaussian@0.05": "blur and noise",
    "inpaint70@0": "70 % missing",
    "color@0": "no colour",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    path = Path(__file__).parent.parent / "book" / "_static" / "readme.png"
    parser.add_argument("--out", type=Path, default=path, help="default: %(default)s")
    path = parser.parse_args().out
    x, prior = builtin_photo("coffee", 192), load_prior("photo-small")
    degraded, restored = [], []
    for name in TASKS:
        task = parse_task(name)
        problem = task.measure(x)
        result = restore(problem, prior, host("ddnm", task.sigma), **leader())
        degraded.append(Case(problem, task, 0, x.shape[-2:]).preview[0])
        restored.append(result.image[0])
    figure = plate({"measured": [*degraded, x[0]], "restored": [*restored, x[0]]}, [*TASKS.values(), "original"], width=11)
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
