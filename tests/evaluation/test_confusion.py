import numpy as np
import pytest
from sklearn import metrics

from medcnn.errors import InputError
from medcnn.evaluation.confusion import confusion_estimates, confusion_matrix


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 2, 0.5], 400)
    return np.array([rng.choice(4, p=row) for row in p]), p


def test_measures_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    target, p = rows
    chosen = p.argmax(axis=1)
    np.testing.assert_array_equal(confusion_matrix(target, p), metrics.confusion_matrix(target, chosen))
    found = confusion_estimates(target, p, n_resamples=500)
    theirs = {
        "accuracy": metrics.accuracy_score(target, chosen),
        "balanced_accuracy": metrics.balanced_accuracy_score(target, chosen),
        "f1": metrics.f1_score(target, chosen, average="macro"),
        "mcc": metrics.matthews_corrcoef(target, chosen),
        "kappa": metrics.cohen_kappa_score(target, chosen),
    }
    for metric, value in theirs.items():
        np.testing.assert_allclose(found[metric].value, value, rtol=1e-12, err_msg=metric)
        assert found[metric].low < value < found[metric].high


def test_interval_widens_with_clusters(rows: tuple[np.ndarray, np.ndarray]) -> None:
    target, p = np.repeat(rows[0], 3), np.repeat(rows[1], 3, axis=0)
    plain, clustered = (confusion_estimates(target, p, who, n_resamples=400) for who in (None, np.repeat(np.arange(400), 3)))
    for metric in ("accuracy", "kappa", "f1"):
        assert clustered[metric].high - clustered[metric].low > 1.4 * (plain[metric].high - plain[metric].low)


def test_a_class_that_never_occurs_is_left_out_of_the_means(rows: tuple[np.ndarray, np.ndarray]) -> None:
    target, p = rows[0][rows[0] != 3], rows[1][rows[0] != 3]
    found = confusion_estimates(target, p, n_resamples=0)
    expected = np.mean([(p.argmax(axis=1) == k)[target == k].mean() for k in range(3)])
    np.testing.assert_allclose(found["balanced_accuracy"].value, expected)


def test_one_class_only_has_no_agreement_beyond_chance() -> None:
    found = confusion_estimates(np.zeros(5, dtype=np.int64), np.tile([0.8, 0.2], (5, 1)), n_resamples=10)
    assert found["accuracy"].value == 1
    assert found["kappa"].value is None
    assert found["mcc"].value is None


def test_what_does_not_fit_is_refused(rows: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(InputError, match="do not fit"):
        confusion_matrix(rows[0][:5], rows[1])
    with pytest.raises(InputError, match="do not fit"):
        confusion_matrix(rows[0] + 1, rows[1])
