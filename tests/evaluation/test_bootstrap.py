import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from medcnn.errors import InputError
from medcnn.evaluation import bootstrap
from medcnn.evaluation.bootstrap import (
    affordable,
    bootstrap_auroc,
    bootstrap_metric,
    bootstrap_ratio,
    class_strata,
    percentile_interval,
    resample_counts,
)
from medcnn.evaluation.intervals import patient_codes


def sample(seed: int = 0, n: int = 200, n_patients: int = 70) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    return y, np.round(rng.normal(size=n) + y, 1), rng.integers(0, n_patients, n)


def test_auroc_is_scikit_learns_on_identical_resamples_of_patients() -> None:
    y, s, patient = sample()
    codes, n_patients = patient_codes(patient, len(y))
    values = bootstrap_auroc(y, s, patient, n_resamples=40, seed=5)
    for value, counts in zip(values, resample_counts(n_patients, 40, seed=5), strict=True):
        assert counts.sum() == n_patients
        rows = np.repeat(np.arange(len(y)), counts[codes])
        assert value == pytest.approx(roc_auc_score(y[rows], s[rows]), abs=1e-14)


def test_auroc_of_single_images_resamples_rows_in_the_order_of_class_and_score() -> None:
    y, s, _ = sample(1)
    order = np.lexsort((s, y))
    values = bootstrap_auroc(y, s, n_resamples=30, seed=2)
    for value, counts in zip(values, resample_counts(len(y), 30, seed=2), strict=True):
        rows = np.repeat(order, counts)
        assert value == pytest.approx(roc_auc_score(y[rows], s[rows]), abs=1e-14)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("clustered", [False, True])
def test_order_of_rows_changes_nothing(stratified: bool, clustered: bool) -> None:
    y, s, patient = sample(2)
    who = patient if clustered else np.arange(len(y))
    shuffled = np.random.default_rng(0).permutation(len(y))
    first = bootstrap_auroc(y, s, who, n_resamples=50, stratified=stratified)
    np.testing.assert_array_equal(bootstrap_auroc(y[shuffled], s[shuffled], who[shuffled], n_resamples=50, stratified=stratified), first)


def test_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    y, s, patient = sample(3)
    first = bootstrap_auroc(y, s, patient, n_resamples=50), bootstrap_ratio(s, None, patient, n_resamples=50)
    monkeypatch.setattr(bootstrap, "CHUNK", 1)
    np.testing.assert_array_equal(bootstrap_auroc(y, s, patient, n_resamples=50), first[0])
    np.testing.assert_allclose(bootstrap_ratio(s, None, patient, n_resamples=50), first[1], rtol=1e-14)


def test_strata_keep_their_size() -> None:
    strata = np.array([0, 1, 1, 0, 2, 2, 2, 1])
    for counts in resample_counts(8, 20, seed=0, strata=strata):
        assert [int(counts[strata == stratum].sum()) for stratum in range(3)] == [2, 3, 3]
    y, codes = np.array([1, 0, 1, 1, 0]), np.array([0, 0, 1, 1, 2])
    assert class_strata(y == 1, codes, 3).tolist() == [3, 2, 1]


def test_stratified_resamples_never_lack_a_class() -> None:
    y, s = np.array([1, 0, 0, 0, 0, 0, 0, 0]), np.arange(8.0)
    assert np.isnan(bootstrap_auroc(y, s, n_resamples=200)).mean() == pytest.approx((7 / 8) ** 8, abs=0.1)
    assert not np.isnan(bootstrap_auroc(y, s, n_resamples=200, stratified=True)).any()


def test_any_metric_sees_the_same_resamples() -> None:
    y, s, patient = sample(4)
    p = 1 / (1 + np.exp(-s))
    squares = (p - y) ** 2
    of_metric = bootstrap_metric(lambda w: brier_score_loss(y, p, sample_weight=w), patient, len(y), n_resamples=30, seed=9)
    np.testing.assert_allclose(bootstrap_ratio(squares, None, patient, n_resamples=30, seed=9), of_metric, rtol=1e-12)
    of_auroc = bootstrap_metric(lambda w: roc_auc_score(y, s, sample_weight=w), patient, len(y), n_resamples=30, seed=9)
    np.testing.assert_allclose(bootstrap_auroc(y, s, patient, n_resamples=30, seed=9), of_auroc, rtol=1e-12)


def test_ratio_of_many_columns() -> None:
    y, s, patient = sample(5)
    tops, bottoms = np.column_stack([(s > t) * y for t in (0, 1)]), np.column_stack([y, y])
    both = bootstrap_ratio(tops, bottoms, patient, n_resamples=25, seed=1)
    for column in range(2):
        np.testing.assert_allclose(both[:, column], bootstrap_ratio(tops[:, column], y, patient, n_resamples=25, seed=1))
    assert np.isnan(bootstrap_ratio([0.0], [0.0], None, n_resamples=3)).all()


def test_standard_error_of_a_mean_is_the_textbooks() -> None:
    x = np.random.default_rng(6).normal(size=400)
    assert bootstrap_ratio(x, None, None, n_resamples=4000).std() == pytest.approx(x.std() / 20, rel=0.05)


def test_percentiles_leave_undefined_resamples_out_and_count_them() -> None:
    values = np.append(np.arange(101.0), np.nan)
    assert percentile_interval(values) == pytest.approx((2.5, 97.5, 1))
    low, high, undefined = percentile_interval(np.array([1.0, np.nan, np.nan]))
    assert np.isnan(low)
    assert np.isnan(high)
    assert undefined == 2


def test_nobody_to_resample_is_refused() -> None:
    with pytest.raises(InputError, match="no patients"):
        next(resample_counts(0, 1, seed=0))


def test_budget() -> None:
    assert affordable(10_000, 2000)
    assert not affordable(1_000_000, 2000)
    assert not affordable(10, 0)


def test_half_of_the_resamples_must_be_defined() -> None:
    assert percentile_interval(np.array([1.0, 2.0, np.nan, np.nan]))[:2] == pytest.approx((1.025, 1.975))
