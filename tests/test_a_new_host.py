"""Adding a host touches two places: its file, and its name in HOSTS. What is said of every host then holds for it too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HALFWAY = '''"""A host of somebody's own: half of the way to the data, then DDIM."""

from dataclasses import dataclass
from typing import ClassVar

from leader_nb.equations import ddim
from leader_nb.samplers.base import Step, standard_normal
from leader_nb.schedule import uniform_grid


@dataclass(frozen=True)
class Halfway:
    """x0y = x0 + A^+ (y - A x0) / 2."""

    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(uniform_grid)

    def init(self, problem, noise):
        return standard_normal(problem, noise), {}

    def step(self, b, s, problem, noise, carry):
        x0y = b.x0 + problem.operator.pinv(problem.y - problem.operator(b.x0)) / 2
        x, injected = ddim(x0y, b.eps, noise("step", x0y), b.schedule.abar(s, x0y), 0.85)
        return Step(x0y, x, carry, injected)
'''
# Where tests go through every host: coverage and its command, the laws, EquS, and constants by name.
FILES = ("coverage", "samplers", "equs", "settings")
OF_ALL_HOSTS = ("test_the_paper", "test_the_released_codes", "test_the_matrix_keeps_the_order", "test_the_command")
SLOW = ("gaussian", "motion", "cs25", "denoise", "color", "pool4")


def with_halfway(folder: Path) -> None:
    """A copy of the package with one file and one line more."""
    package = folder / "leader_nb"
    shutil.copytree(ROOT / "leader_nb", package, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    (package / "weights").symlink_to(ROOT / "leader_nb" / "weights")
    (package / "samplers" / "halfway.py").write_text(HALFWAY)
    names = package / "samplers" / "__init__.py"
    before, line = names.read_text(), '    "sitcom": SITCOM,\n'
    assert before.count(line) == 1
    after = before.replace(line, f'{line}    "halfway": Halfway,\n')
    names.write_text(after.replace("HOSTS: ", "from leader_nb.samplers.halfway import Halfway\n\nHOSTS: ", 1))


def test_a_new_host_is_one_file_and_one_line(tmp_path: Path) -> None:
    with_halfway(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    chosen = " or ".join((f"halfway and not ({' or '.join(SLOW)})", *OF_ALL_HOSTS))
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}", "-rA"]
    command += ["-p", "no:cacheprovider", "-k", chosen, *(str(ROOT / "tests" / f"test_{name}.py") for name in FILES)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    passed = re.findall(r"^PASSED \S*test_(\w+)\.py::(\S+)", run.stdout, flags=re.M)
    assert {name for name, _ in passed} == set(FILES), "every file has a test of the new host"
    assert {*OF_ALL_HOSTS} <= {test for _, test in passed}
    assert {f"test_contract[halfway-{task}]" for task in ("sr4@0", "sr4@0.05", "inpaint70@0")} <= {test for _, test in passed}
