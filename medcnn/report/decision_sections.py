"""Sections 8 and 9: classification at stated thresholds, clinical utility."""

from typing import Any

import numpy as np
import pandas as pd

from medcnn.report.blocks import Details, Figures, Section, Slider, Table, Text
from medcnn.report.charts import decision_chart, threshold_chart
from medcnn.report.cohort_sections import prevalence_words
from medcnn.report.counts import ThresholdCounts
from medcnn.report.diagrams import confusion_table
from medcnn.report.numbers import count, estimate, interval, is_known, metric_title, metric_value, percent, threshold
from medcnn.report.performance_sections import label_distribution, per_label, record_table
from medcnn.report.reading import Reading

RATES = ("sensitivity", "specificity", "ppv", "npv")
RATIOS = ("lr_positive", "lr_negative", "net_benefit", "standardized_net_benefit")
SECONDARY = ("accuracy", "balanced_accuracy", "f1", "mcc", "kappa")


def classification_section(reading: Reading) -> Section:
    """8: counts and rates at each threshold, the slider, secondary measures."""
    blocks: list[Any] = []
    confusion = _confusion(reading)
    if confusion is not None:
        note = "Each image goes to the class with the highest probability."
        blocks += [Figures([confusion_table(confusion, id="confusion", title="Confusion table")]), Text(note, "note")]
    blocks += per_label(reading, lambda label: _classification(reading, label))
    secondary = record_table(reading.results, SECONDARY, "Secondary measures")
    if secondary is not None:
        warning = "These are improper at thresholds other than 0.5 or the prevalence (doi:10.1016/j.landig.2025.100916): not a basis for choosing a model."
        blocks.append(Details("Secondary measures: accuracy, F1 and the like", [Text(warning, "note"), secondary]))
    return Section("classification", "Classification at stated thresholds", blocks, "The rule is p ≥ threshold.")


def _confusion(reading: Reading) -> pd.DataFrame | None:
    rows, labels = reading.rows, reading.results.labels
    if rows is None or not 2 < len(labels) <= 12 or any(f"y_{label}" not in rows for label in labels):
        return None
    y = rows[[f"y_{label}" for label in labels]].to_numpy(dtype=float)
    if np.isnan(y).any() or not (y.sum(axis=1) == 1).all():
        return None
    chosen = rows[[f"p_{label}" for label in labels]].to_numpy(dtype=float).argmax(axis=1)
    matrix = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(matrix, (y.argmax(axis=1), chosen), 1)
    return pd.DataFrame(matrix, index=labels, columns=labels)


def _classification(reading: Reading, label: str) -> list[Any]:
    blocks: list[Any] = []
    points = reading.results.thresholds(label)
    if points:
        blocks.append(_threshold_table(reading, label, points))
    if label in reading.counts:
        blocks.append(_slider(reading, reading.counts[label]))
    return blocks


def _threshold_table(reading: Reading, label: str, points: list[float]) -> Table:
    results = reading.results
    rows = []
    for value in points:
        counts = reading.counts[label].at(value) if label in reading.counts else None
        fractions = reading.fractions(label, value)
        cells = [threshold(value), *([count(n) for n in counts] if counts else ["–"] * 4)]
        for metric in RATES:
            record = results.best(metric, label, threshold=value)
            ratio = f"{count(fractions[metric][0])}/{count(fractions[metric][1])}, " if metric in fractions else ""
            limits = interval(metric, record.low, record.high) if record else ""
            known = record is not None and is_known(record.value)
            cells.append(f"{ratio}{metric_value(metric, record.value if record else None)}{f' ({limits})' if limits and known else ''}" if record else "–")
        rows.append(cells)
    rule = reading.rule(label, points[0])
    held = prevalence_words(reading, label)
    note = " ".join(part for part in (f"First threshold: {rule}." if rule else "", f"Predictive values hold for this test set’s {held}." if held else "") if part)
    columns = ["Threshold", "TP", "FP", "FN", "TN", *(metric_title(metric) for metric in RATES)]
    return Table(columns, rows, "At each stated threshold, with 95% intervals", note, numeric=range(len(columns)))


def _slider(reading: Reading, counts: ThresholdCounts) -> Slider:
    label = counts.label
    points = reading.results.thresholds(label)
    start = points[0] if points else 0.5
    tp, fp, fn, tn = counts.at(start)
    data = {
        "label": label,
        "t": [round(float(value), 6) for value in counts.thresholds],
        "tp": counts.tp.tolist(),
        "fp": counts.fp.tolist(),
        "positive": counts.n_positive,
        "negative": counts.n_negative,
        "start": int(np.argmin(np.abs(counts.thresholds - start))),
        "chosen": [round(float(value), 6) for value in points],
    }
    marks = {f"threshold {threshold(start)}": start}
    chart = threshold_chart(counts, name=label, id_words=[label], marks=marks)
    spread = label_distribution(reading, label, words=["thresholds"])
    shown = {"t": threshold(start), "tp": count(tp), "fp": count(fp), "fn": count(fn), "tn": count(tn)}
    shown["prevalence"] = percent(counts.n_positive / max(counts.n_positive + counts.n_negative, 1))
    note = "Trying thresholds out on the test set explores; it does not choose. A threshold chosen here needs new data to be tested on."
    return Slider(label, data, shown, [*([spread] if spread else []), chart], note)


def utility_section(reading: Reading) -> Section:
    """9: decision curves and the net benefit at the thresholds."""
    config = reading.facts.config
    blocks = per_label(reading, lambda label: _utility(reading, label))
    table = record_table(reading.results, RATIOS, "At the stated thresholds")
    span = f" Thresholds from {percent(config.evaluation.utility_range[0], 0)} to {percent(config.evaluation.utility_range[1], 0)}." if config is not None else ""
    lead = "Net benefit at threshold probability pt: TP/n − FP/n · pt/(1 − pt), under the rule p ≥ pt. A model is of use where its curve lies above both treating all and treating none."
    return Section("utility", "Clinical utility", [*blocks, *([table] if table else [])], lead + span)


def _utility(reading: Reading, label: str) -> list[Any]:
    points = reading.results.thresholds(label)
    chart = decision_chart(reading.results, label, name=label, id_words=[label], mark=points[0] if points else None)
    return [Figures([chart])] if chart else []


def utility_words(reading: Reading, label: str) -> str:
    """Net benefit at the first threshold, in one sentence; empty when unknown."""
    points = reading.results.thresholds(label)
    record = reading.results.best("net_benefit", label, threshold=points[0]) if points else None
    if record is None or not is_known(record.value):
        return ""
    return f"At threshold {threshold(points[0])} the net benefit is {estimate(record)}."


