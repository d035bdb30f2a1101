"""The checks that notebooks make can fail, and say why."""

import re
import time

import IPython
import IPython.display
import numpy as np
import pytest
import torch

from leader_nb.check import check, expect_fail, expect_pass, page_footer


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would be sent: (data, metadata) of every output."""
    outputs = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", lambda data, metadata, raw: outputs.append((data, metadata)))
    return outputs


def test_a_claim_inside_its_band_prints_no_number(capsys):
    check("gain in dB", 1.2345, low=1)
    assert capsys.readouterr().out == "ok  gain in dB\n"


def test_in_a_notebook_the_number_and_its_band_go_into_the_metadata(shown):
    check("gain in dB", 1.25, low=1)
    band = {"claim": "gain in dB", "value": 1.25, "low": 1, "high": None}
    assert shown == [({"text/plain": "ok  gain in dB"}, {"check": band})]


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), torch.tensor([[True]])])
def test_every_kind_of_truth_will_do(shown, value):
    check("it holds", value)
    assert shown[0][1]["check"]["value"] == 1.0


@pytest.mark.parametrize("value", [np.float32(1.5), torch.tensor(1.5), torch.tensor([1.5])])
def test_every_kind_of_number_will_do(shown, value):
    check("half way", value, low=1, high=2)
    assert type(shown[0][1]["check"]["value"]) is float


@pytest.mark.parametrize(
    ("value", "band"),
    [(0.9, {"low": 1}), (3.0, {"high": 2}), (float("nan"), {"low": 0}), (False, {}), (torch.tensor(False), {})],
)
def test_a_claim_outside_its_band_raises(value, band):
    with pytest.raises(AssertionError, match="gain"):
        check("gain", value, **band)


def test_a_failure_names_value_and_band():
    with pytest.raises(AssertionError, match=re.escape("gain: got 0.5, expected between 1 and inf")):
        check("gain", 0.5, low=1)
    with pytest.raises(AssertionError, match="gain: got False, expected true"):
        check("gain", False)


def test_a_claim_without_a_band_is_refused():
    with pytest.raises(ValueError, match="low, high"):
        check("gain", 1.0)


def _is_double(f):
    assert f(2) == 4


def test_stub_must_fail_and_solution_must_pass(capsys):
    def stub(x):
        raise NotImplementedError

    expect_fail(_is_double, stub)
    expect_fail(_is_double, lambda x: None)
    expect_pass(_is_double, lambda x: 2 * x)
    assert capsys.readouterr().out.splitlines()[-1] == "ok  solved"
    with pytest.raises(AssertionError, match="stub passes"):
        expect_fail(_is_double, lambda x: 2 * x)
    with pytest.raises(AssertionError):
        expect_pass(_is_double, lambda x: x)


def test_a_fault_in_the_check_itself_is_not_taken_for_an_unsolved_stub():
    with pytest.raises(ZeroDivisionError):
        expect_fail(lambda f: 1 / 0, None)


def test_a_page_says_how_long_it_took_and_on_what(capsys):
    page_footer(time.perf_counter() - 12.2, "cpu")
    assert re.fullmatch(
        r"This page ran in 12 s on cpu \(\d+ threads?\), Python [\d.]+, PyTorch [\w.]+, \d\d \w+ \d{4}\.\n",
        capsys.readouterr().out,
    )
