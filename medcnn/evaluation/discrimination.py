"""The AUROC and its intervals: DeLong, logit, Newcombe, Obuchowski when patients repeat, bootstrap as a check.

One rule holds throughout: an interval is never empty. Where the variance is 0 or cannot be estimated (an AUROC of 0
or 1, a constant score, fewer than two cases or patients of a class), Newcombe's interval answers, and the note says so.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from medcnn.errors import InputError
from medcnn.evaluation.bootstrap import N_RESAMPLES, affordable, bootstrap_auroc, percentile_interval
from medcnn.evaluation.clustered import Design, cluster_design, obuchowski_covariance
from medcnn.evaluation.estimates import Estimate, FloatArray, not_estimable
from medcnn.evaluation.intervals import normal_quantile, patient_codes, with_note
from medcnn.evaluation.placements import check_scores, delong_covariance, placements

NO_VARIANCE = 1e-26  # below this a variance is rounding: the smallest true one at n = 1,000,000 is larger
FEW_WALD, FEW_LOGIT = 12.0, 8.0  # min(cases) * min(AUROC, 1 - AUROC) below which benchmarks/coverage.py finds less than 93%


# ---------------------------------------------------------------- limits from an AUROC and its variance


def wald_limits(auroc: float, variance: float, confidence: float = 0.95) -> tuple[float, float]:
    """AUROC +/- z SE, clipped to [0, 1], as pROC does."""
    half = normal_quantile(confidence) * math.sqrt(variance)
    return max(0.0, auroc - half), min(1.0, auroc + half)


def logit_limits(auroc: float, variance: float, confidence: float = 0.95) -> tuple[float, float]:
    """expit(logit AUROC +/- z SE / (AUROC (1 - AUROC))) (Pepe 2003, ISBN 9780198565826, p. 107); (NaN, NaN) at 0 and 1."""
    if not 0 < auroc < 1:
        return math.nan, math.nan
    half = normal_quantile(confidence) * math.sqrt(variance) / (auroc * (1 - auroc))
    centre = special.logit(auroc)
    return float(special.expit(centre - half)), float(special.expit(centre + half))


def newcombe_limits(auroc: float, n_positive: float, n_negative: float, confidence: float = 0.95) -> tuple[float, float]:
    """Newcombe's method 5: the AUROCs A with |A - estimate| <= z SE(A) (Newcombe 2006, doi:10.1002/sim.2324).

    SE(A)^2 = A(1-A) [1 + (N-1) ((1-A)/(2-A) + A/(1+A))] / (m n) with N = (m + n)/2. Defined for any AUROC in [0, 1]
    and any m, n >= 1, and never of zero width.
    """
    if not (0 <= auroc <= 1 and n_positive >= 1 and n_negative >= 1):
        raise InputError(
            f"Newcombe interval: expected an AUROC from 0 to 1 and at least one case of each class, got {auroc}, {n_positive}, {n_negative}"
        )
    squared_z, pairs = normal_quantile(confidence) ** 2, n_positive * n_negative

    def spread(a: float) -> float:
        return squared_z * a * (1 + ((n_positive + n_negative) / 2 - 1) * ((1 - a) / (2 - a) + a / (1 + a)))

    def excess(a: float) -> float:
        return (a - auroc) ** 2 * pairs - (1 - a) * spread(a)

    def solve(function: Callable[[float], float], low: float, high: float) -> float:
        return float(optimize.brentq(function, low, high, xtol=1e-15, rtol=1e-15))

    # At 1 the estimate itself solves the equation: divide that root, 1 - a, out. The other end is its mirror image.
    def excess_at_one(a: float) -> float:
        return (1 - a) * pairs - spread(a)

    if auroc == 1:
        return solve(excess_at_one, 0.0, 1.0), 1.0
    if auroc == 0:
        return 0.0, 1 - solve(excess_at_one, 0.0, 1.0)
    return solve(excess, 0.0, auroc), solve(excess, auroc, 1.0)


def effective_sizes(design: Design, design_effect: float, confidence: float = 0.95) -> tuple[float, float]:
    """How many independent cases of either class the images are worth when patients repeat, for Newcombe's interval.

    Images / design effect (never taken below 1) times (z/t)^2 with t on one degree of freedom less than the patients of
    the rarer class, because the design effect is itself estimated from them (Korn & Graubard 1998, Survey Methodology 24:193);
    never fewer than the patients. A design effect of NaN counts patients.
    """
    images, patients = (design.n_positive, design.n_negative), (design.n_patients_positive, design.n_patients_negative)
    if design.n_patients == sum(images):
        return float(images[0]), float(images[1])
    degrees, worth = min(patients) - 1, 0.0
    if degrees >= 1 and math.isfinite(design_effect):
        t = float(special.stdtrit(degrees, 0.5 + confidence / 2))
        worth = (normal_quantile(confidence) / t) ** 2 / max(1.0, design_effect)
    return max(images[0] * worth, float(patients[0])), max(images[1] * worth, float(patients[1]))


# ---------------------------------------------------------------- from scores


@dataclass(frozen=True)
class _Sample:
    """What every interval of one AUROC needs; obuchowski equals delong when no patient repeats."""

    auroc: float
    design: Design
    delong: float
    obuchowski: float
    repeated: bool


def auroc_interval(
    y: ArrayLike, score: ArrayLike, patient: ArrayLike | None = None, *, method: str = "auto", confidence: float = 0.95
) -> Estimate:
    """AUROC with an interval; `method` of the result names the one that was used.

    y: (n,) 0/1; score: (n,) real, higher means positive; patient: (n,) ids, or None when every row is its own patient.
    method: "auto" takes "obuchowski" when a patient has several rows and "delong" otherwise; "logit" puts the same
    variance on the logit scale ("logit_obuchowski" when patients repeat); "newcombe" uses the numbers of cases, or the
    effective ones when patients repeat ("newcombe_clustered", see `effective_sizes`).

    Which one to trust (benchmarks/coverage.py, 180 designs): with few cases and an AUROC near 1, DeLong's and Obuchowski's
    intervals cover 65-92% instead of 95%; a note says so where min(cases, or patients) * min(AUROC, 1 - AUROC) is below 12.
    The logit interval is sound down to 8. Newcombe's covered 94% or more in every design, and up to 99% where cases are few.

    A class without a case: not estimable. No variance: Newcombe's interval, and the note says why.
    Raises InputError for NaN scores, labels other than 0/1 and unknown methods.
    """
    if method not in {"auto", "delong", "obuchowski", "logit", "newcombe"}:
        raise InputError(f"AUROC interval: unknown method {method!r}; expected auto, delong, obuchowski, logit or newcombe")
    sample = _sample(y, score, patient)
    return sample if isinstance(sample, Estimate) else _interval(sample, method, confidence)


def auroc_intervals(
    y: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike | None = None,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Estimate]:
    """The AUROC with each interval: the one of the design first, then logit, Newcombe and the patient bootstrap.

    The bootstrap is left out for n_resamples = 0 and where rows times resamples exceed the budget of `bootstrap.py`.
    """
    sample = _sample(y, score, patient)
    if isinstance(sample, Estimate):
        return [sample]
    estimates = [_interval(sample, "auto", confidence)]
    others = [_interval(sample, method, confidence) for method in ("logit", "newcombe")]
    estimates += [each for each in others if each.method != estimates[0].method]
    if affordable(len(np.asarray(y)), n_resamples):
        estimates.append(auroc_bootstrap_interval(y, score, patient, n_resamples=n_resamples, seed=seed, confidence=confidence))
    return estimates


def _sample(y: ArrayLike, score: ArrayLike, patient: ArrayLike | None) -> _Sample | Estimate:
    positive, scores = check_scores(y, score)
    codes, n_patients = patient_codes(patient, len(scores))
    lacking = lacking_class(int(positive.sum()), len(scores))
    if lacking:
        return not_estimable(lacking)
    model, repeated = placements(positive, scores), n_patients < len(scores)
    delong = float(delong_covariance([model])[0, 0])
    obuchowski = float(obuchowski_covariance(positive, codes, n_patients, [model])[0, 0]) if repeated else delong
    return _Sample(model.auroc, cluster_design(positive, codes, n_patients), delong, obuchowski, repeated)


def auroc_bootstrap_interval(
    y: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike | None = None,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    stratified: bool = False,
    confidence: float = 0.95,
) -> Estimate:
    """AUROC with the percentile limits of the patient bootstrap ("bootstrap"), or of the stratified one ("bootstrap_stratified").

    At an AUROC of 0 or 1 every resample repeats it: then the limits are None, since an empty interval would mislead.
    """
    name = "bootstrap_stratified" if stratified else "bootstrap"
    positive, scores = check_scores(y, score)
    lacking = lacking_class(int(positive.sum()), len(scores))
    if lacking:
        return not_estimable(lacking, method=name)
    values = bootstrap_auroc(positive, scores, patient, n_resamples=n_resamples, seed=seed, stratified=stratified)
    return bootstrap_estimate(placements(positive, scores).auroc, values, name, confidence)


def bootstrap_estimate(value: float, resampled: FloatArray, method: str, confidence: float = 0.95) -> Estimate:
    """A value with the percentile limits of its resamples; the note counts resamples in which it was undefined."""
    low, high, undefined = percentile_interval(resampled, confidence)
    note = f"undefined in {undefined} of {len(resampled)} resamples" if undefined else ""
    if not low < high:
        return with_note(Estimate(value=value, method=method, note=note), "no interval: the resamples do not vary")
    return Estimate(value=value, low=low, high=high, method=method, se=float(np.nanstd(resampled, ddof=1)), note=note)


def lacking_class(n_positive: int, n: int) -> str:
    """Why an AUROC cannot be estimated from these numbers, or an empty string."""
    if n == 0:
        return "there are no rows"
    if n_positive == 0:
        return f"no positive case among {n}"
    return f"no negative case among {n}" if n_positive == n else ""


def _interval(sample: _Sample, method: str, confidence: float) -> Estimate:
    """The interval of that method, or Newcombe's where it does not exist."""
    clustered = method == "obuchowski" or (sample.repeated and method != "delong")
    name = {"auto": "obuchowski", "logit": "logit_obuchowski"}.get(method, method) if clustered else {"auto": "delong"}.get(method, method)
    variance = sample.obuchowski if clustered else sample.delong
    reason = _without_variance(sample, variance, clustered=clustered)
    if method == "newcombe" or reason:
        estimate = _newcombe(sample, confidence)
        return estimate if method == "newcombe" else with_note(estimate, f"{reason}; Newcombe's interval in place of {name}")
    low, high = (logit_limits if method == "logit" else wald_limits)(sample.auroc, variance, confidence)
    return Estimate(value=sample.auroc, low=low, high=high, method=name, se=math.sqrt(variance), note=_warning(sample, method))


def _newcombe(sample: _Sample, confidence: float) -> Estimate:
    usable = sample.delong > NO_VARIANCE and sample.obuchowski > NO_VARIANCE
    design_effect = sample.obuchowski / sample.delong if usable else math.nan
    m, n = effective_sizes(sample.design, design_effect, confidence)
    low, high = newcombe_limits(sample.auroc, m, n, confidence)
    if not sample.repeated:
        return Estimate(value=sample.auroc, low=low, high=high, method="newcombe")
    note = f"effective numbers of positives {m:.1f} and negatives {n:.1f}"
    return Estimate(value=sample.auroc, low=low, high=high, method="newcombe_clustered", note=note)


def _warning(sample: _Sample, method: str) -> str:
    """A remark where the simulated coverage of this interval falls below 93%."""
    fewest = min(sample.design.n_patients_positive, sample.design.n_patients_negative)
    enough = FEW_LOGIT if method == "logit" else FEW_WALD
    if fewest * min(sample.auroc, 1 - sample.auroc) >= enough:
        return ""
    return f"covers less than its nominal level with {fewest} {'patients' if sample.repeated else 'cases'} of a class; prefer Newcombe's interval"


def _without_variance(sample: _Sample, variance: float, *, clustered: bool) -> str:
    if sample.auroc in (0.0, 1.0):
        return f"the AUROC is {sample.auroc:.0f}"
    if math.isnan(variance):
        design = sample.design
        patients, cases = min(design.n_patients_positive, design.n_patients_negative), min(design.n_positive, design.n_negative)
        return f"only {patients} patient of a class" if clustered else f"only {cases} case of a class"
    return "the estimated variance is 0" if variance <= NO_VARIANCE else ""
