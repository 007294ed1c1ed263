import numpy as np
import pytest
from scipy.stats.contingency import relative_risk
from sklearn import metrics

from medcnn.evaluation import classification
from medcnn.evaluation.classification import (
    TwoByTwo,
    classification_estimates,
    diagnostic_odds_ratio,
    f1_standard_error,
    kappa_standard_error,
    restate_predictive_values,
    two_by_two,
)


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = np.round(rng.beta(1, 2, 300), 2)
    return (rng.random(300) < p).astype(float), p


def test_measures_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    called = p >= 0.4
    found = classification_estimates(y, p, 0.4, n_resamples=0)
    theirs = {
        "sensitivity": metrics.recall_score(y, called),
        "specificity": metrics.recall_score(1 - y, ~called),
        "ppv": metrics.precision_score(y, called),
        "npv": metrics.precision_score(1 - y, ~called),
        "accuracy": metrics.accuracy_score(y, called),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, called),
        "f1": metrics.f1_score(y, called),
        "mcc": metrics.matthews_corrcoef(y, called),
        "kappa": metrics.cohen_kappa_score(y, called),
        "lr_positive": metrics.class_likelihood_ratios(y, called)[0],
        "lr_negative": metrics.class_likelihood_ratios(y, called)[1],
    }
    for metric, value in theirs.items():
        np.testing.assert_allclose(found[metric].value, value, rtol=1e-12, err_msg=metric)


def test_a_probability_at_the_threshold_is_positive() -> None:
    table = two_by_two(np.array([1, 0, 1, 0.0]), np.array([0.5, 0.5, 0.4999, 0.1]), 0.5)
    assert (table.tp, table.fp, table.fn, table.tn) == (1, 1, 1, 1)


def test_each_row_may_have_its_own_threshold() -> None:
    table = two_by_two(np.array([1, 1.0]), np.array([0.5, 0.5]), np.array([0.4, 0.6]))
    assert (table.tp, table.fn) == (1, 1)


def test_log_interval_of_a_likelihood_ratio_is_that_of_a_relative_risk(rows: tuple[np.ndarray, np.ndarray]) -> None:
    table = two_by_two(*rows, 0.4)
    theirs = relative_risk(table.tp, table.tp + table.fn, table.fp, table.fp + table.tn).confidence_interval(0.95)
    found = classification_estimates(*rows, 0.4, n_resamples=0)["lr_positive"]
    np.testing.assert_allclose([found.low, found.high], [theirs.low, theirs.high], rtol=1e-10)


def test_clustered_intervals_of_single_rows_are_the_plain_ones(rows: tuple[np.ndarray, np.ndarray]) -> None:
    plain = classification_estimates(*rows, 0.4, n_resamples=0)
    single = classification_estimates(*rows, 0.4, np.arange(300), n_resamples=0)
    for metric in ("lr_positive", "lr_negative"):
        np.testing.assert_allclose(single[metric].se, plain[metric].se, rtol=5e-3)
    y, p = np.repeat(rows[0], 3), np.repeat(rows[1], 3)
    tripled = classification_estimates(y, p, 0.4, np.repeat(np.arange(300), 3), n_resamples=1000)
    assert tripled["sensitivity"].method == "wilson_clustered"
    for metric in ("sensitivity", "specificity", "lr_positive", "lr_negative", "mcc"):
        reference = classification_estimates(*rows, 0.4, n_resamples=1000)[metric]
        np.testing.assert_allclose(tripled[metric].high - tripled[metric].low, reference.high - reference.low, rtol=0.1, err_msg=metric)


def test_bootstrap_agrees_with_the_large_sample_errors(rows: tuple[np.ndarray, np.ndarray]) -> None:
    table, found = two_by_two(*rows, 0.4), classification_estimates(*rows, 0.4, n_resamples=4000)
    np.testing.assert_allclose(found["f1"].se, f1_standard_error(table), rtol=0.08)
    np.testing.assert_allclose(found["kappa"].se, kappa_standard_error(table), rtol=0.08)


def test_predictive_values_at_the_samples_own_prevalence_are_the_samples_own(rows: tuple[np.ndarray, np.ndarray]) -> None:
    found = classification_estimates(*rows, 0.4, n_resamples=0)
    same = restate_predictive_values(found, float(rows[0].mean()))
    for metric in ("ppv", "npv"):
        np.testing.assert_allclose(same[metric].value, found[metric].value, rtol=1e-12)
        assert same[metric].low < same[metric].value < same[metric].high


def test_bayes_at_another_prevalence(rows: tuple[np.ndarray, np.ndarray]) -> None:
    found = classification_estimates(*rows, 0.4, n_resamples=0)
    sens, spec, rare = found["sensitivity"].value, found["specificity"].value, 0.01
    restated = restate_predictive_values(found, rare)
    np.testing.assert_allclose(restated["ppv"].value, sens * rare / (sens * rare + (1 - spec) * (1 - rare)), rtol=1e-12)
    np.testing.assert_allclose(restated["npv"].value, spec * (1 - rare) / (spec * (1 - rare) + (1 - sens) * rare), rtol=1e-12)


def test_empty_margins_are_not_estimable() -> None:
    y, p = np.array([0, 0, 1, 1.0]), np.array([0.1, 0.2, 0.3, 0.4])
    nobody = classification_estimates(y, p, 0.9, n_resamples=50)
    assert nobody["ppv"].value is None
    assert nobody["mcc"].value is None
    assert nobody["npv"].value == 0.5
    assert nobody["sensitivity"].value == 0
    assert nobody["sensitivity"].low == 0
    assert nobody["lr_positive"].value is None
    perfect = classification_estimates(y, p, 0.25, n_resamples=50)
    assert "infinite" in perfect["lr_positive"].note
    assert perfect["lr_negative"].value == 0
    assert perfect["lr_negative"].low is None
    assert restate_predictive_values(perfect, 0.1)["ppv"].value == 1
    assert restate_predictive_values(perfect, 0.1)["npv"].value == 1


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_only(label: float) -> None:
    found = classification_estimates(np.full(6, label), np.linspace(0.1, 0.9, 6), 0.5, n_resamples=20)
    absent = "sensitivity" if label == 0 else "specificity"
    for metric in (absent, "balanced_accuracy", "lr_positive", "lr_negative"):
        assert found[metric].value is None, metric
        assert found[metric].note
    assert found["accuracy"].value == 0.5
    assert restate_predictive_values(found, 0.2)["ppv"].value is None


def test_ratios_of_arrays_are_taken_cell_by_cell() -> None:
    tables = TwoByTwo(*(np.array(values, dtype=float) for values in ([1, 0], [1, 0], [1, 0], [1, 4])))
    np.testing.assert_array_equal(tables.sensitivity, [0.5, np.nan])
    np.testing.assert_array_equal(tables.f1, [0.5, np.nan])


def test_odds_ratio_needs_full_cells() -> None:
    assert diagnostic_odds_ratio(TwoByTwo(3, 0, 1, 5)).value is None
    assert diagnostic_odds_ratio(TwoByTwo(6, 2, 3, 5)).value == 5
    assert classification.TP == 3
