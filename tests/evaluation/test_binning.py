import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve

from medcnn.evaluation.binning import (
    bin_calibration,
    calibration_error,
    grouped_points,
    noise_floor,
    smooth_calibration_error,
    smooth_error_at,
)
from medcnn.evaluation.intervals import proportion_interval


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = np.round(rng.beta(0.8, 2, 800), 3)
    return (rng.random(800) < expit(1.5 * np.log((p + 1e-6) / (1 - p + 1e-6)))).astype(float), p


@pytest.mark.parametrize(("strategy", "sklearn_strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_bins_closed_on_the_right_are_those_of_scikit_learn(
    rows: tuple[np.ndarray, np.ndarray], strategy: str, sklearn_strategy: str
) -> None:
    bins = bin_calibration(*rows, n_bins=12, strategy=strategy, closed="right")
    mean_y, mean_p = calibration_curve(*rows, n_bins=12, strategy=sklearn_strategy)
    np.testing.assert_allclose(bins.mean_y, mean_y, rtol=1e-12)
    np.testing.assert_allclose(bins.mean_p, mean_p, rtol=1e-12)


def test_ece_by_definition(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    total = 0.0
    for k in range(15):
        inside = (p >= k / 15) & ((p < (k + 1) / 15) | (k == 14))
        total += abs(np.sum(y[inside] - p[inside]))
    np.testing.assert_allclose(calibration_error(y, p).value, total / y.size, rtol=1e-12)


def test_an_edge_belongs_to_the_bin_above_and_no_row_is_lost() -> None:
    y, p = np.array([0, 1, 0, 1.0]), np.array([0.0, 0.5, 0.49, 1.0])
    left, right = (bin_calibration(y, p, n_bins=2, closed=closed) for closed in ("left", "right"))
    np.testing.assert_array_equal(left.n, [2, 2])
    np.testing.assert_array_equal(right.n, [3, 1])


def test_constant_probabilities_fill_one_bin() -> None:
    for strategy in ("width", "mass"):
        bins = bin_calibration(np.array([0, 1, 1.0]), np.full(3, 0.4), strategy=strategy)
        np.testing.assert_allclose([bins.ece, bins.mce, bins.n[0]], [2 / 3 - 0.4, 2 / 3 - 0.4, 3])


def test_noise_floor_is_the_mean_ece_of_a_calibrated_model() -> None:
    rng = np.random.default_rng(1)
    for n in (100, 30_000):
        p = rng.beta(1, 3, n)
        own = [bin_calibration((rng.random(n) < p).astype(float), p).ece for _ in range(200)]
        np.testing.assert_allclose(noise_floor(p), np.mean(own), rtol=0.06)


def test_noise_floor_does_not_depend_on_the_order_of_rows() -> None:
    p = np.random.default_rng(2).random(500)
    assert noise_floor(p, seed=4) == noise_floor(p[::-1], seed=4)


def test_bootstrap_interval_of_the_ece_has_the_spread_of_resampled_rows(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    rng = np.random.default_rng(3)
    own = [bin_calibration(y[draw], p[draw]).ece for draw in rng.integers(0, y.size, (1000, y.size))]
    estimate = calibration_error(y, p, n_resamples=2000)
    np.testing.assert_allclose([estimate.low, estimate.high], np.quantile(own, [0.025, 0.975]), atol=0.005)
    assert calibration_error(y, p).low is None


def test_grouped_points_are_deciles_with_wilson_limits(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    points = grouped_points(y, p)
    assert sum(point.n for point in points) == y.size
    lowest = p <= np.quantile(p, 0.1)
    share = proportion_interval(y[lowest])
    np.testing.assert_allclose([points[0].observed, points[0].low, points[0].high], [share.value, share.low, share.high])
    wider = grouped_points(np.repeat(y, 3), np.repeat(p, 3), np.repeat(np.arange(800), 3))
    assert wider[5].high - wider[5].low > 0.9 * (points[5].high - points[5].low)


def test_smooth_ece_by_its_definition() -> None:
    rng = np.random.default_rng(4)
    p = rng.random(60)
    y = (rng.random(60) < 0.3).astype(float)
    t, sigma = (np.arange(4000) + 0.5) / 4000, 0.08
    mirrored = [np.exp(-((t[:, None] - where) ** 2) / 2 / sigma**2) for where in [s * p + 2 * k for s in (1, -1) for k in (-1, 0, 1)]]
    kernel = sum(mirrored) / sigma / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(smooth_error_at(y, p, sigma), np.abs(kernel @ (p - y)).mean() / 60, rtol=1e-3)
    error, width = smooth_calibration_error(y, p)
    np.testing.assert_allclose(smooth_error_at(y, p, width), width, rtol=1e-6)
    assert error == pytest.approx(width, rel=1e-6)


def test_smooth_ece_of_perfect_certainty_is_nothing() -> None:
    error, _ = smooth_calibration_error(np.array([0, 1, 1.0]), np.array([0, 1, 1.0]))
    assert error < 1e-9
