"""The queue: the bits of a run alone, room refilled at once, and failures that stop one image only."""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial

import pytest
import torch
from torch import Tensor

from laws import normal, same
from leader_nb import (
    DDNM,
    IDPG,
    DDNMPlus,
    Diverged,
    Prediction,
    Prior,
    Problem,
    host,
    leader,
    noise_for,
    parse_task,
    restore,
    restore_many,
    trajectory,
)
from leader_nb.covariance import RunningSecant
from leader_nb.equivariance import EquS
from leader_nb.errors import Failure, InputError
from leader_nb.loop import Result
from leader_nb.many import BROKEN
from leader_nb.operators import Mask
from leader_nb.samplers import SAMPLERS
from leader_nb.steps import SATP, ErrorControlled
from leader_nb.tree import joined
from leader_nb.ucpm import UCPM
from test_samplers import brief

EAGER = {"covariance": RunningSecant(), "modulate": UCPM(), "steps": SATP(budget=0.05, longest=0.5)}  # skips a lot
BAD = 3  # the image that goes wrong where one does


@pytest.fixture(scope="module")
def contrasts(samples: Tensor) -> Tensor:
    """Seven images from flat to wild: they need different numbers of steps."""
    scale = torch.tensor([4.0, 0.1, 2.0, 0.5, 1.0, 0.2, 3.0]).double().view(-1, 1, 1, 1)
    return samples[torch.tensor([0, 1, 2, 3, 4, 0, 1])] * scale


def queue(task: str, x: Tensor) -> list[Problem]:
    """One problem for each image, as it is measured alone."""
    return [parse_task(task).measure(x[i : i + 1], seed=2, ids=[i]) for i in range(len(x))]


def alone(problems: list[Problem], prior: Prior, sampler, seed: int = 0, **options) -> list[Result]:
    return [restore(p, prior, sampler, noise=noise_for(1, seed, [i]), **options) for i, p in enumerate(problems)]


def check_same(results: list[Result], expected: list[Result], but: tuple[int, ...] = ()) -> None:
    """Each image of the queue once, as it is alone, to the last bit and call."""
    assert sorted(r.number for r in results) == list(range(len(expected)))
    for r in results:
        if r.number in but:
            continue
        one = expected[r.number]
        assert r.error is None and r.image.shape == one.image.shape
        same(r.image, one.image, f"image {r.number}")
        assert r.nfe.tolist() == one.nfe.tolist() and r.backward.tolist() == one.backward.tolist() and r.times == one.times
        assert (r.cov is None) == (one.cov is None) and (r.cov is None or torch.equal(r.cov, one.cov))


# --- The same bits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["sr4@0.05", "inpaint70@0", "motion@0.05", "cs25@0.05"])
@pytest.mark.parametrize("which", ["exact", "network"])
def test_an_image_of_the_queue_is_the_image_alone(which: str, task: str, contrasts: Tensor, request) -> None:
    """In float64, for every batch size, though images finish at different times and enter beside others in mid-run."""
    prior, sampler = request.getfixturevalue(which), host("ddnm", parse_task(task).sigma)
    problems = queue(task, contrasts)
    expected = alone(problems, prior, sampler, grid=24, **EAGER)
    ways = {r.times[0] for r in expected}
    assert len(ways) >= 3 and len(set(map(len, ways))) >= 2, "every image went the same way"
    for batch in (1, 2, 3, 16):
        check_same(list(restore_many(problems, prior, sampler, batch=batch, grid=24, **EAGER)), expected)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_host_can_be_queued(name: str, exact: Prior, contrasts: Tensor) -> None:
    """What a host carries along enters and leaves with its image; inner calls are charged to the right one."""
    problems, sampler = queue("sr4@0.05", contrasts[:3]), host(name, 0.05)
    for plugins in ({}, {**EAGER, "equivariance": EquS()}):
        expected = alone(problems, exact, sampler, grid=5, **plugins)
        check_same(list(restore_many(problems, exact, sampler, batch=2, grid=5, **plugins)), expected)


def test_error_controlled_steps_and_float32(exact: Prior, contrasts: Tensor) -> None:
    plugins = leader(steps=ErrorControlled(tolerance=1e-2, longest=0.3))
    for x in (contrasts, contrasts.float()):
        problems = queue("sr4@0.05", x)
        expected = alone(problems, exact, DDNMPlus(), grid=24, **plugins)
        assert len({r.times for r in expected}) >= 3
        check_same(list(restore_many(problems, exact, DDNMPlus(), batch=3, grid=24, **plugins)), expected)


def test_ids_and_seeds_name_the_noise(exact: Prior, contrasts: Tensor) -> None:
    """Image n has the noise of (seed, ids[n]); n where there are no ids. A batch in the queue is split."""
    problem = parse_task("sr4@0.05").measure(contrasts[:4], seed=2)
    ids = [7, 1, 0, 12]
    together = restore(problem, exact, DDNMPlus(), grid=6, noise=noise_for(4, 5, ids))
    for r in restore_many([problem], exact, DDNMPlus(), batch=3, seed=5, ids=ids, grid=6):
        same(r.image[0], together.image[r.number], "by its id")
    plain = {r.number: r for r in restore_many([problem], exact, DDNMPlus(), batch=3, seed=5, grid=6)}
    assert not torch.equal(plain[0].image[0], together.image[0])
    same(plain[1].image[0], together.image[1], "id 1 in both")


def test_results_come_as_they_end(exact: Prior, contrasts: Tensor) -> None:
    """With room for all, in the order of their network calls."""
    results = list(restore_many(queue("sr4@0.05", contrasts), exact, DDNMPlus(), batch=7, grid=24, **EAGER))
    calls = [int(r.nfe) for r in results]
    assert calls == sorted(calls) and len(set(calls)) >= 3 and [r.number for r in results] != list(range(7))
    assert all(r.seconds > 0 and len(r.times) == 1 and r.nfe.shape == (1,) for r in results)


# --- Room ----------------------------------------------------------------------------------------------------------


def test_room_is_refilled_at_once(exact: Prior, contrasts: Tensor) -> None:
    """The batch is full until the queue is empty, and no call is made for an image that is done."""
    sizes: list[int] = []
    counting = Prior(lambda x, t, schedule: sizes.append(len(x)) or exact.predict(x, t, schedule))
    results = list(restore_many(queue("sr4@0.05", contrasts), counting, DDNMPlus(), batch=3, grid=24, **EAGER))
    total = sum(int(r.nfe) for r in results)
    assert sum(sizes) == total < 7 * 24
    emptying = next(i for i, size in enumerate(sizes) if size < 3)
    assert sizes[:emptying] == [3] * emptying and sizes[emptying:] == sorted(sizes[emptying:], reverse=True)
    assert sum(sizes[:emptying]) > 0.6 * total, "mostly full"


def test_the_queue_is_read_as_room_appears(exact: Prior, contrasts: Tensor) -> None:
    """At most one problem more than fits is in memory."""
    read = [0]

    def source() -> Iterator[Problem]:
        for problem in queue("sr4@0.05", contrasts):
            read[0] += 1
            yield problem

    for ended, _ in enumerate(restore_many(source(), exact, DDNMPlus(), batch=2, grid=24, **EAGER), 1):
        assert read[0] <= ended + 2 + 1 + 1  # those that ended, those running, the one looked at, one that ended beside
    assert ended == read[0] == 7


def test_nothing_is_computed_before_it_is_asked_for(exact: Prior, contrasts: Tensor) -> None:
    calls = [0]

    def predict(x: Tensor, t: Tensor, schedule) -> Prediction:
        calls[0] += 1
        return exact.predict(x, t, schedule)

    results = restore_many(queue("sr4@0.05", contrasts), Prior(predict), DDNMPlus(), batch=2, grid=5)
    assert calls == [0]
    next(results)
    assert calls == [5]
    results.close()
    assert calls == [5]


def test_images_of_other_kinds_wait_for_their_turn(exact: Prior, network: Prior, contrasts: Tensor) -> None:
    """Other sizes, operators and dtypes in one queue: each restored as alone, in batches of their kind."""
    x = contrasts[:2]
    wide = torch.cat([x, x.flip(3)], dim=3)
    problems = [*queue("sr4@0.05", x), *queue("sr4@0.05", wide), *queue("gaussian@0.05", x), *queue("sr4@0.05", x.float())]
    problems += queue("sr4@0", x)
    expected = alone(problems, network, DDNMPlus(), grid=4, covariance=RunningSecant())
    results = list(restore_many(problems, network, DDNMPlus(), batch=8, grid=4, covariance=RunningSecant()))
    check_same(results, expected)
    assert {tuple(r.image.shape[1:]) for r in results} == {(3, 8, 8), (3, 8, 16)}


def test_an_empty_queue(exact: Prior) -> None:
    assert list(restore_many([], exact, DDNM())) == []


# --- Failures ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_bright(contrasts: Tensor) -> Tensor:
    """Five images, of which BAD is nine times too bright."""
    x = contrasts[:5].clamp(-1, 1)
    x[BAD] = 9.0
    return x


def bright(x0: Tensor) -> Tensor:
    """Which images look like BAD, (B,)."""
    return x0.flatten(1).mean(1) > 4


def poisoned(prior: Prior, t_bad: int, value: float = float("nan")) -> Prior:
    """`prior`, except that from time t_bad down its answer about a bright image has a column of `value`."""

    def predict(x_t: Tensor, t: Tensor, schedule) -> Prediction:
        x0 = prior.predict(x_t, t, schedule).x0
        assert x0 is not None and torch.isfinite(x_t).all(), "a failed image was taken along"
        hit = (bright(x0) & (t <= t_bad)).view(-1, 1, 1, 1) & (torch.arange(x0.shape[3]) == 2)
        return Prediction(x0=torch.where(hit, value, x0))

    return Prior(predict, name="poisoned")


def spoiled(prior: Prior, row: int, full: int, t_bad: int) -> Prior:
    """`prior`, except that from time t_bad down its answer about image `row` of a `full` batch has a column of NaN."""

    def predict(x_t: Tensor, t: Tensor, schedule) -> Prediction:
        x0 = prior.predict(x_t, t, schedule).x0
        assert x0 is not None and torch.isfinite(x_t).all(), "a failed image was taken along"
        mine = torch.arange(len(x0)) == (row if len(x0) == full else -1)  # it has left by the time the batch is smaller
        hit = (mine & (t <= t_bad)).view(-1, 1, 1, 1) & (torch.arange(x0.shape[3]) == 2)
        return Prediction(x0=torch.where(hit, float("nan"), x0))

    return Prior(predict, name="spoiled")


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_nan_stops_only_its_image_on_every_host(name: str, exact: Prior, contrasts: Tensor) -> None:
    """Alone or in a queue; the others are bitwise what they are without it, also where a host differentiates."""
    sampler = brief(host(name, 0.05))
    problems, times = queue("sr4@0.05", contrasts[:3]), sampler.default_steps(4)
    prior, expected = spoiled(exact, 1, 3, times[2]), alone(problems, exact, sampler, grid=4, covariance=RunningSecant())
    results = list(restore_many(problems, prior, sampler, batch=3, grid=4, covariance=RunningSecant()))
    check_same(results, expected, but=(1,))
    failed = next(r for r in results if r.number == 1)
    assert isinstance(failed.error, Diverged)
    assert failed.error.failures == (Failure(1, 3, 4, times[2], "what the prior 'spoiled' says"),)
    whole = problems[0].joined(problems[1]).joined(problems[2])
    with pytest.raises(Diverged, match=rf"\Aimage 1: [^\n]* at step 3 of 4 \(t = {times[2]}\)\Z") as caught:
        restore(whole, prior, sampler, grid=4, covariance=RunningSecant())
    image = caught.value.result.image
    assert image[1].isnan().all() and caught.value.result.nfe[1] <= expected[1].nfe[0]
    for i in (0, 2):
        same(image[i : i + 1], expected[i].image, f"image {i}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_nan_stops_only_its_image(batch: int, value: float, exact: Prior, one_bright: Tensor) -> None:
    """Its result says step and time; the others are what they are without it."""
    problems = queue("denoise@0.05", one_bright)
    times = DDNMPlus().default_steps(10)
    prior = poisoned(exact, times[6], value)
    results = list(restore_many(problems, prior, DDNMPlus(), batch=batch, grid=10))
    check_same(results, alone(problems, exact, DDNMPlus(), grid=10), but=(BAD,))
    failed = next(r for r in results if r.number == BAD)
    assert isinstance(failed.error, Diverged) and failed.error.failures[0].image == BAD
    assert failed.error.failures == (Failure(BAD, 7, 10, times[6], "what the prior 'poisoned' says"),)
    assert str(failed.error) == f"image 3: what the prior 'poisoned' says is not finite at step 7 of 10 (t = {times[6]})"
    assert failed.image.isnan().all() and failed.image.shape == (1, 3, 8, 8)
    assert failed.nfe.tolist() == [7] and failed.times == (times[:7],)


def test_restore_finishes_the_others_and_says_which_failed(exact: Prior, one_bright: Tensor) -> None:
    """The exception carries what was restored, bit for bit, and names image, step and time."""
    problem, times = parse_task("denoise@0.05").measure(one_bright), DDNMPlus().default_steps(10)
    whole = restore(problem, exact, DDNMPlus(), grid=10, covariance=RunningSecant())
    with pytest.raises(Diverged, match=r"\Aimage 3: [^\n]* not finite at step 7 of 10 [^\n]*\Z") as caught:
        restore(problem, poisoned(exact, times[6]), DDNMPlus(), grid=10, covariance=RunningSecant())
    result, others = caught.value.result, torch.tensor([0, 1, 2, 4])
    same(result.image[others], whole.image[others], "the others")
    same(result.cov[others], whole.cov[others], "their maps")
    assert result.image[BAD].isnan().all() and result.nfe.tolist() == [10, 10, 10, 7, 10]
    assert isinstance(caught.value, InputError), "the command line says it in one line"


def test_every_image_may_fail(exact: Prior, contrasts: Tensor) -> None:
    nan = Prior(lambda x, t, schedule: Prediction(eps=torch.full_like(x, float("nan"))), name="broken")
    problem = parse_task("sr4@0").measure(contrasts[:2])
    with pytest.raises(Diverged) as caught:
        restore(problem, nan, DDNM(), grid=10)
    assert str(caught.value).count("step 1 of 10 (t = 990)") == 2 and caught.value.result.nfe.tolist() == [1, 1]
    results = list(restore_many([problem, problem], nan, DDNM(), batch=2, grid=10))
    assert [r.number for r in results] == [0, 1, 2, 3] and all(isinstance(r.error, Diverged) for r in results)


def test_a_trajectory_goes_on_without_them(exact: Prior, one_bright: Tensor) -> None:
    """Its states name the failures, and leave the images out afterwards."""
    prior = poisoned(exact, DDNMPlus().default_steps(10)[6])
    states = list(trajectory(parse_task("denoise@0.05").measure(one_bright), prior, DDNMPlus(), grid=10))
    assert [[f.image for f in s.failures] for s in states] == [[]] * 6 + [[BAD]] + [[]] * 3
    assert [len(s.index) for s in states] == [5] * 7 + [4] * 3 and BAD not in states[7].index


def test_a_host_may_fail_too(exact: Prior, contrasts: Tensor) -> None:
    """A state that is not finite is charged to the host's step, not to the prior."""
    overflow = Prior(lambda x, t, schedule: Prediction(x0=torch.full_like(x, 3e38)), name="huge")
    problem = parse_task("color@0").measure(contrasts[:1].float())
    with pytest.raises(Diverged, match=r"\Aimage 0: the state is not finite at step 1 of 3 \(t = 990\)\Z"):
        restore(problem, overflow, DDNM(), grid=3)


def measured(x: Tensor, i: int) -> Problem:
    """Raises for image BAD, as a reader of files would."""
    problem = parse_task("sr4@0.05").measure(x[i : i + 1], seed=2, ids=[i])
    return replace(problem, y=problem.y * float("nan")) if i == BAD else problem


def test_a_bad_measurement_stops_only_itself(exact: Prior, contrasts: Tensor) -> None:
    """An InputError that the queue raises belongs to the image that it was about."""
    results = list(restore_many(map(partial(measured, contrasts), range(6)), exact, DDNMPlus(), batch=2, grid=5))
    check_same(results, alone(queue("sr4@0.05", contrasts[:6]), exact, DDNMPlus(), grid=5), but=(BAD,))
    failed = next(r for r in results if r.number == BAD)
    assert "NaN or infinite" in str(failed.error) and len(failed.image) == 0 and failed.nfe.tolist() == [0]


def test_images_that_cannot_be_restored(network: Prior, contrasts: Tensor) -> None:
    """Too small for the prior, or no problem at all, or without an id: the others go on."""
    small = parse_task("denoise@0.05").measure(normal(1, 3, 2, 2))
    problems = [*queue("sr4@0.05", contrasts[:2]), small, "photo.png", *queue("sr4@0.05", contrasts[:2])]
    results = {r.number: r for r in restore_many(problems, network, DDNMPlus(), batch=2, grid=3, ids=range(5))}
    messages = {n: str(r.error) for n, r in results.items() if r.error}
    assert sorted(messages) == [2, 3, 5] and "needs at least 4" in messages[2] and "give a Problem" in messages[3]
    assert "ids: there are 5, and none for image 5" in messages[5]
    assert results[2].image.shape == (1, 3, 2, 2) and results[2].image.isnan().all()
    assert all(torch.isfinite(results[n].image).all() for n in (0, 1, 4))


def test_a_complaint_in_mid_run_stops_only_its_image(exact: Prior, one_bright: Tensor) -> None:
    """A prior that refuses one image of a batch: it is found, and the tally of the others is not disturbed."""

    def predict(x_t: Tensor, t: Tensor, schedule) -> Prediction:
        x0 = exact.predict(x_t, t, schedule).x0
        if (bright(x0) & (t < 400)).any():
            raise InputError("x: brighter than any image")
        return Prediction(x0=x0)

    problems = queue("denoise@0.05", one_bright)
    for batch in (1, 2, 5):
        results = list(restore_many(problems, Prior(predict), DDNMPlus(), batch=batch, grid=10, covariance=RunningSecant()))
        check_same(results, alone(problems, exact, DDNMPlus(), grid=10, covariance=RunningSecant()), but=(BAD,))
        failed = next(r for r in results if r.number == BAD)
        assert str(failed.error) == "x: brighter than any image" and failed.image.isnan().all()
        assert failed.times[0] == tuple(t for t in DDNMPlus().default_steps(10) if t >= 400) and failed.seconds > 0


def refusing(exact: Prior, error: BaseException, t_bad: int = 400) -> Prior:
    """`exact`, which below t_bad raises `error` where it is asked about a bright image."""

    def predict(x_t: Tensor, t: Tensor, schedule) -> Prediction:
        x0 = exact.predict(x_t, t, schedule).x0
        if (bright(x0) & (t < t_bad)).any():
            raise error
        return Prediction(x0=x0)

    return Prior(predict)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("kind", [ZeroDivisionError, RuntimeError, KeyError, MemoryError])
def test_whatever_is_raised_about_an_image_stops_only_it(
    kind: type[Exception], batch: int, exact: Prior, one_bright: Tensor
) -> None:
    """The others are what they are alone; the error names image and kind, and keeps the original."""
    problems, original = queue("denoise@0.05", one_bright), kind("out of luck")
    results = list(restore_many(problems, refusing(exact, original), DDNMPlus(), batch=batch, grid=10))
    check_same(results, alone(problems, exact, DDNMPlus(), grid=10), but=(BAD,))
    failed = next(r for r in results if r.number == BAD)
    assert type(failed.error) is InputError and failed.error.__cause__ is original
    assert str(failed.error).startswith(f"image {BAD}: {kind.__name__}: ") and "out of luck" in str(failed.error)
    assert failed.image.isnan().all() and failed.image.shape == (1, 3, 8, 8)
    assert failed.times[0] == tuple(t for t in DDNMPlus().default_steps(10) if t >= 400)


def test_an_error_keeps_where_it_was_but_no_tensors(exact: Prior, contrasts: Tensor) -> None:
    """The traceback of the cause goes down to the prior; the variables there, a network's activations, are let go."""

    def predict(x_t: Tensor, t: Tensor, schedule) -> Prediction:
        activations = torch.zeros(1000)
        raise ZeroDivisionError(len(activations))

    (failed,) = restore_many(queue("sr4@0", contrasts[:1]), Prior(predict), DDNM(), grid=3)
    assert failed.error is not None and failed.error.__cause__ is not None
    frames = [frame for frame, _ in traceback.walk_tb(failed.error.__cause__.__traceback__)]
    assert frames[-1].f_code.co_name == "predict" and not frames[-1].f_locals


def test_memory_that_is_short_for_a_batch_serves_one_by_one(exact: Prior, contrasts: Tensor) -> None:
    """The batch that failed is let go before its images are tried alone, and nobody is charged for it."""
    held: list[int] = []

    def predict(x_t: Tensor, t: Tensor, schedule) -> Prediction:
        activations = torch.zeros(len(x_t))
        weakref.finalize(activations, held.remove, len(x_t))
        held.append(len(x_t))
        if sum(held) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Prediction(x0=exact.predict(x_t, t, schedule).x0)

    problems = queue("sr4@0", contrasts[:3])
    results = list(restore_many(problems, Prior(predict), DDNM(), batch=3, grid=4))
    check_same(results, alone(problems, exact, DDNM(), grid=4))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_stops_the_program_stops_the_queue(stop: type[BaseException], exact: Prior, one_bright: Tensor) -> None:
    """From the prior or from the source: neither is taken for the failure of an image."""
    with pytest.raises(stop):
        list(restore_many(queue("denoise@0.05", one_bright), refusing(exact, stop()), DDNMPlus(), grid=10))

    def source() -> Iterator[Problem]:
        yield queue("sr4@0", one_bright)[0]
        raise stop

    with pytest.raises(stop):
        list(restore_many(source(), exact, DDNM(), grid=3))


@dataclass(frozen=True, eq=False)
class Moody(Mask):
    """The mask of an operator that cannot be applied to bright images."""

    def __call__(self, x: Tensor) -> Tensor:
        if bright(x).any():
            raise RuntimeError("singular")
        return super().__call__(x)


def test_an_operator_may_fail_too(exact: Prior, one_bright: Tensor) -> None:
    """While images run beside it, and at its entrance (DDNM's A^+ y is taken there)."""
    problems, mask = queue("denoise@0", one_bright), parse_task("denoise@0").operator((3, 8, 8), one_bright)
    assert isinstance(mask, Mask)
    moody = Moody(**{f.name: getattr(mask, f.name) for f in fields(mask)})
    results = list(restore_many([replace(p, operator=moody) for p in problems], exact, IDPG(), batch=2, grid=4))
    check_same(results, alone(problems, exact, IDPG(), grid=4), but=(BAD,))
    failed = next(r for r in results if r.number == BAD)
    assert str(failed.error) == f"image {BAD}: RuntimeError: singular" and failed.nfe.tolist() < [4]

    class Door(DDNM):
        def init(self, problem, noise):
            if bright(problem.y).any():
                raise RuntimeError("at the door")
            return super().init(problem, noise)

    results = list(restore_many(problems, exact, Door(), batch=2, grid=4))
    check_same(results, alone(problems, exact, DDNM(), grid=4), but=(BAD,))
    assert [str(r.error) for r in results if r.error] == [f"image {BAD}: RuntimeError: at the door"]


# --- Sources that raise ----------------------------------------------------------------------------------------------


def read(x: Tensor, i: int) -> Problem:
    """Raises for image BAD what a reader of files would."""
    if i == BAD:
        raise OSError(2, "No such file or directory", "photo.png")
    return parse_task("sr4@0.05").measure(x[i : i + 1], seed=2, ids=[i])


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_map_goes_on_after_an_item_that_raised(batch: int, exact: Prior, contrasts: Tensor) -> None:
    results = list(restore_many(map(partial(read, contrasts), range(6)), exact, DDNMPlus(), batch=batch, grid=5))
    check_same(results, alone(queue("sr4@0.05", contrasts[:6]), exact, DDNMPlus(), grid=5), but=(BAD,))
    failed = next(r for r in results if r.number == BAD)
    assert isinstance(failed.error, InputError) and isinstance(failed.error.__cause__, OSError)
    assert "image 3: FileNotFoundError" in str(failed.error) and "photo.png" in str(failed.error)


@pytest.mark.parametrize("error", [ValueError("torn"), InputError("y: torn")], ids=repr)
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_generator_that_raises_has_its_images_restored(error: Exception, batch: int, exact: Prior, contrasts: Tensor) -> None:
    """Those it gave; and the last result says that the others are not known."""

    def source() -> Iterator[Problem]:
        yield from queue("sr4@0.05", contrasts[:BAD])
        raise error

    results = list(restore_many(source(), exact, DDNMPlus(), batch=batch, grid=24, **EAGER))
    expected = alone(queue("sr4@0.05", contrasts[:BAD]), exact, DDNMPlus(), grid=24, **EAGER)
    check_same(results[:-1], expected)
    last = results[-1]
    assert last.number == BAD and isinstance(last.error, InputError) and last.error.__cause__ is error
    assert "torn; the source ended early here" in str(last.error) and len(last.image) == 0


def test_a_generator_goes_on_after_an_item_of_another_type(exact: Prior, contrasts: Tensor) -> None:
    """It did not raise."""

    def source() -> Iterator[object]:
        yield "photo.png"
        yield from queue("sr4@0.05", contrasts[:2])

    results = list(restore_many(source(), exact, DDNMPlus(), batch=2, grid=3))  # type: ignore[arg-type]
    assert sorted((r.number, r.error is None) for r in results) == [(0, False), (1, True), (2, True)]


def test_a_source_that_only_raises_is_left(exact: Prior) -> None:
    class Broken:
        def __iter__(self):
            return self

        def __next__(self):
            raise OSError("closed")

    results = list(restore_many(Broken(), exact, DDNMPlus(), batch=2, grid=3))
    assert len(results) == BROKEN and "the source ended early here" in str(results[-1].error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch: got 0"),
        ({"batch": 2.5}, r"batch: got 2\.5"),
        ({"grid": 5.0}, r"grid: got 5\.0"),
        ({"grid": 0}, "steps: got 0"),
        ({"grid": (10, 20)}, "grid: got"),
        ({"modulate": UCPM()}, "modulate: it needs an uncertainty map"),
        ({"steps": ErrorControlled()}, "steps: it needs an uncertainty map"),
    ],
    ids=str,
)
def test_options_are_checked_at_the_call(options: dict, message: str, exact: Prior) -> None:
    with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
        restore_many([], exact, DDNM(), **options)  # never iterated


def test_a_single_problem_is_a_queue_of_its_images(exact: Prior, contrasts: Tensor) -> None:
    problem = parse_task("sr4@0.05").measure(contrasts[:3], seed=2)
    in_a_list = sorted(restore_many([problem], exact, DDNMPlus(), grid=3, batch=2), key=lambda r: r.number)
    results = list(restore_many(problem, exact, DDNMPlus(), grid=3, batch=2))
    check_same(results, in_a_list)
    assert len(results) == 3

    class DataSet:
        def __getitem__(self, i: int) -> Problem:
            return [problem][i]

    check_same(list(restore_many(DataSet(), exact, DDNMPlus(), grid=3, batch=2)), in_a_list)  # type: ignore[arg-type]


@pytest.mark.parametrize("problems", [None, 3, "sr4@0", Problem, torch.zeros(2, 3, 8, 8)], ids=lambda v: type(v).__name__)
def test_what_is_no_queue_is_refused_at_the_call(problems: object, exact: Prior) -> None:
    with pytest.raises(InputError, match=r"\Aproblems: got [^\n]*; give a Problem, or several in a list[^\n]*\Z"):
        restore_many(problems, exact, DDNM())  # never iterated


# --- The bar -------------------------------------------------------------------------------------------------------


def test_the_bar_counts_images_and_failures(exact: Prior, contrasts: Tensor, capsys: pytest.CaptureFixture) -> None:
    problems = queue("sr4@0.05", contrasts[:3])
    list(restore_many(problems, exact, DDNMPlus(), grid=2))
    assert capsys.readouterr().err == "", "no bar where nobody watches"
    for r in restore_many([*problems, "none"], exact, DDNMPlus(), grid=2, batch=1, progress=True):
        assert r.number < 4
    assert "image" in capsys.readouterr().err
    list(restore_many(problems, exact, DDNMPlus(), grid=2, batch=1, progress=True))
    assert "/3 [" in capsys.readouterr().err, "the length of a list is known"


# --- Trees ---------------------------------------------------------------------------------------------------------


def test_trees_are_joined_row_by_row() -> None:
    """Entries that one of them lacks are zero there: not valid."""
    a, b = {"x": normal(2, 3), "valid": torch.ones(2).bool()}, {"x": normal(3, 3, seed=1), "late": normal(3)}
    tree = joined(a, b, (2, 3))
    same(tree["x"], torch.cat([a["x"], b["x"]]), "rows")
    assert tree["valid"].tolist() == [True, True, False, False, False] and not tree["late"][:2].any()
    same(tree["late"][2:], b["late"], "late")
    assert joined({}, {}, (2, 3)) == {} and joined({}, b, (4, 3))["x"].shape == (7, 3)
