import numpy as np
import pytest

from medcnn.errors import InputError
from medcnn.evaluation.utility import decision_curve, net_benefit_estimates, threshold_grid


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = np.round(rng.beta(1, 2, 300), 2)
    return (rng.random(300) < p).astype(float), p


def by_definition(y: np.ndarray, p: np.ndarray, t: float) -> float:
    called = p >= t
    return float(np.mean(called & (y == 1)) - np.mean(called & (y == 0)) * t / (1 - t))


def test_curve_by_definition(rows: tuple[np.ndarray, np.ndarray]) -> None:
    grid = threshold_grid(0.01, 0.6)
    curve = decision_curve(*rows, grid, n_resamples=0)
    np.testing.assert_allclose(curve.model, [by_definition(*rows, t) for t in grid], atol=1e-14)
    np.testing.assert_allclose(curve.treat_all, [by_definition(rows[0], np.ones(300), t) for t in grid], atol=1e-14)
    np.testing.assert_allclose(curve.standardized, curve.model / rows[0].mean())
    assert np.isnan(curve.low).all()


def test_band_has_the_spread_of_a_mean(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    curve = decision_curve(y, p, np.array([0.2, 0.4]), n_resamples=4000)
    for k, t in enumerate((0.2, 0.4)):
        gain = (p >= t) * np.where(y == 1, 1, -t / (1 - t))
        half = 1.96 * gain.std() / np.sqrt(300)
        np.testing.assert_allclose([curve.low[k], curve.high[k]], [gain.mean() - half, gain.mean() + half], atol=0.006)


def test_band_widens_with_clusters(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p, grid = np.repeat(rows[0], 4), np.repeat(rows[1], 4), threshold_grid(0.1, 0.5)
    naive, clustered = (decision_curve(y, p, grid, who, n_resamples=500) for who in (None, np.repeat(np.arange(300), 4)))
    np.testing.assert_array_equal(naive.model, clustered.model)
    assert np.median((clustered.high - clustered.low) / (naive.high - naive.low)) > 1.8


def test_estimates_at_one_threshold(rows: tuple[np.ndarray, np.ndarray]) -> None:
    found = net_benefit_estimates(*rows, 0.3)
    np.testing.assert_allclose(found["net_benefit"].value, by_definition(*rows, 0.3))
    np.testing.assert_allclose(found["standardized_net_benefit"].value, by_definition(*rows, 0.3) / rows[0].mean())
    for estimate in found.values():
        assert estimate.low < estimate.value < estimate.high
    assert net_benefit_estimates(*rows, 0.3, n_resamples=0)["net_benefit"].low is None


def test_a_sample_cannot_be_perfectly_useful_beyond_1() -> None:
    y = np.array([0, 1, 0, 1.0])
    assert net_benefit_estimates(y, y, 0.5)["standardized_net_benefit"].value == 1


def test_edges() -> None:
    nobody = net_benefit_estimates(np.zeros(4), np.full(4, 0.6), 0.5, n_resamples=10)
    assert nobody["net_benefit"].value == -1
    assert nobody["standardized_net_benefit"].value is None
    for threshold in (1.0, float(np.nextafter(1, 2))):
        assert net_benefit_estimates(np.array([0, 1.0]), np.array([0, 1.0]), threshold)["net_benefit"].value is None


def test_grid_holds_the_decimals_themselves() -> None:
    grid = threshold_grid(0.01, 0.6)
    assert 0.3 in grid.tolist()
    assert 0.1 * 3 not in grid.tolist()
    assert (grid[0], grid[-1], grid.size) == (0.01, 0.6, 60)
    assert threshold_grid(0.05, 0.1).size == 51


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.4), (0.2, 1.0), (-0.1, 0.5)])
def test_impossible_ranges_are_refused(low: float, high: float) -> None:
    with pytest.raises(InputError, match="0 <= low < high < 1"):
        threshold_grid(low, high)
