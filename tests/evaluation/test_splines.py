import numpy as np
import pytest
from scipy.special import expit, logit

from medcnn.evaluation.splines import spline_basis, spline_calibration


def test_basis_is_linear_beyond_the_outer_knots_and_smooth_within() -> None:
    knots = np.array([-2.0, 0.0, 0.5, 3.0])
    x = np.linspace(-6, 8, 2801)
    basis = spline_basis(x, knots)
    assert basis.shape == (2801, 3)
    bend = np.diff(basis, 2, axis=0)
    outside = (x[1:-1] < -2.01) | (x[1:-1] > 3.01)
    np.testing.assert_allclose(bend[outside], 0, atol=1e-9)
    assert np.abs(np.diff(bend, axis=0)).max() < 1e-6, "the second derivative has no jump"
    assert np.linalg.matrix_rank(np.column_stack([np.ones(2801), basis])) == 4


def test_a_straight_truth_is_recovered() -> None:
    rng = np.random.default_rng(0)
    lp = rng.normal(size=100_000)
    fitted = spline_calibration((rng.random(lp.size) < expit(0.2 + 0.8 * lp)).astype(float), expit(lp))
    np.testing.assert_allclose(logit(fitted[:2000]), 0.2 + 0.8 * lp[:2000], atol=0.12)


@pytest.mark.parametrize("n_knots", [3, 4, 5])
def test_no_fit_when_knots_coincide_or_classes_are_separated(n_knots: int) -> None:
    tied = np.repeat([0.1, 0.2], 50)
    assert spline_calibration(np.arange(100) % 2.0, tied, n_knots=n_knots) is None
    apart = np.linspace(0.05, 0.95, 40)
    assert spline_calibration((apart > 0.5).astype(float), apart, n_knots=n_knots) is None
