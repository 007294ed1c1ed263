import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import t

from medcnn.errors import InputError
from medcnn.evaluation import bootstrap
from medcnn.evaluation.clustered import Design, cluster_design, obuchowski_variance
from medcnn.evaluation.discrimination import (
    auroc_bootstrap_interval,
    auroc_interval,
    auroc_intervals,
    bootstrap_estimate,
    effective_sizes,
    lacking_class,
    logit_limits,
    newcombe_limits,
    wald_limits,
)
from medcnn.evaluation.intervals import patient_codes
from medcnn.evaluation.placements import auroc, delong_variance


def sample(seed: int = 0, n: int = 240, n_patients: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, n_patients, n)
    y = (rng.random(n_patients) < 0.4).astype(int)[patient]
    return y, np.round(rng.normal(size=n) + rng.normal(size=n_patients)[patient] + y, 1), patient


# ---------------------------------------------------------------- limits


@given(st.floats(0, 1), st.integers(1, 500), st.integers(1, 500), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=200, deadline=None)
def test_newcombe_limits_solve_their_equation_and_are_never_empty(value: float, m: int, n: int, confidence: float) -> None:
    z = {0.8: 1.2815515655446004, 0.95: 1.959963984540054, 0.99: 2.5758293035489004}[confidence]
    low, high = newcombe_limits(value, m, n, confidence)
    assert 0 <= low <= value <= high <= 1
    assert low < high
    for limit in (low, high):
        if 0 < limit < 1:
            inner = 1 + ((m + n) / 2 - 1) * ((1 - limit) / (2 - limit) + limit / (1 + limit))
            assert abs(limit - value) == pytest.approx(z * math.sqrt(limit * (1 - limit) * inner / (m * n)), abs=1e-8)
    mirrored = newcombe_limits(1 - value, m, n, confidence)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("wrong", [(-0.1, 5, 5), (1.1, 5, 5), (0.5, 0, 5), (0.5, 5, 0)])
def test_newcombe_limits_refuse_what_no_sample_gives(wrong: tuple[float, int, int]) -> None:
    with pytest.raises(InputError, match="Newcombe interval"):
        newcombe_limits(*wrong)


def test_wald_limits_are_clipped_and_logit_limits_stay_inside() -> None:
    assert wald_limits(0.98, 0.0004) == (pytest.approx(0.98 - 1.959963984540054 * 0.02), 1.0)
    assert wald_limits(0.01, 0.0004)[0] == 0.0
    half = 1.959963984540054 * 0.02 / (0.98 * 0.02)
    assert logit_limits(0.98, 0.0004) == pytest.approx((expit(logit(0.98) - half), expit(logit(0.98) + half)))
    assert all(math.isnan(limit) for limit in logit_limits(1.0, 0.0))


# ---------------------------------------------------------------- the interval follows the design


def test_single_images_take_delong() -> None:
    y, s, _ = sample()
    found = auroc_interval(y, s)
    assert (found.method, found.value, found.se) == ("delong", auroc(y, s), pytest.approx(math.sqrt(delong_variance(y, s))))
    assert (found.low, found.high) == wald_limits(found.value, found.se**2)
    assert auroc_interval(y, s, np.arange(len(y))) == found
    wide = auroc_interval(y, s, confidence=0.99)
    assert wide.low < found.low < found.high < wide.high


def test_repeated_patients_take_obuchowski() -> None:
    y, s, patient = sample()
    found = auroc_interval(y, s, patient)
    assert found.method == "obuchowski"
    assert found.se == pytest.approx(math.sqrt(obuchowski_variance(y, s, patient)[1]))
    assert found.se > 1.1 * auroc_interval(y, s).se
    assert auroc_interval(y, s, patient, method="logit").method == "logit_obuchowski"
    assert auroc_interval(y, s, patient, method="delong").se == auroc_interval(y, s).se


def test_every_interval_of_a_sample_is_there_and_named() -> None:
    y, s, patient = sample()
    assert [each.method for each in auroc_intervals(y, s, n_resamples=100)] == ["delong", "logit", "newcombe", "bootstrap"]
    found = auroc_intervals(y, s, patient, n_resamples=400)
    assert [each.method for each in found] == ["obuchowski", "logit_obuchowski", "newcombe_clustered", "bootstrap"]
    assert len({each.value for each in found}) == 1
    assert found[0].se == pytest.approx(found[3].se, rel=0.15)
    assert found[2].note.startswith("effective numbers of positives ")
    assert "bootstrap" not in {each.method for each in auroc_intervals(y, s, n_resamples=0)}


def test_bootstrap_is_left_out_beyond_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    y, s, _ = sample()
    monkeypatch.setattr(bootstrap, "BUDGET", 240 * 100 - 1)
    assert [each.method for each in auroc_intervals(y, s, n_resamples=100)] == ["delong", "logit", "newcombe"]


def test_bootstrap_interval_agrees_with_delong_and_is_named() -> None:
    y, s, _ = sample(1)
    found, analytic = auroc_bootstrap_interval(y, s, stratified=True), auroc_interval(y, s)
    assert found.method == "bootstrap_stratified"
    np.testing.assert_allclose((found.low, found.high), (analytic.low, analytic.high), atol=0.35 * analytic.se)


# ---------------------------------------------------------------- edges


@pytest.mark.parametrize("method", ["auto", "logit", "newcombe", "delong"])
@pytest.mark.parametrize(
    ("y", "s"),
    [
        ([0, 0, 1, 1], [1, 2, 3, 4]),  # 1
        ([0, 0, 1, 1], [3, 4, 1, 2]),  # 0
        ([0, 0, 1, 1], [5, 5, 5, 5]),  # constant
        ([0, 0, 0, 1], [1, 3, 2, 2.5]),  # one positive
        ([1, 0], [1, 1]),
    ],
)
def test_without_variance_newcombe_answers(y: list[int], s: list[float], method: str) -> None:
    found = auroc_interval(y, s, method=method)
    assert found.method == "newcombe"
    assert (found.low, found.high) == newcombe_limits(auroc(y, s), sum(y), len(y) - sum(y))
    assert found.low < found.high
    assert ("Newcombe" in found.note) == (method != "newcombe")


def test_perfect_separation_of_few_patients_counts_patients() -> None:
    y, s, patient = [1, 1, 1, 1, 0, 0, 0], [5, 6, 7, 8, 1, 2, 3], ["a", "a", "a", "b", "c", "c", "d"]
    found = auroc_interval(y, s, patient)
    assert (found.low, found.high) == newcombe_limits(1.0, 2, 2)
    assert found.note == "effective numbers of positives 2.0 and negatives 2.0; the AUROC is 1; Newcombe's interval in place of obuchowski"


def test_positives_of_one_patient_have_no_clustered_variance() -> None:
    found = auroc_interval([1, 1, 0, 0, 0], [3, 5, 4, 1, 2], ["a", "a", "b", "c", "d"])
    assert found.method == "newcombe_clustered"
    assert "only 1 patient of a class" in found.note


def test_effective_sizes_lie_between_patients_and_images() -> None:
    design = Design(100, 300, 100, 20, 80)
    assert effective_sizes(design, 1.0) == (
        pytest.approx(100 * (1.959963984540054 / t.ppf(0.975, 19)) ** 2),
        pytest.approx(300 * 0.877, rel=1e-3),
    )
    assert effective_sizes(design, 0.2) == effective_sizes(design, 1.0)
    assert effective_sizes(design, 2.0)[0] == pytest.approx(effective_sizes(design, 1.0)[0] / 2)
    assert effective_sizes(design, 50.0) == effective_sizes(design, math.nan) == (20.0, 80.0)
    assert effective_sizes(Design(100, 300, 100, 1, 99), 1.0) == (1.0, 99.0)
    assert effective_sizes(Design(10, 30, 40, 10, 30), 1.0) == (10.0, 30.0)


def test_intervals_that_cover_too_little_say_so() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([1, 0], [20, 200])
    s = rng.normal(size=220) + 2.2 * y
    assert 0.9 < auroc(y, s) < 0.97
    found = {each.method: each for each in auroc_intervals(y, s, n_resamples=0)}
    warned = {method for method, each in found.items() if "prefer Newcombe's interval" in each.note}
    assert warned == {"delong", "logit"}
    assert "with 20 cases of a class" in found["delong"].note
    many = {each.method: each.note for each in auroc_intervals(np.tile(y, 20), np.tile(s, 20), n_resamples=0)}
    assert many == {"delong": "", "logit": "", "newcombe": ""}


@pytest.mark.parametrize(
    ("y", "reason"), [([1, 1], "no negative case among 2"), ([0, 0], "no positive case among 2"), ([], "there are no rows")]
)
def test_one_class_is_not_estimable_by_any_interval(y: list[int], reason: str) -> None:
    s = np.arange(len(y), dtype=float)
    for found in (auroc_interval(y, s), *auroc_intervals(y, s), auroc_bootstrap_interval(y, s)):
        assert (found.value, found.low, found.high) == (None, None, None)
        assert found.note == f"not estimable: {reason}"
    assert lacking_class(1, 2) == ""


def test_bootstrap_of_a_perfect_model_claims_no_interval() -> None:
    found = auroc_bootstrap_interval([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6], n_resamples=50, stratified=True)
    assert (found.value, found.low, found.high) == (1.0, None, None)
    assert found.note == "no interval: the resamples do not vary"


def test_undefined_resamples_are_counted() -> None:
    found = bootstrap_estimate(0.5, np.array([0.2, 0.4, np.nan, 0.6]), "bootstrap")
    assert found.note == "undefined in 1 of 4 resamples"


def test_unknown_method_is_refused() -> None:
    with pytest.raises(InputError, match="unknown method 'exact'"):
        auroc_interval([0, 1], [0.1, 0.2], method="exact")


def test_clustered_newcombe_takes_the_design_effect_of_the_variances() -> None:
    y, s, patient = sample(5)
    variance, naive = obuchowski_variance(y, s, patient)[1], delong_variance(y, s)
    design = cluster_design(y, *patient_codes(patient, len(y)))
    found = auroc_interval(y, s, patient, method="newcombe")
    assert (found.low, found.high) == newcombe_limits(auroc(y, s), *effective_sizes(design, variance / naive))


def test_bootstrap_standard_error_is_that_of_the_resamples() -> None:
    values = np.array([0.2, 0.5, 0.4, 0.6])
    assert bootstrap_estimate(0.5, values, "bootstrap").se == pytest.approx(values.std(ddof=1))
