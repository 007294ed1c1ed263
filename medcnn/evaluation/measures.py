"""Every measure of one label on one set of rows, as (metric, estimate, threshold) triples in the order of the report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medcnn.config import EvaluationConfig
from medcnn.evaluation import calibration
from medcnn.evaluation.areas import average_precision_interval, partial_auroc_intervals
from medcnn.evaluation.binning import calibration_error, noise_floor, smooth_calibration_error
from medcnn.evaluation.calibration_curve import curve_distances, integrated_calibration, why_no_curve
from medcnn.evaluation.classification import classification_estimates, restate_predictive_values, two_by_two
from medcnn.evaluation.discrimination import auroc_interval, auroc_intervals
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray, not_estimable
from medcnn.evaluation.loess import LoessSurface, fit_loess
from medcnn.evaluation.splines import spline_calibration
from medcnn.evaluation.utility import net_benefit_estimates

Measured = tuple[str, Estimate, float | None]

SORTED_BUDGET = 200_000_000  # rows x labels x resamples up to which bootstraps that sort are run; beyond, analytic intervals
SPLINE_ROWS = 50_000  # up to here a second smoother checks the ICI of the loess
CURVE_RESAMPLES = 1000  # the loess is refitted in at most this many resamples


@dataclass(frozen=True)
class Sample:
    """Rows of one label: y (n,) in {0, 1}, p (n,) in [0, 1], patient codes (n,) or None when rows are independent, fold (n,).

    The rows ascend by p: a dozen measures sort, and sorting what is sorted costs next to nothing.
    """

    y: FloatArray
    p: FloatArray
    patients: IntArray | None
    fold: IntArray
    n_patients: int

    @cached_property
    def surface(self) -> LoessSurface | None:
        """The loess of y on p, with its robust covariance; None when `calibration_curve.why_no_curve` has a reason."""
        return None if why_no_curve(self.y, self.p) else fit_loess(self.p, self.y, patients=self.patients, robust_se=True)


@dataclass(frozen=True)
class Threshold:
    """An operating point: the value that its record states (the mean over folds), and the one that holds for each row."""

    value: float
    by_row: float | FloatArray


def discrimination_measures(sample: Sample, config: EvaluationConfig, *, n_resamples: int) -> Iterator[Measured]:
    """AUROC by every interval, average precision, partial AUROC raw and McClish-corrected."""
    y, p, patients, seed = sample.y, sample.p, sample.patients, config.seed
    for estimate in auroc_intervals(y, p, patients, n_resamples=n_resamples, seed=seed):
        yield "auroc", estimate, None
    yield "average_precision", average_precision_interval(y, p, patients, n_resamples=n_resamples, seed=seed), None
    if config.partial_auroc is not None:
        low, high = config.partial_auroc
        raw, corrected = partial_auroc_intervals(y, p, patients, low=low, high=high, n_resamples=n_resamples, seed=seed)
        span = f"specificity {low:g} to {high:g}"
        yield "partial_auroc", _renamed(raw, raw.method, f"{span}, area of at most {high - low:g}"), None
        yield (
            "partial_auroc",
            _renamed(corrected, f"mcclish_{corrected.method}".rstrip("_"), f"{span}, McClish-corrected: 0.5 chance, 1 perfect"),
            None,
        )


def calibration_measures(sample: Sample, config: EvaluationConfig) -> Iterator[Measured]:
    """Brier, scaled Brier, log-loss, intercept, slope, O:E, ICI, E50, E90, Emax, ECI, ECE with its noise floor, smooth ECE."""
    y, p, patients = sample.y, sample.p, sample.patients
    yield "brier", calibration.brier_score(y, p, patients), None
    yield "scaled_brier", calibration.scaled_brier(y, p, patients), None
    yield "log_loss", calibration.log_loss(y, p, patients), None
    for estimate in calibration.calibration_intercept(y, p, patients):
        yield "calibration_intercept", estimate, None
    for estimate in calibration.calibration_slope(y, p, patients):
        yield "calibration_slope", estimate, None
    yield "oe_ratio", calibration.observed_expected(y, p, patients), None
    n_resamples = min(config.n_bootstrap, CURVE_RESAMPLES)
    for metric, estimate in integrated_calibration(
        y, p, patients, n_resamples=n_resamples, seed=config.seed, surface=sample.surface
    ).items():
        yield metric, estimate, None
    if sample.surface is not None and y.size <= SPLINE_ROWS and (fitted := spline_calibration(y, p)) is not None:
        spline = Estimate(
            value=curve_distances(y, p, fitted)["ici"], method="rcs5", note="restricted cubic spline of the log odds, 5 knots"
        )
        yield "ici", spline, None
    yield "ece", calibration_error(y, p, patients, n_bins=config.n_bins, n_resamples=config.n_bootstrap, seed=config.seed), None
    floor = noise_floor(p, n_bins=config.n_bins, seed=config.seed)
    yield (
        "ece_noise_floor",
        Estimate(value=floor, method="simulation", note="mean ECE of a perfectly calibrated model with these probabilities"),
        None,
    )
    error, sigma = smooth_calibration_error(y, p)
    yield "smooth_ece", Estimate(value=error, method="reflected_gaussian", note=f"bandwidth {sigma:.4g}"), None


def threshold_measures(sample: Sample, config: EvaluationConfig, thresholds: Sequence[Threshold]) -> Iterator[Measured]:
    """At each threshold: the 2x2 counts, rates, likelihood ratios, predictive values restated to the prevalence given, net benefit."""
    settings = {"n_resamples": config.n_bootstrap, "seed": config.seed}
    for threshold in thresholds:
        at = threshold.value
        table = two_by_two(sample.y, sample.p, threshold.by_row)
        counts = {"true_positives": table.tp, "false_positives": table.fp, "false_negatives": table.fn, "true_negatives": table.tn}
        for metric, count in counts.items():
            yield metric, Estimate(value=float(count), method="count"), at
        estimates = classification_estimates(sample.y, sample.p, threshold.by_row, sample.patients, **settings)
        for metric, estimate in estimates.items():
            yield metric, estimate, at
        if config.prevalence is not None:
            for metric, estimate in restate_predictive_values(estimates, config.prevalence).items():
                yield metric, _renamed(estimate, f"restated_{estimate.method}", estimate.note), at
        if np.ndim(threshold.by_row) == 0:
            for metric, estimate in net_benefit_estimates(sample.y, sample.p, at, sample.patients, **settings).items():
                yield metric, estimate, at


def subgroup_measures(sample: Sample, thresholds: Sequence[Threshold]) -> Iterator[Measured]:
    """The key measures of a subgroup, each with its first interval; no bootstrap."""
    y, p, patients = sample.y, sample.p, sample.patients
    yield "auroc", auroc_interval(y, p, patients), None
    yield "brier", calibration.brier_score(y, p, patients), None
    yield "calibration_intercept", calibration.calibration_intercept(y, p, patients)[0], None
    yield "calibration_slope", calibration.calibration_slope(y, p, patients)[0], None
    yield "oe_ratio", calibration.observed_expected(y, p, patients), None
    for threshold in thresholds:
        estimates = classification_estimates(y, p, threshold.by_row, patients, n_resamples=0)
        for metric in ("sensitivity", "specificity", "ppv", "npv"):
            yield metric, estimates[metric], threshold.value


SUBGROUP_METRICS = ("auroc", "brier", "calibration_intercept", "calibration_slope", "oe_ratio")


def too_small(why: str, thresholds: Sequence[Threshold]) -> Iterator[Measured]:
    """The same records as `subgroup_measures`, all not estimable."""
    for metric in SUBGROUP_METRICS:
        yield metric, not_estimable(why), None
    for threshold in thresholds:
        for metric in ("sensitivity", "specificity", "ppv", "npv"):
            yield metric, not_estimable(why), threshold.value


def _renamed(estimate: Estimate, method: str, note: str) -> Estimate:
    """The estimate under another method, `note` before its own."""
    joined = "; ".join(dict.fromkeys(part for part in (note, estimate.note) if part))
    return Estimate(value=estimate.value, low=estimate.low, high=estimate.high, se=estimate.se, method=method, note=joined)
