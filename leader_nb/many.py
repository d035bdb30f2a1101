"""Many images: a queue in front of the loop, in which an image that is done makes room for the next at once.

Every image has its own clock, noise and memory, so that its result does not depend on what shares its batch: not on the
batch size, and not on the other images' failures. The calls that a step rule saves become time for those that wait.
"""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor
from tqdm import tqdm

from leader_nb.errors import Diverged, InputError, kind_of, one_line
from leader_nb.loop import (
    Covariance,
    Equivariance,
    Modulate,
    Result,
    Run,
    State,
    StepRule,
    check_images,
    check_method,
    check_plugins,
    clock_of,
)
from leader_nb.noise import noise_for
from leader_nb.priors import Meter, Prior
from leader_nb.problem import Problem
from leader_nb.samplers.base import Sampler
from leader_nb.steps import Uniform
from leader_nb.tree import Tree, joined, rows

BROKEN = 100  # times that a source may raise the same words running, before it is taken for broken


def restore_many(
    problems: Problem | Iterable[Problem],
    prior: Prior,
    sampler: Sampler,
    *,
    batch: int = 8,
    seed: int = 0,
    ids: Sequence[int] | None = None,
    progress: bool | None = None,
    grid: int | Sequence[int] = 100,
    covariance: Covariance | None = None,
    modulate: Modulate | None = None,
    steps: StepRule | None = None,
    equivariance: Equivariance | None = None,
) -> Iterator[Result]:
    """One `Result` for each image of the queue, as it ends: `number` is its place in the queue, `image` (1, C, H, W).

    `problems` is read as room appears for `batch` images; a problem of several images counts as several, and may come alone.
    Image n has the noise of (seed, ids[n]), or (seed, n), and the result that `restore` gives it alone with that noise. Images
    that cannot share a batch, being of another size or operator, wait until those before them are done.
    A failure stops one image only and is the `error` of its result: `Diverged` for a NaN, with step and time, or another
    `InputError`; what else prior, operator or `problems` raise is its `__cause__`. A `map` goes on after it has raised. A
    generator ends: the images that it gave are restored, and the last result says that the others are not known.
    `progress`: a bar on stderr, by default where a person watches. The other keywords are those of `trajectory`.
    """
    if not isinstance(batch, Integral) or batch < 1:
        raise InputError(f"batch: got {kind_of(batch)}; give the number of images to restore at a time, at least 1")
    problems = (problems,) if isinstance(problems, Problem) else problems
    walked = hasattr(problems, "__iter__") or hasattr(problems, "__getitem__")  # a data set may have the second alone
    if isinstance(problems, (str, Tensor, type)) or not walked:
        raise InputError(f"problems: got {kind_of(problems)}; give a Problem, or several in a list, a generator or a map")
    check_method(prior, sampler)
    steps = Uniform() if steps is None else steps
    check_plugins(covariance, modulate, steps, sampler)
    method = _Method(prior, sampler, clock_of(grid, prior, sampler), covariance, modulate, steps, equivariance, seed, ids)
    return _watched(_results(_arrivals(problems), method, batch), _count(problems), progress)


@dataclass(frozen=True, eq=False)
class _Method:
    """How every image is restored."""

    prior: Prior
    sampler: Sampler
    clock: Tensor
    covariance: Covariance | None
    modulate: Modulate | None
    steps: StepRule
    equivariance: Equivariance | None
    seed: int
    ids: Sequence[int] | None

    def begin(self, number: int, problem: Problem) -> _Batch:
        """A batch of one image, before its first turn. Raises `InputError` for an image that cannot be restored."""
        if self.ids is not None and number >= len(self.ids):
            raise InputError(f"ids: there are {len(self.ids)}, and none for image {number}; give one for each image")
        noise = noise_for(1, self.seed, [number if self.ids is None else self.ids[number]])
        check_images(problem, self.prior, noise)
        prior = self.prior.metered(Meter.of(1))
        plugins = self.covariance, self.modulate, self.steps, self.equivariance
        run = Run(problem, prior, self.sampler, self.clock, noise, *plugins)
        return _Batch(run, *run.start(), (_Place(number, time.perf_counter(), ()),))


@dataclass(frozen=True)
class _Place:
    """An image on its way: its number in the queue, when it began (seconds), and the raw times it has visited."""

    number: int
    begun: float
    times: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Batch:
    """The images that are being restored, none of them done; row i of every tensor belongs to places[i]."""

    run: Run
    state: Tree
    parts: dict[str, Tree]
    places: tuple[_Place, ...]

    @property
    def meter(self) -> Meter:
        assert self.run.prior.meter is not None  # _Method.begin gives it one
        return self.run.prior.meter

    def rows(self, index: Tensor) -> _Batch:
        """Some of the images, with a tally of their own."""
        meter = Meter(self.meter.nfe[index], self.meter.backward[index])
        run = self.run.rows(index)
        run = replace(run, prior=run.prior.metered(meter))
        parts = {name: rows(part, index) for name, part in self.parts.items()}
        return _Batch(run, rows(self.state, index), parts, tuple(self.places[i] for i in index.tolist()))

    def joined(self, other: _Batch) -> _Batch:
        """The images of both, in order."""
        counts = len(self.places), len(other.places)
        meter = Meter(*(torch.cat([getattr(b.meter, name) for b in (self, other)]) for name in ("nfe", "backward")))
        noise = replace(self.run.noise, ids=self.run.noise.ids + other.run.noise.ids)
        problem, prior = self.run.problem.joined(other.run.problem), self.run.prior.metered(meter)
        parts = {name: joined(part, other.parts[name], counts) for name, part in self.parts.items()}
        run = replace(self.run, problem=problem, prior=prior, noise=noise)
        return _Batch(run, joined(self.state, other.state, counts), parts, self.places + other.places)

    def advance(self) -> tuple[list[Result], _Batch | None]:
        """One turn for every image: the results of those that are done, and the batch of the others."""
        tally = self.meter.nfe.clone(), self.meter.backward.clone()
        numbers = torch.tensor([place.number for place in self.places])
        try:
            turn, state, parts = self.run.turn(numbers, self.state, self.parts)
        except Exception as error:
            self.meter.nfe[:], self.meter.backward[:] = tally
            failed = [self._given_up(error)] if len(self.places) == 1 else []
        else:
            return self._moved(turn, state, parts)
        # The error is gone by now, and with it the tensors of the turn that failed: memory may have been why.
        return (failed, None) if failed else self._one_by_one()

    def _moved(self, turn: State, state: Tree, parts: dict[str, Tree]) -> tuple[list[Result], _Batch | None]:
        """After a turn: the results of those that are done, and the batch of the others."""
        times = turn.t.tolist()
        places = tuple(replace(p, times=(*p.times, t)) for p, t in zip(self.places, times, strict=True))
        after, done = replace(self, state=state, parts=parts, places=places), state["k"] <= 0
        ended = [after._result(i, turn) for i in done.nonzero().flatten().tolist()]
        left = (~done).nonzero().flatten()
        return ended, (after if not ended else after.rows(left) if len(left) else None)

    def _one_by_one(self) -> tuple[list[Result], _Batch | None]:
        """The same turn image by image, to find those that the complaint is about."""
        ended, left = [], None
        for i in range(len(self.places)):
            results, rest = self.rows(torch.tensor([i])).advance()
            ended += results
            left = rest if left is None else left if rest is None else left.joined(rest)
        return ended, left

    def _given_up(self, error: Exception) -> Result:
        """The result of the only image, which raised `error`.

        Its traceback stays, without the variables in it: they may hold a network's activations.
        """
        traceback.clear_frames(error.__traceback__)
        place, shape = self.places[0], self.run.problem.operator.image_shape
        blank = self.state["x"].new_full((1, *shape), torch.nan)
        return _failed(place.number, _said(place.number, error), blank, self.meter, place)

    def _result(self, i: int, turn: State) -> Result:
        """What became of image i, which is done."""
        place, row = self.places[i], slice(i, i + 1)
        failures = tuple(failure for failure in turn.failures if failure.image == place.number)
        return Result(
            self.state["x"][row].clone(),
            None if turn.cov is None else turn.cov[row].clone(),
            self.meter.nfe[row].clone(),
            self.meter.backward[row].clone(),
            time.perf_counter() - place.begun,
            (place.times,),
            place.number,
            Diverged(failures) if failures else None,
        )


def _failed(number: int, error: InputError, image: Tensor, meter: Meter | None = None, place: _Place | None = None) -> Result:
    """The result of an image that came to nothing."""
    meter, seconds = meter or Meter.of(1), time.perf_counter() - place.begun if place else 0.0
    return Result(image, None, meter.nfe, meter.backward, seconds, (place.times if place else (),), number, error)


def _said(number: int, error: Exception) -> InputError:
    """What image `number` has for an error: an `InputError` as it is, another one with its kind, and as the cause."""
    if isinstance(error, InputError):
        return error
    said = InputError(f"image {number}: {type(error).__name__}: {one_line(error)}")
    said.__cause__ = error
    return said


class _SourceEnded(InputError):
    """Why the images from here on are not known."""


Arrival = tuple[int, Problem | InputError]


def _arrivals(problems: Iterable[Problem]) -> Iterator[Arrival]:
    """(number, problem of one image), or (number, why there is none)."""
    source, number, last, again = iter(problems), 0, "", 0
    while True:
        try:
            problem = next(source)
            if not isinstance(problem, Problem):
                raise InputError(f"problems: item {number} is of type {type(problem).__name__}; give a Problem")
        except StopIteration:
            return
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            last, again = words, again + 1 if words == last else 1
            if reason := _ends(source, again):
                yield number, _ended_early(number, error, reason)
                return
            yield number, _said(number, error)
            number += 1
            continue
        last, again = "", 0
        for i in range(len(problem)):
            try:
                yield number, problem.rows(torch.tensor([i]))
            except Exception as error:  # from `rows`: what becomes of an image is not thrown in here
                yield number, _said(number, error)
            number += 1


def _ends(source: Iterator[Problem], again: int) -> str:
    """Why a source that has just raised, `again` times the same, is not asked again; nothing where it is."""
    if inspect.isgenerator(source) and inspect.getgeneratorstate(source) == inspect.GEN_CLOSED:
        return "a generator ends where it raises; a list or a map goes on"
    return f"it has raised the same {BROKEN} times running" if again >= BROKEN else ""


def _ended_early(number: int, error: Exception, reason: str) -> _SourceEnded:
    more = f"the source ended early here, and this image and those after it are not known ({reason})"
    ended = _SourceEnded(f"{_said(number, error)}; {more}")
    ended.__cause__ = error
    return ended


def _results(arrivals: Iterator[Arrival], method: _Method, size: int) -> Iterator[Result]:
    """Keeps up to `size` images running; whoever ends makes room for the next before the next turn."""
    running: _Batch | None = None
    first = next(arrivals, None)
    while first is not None or running is not None:
        while first is not None and (running is None or len(running.places) < size):
            number, problem = first
            if isinstance(problem, _SourceEnded) and running is not None:
                break  # it has the last word
            try:
                if isinstance(problem, InputError):
                    raise problem
                if running is not None and not running.run.problem.fits(problem):
                    break
                entered = method.begin(number, problem)
                running = entered if running is None else running.joined(entered)
            except Exception as error:
                yield _failed(number, _said(number, error), _blank(problem))
            first = next(arrivals, None)
        if running is not None:
            ended, running = running.advance()
            yield from ended


def _count(problems: Iterable[Problem]) -> int | None:
    """How many images there are, where that can be known without reading them."""
    if not isinstance(problems, Sequence):
        return None
    return sum(len(p) if isinstance(p, Problem) else 1 for p in problems)


def _blank(problem: Problem | InputError) -> Tensor:
    """NaN in the shape of the image, or no image where its shape is not known."""
    if isinstance(problem, Problem):
        return problem.y.new_full((1, *problem.operator.image_shape), torch.nan)
    return torch.empty(0, 3, 0, 0)


def _watched(results: Iterator[Result], total: int | None, progress: bool | None) -> Iterator[Result]:
    """The results, with a bar that counts them and their failures."""
    failed, disable = 0, None if progress is None else not progress
    with tqdm(total=total, unit="image", disable=disable, leave=False) as bar:
        for result in results:
            failed += result.error is not None
            bar.set_postfix(failed=failed, refresh=False) if failed else None
            bar.update()
            yield result
