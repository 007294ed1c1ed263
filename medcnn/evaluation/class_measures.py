"""Measures of several labels together: averages over labels, and for several classes what the whole probability vector says."""

from collections.abc import Iterator

import numpy as np

from medcnn.config import EvaluationConfig
from medcnn.evaluation.binning import bin_calibration
from medcnn.evaluation.confusion import confusion_estimates
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray, mean_estimate, mean_method, mean_standard_error, wald
from medcnn.evaluation.levels import UnitTable
from medcnn.evaluation.measures import Measured
from medcnn.evaluation.multiclass import average_aurocs, hand_till
from medcnn.tables import Task

WHOLE = "all"  # label of a record about the whole probability vector


def across_labels(
    table: UnitTable, patients: IntArray | None, config: EvaluationConfig, *, task: Task, n_resamples: int
) -> Iterator[tuple[str, Measured]]:
    """(label, measured): AUROC macro, weighted, micro; for several classes also Hand-Till M and the measures of `WHOLE`."""
    labels, seed = table.labels, config.seed
    for name, estimate in average_aurocs(table.y, table.p, patients, labels=labels, n_resamples=n_resamples, seed=seed).items():
        yield name, ("auroc", estimate, None)
    if task != "multiclass":
        return
    yield "macro", ("hand_till_m", hand_till(table.y, table.p, patients, labels=labels, n_resamples=n_resamples, seed=seed), None)
    target = table.y.argmax(axis=1)
    for metric, estimate in whole_vector_measures(target, table.p, patients, n_bins=config.n_bins).items():
        yield WHOLE, (metric, estimate, None)
    for metric, estimate in confusion_estimates(target, table.p, patients, n_resamples=config.n_bootstrap, seed=config.seed).items():
        yield "macro" if metric == "f1" else WHOLE, (metric, estimate, None)


def whole_vector_measures(target: IntArray, p: FloatArray, patients: IntArray | None = None, *, n_bins: int = 15) -> dict[str, Estimate]:
    """`brier` (sum over classes, 0 to 2), `scaled_brier`, `log_loss` of the true class, `ece` of the top label.

    target (n,) in 0..k-1, p (n, k) rows summing to 1.
    """
    truth = np.eye(p.shape[1])[target]
    squared = np.square(p - truth).sum(axis=1)
    brier = mean_estimate(squared, patients)
    estimates = {
        "brier": Estimate(
            value=brier.value, low=brier.low, high=brier.high, se=brier.se, method=brier.method, note="sum over classes, 0 to 2"
        )
    }
    estimates["scaled_brier"] = _scaled(squared, truth, patients)
    of_true = p[np.arange(target.size), target]
    if (of_true == 0).any():
        estimates["log_loss"] = Estimate(
            value=float("inf"),
            method=mean_method(patients),
            note=f"infinite: the true class of {int((of_true == 0).sum())} rows has a probability of exactly 0",
        )
    else:
        estimates["log_loss"] = mean_estimate(-np.log(of_true), patients)
    hit = (p.argmax(axis=1) == target).astype(np.float64)
    top = bin_calibration(hit, np.clip(p.max(axis=1), 0, 1), n_bins=n_bins).ece
    estimates["ece"] = Estimate(
        value=top, method="top_label", note=f"confidence of the chosen class against its being right, {n_bins} equal-width bins [a, b)"
    )
    return estimates


def _scaled(squared: FloatArray, truth: FloatArray, patients: IntArray | None) -> Estimate:
    """1 - Brier over that of the class frequencies, with the delta method's interval."""
    share = truth.mean(axis=0)
    spread = float(1 - np.square(share).sum())
    if spread == 0:
        return Estimate(value=None, method=mean_method(patients), note="not estimable: one class only")
    brier = float(squared.mean())
    influence = -(squared - brier) / spread - brier / spread**2 * 2 * ((truth - share) @ share)
    return wald(1 - brier / spread, mean_standard_error(influence, patients), method=mean_method(patients))
