import numpy as np
import pytest
import statsmodels.api as sm

from medcnn.errors import InputError
from medcnn.evaluation.estimates import (
    check_labels_and_probabilities,
    mean_estimate,
    mean_standard_error,
    repeated_patients,
    wald,
)


@pytest.mark.parametrize(
    ("y", "p", "words"),
    [
        ([0, 1], [0.1, np.nan], "probability nan in row 1"),
        ([0, 1], [0.1, 1.2], "probability 1.2 in row 1"),
        ([0, 1], [-0.1, 0.2], "probability -0.1 in row 0"),
        ([0, np.nan], [0.1, 0.2], "label nan in row 1"),
        ([0, 2], [0.1, 0.2], "label 2.0 in row 1"),
        ([0, 1, 1], [0.1, 0.2], "same length"),
        ([], [], "empty"),
    ],
)
def test_bad_rows_are_named(y: list[float], p: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_labels_and_probabilities(y, p)


def test_every_bad_row_is_counted() -> None:
    with pytest.raises(InputError, match=r"6 such rows: 0, 1, 2, 3, 4 \.\.\."):
        check_labels_and_probabilities(np.zeros(6), np.full(6, 2.0))


def test_patients_are_codes_only_where_one_repeats() -> None:
    assert repeated_patients(None, 3) is None
    assert repeated_patients(["c", "a", "b"], 3) is None
    np.testing.assert_array_equal(repeated_patients(["c", "a", "c"], 3), [1, 0, 1])
    with pytest.raises(InputError, match="one for each row"):
        repeated_patients(["a"], 2)


def test_standard_error_of_a_clustered_mean_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 30, 100)
    values = rng.normal(size=100) + patients / 10
    used = np.unique(patients, return_inverse=True)[1]
    fit = sm.OLS(values, np.ones(100)).fit(cov_type="cluster", cov_kwds={"groups": used, "use_correction": False})
    groups = used.max() + 1
    np.testing.assert_allclose(mean_standard_error(values, used), fit.bse[0] * np.sqrt(groups / (groups - 1)), rtol=1e-12)
    np.testing.assert_allclose(mean_standard_error(values), values.std(ddof=1) / 10, rtol=1e-12)
    np.testing.assert_allclose(mean_standard_error(values, np.arange(100)), mean_standard_error(values), rtol=1e-12)


def test_one_unit_has_no_standard_error() -> None:
    assert np.isnan(mean_standard_error(np.array([1.0])))
    assert np.isnan(mean_standard_error(np.array([1.0, 2.0]), np.zeros(2, dtype=np.int64)))


def test_an_interval_is_never_empty() -> None:
    for se in (0.0, float("nan")):
        estimate = wald(0.5, se)
        assert (estimate.low, estimate.high) == (None, None)
        assert "not estimable" in estimate.note
    assert mean_estimate(np.full(5, 0.25), None).low is None


def test_wald_limits() -> None:
    estimate = wald(1.0, 0.5)
    np.testing.assert_allclose([estimate.low, estimate.high], [1 - 0.9799819922700271, 1 + 0.9799819922700271], rtol=1e-12)
    assert (estimate.value, estimate.se, estimate.method) == (1.0, 0.5, "wald")
