"""The checks that notebooks make can fail, and say why."""

import pytest

from leader_nb.check import check, expect_fail, expect_pass


def test_a_claim_inside_its_band_prints_no_number(capsys):
    check("gain in dB", 1.2345, low=1)
    assert capsys.readouterr().out == "ok  gain in dB\n"


@pytest.mark.parametrize(("value", "band"), [(0.9, {"low": 1}), (3.0, {"high": 2}), (float("nan"), {"low": 0}), (False, {})])
def test_a_claim_outside_its_band_raises_with_value_and_band(value, band):
    with pytest.raises(AssertionError, match="gain"):
        check("gain", value, **band)


def test_a_claim_without_a_band_is_refused():
    with pytest.raises(ValueError, match="low, high"):
        check("gain", 1.0)


def _is_double(f):
    assert f(2) == 4


def test_stub_must_fail_and_solution_must_pass(capsys):
    def stub(x):
        raise NotImplementedError

    expect_fail(_is_double, stub)
    expect_pass(_is_double, lambda x: 2 * x)
    with pytest.raises(AssertionError, match="stub passes"):
        expect_fail(_is_double, lambda x: 2 * x)
    with pytest.raises(AssertionError):
        expect_pass(_is_double, lambda x: x)
