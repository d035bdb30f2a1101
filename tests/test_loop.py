"""The loop: clocks and batches, shared noise, the tally, and mistakes caught at the call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from laws import belief_at, check_alone_as_in_a_batch, check_null_leader, close, normal, same, tensors
from leader_nb import DDNM, DDNMPlus, Prior, image_mixture, leader, noise_for, parse_task, restore, restore_many, trajectory
from leader_nb.covariance import Isotropic, PyramidWiener, RunningSecant, ScoreSquared
from leader_nb.errors import InputError
from leader_nb.likelihood import MapLikelihood
from leader_nb.loop import State
from leader_nb.noise import Noise, keyed_normal
from leader_nb.presets import PRESETS
from leader_nb.priors import Meter
from leader_nb.problem import Problem
from leader_nb.samplers import Sampler, Step
from leader_nb.schedule import uniform_grid
from leader_nb.steps import SATP, ErrorControlled, Uniform
from leader_nb.tree import Tree, put, rows
from leader_nb.ucpm import UCPM, HuberTV

EAGER = {"covariance": RunningSecant(), "modulate": UCPM(), "steps": SATP(budget=0.05, longest=0.3)}  # skips a lot


@pytest.fixture(scope="module")
def contrasts(samples: Tensor) -> Tensor:
    """Five images from flat to wild: their maps, and so their steps, differ."""
    return samples * torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0]).double().view(-1, 1, 1, 1)


# --- An image does not feel its batch ------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["exact", "network"])
@pytest.mark.parametrize("task", ["sr4@0.05", "inpaint70@0", "gaussian@0.05", "color@0"])
def test_each_image_has_its_own_clock(which: str, task: str, contrasts: Tensor, request: pytest.FixtureRequest) -> None:
    """Alone, in a batch or shuffled: the same bits, also when SATP lets images finish at different times."""
    prior = request.getfixturevalue(which)
    sampler = DDNM() if task.endswith("@0") else DDNMPlus()
    result = check_alone_as_in_a_batch(sampler, parse_task(task).measure(contrasts), prior, grid=15, **EAGER)
    assert (result.nfe < 15).any(), "nothing was skipped: this tests nothing"


def test_error_control_has_a_clock_for_each_image_too(exact: Prior, contrasts: Tensor) -> None:
    plugins = {"covariance": RunningSecant(), "steps": ErrorControlled(tolerance=3e-3, longest=0.3)}
    result = check_alone_as_in_a_batch(DDNMPlus(), parse_task("sr4@0.05").measure(contrasts), exact, grid=40, **plugins)
    assert len(set(result.times)) >= 3, "every image went the same way: this tests nothing"


def test_images_do_finish_at_different_times(exact: Prior, contrasts: Tensor) -> None:
    result = restore(parse_task("sr4@0.05").measure(contrasts), exact, DDNMPlus(), grid=15, **EAGER)
    assert len(set(result.nfe.tolist())) >= 3 and len(set(result.times)) >= 3, result.nfe.tolist()


def test_threads_do_not_mix_images(network: Prior) -> None:
    """The same with two threads and images large enough to be split between them."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        problem = parse_task("sr4@0.05").measure(normal(2, 3, 64, 64) / 4)
        check_alone_as_in_a_batch(DDNMPlus(), problem, network, grid=1, covariance=RunningSecant(), modulate=UCPM())
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("estimator", [RunningSecant(), ScoreSquared(), Isotropic()], ids=repr)
def test_idle_leader_is_the_host(estimator, network: Prior, samples: Tensor) -> None:
    """mu = 0 and budget = 0 with the estimator running: bitwise the host, with equal NFE, in float32 too."""
    plugins = {"covariance": estimator, "modulate": UCPM(HuberTV(mu=0.0)), "steps": SATP(budget=0.0)}
    for x in (samples, samples.float()):
        problem = parse_task("sr4@0.05").measure(x)
        plain, idle = (restore(problem, network, DDNMPlus(), grid=6, **o) for o in ({}, plugins))
        same(idle.image, plain.image, "idle LEADer")
        assert idle.nfe.tolist() == plain.nfe.tolist() == [6] * 5 and plain.cov is None and idle.cov.shape == x.shape
    check_null_leader(DDNMPlus(), problem, network, 4)


# --- Noise ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Jumps:
    """Visits positions T, T - 3, T - 6, ...: a fixed way of skipping."""

    needs_map = False

    def init(self, sigmas: Tensor, batch: int) -> Tree:
        return {}

    def next(self, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]:
        return (k - 3).clamp(min=0), memo


@dataclass(frozen=True)
class TimeTravel:
    """Two down, one up, until position 2."""

    needs_map = False

    def init(self, sigmas: Tensor, batch: int) -> Tree:
        return {"up": torch.zeros(batch, dtype=torch.bool)}

    def next(self, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]:
        up = memo["up"] & (k > 2)
        return torch.where(up, k + 1, (k - 2).clamp(min=0)), {"up": ~up}


def draws(problem: Problem, prior: Prior, **options) -> dict[tuple, Tensor]:
    """Every draw of a run by its key; no key is drawn twice."""
    drawn: dict[tuple, Tensor] = {}

    def source(key: tuple, shape: tuple[int, ...]) -> Tensor:
        assert key not in drawn, f"{key} was drawn twice"
        drawn[key] = keyed_normal(key, shape)
        return drawn[key]

    restore(problem, prior, DDNM(), grid=12, noise=Noise(5, tuple(range(len(problem))), source), **options)
    return drawn


def test_runs_that_skip_share_their_noise(exact: Prior, contrasts: Tensor) -> None:
    """The draws of a skipping run are among those of its baseline: same keys, same values, x_T included."""
    problem = parse_task("sr4@0").measure(contrasts)
    full = draws(problem, exact)
    assert len(full) == 5 * 13
    for options in ({"steps": Jumps()}, EAGER):
        part = draws(problem, exact, **options)
        assert part.keys() < full.keys()
        assert all(torch.equal(part[key], full[key]) for key in part)


def test_coming_back_to_a_time_draws_afresh(exact: Prior, contrasts: Tensor) -> None:
    """The third visit of a time has visit number 2: no draw is used twice (`draws` checks it)."""
    drawn = draws(parse_task("sr4@0").measure(contrasts), exact, steps=TimeTravel())
    assert {key[4] for key in drawn} >= {0, 1}


# --- The tally and the clock ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Greedy:
    """A host that asks twice and takes a gradient, to see that the tally notices."""

    needs_gradient = True
    default_steps = staticmethod(uniform_grid)

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return DDNM().init(problem, noise)

    def step(self, b, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        b.evaluate(b.x_t)
        b.vjp(b.x0)
        return DDNM().step(b, s, problem, noise, carry)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_t_steps_cost_t_calls(steps: int, network: Prior, samples: Tensor) -> None:
    result = restore(parse_task("sr4@0").measure(samples), network, DDNM(), grid=steps)
    assert result.nfe.tolist() == [steps] * 5 and result.backward.tolist() == [0] * 5
    assert result.times == (uniform_grid(steps),) * 5


def test_inner_calls_are_counted(network: Prior, samples: Tensor) -> None:
    """Two calls and one backward pass for each step; the kept graph costs no third."""
    result = restore(parse_task("sr4@0").measure(samples), network, Greedy(), grid=4)
    assert result.nfe.tolist() == [8] * 5 and result.backward.tolist() == [4] * 5
    same(result.image, restore(parse_task("sr4@0").measure(samples), network, DDNM(), grid=4).image, "the same image")


def test_every_image_is_charged_for_its_own_steps(exact: Prior, contrasts: Tensor) -> None:
    """NFE of an image = the times it visited, and a counting prior sees the sum."""
    seen = []
    counting = Prior(lambda x, t, schedule: seen.append(len(x)) or exact.predict(x, t, schedule))
    result = restore(parse_task("sr4@0.05").measure(contrasts), counting, DDNMPlus(), grid=15, **EAGER)
    assert result.nfe.tolist() == [len(times) for times in result.times] and sum(seen) == result.nfe.sum()
    assert min(seen) < 5, "images that are done leave the batch"
    for times in result.times:
        assert times[0] == 990 and list(times) == sorted(set(times), reverse=True)


def test_a_meter_may_be_given(exact: Prior, samples: Tensor) -> None:
    meter = Meter.of(5)
    result = restore(parse_task("sr4@0").measure(samples), exact, DDNM(), grid=3, meter=meter)
    assert result.nfe is meter.nfe and meter.nfe.tolist() == [3] * 5


def test_states_tell_the_story(exact: Prior, samples: Tensor) -> None:
    """Positions fall to 0, s is the next t, the last x is the result; states can be watched or iterated."""
    problem = parse_task("sr4@0").measure(samples)
    watched: list[State] = []
    result = restore(problem, exact, DDNM(), grid=5, on_state=watched.append)
    states = list(trajectory(problem, exact, DDNM(), grid=5))
    for ours, theirs in zip(watched, states, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(ours), tensors(theirs), strict=True) if a.shape == b.shape)
    assert [s.k.tolist() for s in states] == [[k] * 5 for k in (5, 4, 3, 2, 1)]
    assert [s.s.tolist() for s in states[:-1]] == [s.t.tolist() for s in states[1:]] and states[-1].s.tolist() == [-1] * 5
    same(result.image, states[-1].x, "result")
    same(states[1].belief.x_t, states[0].x, "x is where the next turn starts")


def test_the_belief_of_a_state_is_the_priors_own(exact: Prior, samples: Tensor) -> None:
    """With UCPM on, state.belief is unmodulated and the host saw the modulated one: its null part says so."""
    problem = parse_task("sr4@0").measure(samples)
    for state in trajectory(problem, exact, DDNM(), grid=4, **leader(modulate=UCPM(HuberTV(mu=1.0)))):
        same(state.belief.x0, exact(state.belief.x_t, state.t).x0, "belief")
        guided = UCPM(HuberTV(mu=1.0))(state.belief, state.cov, problem)
        close(problem.operator.null(state.x0y), problem.operator.null(guided.x0), "host")


def test_a_grid_may_be_a_list_of_times(exact: Prior, samples: Tensor) -> None:
    result = restore(parse_task("sr4@0").measure(samples), exact, DDNM(), grid=[700, 300, 300, 20])
    assert result.times[0] == (700, 300, 300, 20) and torch.isfinite(result.image).all()


def test_default_noise_is_seed_zero(exact: Prior, samples: Tensor) -> None:
    problem = parse_task("sr4@0").measure(samples)
    named = restore(problem, exact, DDNM(), grid=3, noise=noise_for(5, seed=0))
    same(restore(problem, exact, DDNM(), grid=3).image, named.image, "seed 0")


@pytest.mark.parametrize("sampler", [DDNM(), DDNMPlus()], ids=repr)
def test_float32_runs_stay_float32(sampler: Sampler, network: Prior, samples: Tensor) -> None:
    problem = parse_task("sr4@0.05").measure(samples.float())
    result = restore(problem, network, sampler, grid=4, **leader())
    assert result.image.dtype == torch.float32 and result.cov.dtype == torch.float32


# --- LEADer as keywords --------------------------------------------------------------------------------------------


def test_leader_names_its_plugins() -> None:
    """The calibrated preset, the literal one, and what replaces or switches off a part."""
    ours, paper = leader(), leader("paper")
    assert set(ours) == {"covariance", "modulate", "steps"}
    assert ours["covariance"] == RunningSecant(still=PyramidWiener()) and paper["covariance"] == ScoreSquared()
    assert [type(part) for part in ours["modulate"].parts] == [UCPM, MapLikelihood]
    assert ours["steps"] == ErrorControlled() and paper["steps"] == SATP() and paper["modulate"] == UCPM()
    assert leader(steps=None)["steps"] is None and leader(covariance=Isotropic())["covariance"] == Isotropic()


@pytest.mark.parametrize("options", [{"preset": "papr"}, {"stepz": None}])
def test_leader_refuses_what_it_does_not_know(options: dict) -> None:
    with pytest.raises(InputError, match=r"\Aunknown (preset|plug-in)[^\n]*\Z"):
        leader(**options)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_run(preset: str, exact: Prior, samples: Tensor) -> None:
    result = restore(parse_task("sr4@0.05").measure(samples), exact, DDNMPlus(), grid=20, **leader(preset))
    assert torch.isfinite(result.image).all() and (result.nfe <= 20).all() and (result.cov > 0).all()


# --- Mistakes are caught at the call, not at the first state ---------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 0}, "steps: got 0"),
        ({"grid": 1001}, "steps: got 1001"),
        ({"grid": (10, 20)}, "grid: got"),
        ({"grid": ()}, "grid: got"),
        ({"grid": (1000, 0)}, "grid: got"),
        ({"modulate": UCPM()}, "modulate: it needs an uncertainty map"),
        ({"steps": SATP()}, "steps: it needs an uncertainty map"),
        ({"steps": ErrorControlled()}, "steps: it needs an uncertainty map"),
        ({"grid": 5.0}, r"grid: got 5\.0; give a whole number of steps"),
        ({"grid": "100"}, "grid: got '100'; give a whole number of steps"),
        ({"grid": None}, "grid: got None; give a whole number of steps"),
        ({"grid": torch.tensor(5)}, "grid: got a value of type Tensor; give a whole number of steps"),
        (
            {"covariance": RunningSecant},
            r"covariance: got the class RunningSecant; give one of its objects, such as RunningSecant\(\)",
        ),
        ({"modulate": UCPM, "covariance": RunningSecant()}, "modulate: got the class UCPM"),
        ({"steps": Uniform}, "steps: got the class Uniform"),
        ({"steps": 40}, r"steps: got 40; give a step rule, such as SATP\(\); the number of steps is grid"),
        ({"steps": 0}, "steps: got 0; give a step rule"),
        ({"covariance": 1}, r"covariance: got 1; give an estimator of the map, such as RunningSecant\(\)"),
        ({"modulate": "ucpm", "covariance": RunningSecant()}, r"modulate: got 'ucpm'; give a modulation, such as UCPM\(\)"),
        ({"noise": noise_for(4)}, "noise: it has 4 image ids, the problem 5"),
    ],
    ids=str,
)
def test_arguments_are_checked_at_the_call(options: dict, message: str, exact: Prior, samples: Tensor) -> None:
    problem = parse_task("sr4@0").measure(samples)
    with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
        trajectory(problem, exact, DDNM(), **options)  # never iterated


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sampler": "ddnm"}, r"sampler: got 'ddnm'; give a host, such as DDNM\(\), or host\('ddrm', 0\.05\) by its name"),
        ({"sampler": DDNM}, r"sampler: got the class DDNM; give one of its objects, DDNM\(\)"),
        ({"sampler": None}, "sampler: got None; give a host"),
        ({"prior": None}, r"prior: got None; give a Prior: load_prior\(\)"),
        ({"prior": "photo-small"}, "prior: got 'photo-small'; give a Prior"),
        ({"prior": Prior}, "prior: got the class Prior; give a Prior"),
        ({"prior": image_mixture(8)}, r"prior: got a value of type GaussianMixture; give [^\n]* prior\(\) of a mixture"),
        ({"problem": normal(1, 3, 8, 8)}, "problem: got a value of type Tensor; give a Problem"),
        ({"problem": "sr4@0"}, "problem: got 'sr4@0'; give a Problem"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_no_problem_prior_or_host_is_refused_at_the_call(
    wrong: dict, message: str, exact: Prior, samples: Tensor
) -> None:
    """By all three, and before anything runs."""
    given = {"problem": parse_task("sr4@0").measure(samples[:1]), "prior": exact, "sampler": DDNM()} | wrong
    calls: list[Callable[..., object]] = [restore, trajectory]
    if "problem" not in wrong:
        calls.append(lambda problem, prior, sampler: restore_many([problem], prior, sampler))
    for call in calls:
        with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
            call(*given.values())


def test_a_host_needs_no_base_class_and_a_number_may_be_numpys(exact: Prior, samples: Tensor) -> None:
    class Own:
        needs_gradient = False
        init, step = DDNM().init, DDNM().step

    problem = parse_task("sr4@0").measure(samples[:1])
    expected = restore(problem, exact, DDNM(), grid=3).image
    same(restore(problem, exact, Own(), grid=DDNM().default_steps(3)).image, expected, "by its methods")
    same(restore(problem, exact, DDNM(), grid=np.int64(3)).image, expected, "a number of numpy")
    with pytest.raises(InputError, match=r"\Agrid: got 3; Own has no default_steps: give raw times[^\n]*\Z"):
        trajectory(problem, exact, Own(), grid=3)  # type: ignore[arg-type]


def test_small_images_are_refused_at_the_call(network: Prior) -> None:
    """The network's least side is 4 pixels."""
    problem = parse_task("denoise@0").measure(normal(1, 3, 8, 3))
    with pytest.raises(InputError, match="its shorter side is 3 px; the prior 'tiny' needs at least 4"):
        trajectory(problem, network, DDNM())


# --- Trees ---------------------------------------------------------------------------------------------------------


def test_rows_and_put_are_inverse_and_change_nothing() -> None:
    tree = {"a": normal(4, 2), "flag": torch.tensor([True, False, True, False])}
    index = torch.tensor([3, 1])
    before = {name: value.clone() for name, value in tree.items()}
    part = rows(tree, index)
    merged = put(tree, index, {name: ~v if v.dtype == torch.bool else 2 * v for name, v in part.items()})
    for name in tree:
        same(tree[name], before[name], "in place")
        same(merged[name][[0, 2]], tree[name][[0, 2]], "other rows")
    same(merged["a"][[3, 1]], 2 * tree["a"][[3, 1]], "rows put")
    assert merged["flag"].tolist() == [True, True, True, True]


def test_new_entries_start_at_zero() -> None:
    """An entry the tree lacks is zero, and so not `valid`, for the images that are not in the part."""
    merged = put({"a": normal(3, 2)}, torch.tensor([1]), {"valid": torch.tensor([True]), "cov": normal(1, 2, 2)})
    assert merged["valid"].tolist() == [False, True, False] and not merged["cov"][[0, 2]].any()


def test_an_estimator_can_start_late(exact: Prior, samples: Tensor) -> None:
    """Memory that appears for some images only does not harm the others: their rows are not valid yet."""
    estimator, index = RunningSecant(), torch.tensor([0, 2])
    before, after = belief_at(exact, samples, 300), belief_at(exact, samples, 200)
    _, part = estimator.update(belief_at(exact, samples[index], 300), None, {})
    memory = put({"other": torch.zeros(5)}, index, part)
    cov, _ = estimator.update(after, None, memory)
    first, _ = estimator.update(after, None, {})
    same(cov[[1, 3, 4]], first[[1, 3, 4]], "late images")
    assert before.x0.shape == cov.shape and not torch.equal(cov[index], first[index])


def test_uniform_steps_are_the_default(exact: Prior, samples: Tensor) -> None:
    problem = parse_task("sr4@0").measure(samples)
    same(
        restore(problem, exact, DDNM(), grid=3, steps=Uniform()).image,
        restore(problem, exact, DDNM(), grid=3).image,
        "default",
    )
