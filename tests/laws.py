"""The laws, as plain functions that raise AssertionError. Call them on an operator, a host or a plug-in of your own:

    from laws import check_host, check_operator
    check_operator(my_operator)             # in float64, on a small image
    check_host(my_host, problem, prior)     # likewise

Nothing here knows pytest. Every law says for what it holds; without a word, it holds for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leader_nb.covariance import RunningSecant
from leader_nb.equations import ddim
from leader_nb.loop import Covariance, Result, StepRule, restore, trajectory
from leader_nb.noise import Noise, noise_for
from leader_nb.operators import Operator
from leader_nb.priors import Belief, Meter, Prediction, Prior
from leader_nb.problem import Problem
from leader_nb.samplers import Sampler
from leader_nb.schedule import Schedule, check_grid
from leader_nb.steps import SATP, ErrorControlled
from leader_nb.ucpm import UCPM, HuberTV

DRIFT = 1e-9  # rounding allowed in float64, relative to the larger side
CALLS: dict[str, Callable[[Any, int], range]] = {  # NFE of T steps of a host, where it is not T
    "ProjDiff": lambda sampler, steps: range(steps + 1, steps + 2),
    "SITCOM": lambda sampler, steps: range(steps, steps * sampler.iterations + 1),
}


# --- Words the laws are written in ---------------------------------------------------------------------------------


def close(a: Tensor, b: Tensor, law: str, tolerance: float = DRIFT) -> None:
    """max |a - b| <= tolerance * max(1, max |b|), or the name of the law that fails."""
    assert a.shape == b.shape, f"{law}: shapes {tuple(a.shape)} and {tuple(b.shape)}"
    assert torch.isfinite(a).all() and torch.isfinite(b).all(), f"{law}: not finite"
    gap, scale = (a - b).abs().max().item(), max(1.0, b.abs().max().item())
    assert gap <= tolerance * scale, f"{law}: off by {gap:.2e}, {gap / scale:.1e} of the values"


def same(a: Tensor, b: Tensor, law: str) -> None:
    """Equal to the last bit."""
    assert torch.equal(a, b), f"{law}: {int((a != b).sum())} of {a.numel()} values differ, by up to {(a - b).abs().max():.1e}"


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normals in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tensors(value: object) -> Iterator[Tensor]:
    """Every tensor inside dataclasses, dictionaries and tuples; a meter is there to be changed."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (t for v in value.values() for t in tensors(v))
    elif isinstance(value, (list, tuple)):
        yield from (t for v in value for t in tensors(v))
    elif is_dataclass(value) and not isinstance(value, Meter):
        yield from (t for f in fields(value) for t in tensors(getattr(value, f.name)))


@contextmanager
def unchanged(*values: object) -> Iterator[None]:
    """Nothing inside `values` is changed in place."""
    before = [t.detach().clone() for t in tensors(values)]
    assert before, "unchanged: nothing to watch"
    yield
    after = list(tensors(values))
    assert len(after) == len(before), "arguments: a tensor came or went"
    for a, b in zip(after, before, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=0, equal_nan=True), "arguments: changed in place"


def oracle(x: Tensor) -> Prior:
    """A prior that always answers x, (C, H, W)."""
    return Prior(lambda x_t, t, schedule: Prediction(x0=x.expand_as(x_t)), name="oracle")


def belief_at(prior: Prior, x: Tensor, t: int) -> Belief:
    """The belief about images x once they are noised to time t."""
    times = torch.full((len(x),), t)
    abar = prior.schedule.abar(times, x)
    return prior(abar.sqrt() * x + (1 - abar).sqrt() * normal(*x.shape, seed=t), times)


# --- Operators: A = U diag(s) V^T ----------------------------------------------------------------------------------


def check_operator(op: Operator) -> None:
    """Every law that holds for all linear operators; give it float64 and at least two pixels a side."""
    assert op.s.dtype == torch.float64, "check_operator: build the operator in float64"
    for law in (
        linear,
        adjoint,
        penrose,
        isometries,
        slots,
        null_space,
        prox_is_stationary,
        weights_of_slots,
        rows_are_images,
        pure,
    ):
        law(op)


def images(op: Operator, seed: int) -> Tensor:
    """Random images that `op` takes: as many as it has rows, or two."""
    rows = max(len(getattr(op, name)) for name in op.batched)
    return normal(rows if rows > 1 else 2, *op.image_shape, seed=seed)


def measurements(op: Operator, seed: int) -> Tensor:
    """Random measurements, on measured slots only."""
    return op.on_measured(normal(len(images(op, 0)), *op.measurement_shape, seed=seed))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Re <a, b> for each image."""
    return (a.conj() * b).real.flatten(1).sum(1)


def linear(op: Operator) -> None:
    """A (2 x - 3 x') = 2 A x - 3 A x', and A 0 = 0."""
    a, b = images(op, 1), images(op, 2)
    close(op(2 * a - 3 * b), 2 * op(a) - 3 * op(b), "linear")
    assert (op(0 * a) == 0).all(), "linear: A 0 is not 0"
    assert op(a).shape[1:] == op.measurement_shape and op.T(op(a)).shape == a.shape, "shapes"


def adjoint(op: Operator) -> None:
    """<A x, y> = <x, A^T y>."""
    x, y = images(op, 1), measurements(op, 2)
    close(inner(op(x), y), inner(x, op.T(y)), "adjoint")


def penrose(op: Operator) -> None:
    """A A+ A = A;  A+ A A+ = A+;  A A+ and A+ A are symmetric."""
    x, x2, y, y2 = images(op, 1), images(op, 2), measurements(op, 3), measurements(op, 4)
    close(op(op.pinv(op(x))), op(x), "Penrose 1")
    close(op.pinv(op(op.pinv(y))), op.pinv(y), "Penrose 2")
    close(inner(op(op.pinv(y)), y2), inner(y, op(op.pinv(y2))), "Penrose 3")
    close(inner(op.pinv(op(x)), x2), inner(x, op.pinv(op(x2))), "Penrose 4")


def isometries(op: Operator) -> None:
    """V V^T = I; V^T, V and U keep lengths, also of filtered images: real results lose no imaginary part."""
    x, y = images(op, 1), measurements(op, 2)
    c = op.Vt(x)
    close(op.V(c), x, "V V^T = I")
    close(inner(c, c), inner(x, x), "V^T keeps lengths")
    for name, f in {"s": op.s, "gain": op.gain(0.1), "null": (op.s == 0).to(x)}.items():
        close(op.Vt(op.V(f * c)), f * c, f"V^T V = I on {name} V^T x")
        close(inner(op.V(f * c), op.V(f * c)), inner(f * c, f * c), f"V keeps lengths after {name}")
    close(inner(op(x), op(x)), inner(op.s * c, op.s * c), "U keeps lengths")
    close(op.U(op.Ut(y)), y, "U U^T = I")
    close(inner(op.U(op.s * c), y), inner(op.s * c, op.Ut(y)), "U^T is the adjoint of U")


def slots(op: Operator) -> None:
    """s >= 0, and s > 0 only where measured; noise lives on measured slots; the residual is its root mean square."""
    assert (op.s >= 0).all() and not (op.s[~op.measured.expand_as(op.s)] > 0).any(), "slots: s > 0 outside `measured`"
    y = measurements(op, 1)
    close(op.on_measured(y), y, "on_measured is a projection")
    unmeasured = op.Ut(y).abs()[~op.measured.expand(len(y), *op.image_shape)]
    assert (unmeasured < 1e-12).all(), "slots: U^T y outside `measured`"
    count = op.measured.expand(len(y), *op.image_shape).flatten(1).sum(1)
    close(op.measured_rms(y) ** 2 * count, inner(y, y), "measured_rms")
    assert 0 < op.rank <= min(count.max().item(), op.image_shape[0] * op.image_shape[1] * op.image_shape[2]), "rank"


def null_space(op: Operator) -> None:
    """A P_N x = 0;  P_N P_N = P_N;  x = A+ A x + P_N x;  A (A+ y + P_N x) = y for y in the range of A."""
    x, y = images(op, 1), op(images(op, 2))
    n = op.null(x)
    close(op(n), torch.zeros_like(y), "A P_N = 0")
    close(op.null(n), n, "P_N P_N = P_N")
    close(op.pinv(op(x)) + n, x, "A+ A + P_N = I")
    close(op(op.pinv(y) + n), y, "A (A+ y + P_N x) = y")


def prox_is_stationary(op: Operator) -> None:
    """The gradient of ||A v - y||^2 + rho ||v - x||^2 vanishes at the prox; rho = 0 gives A+ y + P_N x, rho -> oo x."""
    x, y = images(op, 1), measurements(op, 2)
    for rho in (1e-3, 0.1, 5.0, torch.linspace(0.1, 5, len(x), dtype=x.dtype).view(-1, 1, 1, 1)):
        v = op.prox(x, y, rho).requires_grad_()
        objective = (op(v) - y).square().sum() + (rho * (v - x).square()).sum()
        close(torch.autograd.grad(objective, v)[0], torch.zeros_like(v), "prox is stationary")
    close(op.prox(x, y, 0.0), op.pinv(y) + op.null(x), "prox at rho = 0")
    close(op.prox(x, y, 1e15), x, "prox at large rho")


def weights_of_slots(op: Operator) -> None:
    """`weighted` and `corrected` are what they say, for weights that differ by s, by what is measured, and by image."""
    x, y = images(op, 1), measurements(op, 2)
    scale = torch.linspace(0.5, 2, len(x), dtype=x.dtype).view(-1, 1, 1, 1)
    weight = scale * (1 + op.s + op.measured).sqrt()
    close(op.weighted(x, weight), op.V(weight * op.Vt(x)), "weights: V w V^T x")
    weight = scale * op.gain(0.1)
    close(op.corrected(x, op.read(y), weight), x + op.V(weight * (op.Ut(y) - op.s * op.Vt(x))), "weights: correction")


def rows_are_images(op: Operator) -> None:
    """The operator of some images does to them, bit for bit, what it does to them inside the batch."""
    x, y = images(op, 1), measurements(op, 2)
    for index in (torch.tensor([1]), torch.arange(len(x)).flip(0)):
        part = op.rows(index)
        same(part(x[index]), op(x)[index], "rows: A")
        same(part.T(y[index]), op.T(y)[index], "rows: A^T")
        same(part.pinv(y[index]), op.pinv(y)[index], "rows: A+")
        same(part.null(x[index]), op.null(x)[index], "rows: P_N")
        same(part.prox(x[index], y[index], 0.1), op.prox(x, y, 0.1)[index], "rows: prox")
        same(part.weighted(x[index], part.s), op.weighted(x, op.s)[index], "rows: weights")
        same(part.measured_rms(y[index]), op.measured_rms(y)[index], "rows: residual")


def pure(op: Operator) -> None:
    """Nothing is changed in place, and results are real."""
    x, y = images(op, 1), measurements(op, 2)
    c = op.Vt(x)
    with unchanged(op, x, y, c):
        results = (op(x), op.T(y), op.pinv(y), op.prox(x, y, 0.1), op.null(x), op.on_measured(y), op.V(c), op.U(c))
        op.Ut(y), op.measured_rms(y), op.rows(torch.tensor([0]))
    assert not any(r.is_complex() for r in results), "pure: complex result"


def check_dense(op: Operator) -> None:
    """A^T, A+, P_N, the spectrum and the prox are those of the dense matrix. For one image, small: it is O(n^3)."""
    x = images(op, 1)[:1]
    eye = torch.eye(x.numel(), dtype=x.dtype).view(-1, *op.image_shape)
    one = op.rows(torch.tensor([0]))
    A = one(eye).flatten(1).T  # (m, n)
    y = one.on_measured(normal(1, *op.measurement_shape, seed=2))
    seen = torch.zeros(len(A), dtype=x.dtype).index_fill(0, one.on_measured(torch.ones_like(y)).flatten().nonzero()[:, 0], 1)
    back = torch.eye(len(A), dtype=x.dtype).view(-1, *op.measurement_shape)
    close(one.T(back).flatten(1).T * seen, A.T * seen, "dense A^T", 1e-11)
    inverse = torch.linalg.pinv(A, rtol=1e-6)
    close(one.pinv(back).flatten(1).T * seen, inverse * seen, "dense A+")
    close(one.null(eye).flatten(1).T, torch.eye(x.numel(), dtype=x.dtype) - inverse @ A, "dense P_N")
    ours = one.s.expand(1, *op.image_shape).flatten().sort(descending=True).values[: min(A.shape)]
    close(ours, torch.linalg.svdvals(A), "spectrum")
    for rho in (1e-3, 0.1, 5.0):
        left = A.T @ A + rho * torch.eye(A.shape[1], dtype=x.dtype)
        solved = torch.linalg.solve(left, A.T @ y.flatten() + rho * x.flatten())
        close(op.rows(torch.tensor([0])).prox(x, y, rho).flatten(), solved, "dense prox")


def check_constant_gain(op: Operator) -> None:
    """A 1 = 1. For blur, downsampling and averages."""
    constant = torch.ones(1, *op.image_shape, dtype=op.s.dtype)
    close(op(constant), torch.ones(1, *op.measurement_shape, dtype=op.s.dtype), "constant gain", 1e-12)


def check_grey_in_grey_out(op: Operator) -> None:
    """A grey image stays grey under A, A^T, A+ and P_N. For operators that treat the three channels alike."""
    x = images(op, 1)[:, :1].expand(-1, 3, -1, -1)
    y = op(x)
    for name, image in {"A": y, "A^T": op.T(y), "A+": op.pinv(y), "P_N": op.null(x)}.items():
        close(image, image[:, :1].expand_as(image), f"grey in, grey out: {name}", 1e-12)


# --- Hosts ---------------------------------------------------------------------------------------------------------


def check_host(sampler: Sampler, problem: Problem, prior: Prior, steps: int = 8, calls: int | None = None) -> None:
    """The contract of a host on the loop, in float64; `calls` is its NFE, by default what CALLS says, else the steps."""
    assert problem.y.dtype == torch.float64 and len(problem) > 1, "check_host: give float64 and several images"
    noise = noise_for(len(problem), seed=3)
    plain = restore(problem, prior, sampler, grid=steps, noise=noise)
    times = check_grid(sampler.default_steps(steps, prior.schedule), prior.schedule)
    assert plain.times == (times,) * len(problem), "times: not the host's own grid"
    rule = CALLS.get(type(sampler).__name__, lambda sampler, steps: range(steps, steps + 1))
    allowed = rule(sampler, steps) if calls is None else range(calls, calls + 1)
    assert all(n in allowed for n in plain.nfe.tolist()), f"NFE: {plain.nfe.tolist()}, not in {allowed}"
    assert sampler.needs_gradient or not plain.backward.any(), "backward passes, though it needs no gradient"
    assert plain.image.shape[1:] == problem.operator.image_shape and torch.isfinite(plain.image).all(), "image"
    again = restore(problem, prior, sampler, grid=steps, noise=noise)
    same(again.image, plain.image, "the same seed gives the same image")
    other = restore(problem, prior, sampler, grid=steps, noise=noise_for(len(problem), seed=4))
    settled = problem.operator.rank == plain.image[0].numel() and not problem.sigma_y.any()
    assert settled or not torch.equal(other.image, plain.image), "seed: it changes nothing"
    check_alone_as_in_a_batch(sampler, problem, prior, grid=steps)
    check_null_leader(sampler, problem, prior, steps)
    check_pure_step(sampler, problem, prior)
    check_injected_noise(sampler, problem, prior)


def check_null_leader(sampler: Sampler, problem: Problem, prior: Prior, steps: int = 8) -> None:
    """LEADer with mu = 0, with a budget or a tolerance of 0, and with both is the host, bit for bit and call for call."""
    noise = noise_for(len(problem), seed=3)
    plain = restore(problem, prior, sampler, grid=steps, noise=noise)
    idle, still = UCPM(HuberTV(mu=0.0)), SATP(budget=0.0)
    for name, plugins in {
        "the estimator alone": {},
        "mu = 0": {"modulate": idle},
        "budget = 0": {"steps": still},
        "tolerance = 0": {"steps": ErrorControlled(tolerance=0.0)},
        "mu = 0 and budget = 0": {"modulate": idle, "steps": still},
    }.items():
        result = restore(problem, prior, sampler, grid=steps, noise=noise, covariance=RunningSecant(), **plugins)
        same(result.image, plain.image, f"{name} is the host")
        assert torch.equal(result.nfe, plain.nfe) and torch.equal(result.backward, plain.backward), f"{name}: other calls"
        assert result.times == plain.times and result.cov is not None, f"{name}: other times"


def check_alone_as_in_a_batch(sampler: Sampler, problem: Problem, prior: Prior, **options) -> Result:
    """An image restored alone, in a batch or in a shuffled batch is the same to the last bit, and costs the same."""
    batch = restore(problem, prior, sampler, noise=noise_for(len(problem), seed=3), **options)
    orders = [[i] for i in range(len(problem))] + [torch.randperm(len(problem), generator=generator(0)).tolist()]
    for ids in orders:
        index = torch.tensor(ids)
        part = restore(problem.rows(index), prior, sampler, noise=noise_for(len(ids), 3, ids), **options)
        same(part.image, batch.image[index], f"images {ids} do not feel their batch")
        assert part.nfe.tolist() == batch.nfe[index].tolist(), f"NFE of {ids}: {part.nfe.tolist()}, {batch.nfe.tolist()}"
        assert part.backward.tolist() == batch.backward[index].tolist(), f"backward passes of {ids}"
        assert part.times == tuple(batch.times[i] for i in ids), f"times of {ids}"
        if batch.cov is not None:
            same(part.cov, batch.cov[index], f"maps {ids} do not feel their batch")
    return batch


def check_pure_step(sampler: Sampler, problem: Problem, prior: Prior) -> None:
    """A step changes nothing in place, and keeps shape and dtype."""
    noise = noise_for(len(problem), seed=3)
    x, carry = sampler.init(problem, noise)
    t, s = torch.full((len(x),), 700), torch.full((len(x),), 500)
    belief = prior(x, t, sampler.needs_gradient)
    with unchanged(problem, x, t, s, carry, belief.x0, belief.eps, belief.x_t):
        out = sampler.step(belief, s, problem, noise.at(s, 0 * s), carry)
    for name, image in {"x0y": out.x0y, "x": out.x, "injected": out.injected}.items():
        assert image is None or (image.shape == x.shape and image.dtype == x.dtype), f"step: {name}"


def check_injected_noise(sampler: Sampler, problem: Problem, prior: Prior) -> None:
    """`injected` is what the step's own draws add to x: x(z) - x(0); None or nothing where it draws nothing."""
    noise, zero = noise_for(len(problem), seed=3), constant_noise(0.0, len(problem))
    x, carry = sampler.init(problem, noise)
    for t, s in ((900, 400), (400, 60), (60, 20), (20, -1)):
        times, target = torch.full((len(x),), t), torch.full((len(x),), s)
        belief = prior(x, times, sampler.needs_gradient)
        out = sampler.step(belief, target, problem, noise.at(target, 0 * target), carry)
        if t < 900:  # a first step may use its draws otherwise
            still = sampler.step(belief, target, problem, zero.at(target, 0 * target), carry)
            added = torch.zeros_like(x) if out.injected is None else out.injected
            close(out.x - still.x, added, f"injected noise at {t}")
            assert still.injected is None or not still.injected.any(), "injected: not from a draw"
        x, carry = out.x, out.carry


def check_data_consistency(sampler: Sampler, problem: Problem, prior: Prior, tolerance: float = DRIFT, **options) -> None:
    """max |A x0y - y| = 0 at every step. For noise-free measurements and hosts that project, with or without LEADer."""
    for state in trajectory(problem, prior, sampler, **options):
        part = problem.rows(state.index)
        close(part.operator(state.x0y), part.y, f"data consistency at t = {state.t.tolist()}", tolerance)
    close(part.operator(state.x), part.y, "data consistency of the result", tolerance)


def check_ddim(sampler: Sampler, prior: Prior, shape: tuple[int, ...], eta: float, problem: Problem, steps: int = 8) -> None:
    """Where A = 0, the host is DDIM without a measurement. For hosts that step with Eq. 21."""
    noise = noise_for(len(problem), seed=3)
    result = restore(problem, prior, sampler, grid=steps, noise=noise)
    x = noise("x_T", problem.y.new_empty(shape))
    times = sampler.default_steps(steps, prior.schedule)
    for t, s in zip(times, (*times[1:], -1), strict=True):
        target = torch.full((len(x),), s)
        belief = prior(x, torch.full((len(x),), t))
        z = noise.at(target, 0 * target)("step", x)
        x, _ = ddim(belief.x0, belief.eps, z, prior.schedule.abar(target, x), eta)
    close(result.image, x, "A = 0 is DDIM")


# --- Plug-ins ------------------------------------------------------------------------------------------------------


def check_covariance(
    estimator: Covariance, prior: Prior, x: Tensor, positive: bool = True, nfe: int = 0, backward: int = 0
) -> None:
    """A map in the shape of the image, finite (and positive), image by image, changing nothing.

    `nfe` and `backward` are what one update costs: nothing, for the estimators that LEADer may use.
    """
    meter = Meter.of(len(x))
    memory: dict[str, Tensor] = {}
    alone: dict[str, Tensor] = {}
    for t in (600, 400, 200, 30, 0):
        belief = belief_at(prior, x, t)
        belief = replace(belief, prior=prior.metered(meter))
        injected = 0.1 * normal(*x.shape, seed=1)
        with unchanged(belief.x_t, belief.x0, belief.eps, injected, memory):
            cov, after = estimator.update(belief, injected, memory)
        assert cov.shape == x.shape and cov.dtype == x.dtype and torch.isfinite(cov).all(), f"cov at t = {t}"
        assert not positive or (cov > 0).all(), f"cov at t = {t}: not positive"
        first = belief_at(prior, x, t)
        first = replace(
            first,
            **{
                k: v[:1]
                for k in ("x_t", "t", "abar", "x0", "unmodulated", "told", "variance")
                if (v := getattr(first, k)) is not None
            },
        )
        single, alone = estimator.update(first, injected[:1], alone)
        same(single, cov[:1], "a map does not feel its batch")
        assert all(len(v) == len(x) for v in after.values()), "memory: one row per image"
        memory = after
    assert meter.nfe.tolist() == [5 * nfe] * len(x), f"cov: NFE {meter.nfe.tolist()}"
    assert meter.backward.tolist() == [5 * backward] * len(x), f"cov: backward passes {meter.backward.tolist()}"


def check_step_rule(rule: StepRule, maps: Tensor, length: int = 20) -> None:
    """k' < k, never below 0, one clock per image, for maps (B, C, H, W), good or bad; nothing is changed in place."""
    sigmas = Schedule().sigma(torch.tensor([-1, *range(0, 50 * length, 50)]), maps.new_empty(0).double()).flatten()
    memo = rule.init(sigmas, len(maps))
    memos = [rule.init(sigmas, 1) for _ in maps]
    for k in range(length, 0, -1):
        here = torch.full((len(maps),), k)
        with unchanged(here, maps, memo):
            there, memo = rule.next(here, maps, memo)
        assert there.dtype == torch.long and (there < here).all() and (there >= 0).all(), f"step from {k} to {there.tolist()}"
        for i in range(len(maps)):
            alone, memos[i] = rule.next(here[:1], maps[i : i + 1], memos[i])
            assert alone.item() == there[i], f"the step of image {i} feels its batch"


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def constant_noise(z: float, batch: int = 1) -> Noise:
    """Noise whose every draw is z."""
    return Noise(0, tuple(range(batch)), source=lambda key, shape: torch.full(shape, z))
