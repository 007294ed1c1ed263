import numpy as np

from medcnn.evaluation.folds import deal_folds


def test_patients_stay_together_and_classes_are_dealt_evenly() -> None:
    rng = np.random.default_rng(0)
    patients = rng.permutation(np.repeat(np.arange(100), 3))
    y = (patients < 20).astype(float)
    folds = deal_folds(y, patients, n_folds=5, seed=1)
    assert all(np.unique(folds[patients == patient]).size == 1 for patient in range(100))
    assert [np.unique(patients[(folds == fold) & (y == 1)]).size for fold in range(5)] == [4] * 5
    assert [np.unique(patients[folds == fold]).size for fold in range(5)] == [20] * 5


def test_row_order_changes_nothing_and_the_seed_does() -> None:
    rng = np.random.default_rng(2)
    y, score = (rng.random(60) < 0.4).astype(float), rng.random(60)
    folds = deal_folds(y, None, n_folds=5, seed=0, tie_break=score)
    order = rng.permutation(60)
    np.testing.assert_array_equal(deal_folds(y[order], None, n_folds=5, seed=0, tie_break=score[order]), folds[order])
    assert not np.array_equal(deal_folds(y, None, n_folds=5, seed=9, tie_break=score), folds)


def test_too_few_patients_of_a_class_cannot_be_dealt() -> None:
    assert deal_folds(np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0.0]), None, n_folds=5, seed=0) is None
    assert deal_folds(np.ones(20), None, n_folds=5, seed=0) is None
    y, patients = np.repeat([1, 0.0], 30), np.repeat(np.arange(4), 15)
    assert deal_folds(y, patients, n_folds=5, seed=0) is None
