import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, ttest_ind_from_stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from medcnn.errors import InputError
from medcnn.evaluation.clustered import obuchowski_variance
from medcnn.evaluation.discrimination import newcombe_limits
from medcnn.evaluation.placements import auroc, delong_variance
from medcnn.evaluation.significance import (
    Difference,
    adjust_p,
    mcnemar,
    non_inferiority,
    normal_p,
    paired_auroc_test,
    paired_proportion_test,
    unpaired_auroc_test,
)


def sample(seed: int = 0, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, n // 3, n)
    y = (rng.random(n // 3) < 0.4).astype(int)[patient]
    shared = rng.normal(size=n) + y + rng.normal(size=n // 3)[patient]
    own = rng.normal(size=(2, n)) + rng.normal(size=(2, n // 3))[:, patient]
    return y, np.round(shared + own[0], 1), np.round(shared + 0.3 * y + own[1], 1), patient


# ---------------------------------------------------------------- AUROC


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_paired_variance_is_that_of_the_differences_of_the_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = np.array([0, 0, 1, 1, *rng.integers(0, 2, 20)])
    scores = rng.integers(0, 6, (2, 24)).astype(float)
    kernel = [(s[y == 1][:, None] > s[y == 0]) + 0.5 * (s[y == 1][:, None] == s[y == 0]) for s in scores]
    gap = kernel[0] - kernel[1]
    variance = gap.mean(axis=1).var(ddof=1) / gap.shape[0] + gap.mean(axis=0).var(ddof=1) / gap.shape[1]
    found = paired_auroc_test(y, *scores)
    assert found.difference == pytest.approx(gap.mean(), abs=1e-15)
    if variance > 1e-12:
        assert found.se == pytest.approx(math.sqrt(variance), rel=1e-9)
        assert found.p == pytest.approx(2 * norm.sf(abs(gap.mean()) / math.sqrt(variance)), rel=1e-9)


def test_paired_test_is_antisymmetric_and_follows_the_design() -> None:
    y, a, b, patient = sample()
    single, clustered = paired_auroc_test(y, a, b), paired_auroc_test(y, a, b, patient)
    mirrored = paired_auroc_test(y, b, a, patient)
    assert (single.method, clustered.method) == ("delong", "obuchowski")
    assert clustered.se != pytest.approx(single.se, rel=0.01)
    assert (mirrored.difference, mirrored.p, mirrored.low) == (-clustered.difference, clustered.p, -clustered.high)
    assert paired_auroc_test(y, a, b, np.arange(len(y))) == single
    one_sided = [paired_auroc_test(y, a, b, alternative=side).p for side in ("greater", "less")]
    assert sum(one_sided) == pytest.approx(1)
    assert min(one_sided) == pytest.approx(single.p / 2)
    assert paired_auroc_test(y, a, b, confidence=0.99).low < single.low


def test_copied_images_do_not_make_a_difference_significant() -> None:
    y, a, b, patient = sample(1)
    four_times = [np.repeat(array, 4) for array in (y, a, b, patient)]
    assert paired_auroc_test(*four_times).p == pytest.approx(paired_auroc_test(y, a, b, patient).p, rel=1e-9)
    assert paired_auroc_test(*four_times[:3]).p < paired_auroc_test(y, a, b).p / 10


@pytest.mark.parametrize("transform", [lambda s: s, np.exp, lambda s: 3 * s - 7])
def test_equal_rankings_differ_by_nothing_with_p_one(transform: object) -> None:
    y, a, _, patient = sample(2)
    for who in (None, patient):
        found = paired_auroc_test(y, a, transform(a), who)
        assert (found.difference, found.statistic, found.p, found.low, found.high) == (0.0, 0.0, 1.0, 0.0, 0.0)
        assert found.note == "both models rank every case alike"


def test_two_perfect_models_have_an_interval_that_is_not_empty() -> None:
    y = np.array([0] * 30 + [1] * 20)
    found = paired_auroc_test(y, np.arange(50.0), np.concatenate([np.arange(30.0)[::-1], np.arange(50.0, 70.0)]))
    assert (found.difference, found.statistic, found.p) == (0.0, 0.0, 1.0)
    width = 1 - newcombe_limits(1.0, 20, 30)[0]
    assert (found.low, found.high) == (pytest.approx(-width), pytest.approx(width))


def test_difference_without_variance_gets_no_p() -> None:
    y = np.array([0, 0, 0, 1, 1, 1])
    found = paired_auroc_test(y, np.arange(6.0), -np.arange(6.0))
    assert (found.difference, found.statistic, found.p) == (1.0, None, None)
    assert 0 < found.low < found.high == 1.0
    assert "no p" in found.note
    one_positive = paired_auroc_test([1, 0, 0, 0], [4, 1, 2, 3], [2, 1, 4, 3])
    assert one_positive.p is None
    assert one_positive.low < one_positive.difference < one_positive.high


def test_one_class_cannot_be_compared() -> None:
    found = paired_auroc_test([1, 1], [1, 2], [2, 1])
    assert (found.difference, found.note) == (None, "not estimable: no negative case among 2")
    assert all(each.difference is None for each in unpaired_auroc_test([1, 1], [1, 2], [0, 1], [1, 2]))


def test_unpaired_test_is_welch_with_the_aurocs_standard_errors() -> None:
    y, a, b, patient = sample(3)
    first, second = slice(0, 120), slice(120, 300)
    normal, welch = unpaired_auroc_test(y[first], a[first], y[second], b[second])
    v = delong_variance(y[first], a[first]), delong_variance(y[second], b[second])
    textbook = ttest_ind_from_stats(
        auroc(y[first], a[first]), math.sqrt(v[0] * 120), 120, auroc(y[second], b[second]), math.sqrt(v[1] * 180), 180, equal_var=False
    )
    assert (welch.statistic, welch.p) == pytest.approx((textbook.statistic, textbook.pvalue), rel=1e-10)
    assert normal.p == pytest.approx(2 * norm.sf(abs(textbook.statistic)))
    assert welch.high - welch.low > normal.high - normal.low
    clustered = unpaired_auroc_test(y[first], a[first], y[second], b[second], patient_a=patient[first], patient_b=patient[second])[0]
    expected = [obuchowski_variance(y[side], s[side], patient[side])[1] for side, s in ((first, a), (second, b))]
    assert clustered.se == pytest.approx(math.sqrt(sum(expected)))


def test_unpaired_test_with_a_perfect_group_gives_limits_and_no_p() -> None:
    y, a, *_ = sample(4)
    found = unpaired_auroc_test([0, 0, 0, 1, 1, 1], np.arange(6.0), y, a)[0]
    assert found.p is None
    assert found.low < found.difference < found.high
    assert "a variance is missing" in found.note


# ---------------------------------------------------------------- decisions


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=80, deadline=None)
def test_mcnemar_agrees_with_statsmodels_and_scipy(b: int, c: int) -> None:
    found = mcnemar(b, c)
    if b + c == 0:
        assert (found.statistic, found.p, found.p_corrected, found.p_exact, found.p_mid) == (0.0, 1.0, 1.0, 1.0, 1.0)
        return
    table = [[10, b], [c, 10]]
    assert found.p == pytest.approx(statsmodels_mcnemar(table, exact=False, correction=False).pvalue, rel=1e-10)
    assert found.p_exact == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-10)
    if b != c:
        assert found.p_corrected == pytest.approx(statsmodels_mcnemar(table, exact=False, correction=True).pvalue, rel=1e-10)
        mid = binomtest(b, b + c).pvalue - math.comb(b + c, b) / 2 ** (b + c)
        assert found.p_mid == pytest.approx(mid, rel=1e-9)
    else:
        assert found.p == found.p_corrected == found.p_exact == 1.0
        assert found.p_mid == pytest.approx(1.0)


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(InputError, match="-1 and 3"):
        mcnemar(-1, 3)


def test_newcombes_paired_interval_reproduces_his_table() -> None:
    # Newcombe 1998, Stat Med 17:2635, table II, method 10: 36, 12, 2, 0 of 50 gives 0.0569 to 0.3404.
    a = np.repeat([1, 1, 0, 0], [36, 12, 2, 0])
    b = np.repeat([1, 0, 1, 0], [36, 12, 2, 0])
    found, counts = paired_proportion_test(a, b)
    assert (found.low, found.high) == (pytest.approx(0.0569, abs=5e-5), pytest.approx(0.3404, abs=5e-5))
    assert (counts.b, counts.c, found.statistic) == (12, 2, pytest.approx(100 / 14))


def test_no_discordant_case_still_has_an_interval() -> None:
    hits = np.array([1] * 8 + [0] * 2)
    for patient in (None, np.repeat(np.arange(5), 2)):
        found, _ = paired_proportion_test(hits, hits, patient)
        assert (found.difference, found.statistic, found.p) == (0.0, 0.0, 1.0)
        assert found.low < 0 < found.high


def test_clustered_mcnemar_counts_patients() -> None:
    y, a, b, patient = sample(5)
    hits = (a > 1) == y, (b > 1) == y
    single, counts = paired_proportion_test(*hits)
    clustered, nothing = paired_proportion_test(*hits, patient)
    assert (clustered.method, nothing) == ("mcnemar_clustered", None)
    gaps = np.array([(hits[0].astype(int) - hits[1])[patient == who].sum() for who in np.unique(patient)])
    assert clustered.statistic == pytest.approx(gaps.sum() ** 2 / (gaps**2).sum())
    four_times = [np.repeat(array, 4) for array in (*hits, patient)]
    assert paired_proportion_test(*four_times)[0].p == pytest.approx(clustered.p)
    assert single.statistic == pytest.approx((counts.b - counts.c) ** 2 / (counts.b + counts.c))


def test_no_rows_to_compare() -> None:
    assert paired_proportion_test([], [])[0].note == "not estimable: no case to count"


# ---------------------------------------------------------------- several tests, and margins


@pytest.mark.parametrize("seed", range(8))
def test_corrections_are_statsmodels(seed: int) -> None:
    p = (np.random.default_rng(seed).random(seed + 1) ** 2).round(2).tolist()
    for method, theirs in (
        ("holm", "holm"),
        ("hochberg", "simes-hochberg"),
        ("bonferroni", "bonferroni"),
        ("fdr_bh", "fdr_bh"),
        ("fdr_by", "fdr_by"),
    ):
        np.testing.assert_allclose(adjust_p(p, method), multipletests(p, method=theirs)[1], atol=1e-12)
    assert adjust_p(p, "none") == p


def test_missing_p_is_not_counted_and_stays_missing() -> None:
    assert adjust_p([0.01, None, math.nan, 0.04]) == [0.02, None, None, 0.04]
    assert adjust_p([None]) == [None]
    assert adjust_p([]) == []


def test_wrong_corrections_and_values_are_refused() -> None:
    with pytest.raises(InputError, match="unknown correction 'sidak'"):
        adjust_p([0.1], "sidak")
    with pytest.raises(InputError, match="from 0 to 1"):
        adjust_p([0.1, 1.5])


def test_non_inferiority_needs_the_lower_limit_above_the_margin() -> None:
    test = Difference(difference=-0.01, low=-0.01 - 1.959963984540054 * 0.02, high=0.03, se=0.02)
    p, shown = non_inferiority(test, 0.05)
    assert p == pytest.approx(norm.sf(2.0))
    assert shown == (p < 0.025) is True
    p, shown = non_inferiority(test, 0.049)
    assert shown is (p < 0.025) is False
    assert non_inferiority(Difference(difference=None), 0.05) == (None, False)
    assert non_inferiority(Difference(difference=0.0, low=0.0, high=0.0, se=0.0), 0.05) == (None, True)
    with pytest.raises(InputError, match="positive margin"):
        non_inferiority(test, 0)


def test_one_sided_p() -> None:
    assert normal_p(1.7, "greater") == pytest.approx(norm.sf(1.7))
    assert normal_p(1.7, "less") == pytest.approx(norm.cdf(1.7))
