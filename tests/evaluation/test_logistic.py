import numpy as np
import pytest
import statsmodels.api as sm

from medcnn.evaluation.logistic import fit_logistic, log_likelihood, profile_interval, robust_covariance


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, 2))
    design = np.column_stack([np.ones(400), x])
    y = (rng.random(400) < 1 / (1 + np.exp(-design @ [0.3, 1.0, -2.0]))).astype(float)
    return design, y, rng.integers(0, 90, 400)


def test_optimum_and_covariance_are_those_of_statsmodels(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    design, y, _ = data
    offset, weights = np.linspace(-1, 1, 400), np.arange(400) % 3 + 1
    fit = fit_logistic(design, y, offset=offset, weights=weights)
    theirs = sm.GLM(y, design, family=sm.families.Binomial(), offset=offset, freq_weights=weights).fit(tol=1e-14)
    assert fit.converged
    np.testing.assert_allclose(fit.coefficients, theirs.params, rtol=1e-10)
    np.testing.assert_allclose(fit.covariance, theirs.cov_params(), rtol=1e-7)
    np.testing.assert_allclose(fit.log_likelihood, theirs.llf, rtol=1e-12)


def test_robust_covariance_is_that_of_statsmodels(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    design, y, patients = data
    patients = np.unique(patients, return_inverse=True)[1]
    fit = fit_logistic(design, y)
    groups = patients.max() + 1
    theirs = sm.GLM(y, design, family=sm.families.Binomial()).fit(
        tol=1e-14, cov_type="cluster", cov_kwds={"groups": patients, "use_correction": False}
    )
    np.testing.assert_allclose(robust_covariance(fit, design, y, patients=patients), theirs.cov_params() * groups / (groups - 1), rtol=1e-6)


def test_profile_limits_lie_where_the_deviance_has_risen_by_the_quantile(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    design, y, _ = data
    fit = fit_logistic(design, y)
    for limit in profile_interval(fit, 1, design, y):
        kept = sm.GLM(y, design[:, [0, 2]], family=sm.families.Binomial(), offset=limit * design[:, 1]).fit(tol=1e-14)
        np.testing.assert_allclose(2 * (fit.log_likelihood - kept.llf), 3.841458820694124, rtol=1e-8)


def test_log_likelihood_survives_extreme_odds() -> None:
    assert log_likelihood(np.array([1.0, 0.0]), np.array([800.0, -800.0])) == 0
    assert log_likelihood(np.array([0.0]), np.array([800.0])) == -800


@pytest.mark.parametrize(
    "y",
    [
        pytest.param(np.array([0, 0, 0, 1, 1, 1.0]), id="separated"),
        pytest.param(np.array([0, 0, 1, 1, 1, 1.0]), id="separated elsewhere"),
        pytest.param(np.zeros(6), id="one class"),
    ],
)
def test_data_without_a_finite_optimum_do_not_converge(y: np.ndarray) -> None:
    design = np.column_stack([np.ones(6), np.arange(6.0)])
    assert not fit_logistic(design, y).converged


def test_quasi_separation_and_a_constant_column_do_not_converge() -> None:
    x = np.array([0, 1, 2, 2, 3, 4.0])
    assert not fit_logistic(np.column_stack([np.ones(6), x]), np.array([0, 0, 0, 1, 1, 1.0])).converged
    assert not fit_logistic(np.ones((6, 2)), np.array([0, 0, 0, 1, 1, 1.0])).converged
