"""Several classes decided by the highest probability: confusion matrix, accuracy, balanced accuracy, macro F1, MCC, kappa."""

import numpy as np

from medcnn.errors import InputError
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray, not_estimable
from medcnn.evaluation.intervals import proportion_interval
from medcnn.evaluation.resampling import bootstrap_cell_counts, percentile_estimate

METRICS = ("balanced_accuracy", "f1", "mcc", "kappa")


def confusion_matrix(target: IntArray, p: FloatArray) -> IntArray:
    """Counts (k, k): rows are the true class, columns the class with the highest probability (the first of several equal ones).

    target (n,) in 0..k-1, p (n, k). Raises InputError when they do not fit together.
    """
    if p.ndim != 2 or target.shape != (p.shape[0],) or (target.size and not 0 <= int(target.min()) <= int(target.max()) < p.shape[1]):
        raise InputError(f"confusion matrix: classes of shape {target.shape} do not fit probabilities of shape {p.shape}")
    k = p.shape[1]
    return np.bincount(target * k + p.argmax(axis=1), minlength=k * k).reshape(k, k)


def confusion_estimates(
    target: IntArray, p: FloatArray, patients: IntArray | None = None, *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Top-1 `accuracy` (Wilson, clustered when patients repeat); `balanced_accuracy`, `f1` (macro), `mcc`, `kappa` (bootstrap).

    Balanced accuracy and macro F1 average the classes that occur (in the labels; for F1 in labels or predictions).
    """
    matrix = confusion_matrix(target, p)
    hit = (p.argmax(axis=1) == target).astype(np.float64)
    estimates = {"accuracy": proportion_interval(hit, patients)}
    k = matrix.shape[0]
    cells = target * k + p.argmax(axis=1)
    resampled = bootstrap_cell_counts(cells, k * k, patients, n_resamples=n_resamples, seed=seed).reshape(-1, k, k)
    for metric, values, replicates in zip(METRICS, summaries(matrix[None].astype(np.float64)), summaries(resampled), strict=True):
        value = float(values[0])
        estimates[metric] = not_estimable("one class only", "bootstrap") if np.isnan(value) else percentile_estimate(value, replicates)
    return estimates


def summaries(matrix: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """METRICS of confusion matrices (m, k, k), each (m,); NaN where a denominator is 0.

    MCC is Gorodkin's R_K (doi:10.1016/j.compbiolchem.2004.09.006), kappa Cohen's.
    """
    hits, true, called = np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=2), matrix.sum(axis=1)
    n = true.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        balanced = np.nanmean(np.where(true > 0, hits / true, np.nan), axis=1)
        f1 = np.nanmean(np.where(true + called > 0, 2 * hits / (true + called), np.nan), axis=1)
        agreement, chance = hits.sum(axis=1), (true * called).sum(axis=1)
        spread = np.sqrt((n**2 - (called**2).sum(axis=1)) * (n**2 - (true**2).sum(axis=1)))
        mcc = np.where(spread > 0, (agreement * n - chance) / spread, np.nan)
        kappa = np.where(n**2 > chance, (agreement * n - chance) / (n**2 - chance), np.nan)
    return balanced, f1, mcc, kappa
