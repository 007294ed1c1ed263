"""The charts of one label: ROC, precision-recall, calibration, distribution of predictions, thresholds, decision curve, training."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from medcnn.report.blocks import Figure
from medcnn.report.counts import ThresholdCounts
from medcnn.report.lookup import Distribution, Results
from medcnn.report.numbers import count, fixed, percent, threshold
from medcnn.report.svg import UNIT_TICKS, Axis, Canvas, nice_axis


def slug(*words: str) -> str:
    """An id for files and links: letters, digits, dashes and underscores; different words give different ids."""
    text = "-".join(words).lower()
    kept = "-".join("".join(c if c.isascii() and (c.isalnum() or c == "_") else " " for c in text).split())
    # Labels that differ only in what is dropped here still get ids of their own.
    return kept if kept == text.replace(" ", "-") else f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".strip("-")


def roc_chart(
    curves: dict[str, pd.DataFrame], *, name: str, id_words: Sequence[str], points: dict[str, tuple[float, float]] | None = None
) -> Figure | None:
    """ROC curves (name -> x: 1 - specificity, y: sensitivity, threshold); points: operating points by text."""
    curves = {key: curve for key, curve in curves.items() if len(curve)}
    if not curves:
        return None
    canvas = Canvas(Axis(0, 1, "1 \u2212 specificity", UNIT_TICKS), Axis(0, 1, "Sensitivity", UNIT_TICKS), f"ROC curve, {name}", height=380)
    canvas.reference([0, 1], [0, 1])
    for series, (key, curve) in enumerate(curves.items()):
        x, y = curve["x"].to_numpy(dtype=float), curve["y"].to_numpy(dtype=float)
        if series == 0 and len(curves) == 1 and _has_band(curve):
            canvas.band(x, curve["low"].to_numpy(dtype=float), curve["high"].to_numpy(dtype=float))
        canvas.line(x, y, key, series=series, thresholds=_thresholds(curve))
    canvas.text(0.62, 0.58, "chance", shift=(4, 12))
    for text, (x0, y0) in (points or {}).items():
        canvas.dots(
            np.array([x0]), np.array([y0]), [f"{text}: sensitivity {percent(y0)}, specificity {percent(1 - x0)}"], series=1, radius=5
        )
        below = y0 > 0.5
        canvas.text(x0, y0, text, shift=(9, 14 if below else -8))
    return Figure(slug("roc", *id_words), f"ROC curve, {name}", canvas.render(), "", _stack(curves))


def precision_recall_chart(curve: pd.DataFrame, *, name: str, id_words: Sequence[str], prevalence: float | None) -> Figure | None:
    """Precision against recall, with the prevalence as the baseline."""
    if curve.empty:
        return None
    canvas = Canvas(
        Axis(0, 1, "Recall (sensitivity)", UNIT_TICKS),
        Axis(0, 1, "Precision (PPV)", UNIT_TICKS),
        f"Precision–recall curve, {name}",
        height=380,
    )
    if prevalence is not None:
        canvas.reference([0, 1], [prevalence, prevalence])
        canvas.text(0.02, prevalence, f"prevalence {percent(prevalence)}", shift=(0, -5 if prevalence < 0.9 else 14))
    canvas.line(curve["x"].to_numpy(dtype=float), curve["y"].to_numpy(dtype=float), "Precision", thresholds=_thresholds(curve))
    return Figure(slug("precision-recall", *id_words), f"Precision–recall curve, {name}", canvas.render(), "", curve)


def calibration_chart(
    results: Results,
    label: str,
    *,
    name: str,
    id_words: Sequence[str],
    recalibration: str | None = None,
    spread: Distribution | None = None,
) -> Figure | None:
    """Observed share against predicted probability: smooth curve with band, grouped points with intervals, distribution below."""
    smooth = results.curve("calibration_smooth", label, recalibration=recalibration)
    groups = results.curve("calibration_grouped", label, recalibration=recalibration)
    if smooth.empty and groups.empty:
        return None
    canvas = Canvas(
        Axis(0, 1, "Predicted probability", UNIT_TICKS),
        Axis(0, 1, "Observed share", UNIT_TICKS),
        f"Calibration, {name}",
        height=440,
        margin=(14, 14, 106, 54),
    )
    canvas.reference([0, 1], [0, 1])
    canvas.text(0.7, 0.7, "ideal", shift=(6, 14))
    if len(smooth):
        x = smooth["x"].to_numpy(dtype=float)
        canvas.band(x, smooth["low"].to_numpy(dtype=float), smooth["high"].to_numpy(dtype=float))
        canvas.line(x, smooth["y"].to_numpy(dtype=float), "Smoothed, 95% band")
    if len(groups):
        x, y = groups["x"].to_numpy(dtype=float), groups["y"].to_numpy(dtype=float)
        canvas.whiskers(x, groups["low"].to_numpy(dtype=float), groups["high"].to_numpy(dtype=float), series=1)
        texts = [f"{count(n)} images: predicted {percent(a)}, observed {percent(b)}" for a, b, n in zip(x, y, groups["n"], strict=True)]
        canvas.dots(x, y, texts, series=1, name="Groups of equal size")
    if spread is not None:
        _rug(canvas, spread)
    numbers = pd.concat([smooth, groups], ignore_index=True)
    return Figure(slug("calibration", *id_words), f"Calibration, {name}", canvas.render(), "", numbers)


def _rug(canvas: Canvas, spread: Distribution) -> None:
    """The distribution of the predictions as a small histogram under the axis title."""
    left, top, width, height = canvas.box
    counts, edges = spread.negatives + spread.positives, spread.edges
    base, tall = top + height + 98, 46
    bars = [
        f'<rect class="quiet-fill" x="{left + width * low:.1f}" width="{width / len(counts) - 0.6:.1f}" y="{base - tall * n / counts.max():.1f}"'
        f' height="{tall * n / counts.max():.1f}" fill="#8a95a3"/>'
        for low, n in zip(edges, counts, strict=False)
        if n
    ]
    canvas.parts.append(f"<g><title>Distribution of the predicted probabilities</title>{''.join(bars)}</g>")


def distribution_chart(spread: Distribution, *, name: str, id_words: Sequence[str], marks: dict[str, float] | None = None) -> Figure:
    """Predicted probability by class: positives upwards, negatives downwards, each as a share of its class."""
    edges, negatives, positives = spread.edges, spread.negatives, spread.positives
    up = positives / max(positives.sum(), 1)
    down = negatives / max(negatives.sum(), 1)
    most = float(max(up.max(), down.max(), 1e-6))
    step = next(s for s in (0.02, 0.05, 0.1, 0.2, 0.25, 0.5) if most / s <= 4.0001)
    limit = float(np.ceil(most / step - 1e-9) * step)
    ticks = np.arange(-limit, limit + step / 2, step)
    y_axis = Axis(-limit, limit, "Share of its class", tuple(float(round(t, 6)) for t in ticks), style="share")
    canvas = Canvas(Axis(0, 1, "Predicted probability", UNIT_TICKS), y_axis, f"Predicted probability by class, {name}", height=320)
    canvas.bars(edges[:-1], edges[1:], up, series=1, name=f"With finding (n = {count(positives.sum())})")
    canvas.bars(edges[:-1], edges[1:], -down, series=0, name=f"Without (n = {count(negatives.sum())})")
    canvas.reference([0, 1], [0, 0], dash="")
    for text, value in (marks or {}).items():
        canvas.mark_x(value, text)
    numbers = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n_positive": positives, "n_negative": negatives})
    return Figure(slug("distribution", *id_words), f"Predicted probability by class, {name}", canvas.render(), "", numbers)


def decision_chart(
    curves: dict[str, pd.DataFrame], everyone: pd.DataFrame, *, name: str, id_words: Sequence[str], mark: float | None = None
) -> Figure | None:
    """Net benefit of models (name -> curve), of treating all and of treating none, over the stated range of thresholds."""
    curves = {key: curve for key, curve in curves.items() if len(curve)}
    if not curves:
        return None
    x = next(iter(curves.values()))["x"].to_numpy(dtype=float)
    tops = [curve["y"] for curve in [*curves.values(), everyone] if len(curve)]
    tops += [curve["high"] for curve in curves.values() if len(curves) == 1 and _has_band(curve)]
    highest = max(float(np.nanmax(top)) for top in tops)
    vertical = nice_axis(np.array([0.0, max(highest, 0.01)]), "Net benefit")
    floor = -0.15 * vertical.high
    canvas = Canvas(
        nice_axis(x, "Threshold probability"),
        Axis(floor, vertical.high, vertical.title, vertical.ticks),
        f"Decision curve, {name}",
        height=320,
    )
    for series, (key, curve) in enumerate(curves.items()):
        at = curve["x"].to_numpy(dtype=float)
        if len(curves) == 1:
            canvas.band(at, curve["low"].to_numpy(dtype=float), curve["high"].to_numpy(dtype=float))
        canvas.line(at, curve["y"].to_numpy(dtype=float), key, series=series)
    above = everyone[everyone["y"] >= floor] if len(everyone) else everyone
    if len(above):
        canvas.reference(above["x"].to_numpy(dtype=float), above["y"].to_numpy(dtype=float), "Treat all", dash="7 3")
    canvas.reference([x[0], x[-1]], [0, 0], "Treat none", dash="2 3")
    if mark is not None and x[0] <= mark <= x[-1]:
        canvas.mark_x(mark, f"threshold {threshold(mark)}")
    numbers = _stack({**curves, "treat all": everyone})
    return Figure(slug("decision-curve", *id_words), f"Decision curve, {name}", canvas.render(), "", numbers)


def threshold_chart(counts: ThresholdCounts, *, name: str, id_words: Sequence[str], marks: dict[str, float] | None = None) -> Figure:
    """Sensitivity, specificity, PPV and NPV against the threshold."""
    t = counts.thresholds
    measures = rates(counts)
    canvas = Canvas(
        Axis(0, 1, "Threshold", UNIT_TICKS), Axis(0, 1, "", UNIT_TICKS, style="percent"), f"Measures by threshold, {name}", height=320
    )
    step = max(len(t) // 250, 1)
    for series, (key, values) in enumerate(measures.items()):
        canvas.line(t[::step], values[::step], key, series=series)
    for text, value in (marks or {}).items():
        canvas.mark_x(value, text)
    numbers = pd.DataFrame({"threshold": t, "tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "tn": counts.tn})
    return Figure(slug("thresholds", *id_words), f"Measures by threshold, {name}", canvas.render(), "", numbers)


def rates(counts: ThresholdCounts) -> dict[str, np.ndarray]:
    """Sensitivity, specificity, PPV and NPV at each threshold; NaN where the denominator is zero."""
    tp, fp, fn, tn = (values.astype(float) for values in (counts.tp, counts.fp, counts.fn, counts.tn))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"Sensitivity": tp / (tp + fn), "Specificity": tn / (tn + fp), "PPV": tp / (tp + fp), "NPV": tn / (tn + fn)}


def training_charts(history: pd.DataFrame) -> list[Figure]:
    """Loss and validation AUROC by epoch, averaged over folds and seeds when there are several."""
    figures = []
    runs = history.groupby("epoch", as_index=False).mean(numeric_only=True)
    epochs = runs["epoch"].to_numpy(dtype=float)
    losses = [
        (key, title) for key, title in (("train_loss", "Training"), ("val_loss", "Tuning")) if key in runs and runs[key].notna().any()
    ]
    if losses:
        values = np.concatenate([runs[key].to_numpy(dtype=float) for key, _ in losses])
        canvas = Canvas(
            nice_axis(epochs, "Epoch"), nice_axis(values, "Loss", floor=min(0.0, float(np.nanmin(values)))), "Loss by epoch", height=300
        )
        for series, (key, title) in enumerate(losses):
            canvas.line(epochs, runs[key].to_numpy(dtype=float), title, series=series)
        figures.append(Figure("training-loss", "Loss by epoch", canvas.render(), "", history))
    if "val_auroc" in runs and runs["val_auroc"].notna().any():
        values = runs["val_auroc"].to_numpy(dtype=float)
        canvas = Canvas(nice_axis(epochs, "Epoch"), nice_axis(values, "AUROC"), "AUROC on the tuning part by epoch", height=300)
        canvas.line(epochs, values, "Tuning AUROC")
        best = int(np.nanargmax(values))
        canvas.dots(epochs[[best]], values[[best]], [f"highest: {fixed(values[best])} at epoch {epochs[best]:.0f}"], series=1)
        figures.append(Figure("training-auroc", "AUROC on the tuning part by epoch", canvas.render(), "", runs[["epoch", "val_auroc"]]))
    return figures


def _stack(curves: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([curve.assign(series=key) for key, curve in curves.items()], ignore_index=True)


def _has_band(curve: pd.DataFrame) -> bool:
    return bool({"low", "high"} <= set(curve.columns) and curve["low"].notna().any())


def _thresholds(curve: pd.DataFrame) -> np.ndarray | None:
    if "threshold" not in curve or curve["threshold"].isna().all():
        return None
    return curve["threshold"].to_numpy(dtype=float)
