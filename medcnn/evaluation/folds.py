"""Deal patients to folds for cross-validation within the validation rows, so that no patient stands on both sides."""

import numpy as np

from medcnn.evaluation.estimates import FloatArray, IntArray


def deal_folds(
    y: FloatArray, patients: IntArray | None, *, n_folds: int, seed: int, tie_break: FloatArray | None = None
) -> IntArray | None:
    """Fold 0..n_folds-1 of each row (n,); patients with and without a positive are dealt separately. None: too few of either.

    patients: codes (n,). Where each row is its own patient (None), rows are first put into the order of `tie_break` (n,)
    (a score), so that the order of the rows in the file changes nothing.
    """
    if patients is None:
        patients = np.empty(y.size, dtype=np.int64)
        patients[np.lexsort((y, tie_break if tie_break is not None else y))] = np.arange(y.size)
    positive = np.bincount(patients, weights=y) > 0
    if min(int(positive.sum()), int((~positive).sum())) < n_folds:
        return None
    rng = np.random.default_rng(seed)
    fold_of = np.empty(positive.size, dtype=np.int64)
    for stratum in (positive, ~positive):
        members = rng.permutation(np.flatnonzero(stratum))
        fold_of[members] = np.arange(members.size) % n_folds
    folds: IntArray = fold_of[patients]
    return folds
