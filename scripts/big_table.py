"""Make the committed tables of restorations again (`table_leap.csv` aside), part by part: `make table IMAGES=DIR`, or

    python scripts/big_table.py --images DIR [--out FOLDER] [--parts ddnm,dps,...] [--list]

Each part is a call of `leader-nb table` on all test photographs of DIR (`benchmarks/README.md` says how to have them), and adds
its rows to FOLDER/TABLE.csv. Rows that are there are not computed again, so that a run that was stopped goes on.
It takes hours on one core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

SEARCHED = ("sr4@0.05", "gaussian@0.05", "sr4@0")
HARD = ("inpaint70@0", "cs25@0.05")  # where IDPG and PIRP (G+) diverge by themselves
MILD = ("sr4@0", "sr4@0.05", "gaussian@0.05", "motion@0.05")
TASKS = (*MILD, *HARD)
FOUR = ("none", "start", "leader", "leader-start")
ALL = ("none", "equs", "leader-paper", "leader", "global-same-steps", "start", "start-tuned", "leader-start")


@dataclass(frozen=True)
class Part:
    """Hosts, tasks and plug-ins of one call, and the file of its rows; `count` photographs, all where it is 0."""

    hosts: tuple[str, ...]
    tasks: tuple[str, ...]
    plugins: tuple[str, ...]
    table: str = "table"
    size: int = 64
    steps: int = 100
    count: int = 0

    @property
    def cells(self) -> set[tuple[str, str, str]]:
        return set(product(self.hosts, self.tasks, self.plugins))

    def command(self, images: str, folder: Path) -> list[str]:
        asked = {"hosts": self.hosts, "tasks": self.tasks, "plugins": self.plugins}
        words = [sys.executable, "-m", "leader_nb.cli", "table", "--images", images, "--out", str(folder / self.table)]
        words += [word for name, values in asked.items() for word in (f"--{name}", ",".join(values))]
        words += ["--size", str(self.size), "--steps", str(self.steps)]
        return words + (["--n", str(self.count)] if self.count else [])


PARTS: dict[str, Part] = {
    "ddnm": Part(("ddnm",), TASKS, (*ALL, "global", "modulate", "steps")),
    "global": Part(("ddpg", "projdiff"), TASKS, (*ALL, "global")),
    "others": Part(("ddrm", "diffpir", "pirp"), TASKS, ALL),
    "idpg": Part(("idpg",), MILD, ALL),
    "dps": Part(("dps",), TASKS, ("equs", "leader-paper", *FOUR)),
    "pirp+": Part(("pirp+",), MILD, FOUR),
    "mean": Part(("mean",), TASKS, ("none",)),
    "diverged": Part(("idpg", "pirp+"), HARD, FOUR, "table_diverged"),
    "tuned": Part(
        tuple(f"{name}:tuned" for name in ("ddnm", "ddrm", "idpg", "ddpg", "projdiff", "dps", "diffpir", "pirp", "pirp+")),
        SEARCHED,
        ("none", "leader-tuned", "global-tuned", "global-searched"),
        "table_tuned",
    ),
    "sitcom": Part(("sitcom",), TASKS, FOUR, "table_sitcom", steps=20, count=8),
    "sitcom-flat": Part(("sitcom",), SEARCHED, ("global-tuned", "global-searched"), "table_sitcom", steps=20, count=8),
    "128": Part(("ddnm", "ddpg"), TASKS, (*FOUR, "leader-paper", "global-same-steps"), "table_128", size=128),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="")
    parser.add_argument("--out", type=Path, default=Path("runs/table"))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--list", action="store_true", help="only print the commands")
    args = parser.parse_args()
    names = args.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        sys.exit(f"parts: unknown {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    if not args.images and not args.list:
        sys.exit("images: missing; give the folder of photographs, such as make table IMAGES=photos")
    failed = []
    for name in names:
        command = PARTS[name].command(args.images or "DIR", args.out)
        print(" ".join(["leader-nb", *command[3:]]), flush=True)
        if not args.list and subprocess.run(command).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"these parts have rows that failed, which they say themselves: {', '.join(failed)}")


if __name__ == "__main__":
    main()
