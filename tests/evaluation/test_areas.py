import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from medcnn.errors import InputError
from medcnn.evaluation import bootstrap
from medcnn.evaluation.areas import (
    _partial_area,
    _partial_influence,
    average_precision,
    average_precision_interval,
    boyd_limits,
    mcclish_corrected,
    partial_auroc,
    partial_auroc_intervals,
    precision_influence,
    resampled_precision,
)
from medcnn.evaluation.curves import rank_rows
from medcnn.evaluation.placements import auroc


def sample(n: int = 300, seed: int = 0, decimals: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    return y, np.round(rng.normal(size=n) + 1.2 * y, decimals), rng.integers(0, n // 3, n)


@given(st.integers(0, 50), st.floats(0.01, 1), st.sampled_from([0, 1, 6]))
@settings(max_examples=60, deadline=None)
def test_corrected_area_is_scikit_learns_at_any_false_positive_rate(seed: int, max_fpr: float, decimals: int) -> None:
    y, s, _ = sample(80, seed, decimals)
    area = partial_auroc(y, s, 1 - max_fpr, 1.0)
    expected = roc_auc_score(y, s, max_fpr=max_fpr)
    corrected = mcclish_corrected(area, 1 - max_fpr, 1.0)
    assert (corrected is None and expected < 0.5) or corrected == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 30), st.tuples(st.floats(0, 1), st.floats(0, 1)), st.sampled_from(["specificity", "sensitivity"]))
@settings(max_examples=60, deadline=None)
def test_area_of_any_range_is_the_integral_of_the_interpolated_curve(seed: int, ends: tuple[float, float], focus: str) -> None:
    low, high = sorted(ends)
    if high - low < 1e-3:
        return
    y, s, _ = sample(60, seed)
    fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
    grid = np.linspace(low, high, 20_001)
    nudge = 1e-12 * np.arange(len(fpr))  # np.interp needs rising abscissae
    height = np.interp(1 - grid, fpr + nudge, tpr) if focus == "specificity" else np.interp(grid, tpr + nudge, 1 - fpr)
    assert partial_auroc(y, s, low, high, focus) == pytest.approx(np.trapezoid(height, grid), abs=1e-4)


def test_parts_add_up_to_the_whole() -> None:
    y, s, _ = sample()
    for focus in ("specificity", "sensitivity"):
        parts = [partial_auroc(y, s, low, high, focus) for low, high in ((0, 0.3), (0.3, 0.85), (0.85, 1))]
        assert sum(parts) == pytest.approx(auroc(y, s), abs=1e-14)
        assert partial_auroc(y, s, 0, 1, focus) == pytest.approx(auroc(y, s), abs=1e-14)


def test_correction_puts_chance_at_a_half_and_perfection_at_one() -> None:
    for low, high in ((0.9, 1.0), (0.2, 0.7)):
        chance = (high - low) * (1 - (low + high) / 2)
        assert mcclish_corrected(chance, low, high) == pytest.approx(0.5)
        assert mcclish_corrected(high - low, low, high) == pytest.approx(1.0)
        assert mcclish_corrected(chance - 1e-6, low, high) is None


@pytest.mark.parametrize(
    "wrong",
    [(0.5, 0.5, "specificity"), (0.9, 0.8, "specificity"), (-0.1, 1, "specificity"), (0.9, 1.1, "sensitivity"), (0, 1, "precision")],
)
def test_ranges_that_mean_nothing_are_refused(wrong: tuple[float, float, str]) -> None:
    with pytest.raises(InputError, match="partial AUROC"):
        partial_auroc([0, 1], [0, 1], *wrong)


def test_average_precision_is_scikit_learns() -> None:
    for decimals in (0, 1, 9):
        y, s, _ = sample(decimals=decimals)
        assert average_precision(y, s) == pytest.approx(average_precision_score(y, s), abs=1e-14)
    assert average_precision([0, 1, 0, 1], [1, 1, 1, 1]) == 0.5


# ---------------------------------------------------------------- influence: the derivative by a row's weight


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_influences_are_numerical_derivatives(decimals: int) -> None:
    y, s, _ = sample(120, 1, decimals)
    ranking, weights = rank_rows(y, s), np.ones(120)
    of_area, of_precision = _partial_influence(ranking, ranking.curve(), 0.05, 0.4), precision_influence(y, s)
    assert abs(of_area.sum()) < 1e-12
    assert abs(of_precision.sum()) < 1e-12
    precision = resampled_precision(y, s)
    for row in range(0, 120, 7):
        moved = [weights + sign * 1e-6 * (np.arange(120) == row) for sign in (1, -1)]
        up, down = (_partial_area(ranking.curve(w), 0.05, 0.4) for w in moved)
        assert of_area[row] == pytest.approx((up - down) / 2e-6, abs=1e-7)
        assert of_precision[row] == pytest.approx((precision(moved[0]) - precision(moved[1])) / 2e-6, abs=1e-7)


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("clustered", [False, True])
def test_linearised_intervals_agree_with_the_bootstrap(clustered: bool) -> None:
    y, s, patient = sample(1500, 2, 9)
    who = patient if clustered else None
    for booted, analytic in zip(
        (average_precision_interval(y, s, who, n_resamples=800), partial_auroc_intervals(y, s, who, low=0.7, high=1, n_resamples=800)[0]),
        (average_precision_interval(y, s, who, n_resamples=0), partial_auroc_intervals(y, s, who, low=0.7, high=1, n_resamples=0)[0]),
        strict=True,
    ):
        assert (booted.method, analytic.method) == ("bootstrap", "linearised")
        assert analytic.se == pytest.approx(booted.se, rel=0.12)
        np.testing.assert_allclose((analytic.low, analytic.high), (booted.low, booted.high), atol=0.35 * booted.se)


def test_beyond_the_budget_the_linearised_interval_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    y, s, _ = sample()
    monkeypatch.setattr(bootstrap, "BUDGET", 1)
    assert average_precision_interval(y, s).method == "linearised"
    assert partial_auroc_intervals(y, s, low=0.9, high=1)[0].method == "linearised"


def test_intervals_are_of_the_value_and_name_the_prevalence() -> None:
    y, s, _ = sample()
    found = average_precision_interval(y, s, n_resamples=200)
    assert found.low < found.value < found.high
    assert found.note == f"prevalence {y.mean():.4g}"
    raw, corrected = partial_auroc_intervals(y, s, low=0.8, high=1, focus="sensitivity", n_resamples=200)
    assert raw.value == partial_auroc(y, s, 0.8, 1, "sensitivity")
    assert corrected.value == mcclish_corrected(raw.value, 0.8, 1)
    assert corrected.low == pytest.approx((1 + (raw.low - 0.02) / 0.18) / 2)
    assert corrected.low < corrected.value < corrected.high


def test_corrected_area_below_the_diagonal_is_not_defined() -> None:
    y, s, _ = sample()
    raw, corrected = partial_auroc_intervals(y, -s, low=0.9, high=1, n_resamples=50)
    assert raw.value is not None
    assert corrected.value is None
    assert "below the diagonal" in corrected.note


def test_one_class_is_not_estimable() -> None:
    for found in (average_precision_interval([1, 1], [1, 2]), *partial_auroc_intervals([0, 0], [1, 2], low=0.9, high=1)):
        assert found.value is None
        assert "not estimable" in found.note


def test_perfect_scores_have_a_value_and_no_made_up_interval() -> None:
    for n_resamples in (100, 0):
        found = average_precision_interval([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6], n_resamples=n_resamples)
        assert (found.value, found.low, found.high) == (1.0, None, None)
        assert "no interval" in found.note


def test_boyd_limits() -> None:
    low, high = boyd_limits(0.6, 50)
    assert math.log(high / (1 - high)) - math.log(low / (1 - low)) == pytest.approx(2 * 1.959963984540054 / math.sqrt(50 * 0.24))
    assert all(math.isnan(limit) for limit in boyd_limits(1.0, 10))
