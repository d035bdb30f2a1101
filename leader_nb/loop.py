"""The loop: a prior, a host and LEADer's plug-ins, walked down a grid of times. Every image of the batch has its own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from leader_nb.errors import Diverged, Failure, InputError, kind_of
from leader_nb.noise import Noise, noise_for
from leader_nb.priors import Belief, Meter, Prior
from leader_nb.problem import Problem
from leader_nb.samplers.base import Falls, Sampler
from leader_nb.schedule import check_grid
from leader_nb.steps import Begins, NeedsProblem, Returns, StepRule, Uniform
from leader_nb.tree import Tree, put, rows


class Covariance(Protocol):
    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]: ...


Modulate = Callable[[Belief, Tensor, Problem], Belief]
Equivariance = Callable[[Prior, Tensor], Prior]  # (prior, steps taken by each image (B,)) -> the prior of this turn


@dataclass(frozen=True, eq=False)
class State:
    """One turn of the loop, for the images that took part in it.

    index  (b,) which images of the batch;   k, t  (b,) grid position and raw time;   s  (b,) raw time reached
    belief  the prior's, before modulation;  cov  its variance map or None;   x0y  the clean image given y;   x  state at s
    failures  images that met a NaN in this turn: their x is NaN, and they take no further part
    """

    index: Tensor
    k: Tensor
    t: Tensor
    s: Tensor
    belief: Belief
    cov: Tensor | None
    x0y: Tensor
    x: Tensor
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, eq=False)
class Result:
    """image (B, C, H, W), not clamped;  cov: the last variance map;  nfe, backward (B,): calls made for each image.

    `times` lists the raw times each image visited; `seconds` is wall time. From :func:`leader_nb.restore_many` it is one
    image, `number` of the queue; where that failed, `error` says why, and the image is NaN (of no rows, if it had no shape).
    """

    image: Tensor
    cov: Tensor | None
    nfe: Tensor
    backward: Tensor
    seconds: float
    times: tuple[tuple[int, ...], ...] = field(default=())
    number: int = 0
    error: InputError | None = None


def trajectory(
    problem: Problem,
    prior: Prior,
    sampler: Sampler,
    *,
    grid: int | Sequence[int] = 100,
    noise: Noise | None = None,
    covariance: Covariance | None = None,
    modulate: Modulate | None = None,
    steps: StepRule | None = None,
    equivariance: Equivariance | None = None,
    meter: Meter | None = None,
) -> Iterator[State]:
    """The states of a restoration, one per turn: iterate, plot, break out. Arguments are checked at the call.

    `grid`: the number of steps T (the host's own spacing), or raw times; `covariance`, `modulate`, `steps`: LEADer's
    plug-ins, see :func:`leader_nb.leader`; `equivariance`: :class:`leader_nb.equivariance.EquS`. Images that finish early
    leave the batch, so that a skipped call is time saved. An image that meets a NaN leaves it too, named in the `failures`
    of that state.
    """
    check_kinds(problem, prior, sampler)
    steps, noise = Uniform() if steps is None else steps, noise or noise_for(len(problem))
    clock = clock_of(grid, prior, sampler)
    check_plugins(covariance, modulate, steps, sampler)
    check_images(problem, prior, noise)
    prior = prior.metered(meter or Meter.of(len(problem)))
    return Run(problem, prior, sampler, clock, noise, covariance, modulate, steps, equivariance).states()


def clock_of(grid: int | Sequence[int], prior: Prior, sampler: Sampler) -> Tensor:
    """(T + 1,) the raw time at each position, -1 at position 0."""
    if not isinstance(grid, Integral):
        times = raw_times(grid)
    elif hasattr(sampler, "default_steps"):
        times = sampler.default_steps(int(grid), prior.schedule)
    else:
        raise InputError(f"grid: got {grid}; {type(sampler).__name__} has no default_steps: give raw times, as (990, 500, 0)")
    return torch.tensor([-1, *reversed(check_grid(times, prior.schedule))])


def raw_times(grid: object) -> tuple[int, ...]:
    """The times of a grid that is no number of steps."""
    try:
        if not isinstance(grid, str):
            return tuple(grid)  # type: ignore[arg-type]
    except TypeError:  # no sequence
        pass
    raise InputError(f"grid: got {kind_of(grid)}; give a whole number of steps, or raw times such as (990, 500, 0)")


def check_kinds(problem: object, prior: object, sampler: object) -> None:
    """Raises `InputError` where one of the three is something else, and says what makes the right one."""
    if not isinstance(problem, Problem):
        raise InputError(f"problem: got {kind_of(problem)}; give a Problem, such as parse_task('sr4@0.05').measure(x)")
    check_method(prior, sampler)


def check_method(prior: object, sampler: object) -> None:
    """Likewise for the two that restore."""
    if not isinstance(prior, Prior):
        raise InputError(
            f"prior: got {kind_of(prior)}; give a Prior: load_prior(), network_prior(network), or the prior() of a mixture"
        )
    if isinstance(sampler, type):
        raise InputError(f"sampler: got {kind_of(sampler)}; give one of its objects, {sampler.__name__}()")
    if not all(hasattr(sampler, name) for name in ("init", "step", "needs_gradient")):
        raise InputError(f"sampler: got {kind_of(sampler)}; give a host, such as DDNM(), or host('ddrm', 0.05) by its name")


def check_plugins(covariance: Covariance | None, modulate: Modulate | None, steps: StepRule, sampler: Sampler) -> None:
    """Raises `InputError` for what is no plug-in, lacks the map that it needs, or goes where the host cannot."""
    made = {
        "covariance": (covariance, "update", "an estimator of the map, such as RunningSecant()"),
        "modulate": (modulate, "__call__", "a modulation, such as UCPM()"),
        "steps": (steps, "needs_map", "a step rule, such as SATP(); the number of steps is grid"),
    }
    for name, (plugin, needed, example) in made.items():
        if isinstance(plugin, type):
            raise InputError(f"{name}: got {kind_of(plugin)}; give one of its objects, such as {plugin.__name__}()")
        if plugin is not None and not hasattr(plugin, needed):
            raise InputError(f"{name}: got {kind_of(plugin)}; give {example}")
    for name, needy in {"modulate": modulate is not None, "steps": steps.needs_map}.items():
        if needy and covariance is None:
            raise InputError(f"{name}: it needs an uncertainty map; give a covariance, such as RunningSecant()")
    if isinstance(steps, Returns) and steps.returns and isinstance(sampler, Falls) and sampler.falls:
        rule, kind = type(steps).__name__, type(sampler).__name__
        raise InputError(
            f"steps: {rule} goes back to higher noise, where {kind} has no step; take a host that has, such as"
            " DDNM, DDNM+, DDRM or DiffPIR, or leave the rule out"
        )


def check_images(problem: Problem, prior: Prior, noise: Noise) -> None:
    """Raises `InputError` for images without their noise, or too small for the prior."""
    if len(noise.ids) != len(problem):
        raise InputError(f"noise: it has {len(noise.ids)} image ids, the problem {len(problem)} images; give one each")
    smallest = min(problem.operator.image_shape[1:])
    if smallest < prior.minimum:
        raise InputError(f"image: its shorter side is {smallest} px; the prior {prior.name!r} needs at least {prior.minimum}")


@dataclass(frozen=True, eq=False)
class Run:
    """The loop itself, after its arguments were checked: see :func:`trajectory` and :func:`leader_nb.restore_many`."""

    problem: Problem
    prior: Prior
    sampler: Sampler
    clock: Tensor  # (T + 1,) raw time at each position; position 0 is the clean image
    noise: Noise
    covariance: Covariance | None
    modulate: Modulate | None
    steps: StepRule
    equivariance: Equivariance | None

    def states(self) -> Iterator[State]:
        batch = len(self.problem)
        state, parts = self.start()
        while (state["k"] > 0).any():
            index = (state["k"] > 0).nonzero().flatten()
            if len(index) == batch:
                turn, state, parts = self.turn(index, state, parts)
            else:
                turn, part, new = self.rows(index).turn(
                    index, rows(state, index), {n: rows(p, index) for n, p in parts.items()}
                )
                state = put(state, index, part)
                parts = {n: put(parts[n], index, new[n]) for n in parts}
            yield turn

    def start(self) -> tuple[Tree, dict[str, Tree]]:
        """The state of every image before its first turn, and what host, covariance and step rule keep beside it."""
        batch, length = len(self.problem), len(self.clock) - 1
        x, carry = self.sampler.init(self.problem, self.noise)
        sigmas = self.prior.schedule.sigma(self.clock, x.new_empty(0).double().cpu()).flatten()
        rule = self.steps.for_problem(self.problem) if isinstance(self.steps, NeedsProblem) else self.steps
        memo, k = rule.init(sigmas, batch), torch.full((batch,), length)
        if isinstance(rule, Begins):
            x, k = rule.begin(x, sigmas, memo)
        state = {"x": x, "k": k, "visits": torch.zeros(batch, length + 1).short()}
        return state, {"carry": carry, "memory": {}, "memo": memo}

    def rows(self, index: Tensor) -> Run:
        """The same run for some of the images."""
        return replace(self, problem=self.problem.rows(index), prior=self.prior.rows(index), noise=self.noise.rows(index))

    def guided(self, belief: Belief, cov: Tensor | None) -> Belief:
        """Eqs. 11-15, said to the host as well: one that finds an x0 of its own has that modulated."""
        modulate, problem = self.modulate, self.problem
        if modulate is None or cov is None:
            return belief
        return replace(modulate(belief, cov, problem), modulate=lambda b: modulate(b, cov, problem))

    def turn(self, index: Tensor, state: Tree, parts: dict[str, Tree]) -> tuple[State, Tree, dict[str, Tree]]:
        """Algorithm 1, lines 3-18, on any host."""
        k, t = state["k"], self.clock[state["k"]]
        prior = self.equivariance(self.prior, state["visits"].sum(1)) if self.equivariance else self.prior
        belief = prior(state["x"], t, self.sampler.needs_gradient)  # Eqs. 2, 9
        memory = dict(parts["memory"])
        injected = memory.pop("injected", None)
        cov = None
        if self.covariance is not None:
            cov, memory = self.covariance.update(belief, injected, memory)  # Eq. 10
        k_next, memo = self.steps.next(k, cov, parts["memo"])  # Eqs. 17-19
        s, visits = self.clock[k_next], state["visits"]
        spot = torch.searchsorted(self.clock, s)[:, None]  # positions that share a time share its visits, not its draws
        here = visits.gather(1, spot)
        noise = self.noise.at(s, here.flatten())
        guided = self.guided(belief, cov)
        out = self.sampler.step(guided, s, self.problem, noise, parts["carry"])  # the host, untouched: Eqs. 20-21
        if self.covariance is not None and out.injected is not None:
            memory = {**memory, "injected": out.injected}
        x, k_next, failures = self.settle(belief, out.x, index, k, k_next)
        after = {"x": x, "k": k_next, "visits": visits.scatter(1, spot, here + 1)}
        turn = State(index, k, t, s, belief, cov, out.x0y, x, failures)
        return turn, after, {"carry": out.carry, "memory": memory, "memo": memo}

    def settle(
        self, belief: Belief, x: Tensor, index: Tensor, k: Tensor, k_next: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Failure, ...]]:
        """(x, k_next, failures): an image that is no longer finite becomes NaN and goes to position 0 at once."""
        known, good = finite(belief.x0), finite(x)
        if bool((known & good).all()):
            return x, k_next, ()
        said, length = f"what the prior {self.prior.name!r} says", len(self.clock) - 1
        failures = tuple(
            Failure(int(index[i]), length - int(k[i]) + 1, length, int(self.clock[k[i]]), "the state" if known[i] else said)
            for i in (~(known & good)).nonzero().flatten().tolist()
        )
        ended = ~(known & good)
        return torch.where(ended.view(-1, 1, 1, 1), x.new_tensor(torch.nan), x), torch.where(ended.cpu(), 0, k_next), failures


def finite(x: Tensor) -> Tensor:
    """Whether all of an image is, (B,)."""
    return torch.isfinite(x).flatten(1).all(1)


def restore(
    problem: Problem, prior: Prior, sampler: Sampler, *, on_state: Callable[[State], None] | None = None, **options
) -> Result:
    """Run :func:`trajectory` to its end. `options` are its keywords; `on_state` sees every state (for a progress bar).

    Raises `Diverged` where an image met a NaN, after the others were restored: its `result` holds them.
    """
    check_kinds(problem, prior, sampler)
    meter = options.pop("meter", None) or Meter.of(len(problem))
    start = time.perf_counter()
    image: Tree = {}
    times: list[list[int]] = [[] for _ in range(len(problem))]
    failures: tuple[Failure, ...] = ()
    for state in trajectory(problem, prior, sampler, meter=meter, **options):
        last = {"image": state.x} if state.cov is None else {"image": state.x, "cov": state.cov}
        image = last if len(state.index) == len(problem) else put(image, state.index, last)
        for i, t in zip(state.index.tolist(), state.t.tolist(), strict=True):
            times[i].append(t)
        failures += state.failures
        if on_state is not None:
            on_state(state)
    seconds = time.perf_counter() - start
    result = Result(image["image"], image.get("cov"), meter.nfe, meter.backward, seconds, tuple(map(tuple, times)))
    if failures:
        raise Diverged(failures, result)
    return result
