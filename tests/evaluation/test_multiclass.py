import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medcnn.errors import InputError
from medcnn.evaluation import bootstrap
from medcnn.evaluation.clustered import influence_variance
from medcnn.evaluation.intervals import patient_codes
from medcnn.evaluation.multiclass import average_aurocs, hand_till, label_tasks, mean_auroc_influence, one_vs_rest_aurocs, pair_tasks


def classes(n: int = 400, k: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Classes (n,), one-hot (n, k), rounded probabilities with rows summing to 1 (n, k), patients (n,)."""
    rng = np.random.default_rng(seed)
    target = rng.choice(k, n, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    score = rng.integers(1, 8, (n, k)) + 3 * np.eye(k)[target]
    return target, np.eye(k)[target], score / score.sum(axis=1, keepdims=True), rng.integers(0, n // 3, n)


def findings(n: int = 400, k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random((n, k)) < [0.1, 0.3, 0.5][:k]).astype(float)
    return y, np.round(1 / (1 + np.exp(-rng.normal(size=(n, k)) - y)), 2), rng.integers(0, n // 3, n)


def test_values_are_scikit_learns() -> None:
    target, y, p, _ = classes()
    assert hand_till(y, p, n_resamples=0).value == pytest.approx(roc_auc_score(target, p, multi_class="ovo"), abs=1e-13)
    np.testing.assert_allclose(one_vs_rest_aurocs(y, p), roc_auc_score(y, p, average=None), atol=1e-13)
    for data in ((y, p), findings()[:2]):
        for name, found in average_aurocs(*data, n_resamples=0).items():
            assert found.value == pytest.approx(roc_auc_score(*data, average=name), abs=1e-13)


def test_hand_till_does_not_depend_on_class_frequencies() -> None:
    _, y, p, _ = classes()
    often = np.repeat(np.arange(len(y)), np.where(y[:, 0] == 1, 5, 1))
    assert hand_till(y[often], p[often], n_resamples=0).value == pytest.approx(hand_till(y, p, n_resamples=0).value, abs=1e-13)


def test_missing_labels_use_the_rows_where_a_label_is_known() -> None:
    y, p, _ = findings()
    y[np.random.default_rng(1).random(y.shape) < 0.2] = np.nan
    known = ~np.isnan(y)
    by_hand = [roc_auc_score(y[known[:, k], k], p[known[:, k], k]) for k in range(3)]
    np.testing.assert_allclose(one_vs_rest_aurocs(y, p), by_hand, atol=1e-13)
    found = average_aurocs(y, p, n_resamples=0)
    assert found["macro"].value == pytest.approx(np.mean(by_hand))
    assert found["weighted"].value == pytest.approx(np.average(by_hand, weights=np.nansum(y, axis=0)))
    assert found["micro"].value == pytest.approx(roc_auc_score(y[known], p[known]))
    assert [len(task.y) for task in label_tasks(y, p)] == known.sum(axis=0).tolist()


def test_labels_of_one_class_are_left_out_and_named() -> None:
    y, p, _ = findings()
    y[:, 1] = 0
    found = average_aurocs(y, p, labels=["nodule", "hernia", "mass"], n_resamples=50)
    assert found["macro"].note == "mean of 2 of 3 labels (one class only: hernia)"
    assert found["macro"].value == pytest.approx(roc_auc_score(y[:, [0, 2]], p[:, [0, 2]]))
    assert np.isnan(one_vs_rest_aurocs(y, p)[1])
    nothing = average_aurocs(np.zeros((5, 2)), np.full((5, 2), 0.5))
    assert all(each.value is None and "not estimable" in each.note for each in nothing.values())


@pytest.mark.parametrize("weighted", [False, True])
def test_influence_of_a_mean_is_its_jackknife(weighted: bool) -> None:
    y, p, patient = findings(600)
    y[:60, 0] = np.nan
    codes, n_patients = patient_codes(patient, len(y))
    value, influence = mean_auroc_influence(label_tasks(y, p), codes, n_patients, weighted=weighted)
    assert abs(influence.sum()) < 1e-12
    without = []
    for who in range(n_patients):
        rest = label_tasks(y[codes != who], p[codes != who])
        without.append(mean_auroc_influence(rest, codes[codes != who], n_patients, weighted=weighted)[0])
    jackknife = (n_patients - 1) / n_patients * np.sum((np.array(without) - np.mean(without)) ** 2)
    assert influence_variance(influence) == pytest.approx(jackknife, rel=0.05)
    names = {"macro": False, "weighted": True}
    assert {name: average_aurocs(y, p, patient, n_resamples=0)[name].value for name, w in names.items() if w == weighted} == {
        name: pytest.approx(value) for name, w in names.items() if w == weighted
    }


def test_bootstrap_and_linearised_intervals_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    _, y, p, patient = classes(600)
    booted = average_aurocs(y, p, patient, n_resamples=600) | {"m": hand_till(y, p, patient, n_resamples=600)}
    monkeypatch.setattr(bootstrap, "BUDGET", 1)
    analytic = average_aurocs(y, p, patient, n_resamples=600) | {"m": hand_till(y, p, patient, n_resamples=600)}
    assert booted["micro"].method == analytic["micro"].method == "obuchowski"
    for name in ("macro", "weighted", "m"):
        assert (booted[name].method, analytic[name].method) == ("bootstrap", "linearised")
        assert analytic[name].se == pytest.approx(booted[name].se, rel=0.12)
        np.testing.assert_allclose(
            (analytic[name].low, analytic[name].high), (booted[name].low, booted[name].high), atol=0.4 * booted[name].se
        )


def test_bootstrap_resamples_patients_once_for_all_labels() -> None:
    y, p, patient = findings(90)
    codes, n_patients = patient_codes(patient, 90)
    expected = []
    for counts in bootstrap.resample_counts(n_patients, 60, seed=4):
        rows = np.repeat(np.arange(90), counts[codes])
        expected.append(roc_auc_score(y[rows], p[rows], average="weighted"))
    found = average_aurocs(y, p, patient, n_resamples=60, seed=4)["weighted"]
    np.testing.assert_allclose((found.low, found.high), np.quantile(expected, [0.025, 0.975]), atol=1e-12)


def test_class_nobody_has_is_left_out_of_the_pairs() -> None:
    _, y, p, _ = classes(k=3)
    y, p = np.column_stack([y, np.zeros(len(y))]), np.column_stack([p * 0.9, np.full(len(y), 0.1)])
    found = hand_till(y, p, n_resamples=0)
    assert found.note == "3 of 6 pairs left out: a class has no case"
    assert found.value == pytest.approx(hand_till(y[:, :3], p[:, :3], n_resamples=0).value)
    assert len(pair_tasks(y, p)) == 12


def test_rows_without_exactly_one_class_are_refused() -> None:
    for row in ([1, 1], [0, 0], [np.nan, 1]):
        with pytest.raises(InputError, match="exactly one class in every row, row 1"):
            hand_till([[1, 0], row], [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(InputError, match="same shape"):
        average_aurocs([[1, 0]], [[0.5]])
