import numpy as np
import pytest
from scipy.special import expit

from medcnn.evaluation.calibration_curve import (
    calibration_curve,
    curve_distances,
    integrated_calibration,
    merge_probabilities,
    why_no_curve,
)
from medcnn.evaluation.loess import fit_loess


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    lp = rng.normal(-0.5, 1.2, 400)
    return (rng.random(400) < expit(0.5 * lp)).astype(float), np.round(expit(lp), 4)


def test_distances_by_definition() -> None:
    y, p, fitted = np.array([0, 0, 1, 1.0]), np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.1, 0.3, 0.1, 0.8])
    found = curve_distances(y, p, fitted)
    np.testing.assert_allclose([found["ici"], found["e50"], found["e90"], found["emax"]], [0.175, 0.15, 0.34, 0.4])
    np.testing.assert_allclose([found["eci"], found["eci_100"]], [0.0525 / np.mean((0.5 - p) ** 2), 5.25])


def test_bootstrap_interval_has_the_spread_of_refitted_resamples(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    rng = np.random.default_rng(1)
    own = []
    for draw in rng.integers(0, y.size, (300, y.size)):
        fitted = fit_loess(p[draw], y[draw]).predict(p[draw])
        own.append(list(curve_distances(y[draw], p[draw], fitted).values())[:5])
    found = integrated_calibration(y, p, n_resamples=1000)
    # Vertices and bandwidths are held at the sample's: E90 and Emax, which live in the tail, may differ somewhat more.
    for column, (metric, tolerance) in enumerate([("ici", 0.012), ("e50", 0.012), ("e90", 0.02), ("emax", 0.035), ("eci", 0.05)]):
        estimate = found[metric]
        np.testing.assert_allclose([estimate.low, estimate.high], np.quantile(np.array(own)[:, column], [0.025, 0.975]), atol=tolerance)


def test_values_rest_on_every_row_and_name_the_surface(rows: tuple[np.ndarray, np.ndarray]) -> None:
    found = integrated_calibration(*rows)
    assert found["ici"].value == curve_distances(*rows, fit_loess(rows[1], rows[0]).predict(rows[1]))["ici"]
    assert found["ici"].low is None
    assert "interpolated surface" in found["ici"].note


def test_interval_widens_with_clusters(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = np.repeat(rows[0], 4), np.repeat(rows[1], 4)
    naive, clustered = (integrated_calibration(y, p, who, n_resamples=500)["ici"] for who in (None, np.repeat(np.arange(400), 4)))
    assert clustered.high - clustered.low > 1.4 * (naive.high - naive.low)
    band, wide = (calibration_curve(y, p, who) for who in (None, np.repeat(np.arange(400), 4)))
    assert np.median((wide.high - wide.low) / (band.high - band.low)) > 1.7


def test_band_covers_the_truth() -> None:
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(60):
        p = rng.random(600)
        curve = calibration_curve((rng.random(600) < 0.2 + 0.6 * p).astype(float), p)
        covered.append((curve.low <= 0.2 + 0.6 * curve.p) & (0.2 + 0.6 * curve.p <= curve.high))
    assert 0.92 < np.mean(covered) < 0.98


def test_curve_is_drawn_within_0_and_1_over_the_range_of_p(rows: tuple[np.ndarray, np.ndarray]) -> None:
    curve = calibration_curve(*rows, n_points=50)
    assert curve.p.size == 50
    assert (curve.p[0], curve.p[-1]) == (rows[1].min(), rows[1].max())
    assert curve.low.min() >= 0
    assert curve.high.max() <= 1


@pytest.mark.parametrize(
    ("y", "p", "why"),
    [
        (np.zeros(20), np.linspace(0, 1, 20), "one class only"),
        (np.arange(20) % 2.0, np.full(20, 0.3), "1 distinct"),
        (np.arange(200) % 2.0, np.repeat([0.1, 0.2, 0.3], [100, 50, 50]), "3 distinct"),
    ],
)
def test_no_curve_without_something_to_fit(y: np.ndarray, p: np.ndarray, why: str) -> None:
    assert why in why_no_curve(y, p)
    assert calibration_curve(y, p).p.size == 0
    for estimate in integrated_calibration(y, p, n_resamples=10).values():
        assert estimate.value is None
        assert why in estimate.note


def test_merged_probabilities_keep_ties_together_and_their_mean() -> None:
    p = np.random.default_rng(3).random(5000).round(3)
    cell, centre = merge_probabilities(p, 100)
    assert centre.size <= 100
    assert all(np.unique(cell[p == value]).size == 1 for value in np.unique(p)[:50])
    np.testing.assert_allclose(centre[cell].mean(), p.mean(), rtol=1e-12)
    assert np.bincount(cell).max() < 80
    same, values = merge_probabilities(p[:50], 100)
    np.testing.assert_array_equal(values[same], p[:50])
