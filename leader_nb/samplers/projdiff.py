"""ProjDiff: projected descent with a diffusion prior (Zhang, Zhuang, Jin, Li & Gu, NeurIPS 2024), noisy or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.equations import diffuse
from leader_nb.errors import InputError, unknown
from leader_nb.noise import Noise
from leader_nb.operators import Operator
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, check_positive, standard_normal
from leader_nb.schedule import uniform_grid
from leader_nb.tree import Tree, put

FORMS = ("auto", "flat", "general")


@dataclass(frozen=True)
class ProjDiff:
    """Descend to a clean x0 and an auxiliary x_o that is as noisy as the data, and project. In spectral slots, with
    d = V^T D_t(x_t), ybar = U^T y / s_i, the noise level r of x_o, sigma = sigma_bar(t) and sigma' = sigma_bar(s):

        x0  <- d                 where sigma >= r, if sigma_y > 0;   else  x0 + lr (d - x0)
        x0  <- ybar              where s_i > 0, if sigma_y = 0
        x_o <- ybar              where s_i > 0;   else  x0 + r z'  where sigma >= r;   else  left as it is
        x_s =  a V (x0 + min(1, sigma' / r) (x_o - x0) + sqrt(max(0, sigma'^2 - r^2)) z),      a = sqrt(abar_s)

    r = sigma_y / s_i where s_i > 0. On the null space it is 0 ("general"), or what it is elsewhere if all s_i > 0 are equal
    ("flat": masks, averages, grey, Hadamard); "auto" asks the operator. Our x_o is the paper's x_o / sqrt(alpha_o).
    Above the crossing sigma = r of a noisy problem `lr` has no effect, as in the released code, where x0 is overwritten by d
    before the step to d is taken (an alias): x_o is made from d there whatever lr, x_t from x_o, and x0 waits for the crossing.
    The start x0 = D(x_T) costs a call of its own, T + 1 in all; a plug-in that modulates x0 acts on it in place of the first
    D_t(x_t). We depart from the paper's x_T = sqrt(1 - abar_T) z: ours is z, of unit variance, as for every host, and larger
    by 2.4e-5 of itself at T = 990.
    `lr` wants tuning for each task, see :func:`leader_nb.samplers.defaults_spectral.tuned`.
    """

    lr: float = 1.0
    form: str = "auto"
    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(uniform_grid)

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise unknown("form", self.form, FORMS)
        check_positive("lr", self.lr, "the step towards the network's answer (1 takes it whole)")

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        if self.form == "flat":
            check_flat(problem)
        A = problem.operator
        seen, first = A.gain() * A.Ut(problem.y), torch.ones(len(problem), dtype=torch.bool)
        return standard_normal(problem, noise), {"seen": seen, "x0": 0 * seen, "x_o": 0 * seen, "first": first}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        A, known, noisy = problem.operator, problem.operator.s > 0, problem.noise_level > 0
        r, seen, sigma = self._level(problem), carry["seen"], b.schedule.sigma(s, b.x0)
        x0, x_o, d = self._start(b, r, problem, noise, carry)
        above, a = b.sigma >= r, b.schedule.abar(s, b.x0).sqrt()
        x0 = torch.where(above & noisy, d, x0 + self.lr * (d - x0))
        x0 = torch.where(known & ~noisy, seen, x0)
        drawn = torch.where(above & ~known, r, 0.0)
        drawn = drawn * A.Vt(noise("x_o", b.x0)) if drawn.any() else drawn  # no such slots: no draw to pay for
        x_o = torch.where(known, seen, torch.where(above, x0, x_o) + drawn)
        share = torch.where(sigma >= r, 1.0, sigma / torch.where(r > 0, r, 1.0))
        fresh = share * drawn + (sigma**2 - r**2).clamp(min=0).sqrt() * A.Vt(noise("step", b.x0))
        x_s = a * A.V(x0 + share * (x_o - x0 - drawn) + fresh)
        after = {"seen": seen, "x0": x0, "x_o": x_o, "first": torch.zeros_like(carry["first"])}
        return Step(A.V(x0), x_s, after, a * A.V(fresh))

    def _level(self, problem: Problem) -> Tensor:
        """r, the noise level of x_o in each slot."""
        A = problem.operator
        r = problem.noise_level * A.gain()
        elsewhere = torch.where(flat_spectrum(A), r.amax(dim=(1, 2, 3), keepdim=True), 0.0)
        return r if self.form == "general" else torch.where(A.s > 0, r, elsewhere)

    def _start(self, b: Belief, r: Tensor, problem: Problem, noise: Noise, carry: Tree) -> tuple[Tensor, Tensor, Tensor]:
        """(x0, x_o, d): as carried; an image at its first step has x0 = D_t(x_T), noised and denoised once more."""
        A, index = problem.operator, carry["first"].nonzero().flatten()
        if not len(index):
            return carry["x0"], carry["x_o"], A.Vt(b.x0)
        z, x0 = noise("start", b.x0), A.Vt(b.x0)
        again = b.prior.rows(index)(diffuse(b.x0, z, b.abar)[index], b.t[index]).x0
        start = carry["first"].to(x0.device).view(-1, 1, 1, 1)
        x_o = torch.where(start, x0 + r * A.Vt(z), carry["x_o"])
        return torch.where(start, x0, carry["x0"]), x_o, A.Vt(put({"d": b.x0}, index, {"d": again})["d"])


def flat_spectrum(A: Operator) -> Tensor:
    """Whether the singular values that are not zero are all the same, for each image, (1 or B, 1, 1, 1)."""
    largest = A.s.amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(A.s > 0, A.s, largest).amin(dim=(1, 2, 3), keepdim=True) > (1 - 1e-5) * largest


def check_flat(problem: Problem) -> None:
    if problem.sigma_y.any() and not flat_spectrum(problem.operator).all():
        raise InputError(
            "form: 'flat' needs a mask, an average or another operator with equal singular values; use"
            " ProjDiff(form='general'), or DDRM or DDNM+"
        )
