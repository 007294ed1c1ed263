"""How numbers are written: each line is what a reader should see."""

import math

import pytest

from medcnn.report import numbers
from medcnn.tables import Comparison, Record


def record(metric: str, value: float | None, low: float | None = None, high: float | None = None) -> Record:
    return Record(metric=metric, label="x", value=value, low=low, high=high)


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (record("auroc", 0.95, 0.93, 0.9704), "0.950 (0.930 to 0.970)"),
        (record("auroc", 1.0), "1.000"),
        (record("auroc", None), "not estimable"),
        (record("auroc", math.nan, 0.1, 0.2), "not estimable"),
        (record("sensitivity", 0.9461, 0.919, 0.965), "94.6% (91.9% to 96.5%)"),
        (record("calibration_intercept", -0.031, -0.2, 0.14), "−0.03 (−0.20 to 0.14)"),
        (record("calibration_intercept", -0.001, -0.2, 0.2), "0.00 (−0.20 to 0.20)"),
        (record("oe_ratio", 1.026, 0.9, 1.1), "1.03 (0.90 to 1.10)"),
        (record("something_new", 0.5, 0.4, 0.6), "0.500 (0.400 to 0.600)"),
        (record("log_loss", math.inf), "not estimable"),
    ],
)
def test_estimates(made: Record, shown: str) -> None:
    assert numbers.estimate(made) == shown


def test_an_unknown_record_is_not_estimable() -> None:
    assert numbers.estimate(None) == "not estimable"


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (0.012, -0.003, 0.027, "+0.012 (−0.003 to 0.027)"),
        (-0.02, -0.03, -0.01, "−0.020 (−0.030 to −0.010)"),
        (0.0, None, None, "0.000"),
        (None, None, None, "not estimable"),
    ],
)
def test_differences_carry_their_sign(value: float | None, low: float | None, high: float | None, shown: str) -> None:
    assert numbers.difference(Comparison(metric="auroc", label="x", a="a", b="b", difference=value, low=low, high=high)) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0004, "<0.001"), (0.001, "0.001"), (0.0312, "0.031"), (1.0, "1.000"), (None, "–"), (math.nan, "–")]
)
def test_p_values(value: float | None, shown: str) -> None:
    assert numbers.p_value(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.5"),
        (0.3714, "0.371"),
        (0.00421, "0.00421"),
        (0.0, "0"),
        (1.0, "1"),
        (math.nextafter(1.0, 2.0), "above 1"),
        (3e-9, "3e-09"),
        (None, "–"),
    ],
)
def test_thresholds(value: float | None, shown: str) -> None:
    assert numbers.threshold(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(102_082, "102 thousand"), (4_652_008, "4.65 million"), (4e8, "400 million"), (12, "12"), (None, "–")]
)
def test_large_numbers(value: float | None, shown: str) -> None:
    assert numbers.compact(value) == shown


def test_large_numbers_on_an_axis() -> None:
    assert [numbers.compact(value, short=True) for value in (1e4, 1e6, 1e9)] == ["10k", "1M", "1G"]


@pytest.mark.parametrize(("value", "shown"), [(3.14, "3.1 s"), (95.2, "1 min 35 s"), (59.7, "1 min 0 s"), (7325, "2 h 2 min"), (None, "–")])
def test_durations(value: float | None, shown: str) -> None:
    assert numbers.duration(value) == shown


def test_dates() -> None:
    assert numbers.date("2025-11-22T18:05:00+0000") == "22 Nov 2025, 18:05"
    assert numbers.date("yesterday") == "yesterday"
    assert numbers.date(None) == ""


def test_words() -> None:
    assert numbers.join_words(["a"]) == "a"
    assert numbers.join_words(["a", "b", "c"]) == "a, b and c"
    assert numbers.plural(1, "study", "studies") == "1 study"
    assert numbers.plural(2200, "study", "studies") == "2,200 studies"
    assert numbers.share(369, 390) == "369/390 (94.6%)"
    assert numbers.method_title("delong_non_inferiority") == "non-inferiority, DeLong"
