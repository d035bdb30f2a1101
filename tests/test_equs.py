"""EquS and EquS+: what the network is shown, exact identities, and the plug-in on every host."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from laws import check_alone_as_in_a_batch, check_data_consistency, close, normal, same
from leader_nb import DDNM, SAMPLERS, Prediction, Prior, Schedule, host, noise_for, parse_task, restore
from leader_nb.covariance import RunningSecant
from leader_nb.equivariance import EquS, equs_plus, flip, mirrored, root_grid
from leader_nb.errors import InputError
from leader_nb.noise import keyed_normal
from leader_nb.priors import Meter
from leader_nb.samplers import DPS, SITCOM, Sampler
from leader_nb.steps import SATP
from leader_nb.ucpm import UCPM, HuberTV
from test_samplers import brief

LEADER = {"covariance": RunningSecant(), "modulate": UCPM(HuberTV(mu=1.0)), "steps": SATP(budget=0.05, longest=0.3)}


def fair(gives: str = "x0") -> Prior:
    """A prior that acts pixel by pixel, so it commutes with every flip, to the last bit."""

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        answer = torch.tanh(x_t) * schedule.abar(t, x_t)
        return Prediction(eps=answer) if gives == "eps" else Prediction(x0=answer)

    return Prior(predict, name="fair")


def slanted() -> Prior:
    """A prior that treats left and right differently: x0 = r tanh(x), with r a ramp to the right."""

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        ramp = torch.linspace(0.5, 1.5, x_t.shape[-1], dtype=x_t.dtype)
        return Prediction(x0=ramp * torch.tanh(x_t), variance=ramp * x_t)

    return Prior(predict, name="slanted")


def watched(prior: Prior, seen: list[Tensor]) -> Prior:
    """The same prior, writing down what it is shown."""

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        seen.append(x_t.detach().clone())
        return prior.predict(x_t, t, schedule)

    return replace(prior, predict=predict)


# --- The flip and the mirrored prior -------------------------------------------------------------------------------


def test_the_flip_is_an_involution_of_the_chosen_images() -> None:
    x, where = normal(4, 3, 5, 7), torch.tensor([True, False, True, False])
    same(flip(flip(x, where), where), x, "g g = 1")
    same(flip(x, where)[1::2], x[1::2], "left alone")
    same(flip(x, where)[0, :, :, 0], x[0, :, :, -1], "left and right exchanged")


def test_a_mirrored_prior_is_the_prior_between_two_flips() -> None:
    """eps = g eps(g x), x0 = g x0(g x), the variance head too; and twice mirrored is the prior."""
    x, t, where = normal(3, 3, 8, 8), torch.tensor([10, 500, 990]), torch.tensor([True, False, True])
    there = mirrored(slanted(), where)(x, t)
    plain, turned = slanted()(x, t), slanted()(x.flip(-1), t)
    assert there.variance is not None and plain.variance is not None and turned.variance is not None
    for name in ("x0", "variance"):
        same(getattr(there, name)[::2], getattr(turned, name).flip(-1)[::2], name)
        same(getattr(there, name)[1], getattr(plain, name)[1], name)
    close(there.eps[::2], turned.eps.flip(-1)[::2], "eps", 1e-12)
    back = mirrored(mirrored(slanted(), where), where)(x, t)
    same(back.x0, plain.x0, "twice")
    same(back.eps, plain.eps, "twice")


def test_the_gradient_goes_through_the_mirror(network: Prior) -> None:
    """vjp against central differences, for a mirrored and an unmirrored image."""
    x, v, t = normal(2, 3, 8, 8), normal(2, 3, 8, 8, seed=1), torch.tensor([300, 300])
    prior = mirrored(network, torch.tensor([True, False]))
    slope, step = prior(x, t, gradient=True).vjp(v), normal(2, 3, 8, 8, seed=2)
    h = 1e-5
    change = (prior(x + h * step, t).x0 - prior(x - h * step, t).x0) / (2 * h)
    close((slope * step).flatten(1).sum(1), (v * change).flatten(1).sum(1), "vjp", 1e-7)


def test_some_rows_of_a_mirrored_prior_keep_their_sides() -> None:
    """`rows` takes the flags along, and charges the images it stands for, however often it is taken."""
    x, t, where = normal(4, 3, 8, 8), torch.full((4,), 400), torch.tensor([True, False, False, True])
    meter = Meter.of(4)
    prior = mirrored(slanted().metered(meter), where)
    whole = mirrored(slanted(), where)(x, t)
    same(prior.rows(torch.tensor([3, 1]))(x[[3, 1]], t[:2]).x0, whole.x0[[3, 1]], "rows")
    same(prior.rows(torch.tensor([3, 1])).rows(torch.tensor([0]))(x[3:], t[:1]).x0, whole.x0[3:], "rows of rows")
    assert meter.nfe.tolist() == [0, 1, 0, 2]


# --- On the loop ---------------------------------------------------------------------------------------------------


def test_every_other_step_is_seen_in_the_mirror(samples: Tensor) -> None:
    """The first step is plain, the second mirrored, and so on."""
    problem, seen, states = parse_task("sr4@0").measure(samples[:2]), [], []
    restore(problem, watched(slanted(), seen), DDNM(), grid=6, equivariance=EquS(), on_state=states.append)
    for k, (shown, state) in enumerate(zip(seen, states, strict=True)):
        same(shown, state.belief.x_t.flip(-1) if k % 2 else state.belief.x_t, f"step {k}")


def test_each_image_counts_its_own_steps(exact: Prior, samples: Tensor) -> None:
    """Under SATP: image i is mirrored at its second, fourth, ... step, whatever the others do, alone as in the batch."""
    contrasts = samples * torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0]).double().view(-1, 1, 1, 1)
    problem, seen, states = parse_task("sr4@0.05").measure(contrasts), [], []
    sampler, options = host("ddnm", 0.05), {"grid": 12, "equivariance": EquS(), **LEADER}
    result = check_alone_as_in_a_batch(sampler, problem, exact, **options)
    assert len(set(result.times)) > 1, "every image went the same way: this tests nothing"
    restore(problem, watched(exact, seen), sampler, noise=noise_for(5, seed=3), on_state=states.append, **options)
    taken = torch.zeros(5, dtype=torch.long)
    for shown, state in zip(seen, states, strict=True):
        same(shown, flip(state.belief.x_t, taken[state.index] % 2 == 1), f"after {taken.tolist()} steps")
        taken[state.index] += 1
    assert taken.tolist() == result.nfe.tolist()


@pytest.mark.parametrize("gives", ["x0", "eps"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_with_a_prior_that_commutes_with_the_flip_it_is_the_host(name: str, gives: str, samples: Tensor) -> None:
    """Bit for bit and call for call, on every host, with LEADER too; the released variant is not."""
    sigma = 0.0 if name == "ddnm" else 0.05
    problem, sampler = parse_task(f"sr4@{sigma}").measure(samples[:2]), brief(host(name, sigma))
    for plugins in ({}, LEADER):
        plain, turned = (restore(problem, fair(gives), sampler, grid=5, equivariance=e, **plugins) for e in (None, EquS()))
        same(turned.image, plain.image, "the host")
        assert torch.equal(turned.nfe, plain.nfe) and torch.equal(turned.backward, plain.backward)


def test_the_released_variant_leaves_eps_in_the_mirror(samples: Tensor) -> None:
    """x0 is turned back and eps is not: no longer the host even where the prior commutes; unmirrored images are untouched."""
    problem = parse_task("sr4@0").measure(samples[:2])
    plain, released = (restore(problem, fair("eps"), DDNM(), grid=6, equivariance=e) for e in (None, EquS("released")))
    assert (plain.image - released.image).abs().max() > 1e-3
    x, t = normal(2, 3, 8, 8), torch.tensor([300, 300])
    for gives in ("x0", "eps"):
        ours, theirs = (mirrored(fair(gives), torch.tensor([True, False]), v)(x, t) for v in ("correct", "released"))
        unseen = fair(gives)(x, t)
        same(theirs.x0, ours.x0, "x0")
        close(theirs.eps[0], ours.eps[0].flip(-1), "eps of the mirrored image", 1e-12)
        same(theirs.eps[1], unseen.eps[1], "eps of the other")
        same(theirs.x0[1], unseen.x0[1], "x0 of the other")


@pytest.mark.parametrize("name", SAMPLERS)
def test_off_and_identity_are_the_host(name: str, exact: Prior, samples: Tensor) -> None:
    """equivariance=None, and a plug-in that leaves the prior alone, change no bit."""
    problem, sampler = parse_task("gaussian@0.05").measure(samples[:2]), brief(host(name, 0.05))
    plain = restore(problem, exact, sampler, grid=4)
    for plugin in (None, lambda prior, count: prior):
        same(restore(problem, exact, sampler, grid=4, equivariance=plugin).image, plain.image, "off")


@pytest.mark.parametrize("sampler", [DDNM(), DPS(), SITCOM(iterations=3), host("projdiff", 0.0)], ids=repr)
def test_it_changes_the_run_but_not_its_cost(sampler: Sampler, network: Prior, samples: Tensor) -> None:
    """A network that does not commute: another image, as many calls, and no image feels its batch."""
    problem, noise = parse_task("inpaint70@0").measure(samples[:3]), noise_for(3, seed=3)
    turned = check_alone_as_in_a_batch(sampler, problem, network, grid=4, equivariance=EquS())
    plain = restore(problem, network, sampler, grid=4, noise=noise)
    assert not torch.equal(turned.image, plain.image)
    assert torch.equal(turned.nfe, plain.nfe) and torch.equal(turned.backward, plain.backward)


def test_inner_calls_are_mirrored_too(network: Prior, samples: Tensor) -> None:
    """All of SITCOM's calls within a step look the same way, also after an image has left the inner loop."""
    problem = parse_task("inpaint70@0.05").measure(samples[:2])
    problem = replace(problem, sigma_y=torch.tensor([0.0, 9.0], dtype=torch.float64))  # the second agrees at once
    x, t, seen = normal(2, 3, 8, 8), torch.full((2,), 300), []
    plain = watched(network, seen)
    for prior, shown in ((plain, x), (mirrored(plain, torch.tensor([True, True])), x.flip(-1))):
        seen.clear()
        SITCOM(iterations=3, lr=1e-9).consistent(prior(x, t, True), problem)
        assert [len(call) for call in seen] == [2, 1, 1]
        for k, call in enumerate(seen):
            close(call, shown[: len(call)], f"call {k}", 1e-7)


@pytest.mark.parametrize("variant", ["correct", "released"])
def test_data_consistency_is_kept(variant: str, network: Prior, samples: Tensor) -> None:
    """A x0y = y at every step, on a noise-free projection host, in either variant, and on the grid of EquS+."""
    problem = parse_task("sr4@0").measure(samples[:2])
    check_data_consistency(DDNM(), problem, network, grid=6, equivariance=EquS(variant))
    check_data_consistency(DDNM(), problem, network, **equs_plus(8, variant))


def test_misspelt_variants_are_refused() -> None:
    for wrong in (lambda: EquS("relased"), lambda: root_grid(10, "relased"), lambda: equs_plus(10, "relased")):
        with pytest.raises(InputError, match="unknown variant 'relased': did you mean 'released'"):
            wrong()


# --- EquS+ ---------------------------------------------------------------------------------------------------------


def test_the_released_times() -> None:
    """floor((sqrt(999) (1 - j / 99))^2): 100 of them from 998, 97 different, three steps that stay at t = 0."""
    grid = root_grid(100, "released")
    assert grid[:4] == (998, 978, 959, 939) and grid[-10:] == (8, 6, 4, 3, 2, 1, 0, 0, 0, 0)
    assert len(grid) == 100 and len(set(grid)) == 97 and list(grid) == sorted(grid, reverse=True)


def test_our_times_fall_at_every_step() -> None:
    """From 999 to 0 for every T, and where the released ones do not run out of numbers, the same up to rounding."""
    for steps in (2, 3, 10, 50, 100, 500, 1000):
        grid = root_grid(steps)
        assert len(grid) == steps and grid[0] == 999 and grid[-1] == 0
        assert all(a > b for a, b in pairwise(grid)), f"T = {steps}"
    ours, theirs = root_grid(100), root_grid(100, "released")
    assert all(0 <= a - b <= 1 for a, b in zip(ours[:80], theirs[:80], strict=True))
    for steps in (0, 1, 1001):
        with pytest.raises(InputError, match=f"steps: got {steps}; give a whole number from 2 to 1000"):
            root_grid(steps)


def test_equs_plus_is_equs_on_its_grid(exact: Prior, samples: Tensor) -> None:
    problem = parse_task("sr4@0").measure(samples[:2])
    result = restore(problem, exact, DDNM(), **equs_plus(9))
    assert result.times == (root_grid(9),) * 2 and result.nfe.tolist() == [9, 9]
    same(restore(problem, exact, DDNM(), grid=root_grid(9), equivariance=EquS()).image, result.image, "the same thing")


def test_steps_that_stay_at_their_time_draw_afresh(exact: Prior, samples: Tensor) -> None:
    """Positions of the grid that share a time count their visits together, so that no draw is used twice."""
    problem, drawn = parse_task("sr4@0").measure(samples[:1]), []

    def source(key: tuple, shape: tuple[int, ...]) -> Tensor:
        drawn.append(key)
        return keyed_normal(key, shape)

    times = (600, 600, 300, 0, 0, 0)
    restore(problem, exact, DDNM(), grid=times, noise=replace(noise_for(1), source=source))
    assert len(drawn) == len(set(drawn)) == 7, "x_T and six steps"
    assert [key[4] for key in drawn if key[3] == 0] == [0, 1, 2] and [key[4] for key in drawn if key[3] == 600] == [0]
