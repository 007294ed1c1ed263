"""Are the probabilities right? Intercept, slope, observed over expected, Brier score, log-loss and the classical tests.

Every function takes y (n,) in {0, 1} and p (n,) in [0, 1], both float64 and finite (InputError names the rows that are not),
and `patients`, integer codes (n,) from `repeated_patients` or None when every row is its own patient.

A probability of exactly 0 or 1 has no finite log odds. Where log odds are needed, `log_odds` moves such rows, and only
such rows, to CLIP or 1 - CLIP (or to the most extreme other probability, should that lie further out, so that no order
changes) and the note counts them. No row is ever dropped.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logit, xlogy
from scipy.stats import chi2, norm

from medcnn.evaluation.estimates import (
    Z95,
    Estimate,
    FloatArray,
    IntArray,
    check_labels_and_probabilities,
    mean_estimate,
    mean_method,
    mean_standard_error,
    not_estimable,
    wald,
)
from medcnn.evaluation.logistic import LogisticFit, fit_logistic, log_likelihood, profile_interval, robust_covariance

CLIP = 1e-7  # the log odds (16.1) at which a float32 sigmoid begins to round to exactly 1
PROFILE_ROWS = 50_000  # above this the profile and the Wald limits agree to four digits and the profile costs seconds


def log_odds(p: FloatArray) -> tuple[FloatArray, int]:
    """logit(p), float64 (n,), and how many rows stood at exactly 0 or 1 and were moved (see the module's words)."""
    zero, one = p == 0, p == 1
    n_moved = int(zero.sum() + one.sum())
    if n_moved == 0:
        return logit(p), 0
    inside = p[~(zero | one)]
    low = min(CLIP, float(inside.min())) if inside.size else CLIP
    high = max(1 - CLIP, float(inside.max())) if inside.size else 1 - CLIP
    return logit(np.where(zero, low, np.where(one, high, p))), n_moved


def clip_note(n_moved: int) -> str:
    """The sentence that a number computed from clipped log odds carries; empty when nothing was clipped."""
    return f"{n_moved} probabilities of exactly 0 or 1 moved to {CLIP:g} from there" if n_moved else ""


# ---------------------------------------------------------------- intercept and slope


def calibration_intercept(y: FloatArray, p: FloatArray, patients: IntArray | None = None) -> list[Estimate]:
    """Calibration-in-the-large: a in logit P(y=1) = a + logit(p), slope fixed at 1 (Cox 1958, doi:10.1093/biomet/45.3-4.562).

    0 is perfect, positive means that risks are underestimated. One estimate per interval: "profile" (profile likelihood)
    and "wald"; "cluster_robust" alone when patients repeat. Not estimable with one class only.
    """
    y, p = check_labels_and_probabilities(y, p)
    lp, n_moved = log_odds(p)
    design = np.ones((y.size, 1))
    if y.min() == y.max():
        return [not_estimable("one class only")]
    return _intervals(design, y, lp, patients, index=0, note=clip_note(n_moved))


def calibration_slope(y: FloatArray, p: FloatArray, patients: IntArray | None = None) -> list[Estimate]:
    """b in logit P(y=1) = a + b logit(p) (Cox 1958, doi:10.1093/biomet/45.3-4.562). 1 is perfect, below 1 means too extreme.

    Intervals as for `calibration_intercept`. Not estimable with one class, constant or perfectly separating probabilities.
    """
    y, p = check_labels_and_probabilities(y, p)
    lp, n_moved = log_odds(p)
    if y.min() == y.max():
        return [not_estimable("one class only")]
    if lp.min() == lp.max():
        return [not_estimable("all probabilities are equal")]
    return _intervals(np.column_stack([np.ones(y.size), lp]), y, 0.0, patients, index=1, note=clip_note(n_moved))


def _intervals(
    design: FloatArray, y: FloatArray, offset: FloatArray | float, patients: IntArray | None, *, index: int, note: str
) -> list[Estimate]:
    fit = fit_logistic(design, y, offset=offset, start=np.arange(design.shape[1], dtype=np.float64))  # perfect calibration: 0 and 1
    if not fit.converged:
        return [not_estimable("the probabilities separate the classes perfectly")]
    value, se = float(fit.coefficients[index]), float(np.sqrt(fit.covariance[index, index]))
    if patients is not None:
        robust = robust_covariance(fit, design, y, patients=patients, offset=offset)
        return [wald(value, float(np.sqrt(robust[index, index])), method="cluster_robust", note=note)]
    estimates = [wald(value, se, method="wald", note=note)]
    if y.size <= PROFILE_ROWS:
        low, high = profile_interval(fit, index, design, y, offset=offset)
        estimates.insert(0, Estimate(value=value, low=low, high=high, se=se, method="profile", note=note))
    return estimates


def joint_recalibration(y: FloatArray, p: FloatArray) -> LogisticFit:
    """Intercept and slope fitted together; the intercept is rms::val.prob's "Intercept", not calibration-in-the-large."""
    y, p = check_labels_and_probabilities(y, p)
    return fit_logistic(np.column_stack([np.ones(y.size), log_odds(p)[0]]), y)


# ---------------------------------------------------------------- observed over expected, scores


def observed_expected(y: FloatArray, p: FloatArray, patients: IntArray | None = None) -> Estimate:
    """Ratio of observed events to the sum of probabilities, interval on the log scale with the expected count as fixed.

    SE of the log is sqrt((1 - mean y)/O) ("log_wald"), or that of the clustered sum of events ("cluster_robust").
    No events or nothing but events: the ratio without an interval.
    """
    y, p = check_labels_and_probabilities(y, p)
    observed, expected = float(y.sum()), float(p.sum())
    if expected == 0:
        return not_estimable("the probabilities sum to 0")
    ratio, method = observed / expected, "log_wald" if patients is None else "cluster_robust"
    if observed in (0.0, float(y.size)):
        return Estimate(value=ratio, method=method, note="interval not estimable: one class only")
    prevalence = observed / y.size
    se_log = np.sqrt((1 - prevalence) / observed) if patients is None else mean_standard_error(y, patients) / prevalence
    low, high = ratio * np.exp([-Z95 * se_log, Z95 * se_log])
    return Estimate(value=ratio, low=float(low), high=float(high), se=float(ratio * se_log), method=method)


def brier_score(y: FloatArray, p: FloatArray, patients: IntArray | None = None) -> Estimate:
    """mean (p - y)^2, from 0 (perfect) to 1, with SE sd/sqrt(n), clustered when patients repeat (Brier 1950)."""
    y, p = check_labels_and_probabilities(y, p)
    return mean_estimate(np.square(p - y), patients)


def scaled_brier(y: FloatArray, p: FloatArray, patients: IntArray | None = None) -> Estimate:
    """1 - Brier / (prevalence (1 - prevalence)): 1 perfect, 0 as good as the prevalence, negative worse.

    The interval is the delta method's: it counts the sampling of the prevalence as well as that of the Brier score.
    (Steyerberg 2010, doi:10.1097/EDE.0b013e3181c30fb2.)
    """
    y, p = check_labels_and_probabilities(y, p)
    if y.min() == y.max():
        return not_estimable("one class only")
    squared, prevalence = np.square(p - y), float(y.mean())
    spread = prevalence * (1 - prevalence)
    brier = float(squared.mean())
    influence = -(squared - brier) / spread + brier * (1 - 2 * prevalence) * (y - prevalence) / spread**2
    return wald(1 - brier / spread, mean_standard_error(influence, patients), method=mean_method(patients))


def log_loss(y: FloatArray, p: FloatArray, patients: IntArray | None = None) -> Estimate:
    """-mean log likelihood in nats, with the SE of a mean. Infinite, and said so, when a wrong row stands at exactly 0 or 1."""
    y, p = check_labels_and_probabilities(y, p)
    losses = row_log_loss(y, p)
    n_infinite = int(np.isinf(losses).sum())
    if n_infinite:
        return Estimate(
            value=float("inf"), method=mean_method(patients), note=f"infinite: {n_infinite} wrong rows have a probability of exactly 0 or 1"
        )
    return mean_estimate(losses, patients)


def row_log_loss(y: FloatArray, p: FloatArray) -> FloatArray:
    """-log likelihood of each row, (n,), in [0, inf]."""
    with np.errstate(divide="ignore"):
        return np.where(y == 1, -np.log(p), -np.log1p(-p))


# ---------------------------------------------------------------- classical tests, not in the default report


@dataclass(frozen=True)
class ChiSquareTest:
    """A statistic, its degrees of freedom and its p value."""

    statistic: float
    df: float
    p: float


def spiegelhalter_test(y: FloatArray, p: FloatArray) -> tuple[float, float]:
    """Spiegelhalter's z and its two-sided p (Statist Med 1986;5:421, doi:10.1002/sim.4780050506). NaN when every p is 0, 0.5 or 1."""
    y, p = check_labels_and_probabilities(y, p)
    variance = float(np.sum(np.square(1 - 2 * p) * p * (1 - p)))
    if variance == 0:
        return float("nan"), float("nan")
    z = float(np.sum((y - p) * (1 - 2 * p)) / np.sqrt(variance))
    return z, float(2 * norm.sf(abs(z)))


def hosmer_lemeshow(y: FloatArray, p: FloatArray, *, n_groups: int = 10, external: bool = True) -> ChiSquareTest:
    """Hosmer-Lemeshow chi-square over quantile groups (a, b] (Hosmer & Lemeshow 1980, doi:10.1080/03610928008827941).

    Degrees of freedom: the number of groups on data the model never saw (external), minus 2 on its development data.
    """
    y, p = check_labels_and_probabilities(y, p)
    group = quantile_groups(p, n_groups)
    n, observed, expected = (np.bincount(group, weights=weights) for weights in (np.ones_like(y), y, p))
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = float(np.sum(np.square(observed - expected) / expected + np.square(observed - expected) / (n - expected)))
    df = n_groups if external else n_groups - 2
    return ChiSquareTest(statistic, df, float(chi2.sf(statistic, df)))


def quantile_groups(p: FloatArray, n_groups: int) -> IntArray:
    """Group 0, 1, ... of each row, (n,) int64: intervals (a, b] between the distinct type-7 quantiles of p, the lowest closed.

    Rows with equal p share a group, so that with many ties there are fewer than `n_groups` groups.
    """
    ordered = np.sort(p)
    index = np.arange(n_groups + 1) / n_groups * (p.size - 1)
    low = np.floor(index + 1e-9).astype(np.int64)  # 0.3 * (n - 1) may fall one rounding error short of a whole number
    share = np.clip(index - low, 0, 1)
    share[np.abs(index - low) < 1e-9] = 0
    high = np.minimum(low + 1, p.size - 1)
    # Between equal values no arithmetic: (1 - s) x + s x need not be x, and x would fall on the other side of its own quantile.
    level = (share == 0) | (ordered[low] == ordered[high])
    edges = np.unique(np.where(level, ordered[low], (1 - share) * ordered[low] + share * ordered[high]))
    groups = np.searchsorted(edges[1:-1], p, side="left")
    filled = np.bincount(groups, minlength=max(edges.size - 1, 1)) > 0
    return (np.cumsum(filled) - 1)[groups].astype(np.int64)


def likelihood_ratio_tests(y: FloatArray, p: FloatArray) -> dict[str, ChiSquareTest]:
    """Tests of perfect calibration: "unreliability" (intercept 0 and slope 1, df 2), "intercept" (df 1), "slope" given the intercept (df 1).

    Miller, Hui & Tierney 1991, doi:10.1002/sim.4780100806. Raises nothing; NaN where a fit has no finite optimum.
    """
    y, p = check_labels_and_probabilities(y, p)
    lp, _ = log_odds(p)
    ones = np.ones((y.size, 1))
    given = log_likelihood(y, lp)
    shifted, joint = fit_logistic(ones, y, offset=lp).log_likelihood, joint_recalibration(y, p).log_likelihood

    def test(difference: float, df: int) -> ChiSquareTest:
        return ChiSquareTest(2 * difference, df, float(chi2.sf(2 * difference, df)))

    return {"unreliability": test(joint - given, 2), "intercept": test(shifted - given, 1), "slope": test(joint - shifted, 1)}


@dataclass(frozen=True)
class ExplainedVariation:
    """Likelihood-based indices. `discrimination` D, `unreliability` U, `quality` Q = D - U are per row."""

    discrimination: float
    unreliability: float
    quality: float
    mcfadden_r2: float
    cox_snell_r2: float
    nagelkerke_r2: float
    discrimination_slope: float


def explained_variation(y: FloatArray, p: FloatArray, *, refitted: bool = False) -> ExplainedVariation:
    """D, U, Q of Miller, Hui & Tierney 1991 (doi:10.1002/sim.4780100806), R-squared indices, and the discrimination slope.

    refitted: D and the R-squared are those of the logistically recalibrated p (CalibrationCurves), else of p as it
    stands (rms::val.prob, STRATOS). D = (LR - 1)/n, U = (U chi-square - 2)/n.
    """
    y, p = check_labels_and_probabilities(y, p)
    n, prevalence = y.size, float(y.mean())
    null = float(np.sum(xlogy(y, prevalence) + xlogy(1 - y, 1 - prevalence)))
    given = log_likelihood(y, log_odds(p)[0])
    joint = joint_recalibration(y, p).log_likelihood
    model = joint if refitted else given
    d, u = (2 * (model - null) - 1) / n, (2 * (joint - given) - 2) / n
    cox_snell = 1 - np.exp(2 * (null - model) / n)
    slope = float(p[y == 1].mean() - p[y == 0].mean()) if 0 < prevalence < 1 else float("nan")
    nagelkerke = cox_snell / (1 - np.exp(2 * null / n)) if null < 0 else float("nan")
    mcfadden = 1 - model / null if null < 0 else float("nan")
    return ExplainedVariation(d, u, d - u, mcfadden, float(cox_snell), float(nagelkerke), slope)
