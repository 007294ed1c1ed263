"""What the calibration records of the reference are called there, computed by this project."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from reference_cases import by_method, limits, scores, table, triple
from scipy.special import logit

from medcnn.evaluation import calibration as cal
from medcnn.evaluation.binning import bin_calibration, smooth_calibration_error, smooth_error_at
from medcnn.evaluation.calibration_curve import curve_distances
from medcnn.evaluation.estimates import repeated_patients
from medcnn.evaluation.loess import fit_loess, loess_direct
from medcnn.evaluation.logistic import fit_logistic, robust_covariance
from medcnn.evaluation.splines import spline_calibration


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
