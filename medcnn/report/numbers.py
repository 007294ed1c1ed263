"""How numbers are written: one way for each metric, for counts, proportions, p values and sizes."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from medcnn.tables import Comparison, Record

MINUS = "\u2212"
NOT_ESTIMABLE = "not estimable"
SHORT = {"thousand": "k", "million": "M", "billion": "G", "trillion": "T"}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Metric:
    """A metric's title, its decimals, and the value that would be ideal. percent: written as a percentage."""

    title: str
    decimals: int = 3
    percent: bool = False
    ideal: str = ""


METRICS: dict[str, Metric] = {
    "auroc": Metric("AUROC", ideal="1"),
    "partial_auroc": Metric("Partial AUROC", ideal="1"),
    "average_precision": Metric("Average precision", ideal="1"),
    "hand_till_m": Metric("Hand–Till M", ideal="1"),
    "brier": Metric("Brier score", ideal="0"),
    "scaled_brier": Metric("Scaled Brier score", ideal="1"),
    "log_loss": Metric("Log-loss (mean)", ideal="0"),
    "calibration_intercept": Metric("Calibration intercept", 2, ideal="0"),
    "calibration_slope": Metric("Calibration slope", 2, ideal="1"),
    "oe_ratio": Metric("O:E ratio", 2, ideal="1"),
    "ici": Metric("ICI", ideal="0"),
    "e50": Metric("E50", ideal="0"),
    "e90": Metric("E90", ideal="0"),
    "emax": Metric("Emax", ideal="0"),
    "eci": Metric("ECI", ideal="0"),
    "ece": Metric("ECE", ideal="0"),
    "smooth_ece": Metric("Smooth ECE", ideal="0"),
    "sensitivity": Metric("Sensitivity", 1, percent=True),
    "specificity": Metric("Specificity", 1, percent=True),
    "ppv": Metric("PPV", 1, percent=True),
    "npv": Metric("NPV", 1, percent=True),
    "lr_positive": Metric("LR+", 2),
    "lr_negative": Metric(f"LR{MINUS}", 2),
    "accuracy": Metric("Accuracy", 1, percent=True),
    "balanced_accuracy": Metric("Balanced accuracy", 1, percent=True),
    "f1": Metric("F1"),
    "ece_noise_floor": Metric("ECE of a calibrated model (noise floor)"),
    "true_positives": Metric("True positives", 0),
    "false_positives": Metric("False positives", 0),
    "false_negatives": Metric("False negatives", 0),
    "true_negatives": Metric("True negatives", 0),
    "heterogeneity_auroc": Metric("Heterogeneity of the AUROC"),
    "mcc": Metric("MCC"),
    "kappa": Metric("Cohen’s kappa"),
    "net_benefit": Metric("Net benefit"),
    "standardized_net_benefit": Metric("Standardised net benefit"),
}

METHODS: dict[str, str] = {
    "delong": "DeLong",
    "logit": "logit-transformed DeLong",
    "newcombe": "Newcombe",
    "obuchowski": "Obuchowski, patients as clusters",
    "bootstrap": "bootstrap",
    "bootstrap_patient": "bootstrap over patients",
    "wilson": "Wilson",
    "wilson_clustered": "Wilson, patients as clusters",
    "cluster_robust": "cluster-robust over patients",
    "newcombe_clustered": "Newcombe, patients as clusters",
    "logit_obuchowski": "Obuchowski on the logit scale",
    "log": "log method",
    "log_clustered": "log method, patients as clusters",
    "log_wald": "Wald on the log scale",
    "restated_logit": "restated to the given prevalence, logit method",
    "restated_logit_clustered": "restated to the given prevalence, logit method, patients as clusters",
    "linearised": "linearised",
    "mcclish": "McClish-corrected",
    "mcclish_bootstrap": "McClish-corrected, bootstrap",
    "rcs5": "restricted cubic spline, 5 knots",
    "top_label": "top label",
    "count": "",
    "simulation": "simulation",
    "cochran_q": "Cochran’s Q",
    "mcnemar": "McNemar",
    "mcnemar_exact": "McNemar, exact",
    "mcnemar_mid_p": "McNemar, mid-p",
    "profile": "profile likelihood",
    "wald": "Wald",
}


def metric_title(name: str) -> str:
    """The metric as it is written in tables; an unknown name with spaces for underscores."""
    return METRICS[name].title if name in METRICS else name.replace("_", " ").capitalize()


def method_title(name: str) -> str:
    """The interval's method in words."""
    if name.endswith("_non_inferiority"):
        return f"non-inferiority, {method_title(name.removesuffix('_non_inferiority'))}"
    return METHODS.get(name, name.replace("_", " "))


def is_known(value: float | None) -> bool:
    """True for a finite number."""
    return value is not None and math.isfinite(value)


def fixed(value: float | None, decimals: int = 3) -> str:
    """A number with fixed decimals and a true minus sign; `not estimable` for None or NaN."""
    if value is None or math.isnan(value):
        return NOT_ESTIMABLE
    if math.isinf(value):
        return f"{MINUS}∞" if value < 0 else "∞"
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def percent(value: float | None, decimals: int = 1) -> str:
    """0.9461 -> 94.6%."""
    return NOT_ESTIMABLE if value is None or math.isnan(value) else f"{fixed(100 * value, decimals)}%"


def metric_value(name: str, value: float | None) -> str:
    """A metric's value the way this metric is written."""
    metric = METRICS.get(name, Metric(name))
    return percent(value, metric.decimals) if metric.percent else fixed(value, metric.decimals)


def interval(name: str, low: float | None, high: float | None) -> str:
    """`0.930 to 0.970`, or nothing when a limit is unknown."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{metric_value(name, low)} to {metric_value(name, high)}"


def estimate(record: Record | None) -> str:
    """`0.950 (0.930 to 0.970)`; without an interval only the value; `not estimable` where it is not."""
    if record is None or not is_known(record.value):
        return NOT_ESTIMABLE
    limits = interval(record.metric, record.low, record.high)
    value = metric_value(record.metric, record.value)
    return f"{value} ({limits})" if limits else value


def difference(comparison: Comparison) -> str:
    """A paired difference with sign and interval: `+0.012 (−0.003 to 0.027)`."""
    if comparison.difference is None or not math.isfinite(comparison.difference):
        return NOT_ESTIMABLE
    name, value = comparison.metric, comparison.difference
    shown = metric_value(name, value)
    sign = "+" if value > 0 and not shown.startswith(MINUS) else ""
    limits = interval(name, comparison.low, comparison.high)
    return f"{sign}{shown} ({limits})" if limits else f"{sign}{shown}"


def count(value: float | int | None) -> str:
    """12345 -> 12,345; a dash when unknown."""
    return "–" if value is None or (isinstance(value, float) and math.isnan(value)) else f"{int(value):,}"


def plural(value: float | int, noun: str, several: str = "") -> str:
    """`1 image`, `2 images`."""
    return f"{count(value)} {noun if int(value) == 1 else several or noun + 's'}"


def share(part: float, whole: float) -> str:
    """`369/390 (94.6%)`."""
    return f"{count(part)}/{count(whole)}" + (f" ({percent(part / whole)})" if whole else "")


def p_value(value: float | None) -> str:
    """`0.031`, `<0.001`; a dash when there is none."""
    if value is None or math.isnan(value):
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def threshold(value: float | None) -> str:
    """A threshold with as many decimals as it needs: 0.5, 0.371, 0.0042."""
    if value is None or math.isnan(value):
        return "–"
    if value > 1:
        return "above 1"
    text = f"{value:.3f}" if value >= 0.1 or value == 0 else f"{value:.3g}"
    return text.rstrip("0").rstrip(".") if "e" not in text and "." in text else text


def compact(value: float | None, *, short: bool = False) -> str:
    """102082 -> 102 thousand; 4652008 -> 4.65 million, or 102k and 4.65M; a dash when unknown."""
    if value is None or math.isnan(value):
        return "–"
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if abs(value) >= size:
            return f"{value / size:.3g}{SHORT[word]}" if short else f"{value / size:.3g} {word}"
    return f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """95.2 -> 1 min 35 s."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def date(text: Any) -> str:
    """`2025-11-22T18:00:00+0000` -> `22 Nov 2025, 18:00`; what is not a date stays as it is."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return "" if text is None else str(text)
    return f"{when.day} {MONTHS[when.month - 1]} {when.year}, {when:%H:%M}"


def short_hash(value: Any) -> str:
    """The first 12 characters of a digest."""
    return str(value)[:12]


def join_words(words: list[str], last: str = "and") -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""
