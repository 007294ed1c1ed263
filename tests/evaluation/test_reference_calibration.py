"""Calibration, recalibration, classification and utility: values from R and Python libraries that this project did not write.

Every exact and iterative record of this room is reproduced within its tolerance, or stands in NO_COUNTERPART with the reason.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from medcnn.config import ThresholdConfig
from medcnn.evaluation import calibration as cal
from medcnn.evaluation.binning import bin_calibration, smooth_calibration_error, smooth_error_at
from medcnn.evaluation.calibration_curve import curve_distances
from medcnn.evaluation.classification import (
    classification_estimates,
    diagnostic_odds_ratio,
    kappa_standard_error,
    two_by_two,
)
from medcnn.evaluation.estimates import repeated_patients
from medcnn.evaluation.intervals import clopper_pearson
from medcnn.evaluation.loess import fit_loess, loess_direct
from medcnn.evaluation.logistic import fit_logistic, robust_covariance
from medcnn.evaluation.operating_points import choose_threshold
from medcnn.evaluation.recalibration import fit_recalibration
from medcnn.evaluation.splines import spline_calibration
from medcnn.evaluation.utility import decision_curve, net_benefit_estimates

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "reference"
pytestmark = pytest.mark.skipif(not (FOLDER / "reference.json").exists(), reason="needs shared/reference beside the repository")

# ---------------------------------------------------------------- what is not reproduced, and why

LOWESS = "lowess(iter=0), val.prob's smoother: another number; loess and a spline are offered"
TIES_SPLIT = "splits tied probabilities between bins; here ties share a bin"
NO_COUNTERPART = {
    "giviti_test_external": "the calibration belt is not offered; where it stays linear it is the unreliability test, which is",
    "ici_lowess_iter0": LOWESS,
    "ici_lowess_statsmodels": LOWESS,
    "ici_loess_on_logit": "loess on the log odds: another number",
    "ece15_width_torchmetrics_float32": "float32 moves rows between bins; everything here is float64",
    "mce15_width_torchmetrics_float32": "float32 moves rows between bins; everything here is float64",
    "ece15_confidence_torchmetrics_multiclass": "torchmetrics casts to float32; the float64 value is reproduced",
    "ece15_mass_calzone": "drops the smallest probability",
    "mce15_mass_calzone": "drops the smallest probability",
    "n_counted_mass_calzone": "drops the smallest probability",
    "n_counted_width_calzone": "counts another program's rows",
    "mass15_explained_equal_count_sorted": TIES_SPLIT,
    "uncertainty_calibration_l1_binned_positive": TIES_SPLIT,
    "uncertainty_calibration_l2_debiased": "debiased root mean square in equal-mass bins: not offered",
    "val_prob_C_minus_exact_auc": "the rounding error of val.prob's C",
    "temperature_netcal_weights": "stops early: 1e-5 from the optimum",
    "platt_sklearn_sigmoid_on_logit": "Platt's smoothed targets, not maximum likelihood",
    "beta_abm_betacal": "stops early: 7e-3 from the optimum",
    "isotonic_isoreg_ties": "isoreg's sum of squares with ties: the tie-averaged fit is reproduced as isotonic_secondary_ties",
    **dict.fromkeys(
        (f"{metric}_confidenceinterval" for metric in ("sensitivity", "specificity", "ppv", "npv", "accuracy")),
        "that program adds 1e-7 to the denominator: its proportions are off in the ninth digit; R's Wilson limits are reproduced",
    ),
    "f1_takahashi_binary": "that program's formula differs from the delta method by 7e-4 of the standard error",
    "f1_macro_takahashi": "macro F1 over both classes of a binary label is not offered",
    "b5000/rmsce10_width_torchmetrics": "of 10 edges torch.linspace and numpy.linspace differ in the last bit, and scores lie on them",
    "best_closest_topleft": "another rule than any that is offered",
    "stratos_adnex_case": "its input is not among the files",
}
# Parts of a record that are not compared, the rest of it is.
UNCOMPARED = {
    "C (ROC)": "val.prob ranks probabilities rounded to 0.002",
    "Dxy": "val.prob ranks probabilities rounded to 0.002",
    "Emax": LOWESS,
    "E90": LOWESS,
    "Eavg": LOWESS,
    "D:p": "the p value of a discrimination that is not in doubt",
    "counts": "counts with empty bins; here empty bins are left out, and their number is compared",
}


# ---------------------------------------------------------------- the cases


@cache
def table(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / "inputs" / f"{name}.csv")


@cache
def scores(case: str) -> tuple[np.ndarray, np.ndarray]:
    if case.startswith("aSAH."):
        return table("a_aSAH").y.to_numpy(float), table("a_aSAH")[case.removeprefix("aSAH.")].to_numpy(float)
    if case.startswith("e5000."):
        return table("e5000_calib").y.to_numpy(float), table("e5000_calib")[case.removeprefix("e5000.")].to_numpy(float)
    return table(case).y.to_numpy(float), table(case).score.to_numpy(float)


def stretched(case: str) -> float:
    """A power of two that brings scores of any range into [0, 1] without rounding: thresholds are for probabilities."""
    s = scores(case)[1]
    return 1.0 if s.min() >= 0 and s.max() <= 1 else 2.0 ** math.ceil(math.log2(s.max()))


def unit(case: str) -> tuple[np.ndarray, np.ndarray]:
    y, s = scores(case)
    return y, s / stretched(case)


def coordinates(case: str, threshold: float) -> dict[str, Any]:
    y, p = unit(case)
    square, found = (
        call(y, p, threshold / stretched(case)) for call in (two_by_two, lambda *a: classification_estimates(*a, n_resamples=0))
    )
    own = {"threshold": threshold, "tp": square.tp, "fp": square.fp, "tn": square.tn, "fn": square.fn}
    rates = {metric: found[metric].value for metric in ("sensitivity", "specificity", "ppv", "npv", "accuracy")}
    rates = {metric: math.nan if value is None else value for metric, value in rates.items()}
    return own | rates | {"youden": rates["sensitivity"] + rates["specificity"]}


def chosen(case: str, rule: str, value: float | None = None) -> dict[str, Any]:
    y, p = unit(case)
    point = choose_threshold(ThresholdConfig(rule=rule, value=value), y, p)
    return coordinates(case, point.threshold * stretched(case))


def observed_youden(case: str) -> dict[str, float]:
    """scikit-learn states the lowest score called positive, and J itself."""
    found = chosen(case, "youden")
    _, s = scores(case)
    sensitivity, specificity = found["sensitivity"], found["specificity"]
    return {"threshold": s[s >= found["threshold"]].min(), "tpr": sensitivity, "fpr": 1 - specificity, "J": sensitivity + specificity - 1}


def by_method(estimates: list[Any], method: str) -> Any:
    return next(estimate for estimate in estimates if estimate.method == method)


def limits(estimate: Any) -> list[float]:
    return [estimate.low, estimate.high]


def triple(estimate: Any) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def intercept(y: np.ndarray, p: np.ndarray, method: str = "profile") -> Any:
    return by_method(cal.calibration_intercept(y, p), method)


def slope(y: np.ndarray, p: np.ndarray, method: str = "profile") -> Any:
    return by_method(cal.calibration_slope(y, p), method)


def as_record(test: cal.ChiSquareTest) -> dict[str, float]:
    return {"chi2": test.statistic, "df": test.df, "p": test.p}


def hosmer(y: np.ndarray, p: np.ndarray, groups: int) -> dict[str, float]:
    outside, inside = (cal.hosmer_lemeshow(y, p, n_groups=groups, external=external) for external in (True, False))
    return {"chi2": outside.statistic, "df_internal": inside.df, "p_internal": inside.p, "df_external": outside.df, "p_external": outside.p}


def distances(y: np.ndarray, p: np.ndarray, fitted: np.ndarray) -> dict[str, float]:
    found = curve_distances(y, p, fitted)
    return {"ICI": found["ici"], "E50": found["e50"], "E90": found["e90"], "Emax": found["emax"], "mean_sq": found["eci_100"] / 100}


def smooth(y: np.ndarray, p: np.ndarray, span: float = 0.75, degree: int = 2) -> np.ndarray:
    return fit_loess(p, y, span=span, degree=degree).predict(p)


@cache
def direct(case: str) -> np.ndarray:
    y, p = scores(case)
    return loess_direct(p, y, p)


def curve_at(case: str, surface: str, grid: list[float]) -> dict[str, Any]:
    y, p = scores(case)
    observed = loess_direct(p, y, np.array(grid)) if surface == "direct" else fit_loess(p, y).predict(np.array(grid))
    return {"p": grid, "observed": observed}


def rms_val_prob(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Without C and Dxy, whose ranks val.prob rounds, and Emax, E90, Eavg, which are lowess."""
    found, tests, (z, tail) = cal.explained_variation(y, p), cal.likelihood_ratio_tests(y, p), cal.spiegelhalter_test(y, p)
    joint = cal.joint_recalibration(y, p).coefficients
    return {
        "R2": found.nagelkerke_r2,
        "D": found.discrimination,
        "D:Chi-sq": found.discrimination * y.size + 1,
        "U": found.unreliability,
        "U:Chi-sq": tests["unreliability"].statistic,
        "U:p": tests["unreliability"].p,
        "Q": found.quality,
        "Brier": cal.brier_score(y, p).value,
        "Intercept": joint[0],
        "Slope": joint[1],
        "S:z": z,
        "S:p": tail,
    }


def val_prob_ci_2(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Without C and Dxy (rounded ranks) and Emax (of the logistic curve)."""
    found, tests, loess = (
        cal.explained_variation(y, p, refitted=True),
        cal.likelihood_ratio_tests(y, p),
        curve_distances(y, p, smooth(y, p)),
    )
    return {
        "R2": found.nagelkerke_r2,
        "D": found.discrimination,
        "D:Chi-sq": found.discrimination * y.size + 1,
        "U": found.unreliability,
        "U:Chi-sq": tests["unreliability"].statistic,
        "U:p": tests["unreliability"].p,
        "Q": found.quality,
        "Brier": cal.brier_score(y, p).value,
        "Intercept": intercept(y, p).value,
        "Slope": slope(y, p).value,
        "Brier scaled": cal.scaled_brier(y, p).value,
        "Eavg": loess["ici"],
        "ECI": loess["eci_100"],
    }


def stratos_calibration(y: np.ndarray, p: np.ndarray, fitted: np.ndarray) -> dict[str, float]:
    found = curve_distances(y, p, fitted)
    groups = cal.quantile_groups(p, 10)
    ece = sum(abs(np.mean(y[groups == g]) - np.mean(p[groups == g])) * np.mean(groups == g) for g in np.unique(groups))
    return {
        "O:E ratio": cal.observed_expected(y, p).value,
        "Cal. intercept": intercept(y, p).value,
        "Cal. slope": slope(y, p).value,
        "ECI": found["eci"],
        "ICI": found["ici"],
        "ECE": ece,
    }


def stratos_overall(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    found, total = cal.explained_variation(y, p), cal.log_loss(y, p).value * y.size
    return {
        "Loglikelihood": -total,
        "Logloss": total,
        "Brier": cal.brier_score(y, p).value,
        "Scaled Brier": cal.scaled_brier(y, p).value,
        "McFadden R2": found.mcfadden_r2,
        "Cox-Snell R2": found.cox_snell_r2,
        "Nagelkerke R2": found.nagelkerke_r2,
        "Discrimination slope": found.discrimination_slope,
        "MAPE": float(np.abs(y - p).mean()),
    }


def stratos_classification(y: np.ndarray, p: np.ndarray, cut: float) -> dict[str, float]:
    found, square = classification_estimates(y, p, cut, n_resamples=0), two_by_two(y, p, cut)
    names = {"Accuracy": "accuracy", "Balanced Accuracy": "balanced_accuracy", "Kappa": "kappa", "F1": "f1", "MCC": "mcc"}
    names |= {"Sensitivity/Recall": "sensitivity", "Specificity": "specificity", "PPV/precision": "ppv", "NPV": "npv"}
    own = {name: found[metric].value for name, metric in names.items()}
    return own | {"Youden index": square.sensitivity + square.specificity - 1, "DOR": diagnostic_odds_ratio(square).value}


def stratos_utility(y: np.ndarray, p: np.ndarray, cut: float) -> dict[str, float]:
    """The cost ratio of the record is the odds against the cut; the cheapest point is the rule "cost"."""
    found, ratio = net_benefit_estimates(y, p, cut, n_resamples=0), round((1 - cut) / cut, 9)
    point = choose_threshold(ThresholdConfig(rule="cost", value=ratio), y, p)
    square = two_by_two(y, p, point.threshold)
    return {
        "Net benefit": found["net_benefit"].value,
        "Standardized net benefit": found["standardized_net_benefit"].value,
        "Expected cost (EC)": (ratio * square.fn + square.fp) / y.size,
        "Threshold for EC": float(p[p >= point.threshold].min()),
    }


def explained_bins(y: np.ndarray, p: np.ndarray, *, n_bins: int = 15, **how: Any) -> dict[str, Any]:
    bins = bin_calibration(y, p, n_bins=n_bins, **how)
    return {"ece": bins.ece, "mce": bins.mce, "ace": bins.ace, "rms": bins.rmsce, "nonempty": bins.n.size}


def sklearn_curve(y: np.ndarray, p: np.ndarray, strategy: str) -> dict[str, Any]:
    bins = bin_calibration(y, p, n_bins=15, strategy=strategy, closed="right")
    return {"prob_true": bins.mean_y, "prob_pred": bins.mean_p}


def binned(quantity: str, y: np.ndarray, p: np.ndarray) -> float:
    """ece10_width_netcal and the like: measure, number of bins, binning, program (calzone closes on the right)."""
    measure, rest = quantity.split("_", 1)
    strategy, program = rest.split("_", 1)
    closed = "right" if program == "calzone" else "left"
    bins = bin_calibration(y, p, n_bins=int(measure.lstrip("abcdefghijklmnopqrstuvwxyz")), strategy=strategy, closed=closed)
    return getattr(bins, measure.rstrip("0123456789"))


def top_label(y: np.ndarray, p: np.ndarray) -> float:
    called = (p >= 0.5).astype(float)
    return bin_calibration((called == y).astype(float), np.maximum(p, 1 - p)).ece


SINGLE: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "rms_val_prob": rms_val_prob,
    "val_prob_ci_2_stats": val_prob_ci_2,
    "val_prob_ci_2_citl_ci": lambda y, p: triple(intercept(y, p, "wald")),
    "val_prob_ci_2_slope_ci": lambda y, p: triple(slope(y, p, "wald")),
    "citl": lambda y, p: intercept(y, p).value,
    "citl_se": lambda y, p: intercept(y, p).se,
    "citl_ci95_wald": lambda y, p: limits(intercept(y, p, "wald")),
    "citl_ci95_profile": lambda y, p: limits(intercept(y, p)),
    "citl_ci95_lr_exact": lambda y, p: limits(intercept(y, p)),
    "cal_slope": lambda y, p: slope(y, p).value,
    "cal_slope_se": lambda y, p: slope(y, p).se,
    "cal_slope_ci95_wald": lambda y, p: limits(slope(y, p, "wald")),
    "cal_slope_ci95_profile": lambda y, p: limits(slope(y, p)),
    "cal_slope_ci95_lr_exact": lambda y, p: limits(slope(y, p)),
    "cal_intercept_joint": lambda y, p: cal.joint_recalibration(y, p).coefficients[0],
    "cal_intercept_joint_se": lambda y, p: math.sqrt(cal.joint_recalibration(y, p).covariance[0, 0]),
    "unreliability_LR_test_df2": lambda y, p: as_record(cal.likelihood_ratio_tests(y, p)["unreliability"]),
    "citl_LR_test_df1": lambda y, p: as_record(cal.likelihood_ratio_tests(y, p)["intercept"]),
    "slope_LR_test_df1": lambda y, p: as_record(cal.likelihood_ratio_tests(y, p)["slope"]),
    "brier": lambda y, p: cal.brier_score(y, p).value,
    "brier_sklearn": lambda y, p: cal.brier_score(y, p).value,
    "brier_scaled": lambda y, p: cal.scaled_brier(y, p).value,
    "brier_se": lambda y, p: cal.brier_score(y, p).se,
    "brier_riskRegression_est_se_lo_hi": lambda y, p: [(b := cal.brier_score(y, p)).value, b.se, b.low, b.high],
    "log_loss": lambda y, p: cal.log_loss(y, p).value,
    "log_loss_sklearn": lambda y, p: cal.log_loss(y, p).value,
    "obs_events": lambda y, p: float(y.sum()),
    "exp_events": lambda y, p: float(y.sum()) / cal.observed_expected(y, p).value,
    "oe_ratio": lambda y, p: cal.observed_expected(y, p).value,
    "oe_ratio_ci95_log_wald": lambda y, p: limits(cal.observed_expected(y, p)),
    "spiegelhalter_z_p": lambda y, p: dict(zip("zp", cal.spiegelhalter_test(y, p), strict=True)),
    "spiegelhalter_calzone": lambda y, p: cal.spiegelhalter_test(y, p),
    "hosmer_lemeshow_g10": lambda y, p: hosmer(y, p, 10),
    "hosmer_lemeshow_g20": lambda y, p: hosmer(y, p, 20),
    "ici_loess": lambda y, p: distances(y, p, smooth(y, p)),
    "ici_loess_skmisc": lambda y, p: distances(y, p, smooth(y, p)),
    "ici_loess_clipped": lambda y, p: distances(y, p, np.clip(smooth(y, p), 0, 1)),
    "ici_rcs3_logit": lambda y, p: distances(y, p, spline_calibration(y, p, n_knots=3)),
    "ici_rcs4_logit": lambda y, p: distances(y, p, spline_calibration(y, p, n_knots=4)),
    "ici_rcs5_logit": lambda y, p: distances(y, p, spline_calibration(y, p, n_knots=5)),
    "stratos_calibration_loess": lambda y, p: stratos_calibration(y, p, smooth(y, p)),
    "stratos_calibration_rcs3": lambda y, p: stratos_calibration(y, p, spline_calibration(y, p, n_knots=3)),
    "stratos_calibration_rcs5": lambda y, p: stratos_calibration(y, p, spline_calibration(y, p, n_knots=5)),
    "stratos_overall": stratos_overall,
    "ece15_confidence_toplabel": top_label,
    "smece_relplot": lambda y, p: smooth_calibration_error(y, p)[0],
    "smece_relplot_sigma": lambda y, p: smooth_calibration_error(y, p)[1],
    "smece_relplot_sigma0.05": lambda y, p: smooth_error_at(y, p, 0.05),
    "width15_explained_left_closed": lambda y, p: explained_bins(y, p),
    "width15_explained_right_closed": lambda y, p: explained_bins(y, p, closed="right"),
    "mass15_explained_quantile_left_closed": lambda y, p: explained_bins(y, p, strategy="mass"),
    "mass15_explained_quantile_right_closed": lambda y, p: explained_bins(y, p, strategy="mass", closed="right"),
    "sklearn_calibration_curve_uniform15": lambda y, p: sklearn_curve(y, p, "width"),
    "sklearn_calibration_curve_quantile15": lambda y, p: sklearn_curve(y, p, "mass"),
}


def of_single(case: str, quantity: str, record: dict[str, Any]) -> Any:
    y, p = scores(case)
    if quantity in SINGLE:
        return SINGLE[quantity](y, p)
    if quantity in {"ici_loess_direct", "ici_loess_numpy_direct"}:
        return distances(y, p, direct(case))
    if quantity == "loess_direct_vs_interpolate_maxdiff":
        return float(np.abs(direct(case) - smooth(y, p)).max())
    if quantity.startswith("loess_curve_"):
        return curve_at(case, quantity.split("_")[2], record["value"]["p"])
    if quantity.startswith("ici_loess_span"):
        span, degree = quantity.removeprefix("ici_loess_span").split("_degree")
        return distances(y, p, smooth(y, p, float(span), int(degree)))
    if quantity.startswith("stratos_classification_cut"):
        return stratos_classification(y, p, float(quantity.removeprefix("stratos_classification_cut")))
    if quantity.startswith("stratos_utility_cut"):
        return stratos_utility(y, p, float(quantity.removeprefix("stratos_utility_cut")))
    if quantity.startswith("isotonic"):
        return of_isotonic_ties(quantity, y, p, record)
    if quantity.split("_")[-1] in {"netcal", "torchmetrics", "calzone"}:
        return binned(quantity, y, p)
    return None


def of_thresholds(case: str, quantity: str) -> Any:
    if quantity in {"best_youden", "best_youden_pROC119"}:
        return chosen(case, "youden")
    if quantity.startswith("operating_point_"):
        rule = "sensitivity" if "_sens_" in quantity else "specificity"
        return chosen(case, rule, float(quantity.rsplit("_", 1)[1]))
    if quantity.startswith("coords_at_threshold_"):
        return coordinates(case, float(quantity.rsplit("_", 1)[1]))
    return observed_youden(case) if quantity == "youden_roc_curve" else None


def of_decision(case: str, quantity: str) -> Any:
    """b200.thr0.5 and the like."""
    name, _, cut = case.partition(".thr")
    y, s = scores(name)
    scale = stretched(name)
    found, square = (
        call(y, s / scale, float(cut) / scale) for call in (lambda *a: classification_estimates(*a, n_resamples=0), two_by_two)
    )
    if quantity == "counts_tp_fp_fn_tn":
        return {key: getattr(square, key) for key in ("tp", "fp", "fn", "tn")}
    special: dict[str, Callable[[], Any]] = {
        "epiR_lr.pos": lambda: triple(found["lr_positive"]),
        "epiR_lr.neg": lambda: triple(found["lr_negative"]),
        "epiR_diag.or": lambda: triple(diagnostic_odds_ratio(square)),
        "epiR_youden": lambda: exact_youden(square),
        "kappa_ase": lambda: kappa_standard_error(square),
        "sklearn_mcc": lambda: found["mcc"].value,
        "sklearn_kappa": lambda: found["kappa"].value,
        "sklearn_balanced_accuracy": lambda: found["balanced_accuracy"].value,
        "sklearn_f1": lambda: found["f1"].value,
    }
    if quantity in special:
        return special[quantity]()
    for metric in ("sensitivity", "specificity", "ppv", "npv", "accuracy"):
        if quantity == f"{metric}_ci95_clopper_pearson":
            return clopper_pearson(*hits_of(square, metric))
        if quantity == f"{metric}_ci95_wilson":
            return limits(found[metric])
    return found[quantity].value if quantity in found else None


def hits_of(square: Any, metric: str) -> tuple[int, int]:
    tp, fp, fn, tn = square.tp, square.fp, square.fn, square.tn
    return {
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
        "accuracy": (tp + tn, tp + fp + fn + tn),
    }[metric]


def exact_youden(square: Any) -> list[float]:
    """epiR adds the exact limits of sensitivity and specificity."""
    exact = [clopper_pearson(*hits_of(square, metric)) for metric in ("sensitivity", "specificity")]
    return [square.sensitivity + square.specificity - 1, exact[0][0] + exact[1][0] - 1, exact[0][1] + exact[1][1] - 1]


def of_utility(case: str, quantity: str) -> Any:
    name = case.removeprefix("dca.")
    y, p = scores(name)
    thresholds = np.array(next(r["value"] for r in records() if r["id"] == f"{case}/thresholds"))
    curve = decision_curve(y, p, thresholds, n_resamples=0)
    return {
        "thresholds": curve.thresholds,
        "net_benefit_model": curve.model,
        "net_benefit_all": curve.treat_all,
        "net_benefit_model_dcurves": curve.model,
        "net_benefit_all_dcurves": curve.treat_all,
        "net_benefit_model_dcurves_py": curve.model,
        "net_benefit_all_dcurves_py": curve.treat_all,
        "standardized_net_benefit_model": curve.standardized,
        "net_interventions_avoided_per100": curve.interventions_avoided_per_100,
    }.get(quantity)


# ---------------------------------------------------------------- recalibration: fitted on rows 1-2500, tested on the rest


def of_recalibration(case: str, quantity: str) -> Any:
    y, p = scores(f"e5000.{case.removeprefix('recal.')}")
    lp, train = logit(p), slice(0, 2500)

    def nll(fitted: np.ndarray) -> float:
        return cal.log_loss(y[train], fitted[train]).value

    if quantity.startswith("test_after_"):
        after = fit_recalibration(quantity.removeprefix("test_after_"), y[train], lp[train]).apply(lp)[2500:]
        return {
            "brier": cal.brier_score(y[2500:], after).value,
            "logloss": cal.log_loss(y[2500:], after).value,
            "ece15": bin_calibration(y[2500:], after).ece,
        }
    method = {"temperature": "temperature", "platt": "platt", "beta": "beta", "isotonic": "isotonic"}[quantity.split("_")[0]]
    fitted = fit_recalibration(method, y[train], lp[train])
    values, after = fitted.parameters, fitted.apply(lp)
    if method == "temperature":
        t = values["temperature"]
        return {"T": t, "b": 1 / t, "se_b": values["slope_se"], "train_mean_nll": nll(after), "train_nll": nll(after)}
    if method == "platt":
        own = {"intercept": values["intercept"], "slope": values["slope"], "train_mean_nll": nll(after)}
        return own if quantity == "platt_glm" else [values["intercept"], values["slope"]]
    if method == "beta":
        return {"intercept": values["intercept"], "a": values["a"], "b": values["b"], "train_mean_nll": nll(after), "train_nll": nll(after)}
    grid = np.array([0.01, 0.05, *(np.arange(1, 10) / 10), 0.99])
    rest = after[2500:]
    return {
        "grid": grid,
        "fitted": fitted.apply(logit(grid)),
        "n_knots": len(values["p"]),
        "n_levels": np.unique(values["level"]).size,
        "train_brier": cal.brier_score(y[train], after[train]).value,
        "test_brier": cal.brier_score(y[2500:], rest).value,
        "n_test_zero_or_one": int(((rest == 0) | (rest == 1)).sum()),
    }


def of_isotonic_ties(quantity: str, y: np.ndarray, p: np.ndarray, record: dict[str, Any]) -> Any:
    fitted = fit_recalibration("isotonic", y, logit(p))
    sse = float(np.square(fitted.apply(logit(p)) - y).sum())
    if quantity == "isotonic_sklearn_ties":
        return {"x": fitted.parameters["p"], "y": fitted.parameters["level"], "sse": sse}
    at = np.array(record["value"]["score"])
    return {"score": at, "fitted": fitted.apply(logit(at)), "sse": sse, "n_distinct_fitted": np.unique(fitted.parameters["level"]).size}


def of_clustered_calibration(quantity: str) -> Any:
    frame = table("f600_clustered")
    y, s, patients = frame.y.to_numpy(float), frame.s1.to_numpy(float), repeated_patients(frame.patient.to_numpy(), len(frame))
    lp = logit(s)
    design = np.column_stack([np.ones(y.size), lp])
    both, shift = fit_logistic(design, y), fit_logistic(design[:, :1], y, offset=lp)
    n, k = design.shape
    robust = robust_covariance(both, design, y, patients=patients)[1, 1]
    return {
        "slope_and_naive_se": [both.coefficients[1], math.sqrt(both.covariance[1, 1])],
        "slope_se_cluster_HC0_cadjust": cal.calibration_slope(y, s, patients)[0].se,
        "slope_se_cluster_HC1": math.sqrt(robust * (n - 1) / (n - k)),
        "citl_and_naive_se": [shift.coefficients[0], math.sqrt(shift.covariance[0, 0])],
        "citl_se_cluster_HC0_cadjust": cal.calibration_intercept(y, s, patients)[0].se,
    }.get(quantity)


# ---------------------------------------------------------------- the comparison


@cache
def by_id() -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in records()}


@cache
def reproduce(name: str) -> Any:
    """This project's value of the record of this id, or None when it is no quantity of this room."""
    record = by_id()[name]
    case, _, quantity = record["id"].partition("/")
    if case.startswith("dca."):
        return of_utility(case, quantity)
    if case.startswith("recal."):
        return of_recalibration(case, quantity)
    if case == "f600_clustered.s1.calibration":
        return of_clustered_calibration(quantity)
    if ".thr" in case and not case.startswith("f600"):
        return of_decision(case, quantity)
    if case.startswith(("aSAH.", "b200", "b5000", "e5000.")) and "_vs_" not in case and not case.endswith((".singletons", "_men")):
        found = of_thresholds(case, quantity)
        return found if found is not None else of_single(case, quantity, record)
    return None


def number(value: Any) -> float:
    return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value, value) if isinstance(value, str) else float(value)


def agrees(mine: Any, theirs: Any, record: dict[str, Any]) -> bool:
    """Of a dictionary every key of theirs that is not in UNCOMPARED must be in mine; of a list every number counts."""
    if isinstance(theirs, dict):
        shared = [key for key in theirs if key in mine and theirs[key] is not None]
        skipped = {key for key in theirs if key not in mine and theirs[key] is not None}
        return bool(shared) and skipped <= set(UNCOMPARED) and all(agrees(mine[key], theirs[key], record) for key in shared)
    if isinstance(theirs, list):
        return len(mine) == len(theirs) and all(agrees(own, value, record) for own, value in zip(mine, theirs, strict=True))
    if theirs is None or mine is None:
        return theirs is None and mine is None
    expected = number(theirs)
    if not math.isfinite(expected):
        return float(mine) == expected or (math.isnan(expected) and math.isnan(float(mine)))
    return abs(float(mine) - expected) <= max(record["tol_abs"], record["tol_rel"] * abs(expected))


@cache
def records() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads((FOLDER / "reference.json").read_text())["records"])


def explained(record: dict[str, Any]) -> bool:
    case, _, quantity = record["id"].partition("/")
    return bool({record["id"], case, quantity} & set(NO_COUNTERPART))


def accounted(record: dict[str, Any]) -> bool:
    """Whether this test reproduces the record or says why not."""
    return explained(record) or reproduce(record["id"]) is not None


def test_every_record_of_this_room_is_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    fate, wrong = Counter(), []
    for record in records():
        if record["kind"] not in {"exact", "iterative"}:
            continue
        if explained(record):
            fate["without counterpart"] += 1
            continue
        mine = reproduce(record["id"])
        if mine is None:
            fate["of other rooms"] += 1
        elif agrees(mine, record["value"], record):
            fate["reproduced"] += 1
        else:
            wrong.append((record["id"], mine, record["value"]))
    with capsys.disabled():
        print(f"\nreference values of calibration, classification and utility: {dict(fate)}")
    assert not wrong, "\n".join(str(w)[:700] for w in wrong[:40])
    assert fate["reproduced"] >= 667


def test_table_of_reasons_names_only_records_that_exist() -> None:
    assert set(NO_COUNTERPART) <= {part for record in records() for part in (record["id"], *record["id"].split("/", 1))}


def test_comparison_notices_a_wrong_last_digit() -> None:
    record = {"tol_abs": 1e-12, "tol_rel": 1e-10}
    assert agrees({"a": 0.5}, {"a": 0.5, "Dxy": 1.0}, record)
    assert not agrees({"a": 0.5}, {"a": 0.5, "b": 1.0}, record)
    assert not agrees({"a": 0.5 + 1e-9}, {"a": 0.5}, record)
    assert not agrees({"c": 0.5}, {"a": 0.5}, record)
    assert not agrees([0.5], [0.5, 0.6], record)
    assert not agrees(None, 0.5, record)
