import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from medcnn.evaluation import calibration as cal


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    lp = rng.normal(-1, 1.2, 500)
    return (rng.random(500) < expit(0.3 + 0.8 * lp)).astype(float), expit(lp)


def test_scores_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    np.testing.assert_allclose(cal.brier_score(y, p).value, brier_score_loss(y, p), rtol=1e-12)
    np.testing.assert_allclose(cal.log_loss(y, p).value, sklearn_log_loss(y, p), rtol=1e-12)


def test_shift_and_stretch_are_found_again() -> None:
    rng = np.random.default_rng(1)
    lp = rng.normal(size=200_000)
    y = (rng.random(lp.size) < expit(0.5 + 0.7 * lp)).astype(float)
    slope, joint = cal.calibration_slope(y, expit(lp))[0], cal.joint_recalibration(y, expit(lp))
    assert abs(slope.value - 0.7) < 0.02
    assert abs(joint.coefficients[0] - 0.5) < 0.02
    assert slope.method == "wald", "the profile is left out above PROFILE_ROWS"


def test_intervals_are_named_and_the_profile_comes_first(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    assert [estimate.method for estimate in cal.calibration_slope(y, p)] == ["profile", "wald"]
    patients = np.arange(500) // 2
    assert [estimate.method for estimate in cal.calibration_intercept(y, p, patients)] == ["cluster_robust"]


def test_scaled_brier_interval_is_the_delta_method_of_a_bootstrap(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    rng = np.random.default_rng(2)
    draws = rng.integers(0, y.size, (3000, y.size))
    replicates = [cal.scaled_brier(y[rows], p[rows]).value for rows in draws]
    np.testing.assert_allclose(cal.scaled_brier(y, p).se, np.std(replicates), rtol=0.05)


def test_clustered_intervals_widen_when_each_row_is_written_twice(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = np.repeat(rows[0], 2), np.repeat(rows[1], 2)
    patients = np.repeat(np.arange(500), 2)
    for measure in (cal.brier_score, cal.scaled_brier, cal.log_loss, cal.observed_expected):
        once, twice = measure(*rows), measure(y, p, patients)
        np.testing.assert_allclose(twice.value, once.value, rtol=1e-12)
        np.testing.assert_allclose(twice.se, once.se, rtol=2e-3)
    once, twice = cal.calibration_slope(*rows), cal.calibration_slope(y, p, patients)[0]
    np.testing.assert_allclose(twice.value, once[0].value, rtol=1e-10)
    np.testing.assert_allclose(twice.se, once[0].se, rtol=0.1)


def test_probabilities_of_exactly_0_and_1_are_counted_and_moved_alone() -> None:
    p = np.array([0.0, 1.0, 1e-12, 0.5, 1 - 1e-12])
    moved, count = cal.log_odds(p)
    assert count == 2
    np.testing.assert_array_equal(moved[2:], logit(p[2:]))
    assert moved[0] == moved[2], "never inside of another probability: the order stays"
    assert moved[1] == moved[4]
    far, _ = cal.log_odds(np.array([0.0, 0.3, 1.0]))
    np.testing.assert_allclose(far[[0, 2]], [-16.118, 16.118], atol=1e-3)
    y = np.array([0, 1, 0, 1, 1, 0, 1, 0.0])
    slope = cal.calibration_slope(y, np.array([0, 1, 0.2, 0.7, 0.4, 0.6, 1, 1]))[0]
    assert "4 probabilities of exactly 0 or 1" in slope.note


def test_log_loss_of_a_wrong_certainty_is_infinite_and_says_so() -> None:
    estimate = cal.log_loss(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
    assert estimate.value == np.inf
    assert "1 wrong rows" in estimate.note
    assert cal.log_loss(np.array([1.0, 0.0]), np.array([1.0, 0.0])).value == 0


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_only(label: float) -> None:
    y, p = np.full(8, label), np.linspace(0.1, 0.8, 8)
    for estimates in (cal.calibration_intercept(y, p), cal.calibration_slope(y, p)):
        assert estimates[0].value is None
        assert "one class only" in estimates[0].note
    assert cal.scaled_brier(y, p).value is None
    ratio = cal.observed_expected(y, p)
    assert ratio.value == y.sum() / p.sum()
    assert ratio.low is None
    assert cal.brier_score(y, p).value is not None
    assert cal.log_loss(y, p).value is not None


def test_separated_constant_and_impossible_probabilities() -> None:
    y = np.array([0, 0, 1, 1.0])
    assert "separate" in cal.calibration_slope(y, np.array([0.1, 0.2, 0.8, 0.9]))[0].note
    assert "equal" in cal.calibration_slope(y, np.full(4, 0.3))[0].note
    assert cal.calibration_intercept(y, np.full(4, 0.3))[0].value is not None
    assert cal.observed_expected(y, np.zeros(4)).value is None


def test_spiegelhalter_and_hosmer_lemeshow_by_definition(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    z, tail = cal.spiegelhalter_test(y, p)
    variance = np.sum((1 - 2 * p) ** 2 * p * (1 - p))
    expected = (cal.brier_score(y, p).value - np.mean(p * (1 - p))) * y.size / np.sqrt(variance)
    np.testing.assert_allclose([z, tail], [expected, 2 * norm.sf(abs(expected))], rtol=1e-10)
    assert all(np.isnan(cal.spiegelhalter_test(np.array([0.0, 1.0]), np.array([0.0, 1.0]))))
    assert cal.hosmer_lemeshow(y, p).df - cal.hosmer_lemeshow(y, p, external=False).df == 2


def test_tied_probabilities_share_a_group() -> None:
    p = np.repeat([0.1, 0.3, 0.7], [70, 20, 10])
    groups = cal.quantile_groups(p, 10)
    assert [np.unique(p[groups == group]).size for group in np.unique(groups)] == [1, 1, 1]
    assert groups.max() == 2
    np.testing.assert_array_equal(np.bincount(cal.quantile_groups(np.arange(100) / 100, 10)), 10)


def test_likelihood_ratio_parts_add_up(rows: tuple[np.ndarray, np.ndarray]) -> None:
    tests = cal.likelihood_ratio_tests(*rows)
    np.testing.assert_allclose(tests["unreliability"].statistic, tests["intercept"].statistic + tests["slope"].statistic, rtol=1e-10)


def test_quality_of_the_recalibrated_is_discrimination(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    joint = cal.joint_recalibration(y, p).coefficients
    after = cal.explained_variation(y, expit(joint[0] + joint[1] * logit(p)))
    before = cal.explained_variation(y, p, refitted=True)
    np.testing.assert_allclose(after.discrimination, before.discrimination, rtol=1e-10)
    np.testing.assert_allclose(after.unreliability, -2 / y.size, rtol=1e-6)
