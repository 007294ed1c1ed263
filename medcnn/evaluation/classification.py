"""What a threshold does: the 2x2 table and everything derived from it, with intervals. Positive if and only if p >= threshold.

Proportions carry Wilson's interval, or its clustered form when patients repeat; likelihood ratios the log method;
balanced accuracy, F1, MCC and kappa a percentile interval over resampled patients.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from medcnn.evaluation.estimates import Z95, Estimate, FloatArray, IntArray, check_labels_and_probabilities, not_estimable
from medcnn.evaluation.intervals import proportion_interval, wilson
from medcnn.evaluation.resampling import bootstrap_cell_counts, percentile_estimate

TP, FP, FN, TN = 3, 1, 2, 0  # cell = 2 * label + called positive


@dataclass(frozen=True)
class TwoByTwo:
    """Counts of true/false positives/negatives: integers, or float arrays of any equal shape (resamples). A ratio 0/0 is NaN."""

    tp: FloatArray | float
    fp: FloatArray | float
    fn: FloatArray | float
    tn: FloatArray | float

    @property
    def n(self) -> FloatArray | float:
        """All rows."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def sensitivity(self) -> FloatArray | float:
        """tp / (tp + fn)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> FloatArray | float:
        """tn / (tn + fp)."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def balanced_accuracy(self) -> FloatArray | float:
        """Mean of sensitivity and specificity."""
        return (self.sensitivity + self.specificity) / 2

    @property
    def f1(self) -> FloatArray | float:
        """2 tp / (2 tp + fp + fn)."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def mcc(self) -> FloatArray | float:
        """Matthews correlation; NaN where a margin is empty (scikit-learn prints 0)."""
        margins = (self.tp + self.fp), (self.tp + self.fn), (self.tn + self.fp), (self.tn + self.fn)
        spread = np.sqrt(margins[0]) * np.sqrt(margins[1]) * np.sqrt(margins[2]) * np.sqrt(margins[3])
        return _ratio(self.tp * self.tn - self.fp * self.fn, spread)

    @property
    def kappa(self) -> FloatArray | float:
        """Cohen's kappa (doi:10.1177/001316446002000104); NaN where chance agreement is 1."""
        n = self.n
        agreement = _ratio(self.tp + self.tn, n)
        chance = _ratio((self.tp + self.fp) * (self.tp + self.fn) + (self.fn + self.tn) * (self.fp + self.tn), n * n)
        return _ratio(agreement - chance, 1 - chance)


def _ratio(top: FloatArray | float, bottom: FloatArray | float) -> FloatArray | float:
    with np.errstate(divide="ignore", invalid="ignore"):
        share: FloatArray = np.where(np.equal(bottom, 0), np.nan, np.divide(top, bottom))
    return share if share.ndim else float(share)


def two_by_two(y: FloatArray, p: FloatArray, threshold: float | FloatArray) -> TwoByTwo:
    """Count. y (n,) in {0, 1}, p (n,) in [0, 1], threshold one number or one per row (n,), as when folds have their own."""
    y, p = check_labels_and_probabilities(y, p)
    counts = np.bincount(_cells(y, p, threshold), minlength=4)
    return TwoByTwo(int(counts[TP]), int(counts[FP]), int(counts[FN]), int(counts[TN]))


def _cells(y: FloatArray, p: FloatArray, threshold: float | FloatArray) -> IntArray:
    cells: IntArray = 2 * y.astype(np.int64) + (p >= threshold)
    return cells


# ---------------------------------------------------------------- with intervals


def classification_estimates(
    y: FloatArray, p: FloatArray, threshold: float | FloatArray, patients: IntArray | None = None, *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Sensitivity, specificity, ppv, npv, lr_positive, lr_negative, accuracy, balanced_accuracy, f1, mcc, kappa.

    Arguments as in `two_by_two`; patients: codes (n,) or None. A quotient without a denominator is not estimable.
    """
    y, p = check_labels_and_probabilities(y, p)
    cells = _cells(y, p, threshold)
    hits = {
        "sensitivity": (cells >= FN, cells == TP),
        "specificity": (cells <= FP, cells == TN),
        "ppv": ((cells == TP) | (cells == FP), cells == TP),
        "npv": ((cells == TN) | (cells == FN), cells == TN),
        "accuracy": (np.ones(y.size, dtype=np.bool_), (cells == TP) | (cells == TN)),
    }
    estimates = {metric: _proportion(hit[among], None if patients is None else patients[among]) for metric, (among, hit) in hits.items()}
    counts = np.bincount(cells, minlength=4)
    estimates["lr_positive"] = _likelihood_ratio(cells, counts, patients, of_positive=True)
    estimates["lr_negative"] = _likelihood_ratio(cells, counts, patients, of_positive=False)
    resampled = bootstrap_cell_counts(cells, 4, patients, n_resamples=n_resamples, seed=seed)
    return estimates | _overall(counts, resampled)


def _proportion(hit: FloatArray, patients: IntArray | None) -> Estimate:
    if not hit.size:
        return not_estimable("no case to count", "wilson")
    if patients is not None:
        return proportion_interval(hit.astype(np.float64), patients)
    n_hits = int(hit.sum())
    low, high = wilson(n_hits, hit.size)
    return Estimate(value=n_hits / hit.size, low=low, high=high, method="wilson")


def _overall(counts: IntArray, resampled: FloatArray) -> dict[str, Estimate]:
    point, replicates = (
        TwoByTwo(*(float(counts[cell]) for cell in (TP, FP, FN, TN))),
        TwoByTwo(*(resampled[:, cell] for cell in (TP, FP, FN, TN))),
    )
    estimates = {}
    for metric in ("balanced_accuracy", "f1", "mcc", "kappa"):
        value = float(getattr(point, metric))
        if np.isnan(value):
            estimates[metric] = not_estimable("a margin of the 2x2 table is empty", "bootstrap")
        else:
            estimates[metric] = percentile_estimate(value, np.asarray(getattr(replicates, metric)))
    return estimates


def _likelihood_ratio(cells: IntArray, counts: IntArray, patients: IntArray | None, *, of_positive: bool) -> Estimate:
    """LR+ = sens / (1 - spec) or LR- = (1 - sens) / spec, interval on the log scale (Simel 1991, doi:10.1016/0895-4356(91)90128-V).

    The standard error of the log is the sum over rows, or over patients, of squared influences; for independent rows it
    is Simel's sqrt(1/tp - 1/(tp+fn) + 1/fp - 1/(fp+tn)).
    """
    among_positive, among_negative = (TP, FP) if of_positive else (FN, TN)
    a, b = int(counts[among_positive]), int(counts[among_negative])
    n_positive, n_negative = int(counts[TP] + counts[FN]), int(counts[FP] + counts[TN])
    if n_positive == 0 or n_negative == 0:
        return not_estimable("one class only", "log")
    if b == 0:
        return not_estimable(f"infinite: no {'false positive' if of_positive else 'true negative'}", "log")
    value = (a / n_positive) / (b / n_negative)
    if a == 0:
        return Estimate(value=value, method="log", note="interval not estimable: the numerator is 0")
    if patients is None:
        variance = 1 / a - 1 / n_positive + 1 / b - 1 / n_negative
    else:
        influence = np.where(cells >= FN, (cells == among_positive) / a - 1 / n_positive, 1 / n_negative - (cells == among_negative) / b)
        summed = np.bincount(patients, weights=influence)
        variance = summed.size / (summed.size - 1) * float(summed @ summed) if summed.size > 1 else np.nan
    se = float(np.sqrt(variance))
    low, high = value * np.exp([-Z95 * se, Z95 * se])
    return Estimate(value=value, low=float(low), high=float(high), se=value * se, method="log" if patients is None else "log_clustered")


def restate_predictive_values(estimates: dict[str, Estimate], prevalence: float) -> dict[str, Estimate]:
    """`ppv` and `npv` at another prevalence (0, 1), from the likelihood ratios: logit PPV = logit prevalence + ln LR+.

    Their interval moves with that of the likelihood ratio (Mercaldo, Lau & Zhou 2007, doi:10.1002/sim.2677, logit form).
    """
    restated = {}
    for metric, source, sign in (("ppv", "lr_positive", 1), ("npv", "lr_negative", -1)):
        ratio, note = estimates[source], f"restated to a prevalence of {prevalence:g}"
        if ratio.value is None:
            infinite = "infinite" in ratio.note
            restated[metric] = Estimate(value=float(sign == 1) if infinite else None, method="logit", note=f"{note}; {source} {ratio.note}")
            continue
        limits = [expit(sign * (logit(prevalence) + _log(limit))) for limit in (ratio.value, ratio.low, ratio.high) if limit is not None]
        low, high = (float(min(limits[1:])), float(max(limits[1:]))) if len(limits) == 3 else (None, None)
        restated[metric] = Estimate(
            value=float(limits[0]), low=low, high=high, method="logit" if "clustered" not in ratio.method else "logit_clustered", note=note
        )
    return restated


def _log(value: float) -> float:
    return float(np.log(value)) if value > 0 else -np.inf


def diagnostic_odds_ratio(table: TwoByTwo) -> Estimate:
    """tp tn / (fp fn) with the log method's interval; independent rows. Not estimable when a cell is empty."""
    cells = np.array([table.tp, table.fp, table.fn, table.tn], dtype=np.float64)
    if (cells == 0).any():
        return not_estimable("a cell of the 2x2 table is empty", "log")
    value, se = float(cells[0] * cells[3] / (cells[1] * cells[2])), float(np.sqrt((1 / cells).sum()))
    return Estimate(value=value, low=value * float(np.exp(-Z95 * se)), high=value * float(np.exp(Z95 * se)), se=value * se, method="log")


def kappa_standard_error(table: TwoByTwo) -> float:
    """Large-sample standard error of Cohen's kappa (Fleiss, Cohen & Everitt 1969, doi:10.1037/h0028106); independent rows."""
    share = np.array([[table.tp, table.fp], [table.fn, table.tn]], dtype=np.float64) / float(table.n)
    rows, columns, kappa = share.sum(axis=1), share.sum(axis=0), float(table.kappa)
    chance = float(rows @ columns)
    mean_margin = (columns[:, None] + rows[None, :]).T
    diagonal = np.eye(2, dtype=bool)
    weight = np.where(diagonal, (1 - mean_margin * (1 - kappa)) ** 2, (1 - kappa) ** 2 * (columns[:, None] + rows[None, :]) ** 2)
    variance = float((share * weight).sum() - (kappa - chance * (1 - kappa)) ** 2) / (1 - chance) ** 2
    return float(np.sqrt(variance / float(table.n)))


def f1_standard_error(table: TwoByTwo) -> float:
    """Delta-method standard error of F1, independent rows (Takahashi et al. 2022, doi:10.1007/s10489-021-02635-5)."""
    tp, errors = float(table.tp), float(table.fp) + float(table.fn)
    bottom = 2 * tp + errors
    influence_tp, influence_error = 2 * errors / bottom**2, -2 * tp / bottom**2
    return float(np.sqrt(tp * influence_tp**2 + errors * influence_error**2))
