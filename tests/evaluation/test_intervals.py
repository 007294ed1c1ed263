import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t
from statsmodels.stats.proportion import proportion_confint

from medcnn.errors import InputError
from medcnn.evaluation.estimates import Estimate
from medcnn.evaluation.intervals import (
    clopper_pearson,
    named_rows,
    normal_quantile,
    patient_codes,
    proportion_interval,
    ratio_estimator,
    ratio_logit_interval,
    wilson,
    with_note,
)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(max_examples=150, deadline=None)
def test_binomial_intervals_agree_with_scipy_and_statsmodels(case: tuple[int, int], confidence: float) -> None:
    hits, n = case
    np.testing.assert_allclose(wilson(hits, n, confidence), proportion_confint(hits, n, 1 - confidence, "wilson"), atol=1e-13)
    np.testing.assert_allclose(clopper_pearson(hits, n, confidence), binomtest(hits, n).proportion_ci(confidence, "exact"), atol=1e-11)


def test_limits_at_nothing_and_at_all_are_exact() -> None:
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0
    assert clopper_pearson(0, 7)[0] == 0.0
    assert clopper_pearson(7, 7)[1] == 1.0


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    for interval in (wilson, clopper_pearson):
        with pytest.raises(InputError, match=f"got {hits} of {n}"):
            interval(hits, n)


def test_normal_quantile() -> None:
    assert normal_quantile(0.95) == norm.ppf(0.975)
    for wrong in (0, 1, 95):
        with pytest.raises(InputError, match="confidence"):
            normal_quantile(wrong)


# ---------------------------------------------------------------- patients


def test_patient_codes_follow_the_sorted_ids_whatever_the_row_order() -> None:
    codes, n = patient_codes(["b", "a", "b", "c"], 4)
    assert (codes.tolist(), n) == ([1, 0, 1, 2], 3)
    assert patient_codes(None, 3)[0].tolist() == [0, 1, 2]
    assert patient_codes(np.array([30, 10, 30]), 3)[0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(("patient", "message"), [(["a", None, "b"], "blank in row 1"), (["a", "b"], "each of the 3 rows")])
def test_patients_that_are_missing_are_refused(patient: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        patient_codes(patient, 3)


def test_rows_are_named_up_to_five() -> None:
    assert named_rows([1, 2, 3, 4, 5]) == "1, 2, 3, 4, 5"
    assert named_rows(range(9)) == "0, 1, 2, 3, 4 ..."


# ---------------------------------------------------------------- clustered proportions


def sandwich(hit: np.ndarray, patient: np.ndarray) -> float:
    """Cluster-robust standard error of a proportion from statsmodels, which has the factor I/(I-1) too."""
    import statsmodels.api as sm

    fit = sm.OLS(hit.astype(float), np.ones(len(hit))).fit()
    groups = np.unique(patient, return_inverse=True)[1]
    robust = fit.get_robustcov_results("cluster", groups=groups, use_correction=False)
    n_groups = groups.max() + 1
    return float(robust.bse[0] * math.sqrt(n_groups / (n_groups - 1)))


def test_ratio_estimator_agrees_with_a_cluster_robust_regression() -> None:
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 60, 250)
    hit = rng.random(250) < rng.beta(2, 2, 60)[patient]
    found = ratio_estimator(hit, patient)
    assert found.se == pytest.approx(sandwich(hit, patient), rel=1e-10)
    assert found.design_effect == pytest.approx(found.se**2 / (hit.mean() * (1 - hit.mean()) / 250))
    assert (found.n, found.n_patients) == (250, len(np.unique(patient)))
    low, high = ratio_logit_interval(found)
    assert low < found.value < high


def test_interval_of_single_images_is_wilson() -> None:
    hit = np.array([1, 1, 0, 1, 0, 1, 1])
    found = proportion_interval(hit)
    assert (found.low, found.high) == wilson(5, 7)
    assert found.method == "wilson"
    assert proportion_interval(hit, list("abcdefg")) == found


def test_interval_of_repeated_patients_is_wider_and_says_so() -> None:
    patient = np.repeat(np.arange(40), 5)
    hit = np.random.default_rng(3).random(40)[patient] < 0.6
    found, naive = proportion_interval(hit, patient), proportion_interval(hit)
    assert found.method == "wilson_clustered"
    assert found.note.startswith("design effect 5.")
    assert found.high - found.low > 2 * (naive.high - naive.low)


def test_all_hits_count_each_patient_once() -> None:
    found = proportion_interval(np.ones(20), np.repeat(np.arange(4), 5))
    assert (found.low, found.high) == wilson(4, 4)
    assert found.note.startswith("worth 4.0 independent cases")
    unequal = proportion_interval(np.ones(8), [0, 1, 2, 2, 2, 2, 2, 2])
    assert (unequal.low, unequal.high) == wilson(64 / 38, 64 / 38)


def test_effective_size_follows_design_effect_and_degrees_of_freedom() -> None:
    rng = np.random.default_rng(5)
    patient = np.repeat(np.arange(30), 4)
    hit = rng.random(120) < rng.beta(2, 2, 30)[patient]
    estimate = ratio_estimator(hit, patient)
    size = 120 / estimate.design_effect * (norm.ppf(0.975) / t.ppf(0.975, 29)) ** 2
    assert 30 < size < 120
    found = proportion_interval(hit, patient)
    np.testing.assert_allclose((found.low, found.high), wilson(hit.mean() * size, size), rtol=1e-12)


def test_design_effect_below_one_never_narrows_the_interval() -> None:
    found = proportion_interval(np.tile([0, 1], 30), np.repeat(np.arange(30), 2))
    size = 60 * (norm.ppf(0.975) / t.ppf(0.975, 29)) ** 2
    np.testing.assert_allclose((found.low, found.high), wilson(size / 2, size), rtol=1e-12)


def test_single_patient_counts_once() -> None:
    found = proportion_interval([1, 0, 1], ["a", "a", "a"])
    np.testing.assert_allclose((found.low, found.high), wilson(2 / 3, 1))


def test_no_rows_are_not_estimable() -> None:
    assert proportion_interval([]).note == "not estimable: no case to count"
    with pytest.raises(InputError, match="no rows"):
        ratio_estimator([], None)


def test_hits_must_be_zero_or_one() -> None:
    with pytest.raises(InputError, match="one 0 or 1"):
        proportion_interval([0, 0.5, 1])


def test_ratio_logit_interval_is_undefined_at_one() -> None:
    assert all(math.isnan(limit) for limit in ratio_logit_interval(ratio_estimator([1, 1, 1], None)))


def test_notes_are_joined() -> None:
    assert with_note(with_note(Estimate(value=1.0), "one"), "two").note == "one; two"


def test_ratio_logit_interval_is_the_delta_methods() -> None:
    found = ratio_estimator([1, 1, 0, 1, 0, 1], ["a", "a", "b", "b", "c", "c"])
    p, half = 4 / 6, norm.ppf(0.975) * found.se / (4 / 6 * 2 / 6)
    expected = [1 / (1 + math.exp(-(math.log(p / (1 - p)) + sign * half))) for sign in (-1, 1)]
    np.testing.assert_allclose(ratio_logit_interval(found), expected, rtol=1e-12)
