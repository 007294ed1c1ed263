"""Clinical utility: is acting on the model better than treating everybody or nobody? Positive if and only if p >= threshold.

Net benefit at threshold probability t is tp/n - fp/n * t/(1 - t) (Vickers & Elkin 2006, doi:10.1177/0272989X06295361);
standardised, it is divided by the prevalence, so that 1 is perfect (Kerr et al. 2016, doi:10.1200/JCO.2015.65.5654).
"""

from dataclasses import dataclass

import numpy as np

from medcnn.errors import InputError
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray, check_labels_and_probabilities, not_estimable
from medcnn.evaluation.resampling import bootstrap_cell_counts, percentile_estimate


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit at each threshold (t,): of the model with its pointwise 95% limits (NaN without a bootstrap), of treating all."""

    thresholds: FloatArray
    model: FloatArray
    low: FloatArray
    high: FloatArray
    treat_all: FloatArray
    n: int
    prevalence: float

    @property
    def standardized(self) -> FloatArray:
        """Net benefit over prevalence; NaN without a positive."""
        return self.model / self.prevalence if self.prevalence > 0 else np.full_like(self.model, np.nan)

    @property
    def interventions_avoided_per_100(self) -> FloatArray:
        """Net number of unnecessary interventions that the model avoids per 100 patients, against treating all."""
        return 100 * (self.model - self.treat_all) / (self.thresholds / (1 - self.thresholds))


def net_benefit(tp: FloatArray | float, fp: FloatArray | float, n: FloatArray | float, threshold: FloatArray | float) -> FloatArray:
    """tp/n - fp/n * t/(1-t), for counts and thresholds (0 <= t < 1) of any shapes that broadcast."""
    t = np.asarray(threshold, dtype=np.float64)
    return np.asarray(tp, dtype=np.float64) / n - np.asarray(fp, dtype=np.float64) / n * t / (1 - t)


def threshold_grid(low: float, high: float) -> FloatArray:
    """Thresholds from low to high in steps of 0.01 (0.001 when the range is below 0.2), each the double nearest its decimal.

    0.1 * 3 is not 0.3 in binary: with tied probabilities a grid made by adding steps calls other patients positive.
    Raises InputError unless 0 <= low < high < 1.
    """
    if not 0 <= low < high < 1:
        raise InputError(f"decision curve: the range is {low} to {high}; expected 0 <= low < high < 1")
    steps = 100 if high - low >= 0.2 else 1000
    grid: FloatArray = np.arange(int(np.ceil(low * steps - 1e-9)), int(np.floor(high * steps + 1e-9)) + 1) / steps
    return grid


def decision_curve(
    y: FloatArray, p: FloatArray, thresholds: FloatArray, patients: IntArray | None = None, *, n_resamples: int = 2000, seed: int = 0
) -> DecisionCurve:
    """Net benefit of y (n,) in {0, 1} by p (n,) in [0, 1] at ascending thresholds (t,) in [0, 1), with a patient-bootstrap band.

    patients: codes (n,) or None for independent rows; n_resamples 0: no band.
    """
    y, p = check_labels_and_probabilities(y, p)
    cells, counts = _count(y, p, thresholds)
    model = _model_benefit(counts[None, :], thresholds)[0]
    prevalence = float(y.mean())
    treat_all = net_benefit(prevalence, 1 - prevalence, 1.0, thresholds)
    low = high = np.full_like(model, np.nan)
    if n_resamples:
        resampled = bootstrap_cell_counts(cells, counts.size, patients, n_resamples=n_resamples, seed=seed)
        low, high = np.quantile(_model_benefit(resampled, thresholds), [0.025, 0.975], axis=0)
    return DecisionCurve(thresholds, model, low, high, treat_all, y.size, prevalence)


def net_benefit_estimates(
    y: FloatArray, p: FloatArray, threshold: float, patients: IntArray | None = None, *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """`net_benefit` and `standardized_net_benefit` at one threshold with percentile intervals over resampled patients.

    Not estimable at a threshold of 1 or above, where a false positive weighs infinitely, nor standardised without a positive.
    """
    y, p = check_labels_and_probabilities(y, p)
    if not 0 <= threshold < 1:
        why = f"the threshold {threshold:g} is no probability below 1"
        return {metric: not_estimable(why, "bootstrap") for metric in ("net_benefit", "standardized_net_benefit")}
    grid = np.array([threshold])
    cells, counts = _count(y, p, grid)
    resampled = bootstrap_cell_counts(cells, counts.size, patients, n_resamples=n_resamples, seed=seed)
    benefit, replicates = float(_model_benefit(counts[None, :], grid)[0, 0]), _model_benefit(resampled, grid)[:, 0]
    estimates = {"net_benefit": percentile_estimate(benefit, replicates)}
    if y.sum() == 0:
        return estimates | {"standardized_net_benefit": not_estimable("no positive", "bootstrap")}
    prevalences = resampled[:, 1::2].sum(axis=1) / y.size if patients is None else resampled[:, 1::2].sum(axis=1) / resampled.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimates["standardized_net_benefit"] = percentile_estimate(benefit / float(y.mean()), replicates / prevalences)
    return estimates


def _count(y: FloatArray, p: FloatArray, thresholds: FloatArray) -> tuple[IntArray, IntArray]:
    """Cell of each row, 2 * (number of thresholds at or below p) + label, and the rows per cell (2 (t + 1),)."""
    cells = 2 * np.searchsorted(thresholds, p, side="right") + y.astype(np.int64)
    return cells, np.bincount(cells, minlength=2 * (thresholds.size + 1))


def _model_benefit(counts: IntArray | FloatArray, thresholds: FloatArray) -> FloatArray:
    """Net benefit (m, t) of m sets of counts per cell (m, 2 (t + 1))."""
    above = np.cumsum(counts[:, ::-1].reshape(counts.shape[0], thresholds.size + 1, 2), axis=1)[:, ::-1, :][:, 1:, :].astype(np.float64)
    return net_benefit(above[:, :, 0], above[:, :, 1], counts.sum(axis=1)[:, None], thresholds)
