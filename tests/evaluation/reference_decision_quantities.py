"""What the threshold, 2x2, utility and recalibration records of the reference are called there, computed by this project."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from reference_cases import limits, records, scores, triple
from scipy.special import logit

from medcnn.config import ThresholdConfig
from medcnn.evaluation import calibration as cal
from medcnn.evaluation.binning import bin_calibration
from medcnn.evaluation.classification import (
    classification_estimates,
    diagnostic_odds_ratio,
    kappa_standard_error,
    two_by_two,
)
from medcnn.evaluation.intervals import clopper_pearson
from medcnn.evaluation.operating_points import choose_threshold
from medcnn.evaluation.recalibration import fit_recalibration
from medcnn.evaluation.utility import decision_curve, net_benefit_estimates


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
