"""DDNM, DDNM+ or DDRM with two shares of fresh noise: one for what A sees, another for its null space. Ours, not a paper's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from leader_nb.errors import InputError, kind_of
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import DefaultSteps, Step, check_share
from leader_nb.samplers.ddnm import DDNM
from leader_nb.samplers.ddnm_plus import DDNMPlus
from leader_nb.samplers.ddrm import DDRM
from leader_nb.tree import Tree


@dataclass(frozen=True)
class NullEta:
    """`sampler` (DDNM, DDNM+ or DDRM) with another eta in what A does not see, and only there: with N = I - A^+ A,

        z -> z + (eta_null / eta_ddim - 1) N z,    eps -> eps + (sqrt((1 - eta_null^2) / (1 - eta_ddim^2)) - 1) N eps

    before the host's own step, so that its null space has eta_null z + sqrt(1 - eta_null^2) eps and keeps its variance.
    DDNM+ and DDRM read their eta in a second place: a larger one lessens the weight of a noisy measurement. Here that weight
    stays the host's. Where A sees everything nothing changes. `NullEta(DDNM(0.75), eta_null=1.0)`, and DDNMPlus(0.75) where
    there is noise, is what `benchmarks/two_etas.py` chose.

    Raises `InputError` unless 0 <= eta_null <= 1 and the host's own eta_ddim is strictly between 0 and 1.
    """

    sampler: Any
    eta_null: float
    needs_gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_share("eta_null", self.eta_null, "the share of fresh noise where A sees nothing")
        if not isinstance(self.sampler, DDNM | DDNMPlus | DDRM):
            raise InputError(
                f"sampler: got {kind_of(self.sampler)}; give DDNM(), DDNMPlus() or DDRM(), whose eta is one number"
            )
        if not 0 < self.sampler.eta_ddim < 1:
            raise InputError(
                f"eta_ddim: got {self.sampler.eta_ddim}; give a host whose own is above 0 and below 1, such as 0.85: both"
                " of its noises, fresh and old, are scaled"
            )

    @property
    def default_steps(self) -> DefaultSteps:
        return self.sampler.default_steps

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return self.sampler.init(problem, noise)

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        null, usual = problem.operator.null, self.sampler.eta_ddim
        fresh, old = self.eta_null / usual - 1, ((1 - self.eta_null**2) / (1 - usual**2)) ** 0.5 - 1

        def louder(role: str, like: Tensor) -> Tensor:
            z = noise(role, like)
            return z + fresh * null(z)

        told = replace(b, told=b.eps + old * null(b.eps))
        step: Step = self.sampler.step(told, s, problem, louder, carry)
        return step
