"""The benchmarks of the maps: their measures against closed forms, and their committed tables against their makers."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from torch import Tensor

from laws import close, generator, normal
from leader_nb import GaussianMixture, Problem, image_mixture, parse_task
from leader_nb.covariance import Isotropic, ScoreSquared
from leader_nb.covariance.pyramid import analyse, pixels
from leader_nb.operators.pixelwise import Mask
from leader_nb.schedule import uniform_grid

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def script(name: str) -> ModuleType:
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def calibration() -> ModuleType:
    return script("calibration")


@pytest.fixture(scope="module")
def estimators() -> ModuleType:
    return script("estimators")


# --- measures ------------------------------------------------------------------------------------------------------


def world(calibration: ModuleType, scale: float = 1.0, shape: tuple[int, ...] = (3, 3, 64, 64)):
    """A prediction `scale` times too large, in a world where errors are normal with a variance that is known."""
    variance = torch.exp(2 * normal(*shape, seed=1)) / 100
    squared = variance * normal(*shape, seed=2) ** 2
    return calibration.Prediction(scale * variance, squared, torch.ones(shape[0], *shape[2:], dtype=torch.bool))


def test_rank_correlation_is_spearmans(calibration: ModuleType) -> None:
    a = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert calibration.spearman(a, a.exp()) == pytest.approx(1)
    assert calibration.spearman(a, -(a**3)) == pytest.approx(-1)
    assert calibration.spearman(a, torch.tensor([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert calibration.spearman(a, torch.tensor([1.0, 1.0, 2.0, 2.0])) == pytest.approx(2 / 5**0.5)  # ties share a rank
    assert calibration.spearman(a, torch.ones(4)) == 0


@pytest.mark.parametrize("scale", [1.0, 0.25, 4.0])
def test_a_true_map_covers_what_it_says(calibration: ModuleType, scale: float) -> None:
    """Errors drawn from the map: 90 % inside, factor 1 / scale, the ranks the same at any scale."""
    p = world(calibration, scale)
    assert p.factor() == pytest.approx(1 / scale, rel=0.1)
    assert torch.tensor(p.coverage(1 / scale)).mean().item() == pytest.approx(0.9, abs=0.01)
    share = torch.erf(torch.tensor(1.6449 * scale**0.5 / 2**0.5)).item()
    assert torch.tensor(p.coverage(1.0)).mean().item() == pytest.approx(share, abs=0.01)
    assert p.ranks() == pytest.approx(world(calibration).ranks()) and min(p.ranks()) > 0.4


def test_no_scale_and_no_shape_scores_better_than_the_truth(calibration: ModuleType) -> None:
    """The interval score of the true variances is below that of half, of twice, of a flat map; and known for one normal."""
    p = world(calibration)
    best = sum(p.scores(1.0))
    flat = calibration.Prediction(p.variance.mean((1, 2, 3), keepdim=True).expand_as(p.variance), p.squared, p.open)
    assert best < min(sum(p.scores(0.5)), sum(p.scores(2.0)), sum(flat.scores(1.0)))
    one = calibration.Prediction(torch.full((2, 3, 64, 64), 0.25), 0.25 * normal(2, 3, 64, 64) ** 2, p.open[:2])
    excess = 2 * 0.5 * (0.10313 - 1.6449 * 0.05)  # 2 E(|z| - q)+ / 2 = phi(q) - q (1 - Phi(q)) on either side
    assert one.scores(1.0)[0] == pytest.approx(2 * 1.6449 * 0.5 + 20 * excess, rel=0.02)
    row = calibration.row_of(p, p, flat.scores(1.0))
    assert row["gain"] == pytest.approx(1 - sum(p.scores(p.factor())) / sum(flat.scores(1.0))) and row["gain_low"] > 0


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_map_of_another_contrast_is_bent_back(calibration: ModuleType, power: float) -> None:
    """From variance^(1 / power) the law finds the power; bent, the map has the coverage and nearly the score of the truth."""
    p = world(calibration, shape=(3, 1, 64, 64))  # the law is fitted to means over channels
    faded = calibration.Prediction(3 * p.variance ** (1 / power), p.squared, p.open)
    found, factor = faded.law()
    assert found == pytest.approx(power, rel=0.15)
    bent = faded.bent(found, factor)
    assert sum(bent.scores(1.0)) < 1.06 * sum(p.scores(1.0))
    assert torch.tensor(bent.coverage(1.0)).mean().item() == pytest.approx(0.9, abs=0.05)
    if power != 1:
        assert sum(faded.scores(faded.factor())) > 1.05 * sum(bent.scores(1.0))


def test_settled_pixels_do_not_count(calibration: ModuleType) -> None:
    """Where the measurement settles a pixel its error, whatever it is, changes no measure."""
    p = world(calibration)
    keep = normal(3, 64, 64, seed=3) > 0
    spoiled = torch.where(keep[:, None], p.squared, 1e6)
    one, two = (calibration.Prediction(p.variance, squared, keep) for squared in (p.squared, spoiled))
    assert one.factor() == two.factor() and one.ranks() == two.ranks() and one.coverage(2.0) == two.coverage(2.0)


def test_reliability_bins_of_a_true_map_lie_on_the_diagonal(calibration: ModuleType) -> None:
    p = world(calibration, 0.5)
    rows = pd.DataFrame(calibration.bins_of(p, 2.0))
    assert rows["pixels"].sum() == 3 * 64**2 and len(rows) == 10
    assert (rows["measured"] / rows["predicted"]).between(0.8, 1.25).all()
    assert (rows["low"] <= rows["measured"]).all() and (rows["measured"] <= rows["high"]).all()
    assert rows["predicted"].is_monotonic_increasing
    flat = calibration.Prediction(torch.ones_like(p.variance), p.squared, p.open)
    assert len(calibration.bins_of(flat, 1.0)) == 1


@pytest.mark.parametrize(("task", "exact"), [("inpaint70@0", True), ("denoise@0.1", True), ("gaussian@0.05", False)])
def test_what_the_measurement_leaves_open(calibration: ModuleType, task: str, exact: bool) -> None:
    """diag of w I - w A^T (w A A^T + sigma_y^2 I)^-1 A w, in share of w, by dense algebra; its mean for blurs."""
    w, shape = 0.3, (1, 8, 8)
    problem = parse_task(task).measure(normal(1, *shape).clamp(-1, 1))
    A = dense(problem)
    noise = problem.sigma_y.item() ** 2
    inner = torch.linalg.pinv(w * A @ A.T + noise * torch.eye(len(A), dtype=A.dtype), hermitian=True)
    share = (1 - w * (A.T @ inner @ A).diagonal()).view(1, *shape)
    found = calibration.left_open(problem, torch.full((1, *shape), w, dtype=torch.float64))
    close(found, share if exact else share.mean().expand_as(found), task, 1e-9)
    assert isinstance(problem.operator, Mask) == exact


def dense(problem: Problem) -> Tensor:
    """A as a matrix."""
    size = problem.operator.image_shape
    unit = torch.eye(size[0] * size[1] * size[2], dtype=torch.float64).view(-1, *size)
    return torch.cat([problem.operator(image[None]).flatten(1) for image in unit]).T


def test_levels_are_chosen_by_rank_then_by_scale(calibration: ModuleType) -> None:
    good = world(calibration)
    poor = calibration.Prediction(good.variance * torch.exp(3 * normal(*good.variance.shape, seed=5)), good.squared, good.open)
    flat = [calibration.Prediction(torch.full_like(good.variance, v), good.squared, good.open) for v in (1.0, 0.07)]
    found = {("final", "map", 1.0): poor, ("final", "map", 0.3): good, ("final", "flat", 1.0): flat[0]}
    found |= {("final", "flat", 0.1): flat[1], ("x0", "map", 1.0): poor}
    assert calibration.chosen(found) == [("final", "map", 0.3), ("final", "flat", 0.1), ("x0", "map", 1.0)]


def test_a_watched_run_is_the_run(calibration: ModuleType, mixture: GaussianMixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """All targets come back, with the shapes and the open pixels they should have, and the calls are stated."""
    monkeypatch.setattr(calibration, "STEPS", 12)
    monkeypatch.setattr(calibration, "RUNS", 3)
    x = mixture.sample(2, generator(4)).clamp(-1, 1)
    free = {"flat": Isotropic(), "score": ScoreSquared()}
    found, quality = calibration.predictions("inpaint70@0", mixture.prior(), x, free, repeats=(12,))
    assert {(t, n) for t, n, _ in found} >= {
        ("final", "edges"),
        ("final", "repeat 3x12"),
        ("own", "repeat 3x12"),
        ("x0", "flat"),
    }
    for (target, _, _), p in found.items():
        assert p.variance.shape == p.squared.shape == x.shape
        assert p.open.double().mean().item() == pytest.approx(1.0 if target == "x0" else 0.7, abs=0.01)
    assert calibration.calls("flat", "final") == (12, 0) and calibration.calls("probes", "final")[0] == 13
    assert set(quality) == {"one run", "repeat 3x12"}


def test_probes_take_the_place_of_old_ones(calibration: ModuleType) -> None:
    """They stand at the end of their task; what else was made again is dropped, and other tasks stay."""
    old = [("a", "probes", 1), ("a", "E", 2), ("b", "probes", 3), ("b", "E", 4)]
    made = [("a", "probes", 5), ("a", "probes", 6), ("a", "E", 7)]
    tables = (pd.DataFrame(rows, columns=["task", "predictor", "rank"]) for rows in (old, made))
    found = calibration.with_probes(*tables).to_numpy().tolist()
    assert found == [["a", "E", 2], ["a", "probes", 5], ["a", "probes", 6], ["b", "probes", 3], ["b", "E", 4]]


def test_summary_of_the_estimators(estimators: ModuleType) -> None:
    """Medians over the tasks of DDNM with fresh noise, within 0.1 to 3, and the goals."""
    plain = {
        "prior": "p",
        "estimator": "E",
        "relative_error": 0.1,
        "negative": 0.0,
        "truth_negative": 0.0,
        "correlation_5x5": 0.9,
    }
    rows = [
        plain | {"host": host, "task": task, "sigma": sigma, "trace_ratio": ratio, "correlation_corrected": alike}
        for host, task, sigma, ratio, alike in (
            ("ddnm", "a", 1.0, 0.7, 0.6),
            ("ddnm", "b", 1.0, 1.0, 0.8),
            ("ddnm", "c", 1.0, 1.1, 0.75),
            ("ddnm", "none, eta 0", 1.0, 9.0, -1.0),
            ("ddnm", "a", 0.3, 1.3, 0.7),
            ("ddnm", "a", 5.0, 1.0, 1.0),
            ("idpg", "a", 1.0, 8.0, -1.0),
            ("idpg", "b", 1.0, 8.0, -1.0),
            ("idpg", "c", 1.0, 8.0, -1.0),
        )
    ]
    found = estimators.summary(pd.DataFrame(rows)).set_index("sigma")
    assert list(found.index) == [1.0, 0.3]
    assert found.loc[1.0, ["trace_ratio", "correlation_corrected"]].tolist() == [1.0, 0.75]
    assert found["level_met"].tolist() == [True, False] and found["shape_met"].tolist() == [True, False]
    assert found["shape_5x5_met"].all()


def test_block_means_and_blends(estimators: ModuleType) -> None:
    """Blocks forget single pixels; a blend is the geometric mean, and keeps two memories."""
    smooth = torch.nn.functional.interpolate(normal(2, 3, 8, 8), size=(40, 40)).exp()
    speckle = smooth * torch.exp(0.5 * normal(2, 3, 40, 40, seed=4))
    pixel = estimators.scores(speckle, smooth, torch.ones(2))
    assert pixel["correlation_5x5"] > 0.97 > pixel["correlation"] + 0.05
    assert estimators.coarse(torch.ones(2, 3, 40, 40), smooth) == 0
    small = smooth[..., :20, :20]
    assert math.isnan(estimators.coarse(small, small))

    class Const:
        def __init__(self, value: float) -> None:
            self.value = value

        def update(self, belief, injected, memory):
            return torch.full((1,), self.value * (memory.get("n", 0) + 1)), {"n": memory.get("n", 0) + 1}

    blend = estimators.Blend(Const(4.0), Const(9.0))
    cov, memory = blend.update(None, None, {})
    assert cov.item() == pytest.approx(6) and blend.update(None, None, memory)[0].item() == pytest.approx(12)


# --- committed tables ----------------------------------------------------------------------------------------------


def test_committed_summary_is_that_of_the_committed_rows(estimators: ModuleType) -> None:
    rows, said = (pd.read_csv(RESULTS / f"estimators{end}.csv") for end in ("", "_summary"))
    pd.testing.assert_frame_equal(estimators.summary(rows).round(4), said, check_exact=False, atol=2e-4)
    assert {"mixture 1x16x16", "mixture 3x8x8", "photo-small", "digits"} == set(rows["prior"])
    counts = rows.groupby("prior")["images"].unique()
    assert counts["mixture 1x16x16"].tolist() == [16] and counts["digits"].tolist() == [16]
    assert not rows.duplicated(["prior", "host", "task", "estimator", "sigma"]).any()


def test_committed_calibration_is_complete(calibration: ModuleType) -> None:
    table, bins = (pd.read_csv(RESULTS / f"calibration{end}.csv") for end in ("", "_bins"))
    assert set(table["task"]) == set(calibration.TASKS) and (table["photos"] == 23).all()
    for _, cell in table[table["target"] == "final"].groupby("task"):
        assert cell["predictor"].is_unique and {"running secant (E10)", "flat (E2)", "edges", "repeat 8x12"} <= set(
            cell["predictor"]
        )
    for name in ("rank", "coverage", "scaled_coverage"):
        assert (table[f"{name}_low"] <= table[name]).all() and (table[name] <= table[f"{name}_high"]).all()
    assert set(bins["predictor"]) == set(table.loc[table["target"] != "x0", "predictor"])


def test_cells_are_skipped_and_replaced(estimators: ModuleType) -> None:
    """A cell counts if it has all estimators on as many images; what is made again replaces its own rows, and no others."""
    key = {"prior": "p", "host": "h"}
    cells = (("a", 8, "E"), ("b", 16, "E"), ("b", 16, "F"))
    table = pd.DataFrame([key | {"task": task, "images": n, "estimator": e, "trace_ratio": 1.0} for task, n, e in cells])
    assert estimators.has(table, "p", "h", "b", 16, ["F", "E"]) and not estimators.has(table, "p", "h", "b", 16, ["E", "G"])
    empty = pd.DataFrame()
    assert not any(estimators.has(t, "p", "h", task, 16, ["E"]) for t, task in ((table, "a"), (table, "c"), (empty, "b")))
    made = pd.DataFrame([key | {"task": t, "images": 16, "estimator": "E", "trace_ratio": 2.0} for t in ("a", "b")])
    after = estimators.merged(table, made)
    columns = ["task", "images", "estimator", "trace_ratio"]
    assert after[columns].to_numpy().tolist() == [["b", 16, "F", 1.0], ["a", 16, "E", 2.0], ["b", 16, "E", 2.0]]
    other = made.assign(estimator="G")  # of other images than the old rows of a, of as many as those of b
    assert estimators.merged(table, other)[columns].to_numpy().tolist() == [
        ["b", 16, "E", 1.0],
        ["b", 16, "F", 1.0],
        ["a", 16, "G", 2.0],
        ["b", 16, "G", 2.0],
    ]
    assert estimators.merged(empty, made).equals(made)
    assert estimators.picked({"E": 1, "F": 2}, ["F"]) == {"F": 2} and estimators.picked({"E": 1}, None) == {"E": 1}


def test_finer_walks(estimators: ModuleType) -> None:
    """Four times the steps: the times are on their grid and nearer to the levels; four steps of memory forget what one did."""
    assert estimators.paced("ddpg") == ("ddpg", 100) and estimators.paced(estimators.FINER) == ("ddnm", 400)
    prior = image_mixture(8).prior()
    for steps in (100, 400):
        found = estimators.times(prior, steps=steps)
        assert found <= set(uniform_grid(steps, prior.schedule)) and len(found) == len(estimators.LEVELS)
        spacing = 1000 / steps
        gaps = [min(abs(prior.schedule.nearest_time(v) - t) for t in found) for v in estimators.LEVELS]
        assert max(gaps) <= spacing / 2 + 1
    usual, long = estimators.finer().values()
    assert long.keep**4 == pytest.approx(usual.keep) and long.keep_local**4 == pytest.approx(usual.keep_local)


def test_haar_probes_measure_the_slopes_of_coefficients(estimators: ModuleType) -> None:
    """Where the covariance is diagonal in the Haar basis one probe is exact; elsewhere many tend to diag H J H^T."""
    H = analyse(torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)).view(64, 64).T
    spread = torch.linspace(0.1, 2.0, 64, dtype=torch.float64)
    mixture = GaussianMixture(torch.zeros(1), torch.zeros(1, 64), H.T[None], spread[None], (1, 8, 8))
    belief = mixture.prior()(mixture.sample(2, generator(0)), torch.full((2,), 150))
    slope = (spread / (spread + belief.sigma[0].item() ** 2)).view(1, 1, 8, 8)
    found = estimators.HaarProbes(1).update(belief, None, {})[0]
    close(found, belief.sigma**2 * pixels(slope).expand_as(belief.x0), "one probe")
    mixed = image_mixture(8)
    belief = mixed.prior()(mixed.sample(1, generator(1)), torch.full((1,), 150))
    cov = mixed.covariance(belief.xbar[0], belief.sigma.reshape(()))
    exact = belief.sigma**2 * pixels((H @ cov @ H.T).diagonal().view(1, 1, 8, 8) / belief.sigma**2)
    found = estimators.HaarProbes(150).update(belief, None, {})[0]
    assert ((found - exact).square().mean() / exact.square().mean()).sqrt() < 0.08


def test_probes_and_exact_pixels_agree(estimators: ModuleType) -> None:
    """On a mixture: the sampled values are those of the exact map, and the probes scatter around it."""
    mixture = image_mixture(8)
    belief = mixture.prior()(mixture.sample(2, torch.Generator().manual_seed(0)), torch.full((2,), 150))
    exact, found = estimators.exact(mixture)(belief).diagonal, estimators.probed(256)(belief)
    there = exact.flatten(1).gather(1, found.places)
    torch.testing.assert_close(found.values, there)
    assert len(found.places[0].unique()) == estimators.PIXELS
    assert (found.diagonal.mean() / exact.mean()).item() == pytest.approx(1, abs=0.1)
    seen = estimators.sampled(2 * exact, found)
    assert seen["trace_ratio_pixels"] == pytest.approx(2) and seen["correlation_pixels"] == pytest.approx(1)
