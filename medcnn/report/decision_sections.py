"""Sections 8 and 9: classification at stated thresholds, clinical utility."""

from typing import Any

import numpy as np
import pandas as pd

from medcnn.report.blocks import Details, Figures, Row, Section, Slider, Table, Text
from medcnn.report.charts import decision_chart, threshold_chart
from medcnn.report.counts import ThresholdCounts
from medcnn.report.diagrams import confusion_chart
from medcnn.report.numbers import count, metric_title, percent, threshold
from medcnn.report.performance_sections import label_distribution, listed, per_label
from medcnn.report.reading import COUNTS, Reading
from medcnn.report.tabulate import cell, overview, record_table

RATES = ("sensitivity", "specificity", "ppv", "npv")
RATIOS = ("lr_positive", "lr_negative")
UTILITY = ("net_benefit", "standardized_net_benefit")
SECONDARY = ("accuracy", "balanced_accuracy", "f1", "mcc", "kappa")
MOST_CLASSES = 12


def classification_section(reading: Reading) -> Section:
    """8: counts and rates at each threshold, the slider, secondary measures."""
    results = reading.results
    blocks: list[Any] = []
    matrix = _confusion(reading)
    if matrix is not None:
        blocks.append(
            Figures([confusion_chart(matrix, id="confusion", title="Confusion table: each unit goes to its most probable class")])
        )
    if len(results.labels) > 1:
        blocks += listed(overview(results, (*RATES, *RATIOS), "Each label at its first threshold, with 95% intervals", at_threshold=True))
    blocks += per_label(reading, lambda label: _classification(reading, label))
    secondary = record_table(results, SECONDARY, [*results.averages, *results.labels], "Secondary measures")
    if secondary is not None:
        warning = (
            "Improper at thresholds other than 0.5 or the prevalence (doi:10.1016/j.landig.2025.100916): not a basis for choosing a model."
        )
        blocks.append(Details("Secondary measures: accuracy, F1 and the like", [Text(warning, "note"), secondary]))
    return Section(
        "classification", "Classification at stated thresholds", blocks, "A probability of at least the threshold is called positive."
    )


def _confusion(reading: Reading) -> pd.DataFrame | None:
    if reading.units is None or reading.task != "multiclass" or not 2 < len(reading.units.labels) <= MOST_CLASSES:
        return None
    labels = list(reading.units.labels)
    matrix = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(matrix, (reading.units.y.argmax(axis=1), reading.units.p.argmax(axis=1)), 1)
    return pd.DataFrame(matrix, index=labels, columns=labels)


def _classification(reading: Reading, label: str) -> list[Any]:
    points = reading.results.thresholds(label)
    table = _threshold_table(reading, label, points) if points else None
    return listed(table, _slider(reading, reading.counts[label]) if label in reading.counts else None)


def _threshold_table(reading: Reading, label: str, points: list[float]) -> Table:
    """Measures down, thresholds across: few thresholds are stated, and each has many measures."""
    results = reading.results
    columns = ["Measure", *(f"p ≥ {threshold(value)}" for value in points)]
    rows: list[Row] = []
    rules = [f"{threshold(value)}: {rule}." for value in points if (rule := reading.rule(label, value))]
    counts = [reading.cells(label, value) for value in points]
    if all(counts):
        rows += [[metric_title(name), *(count(cells[k]) for cells in counts if cells)] for k, name in enumerate(COUNTS)]
    for metric in (*RATES, *RATIOS):
        found = [results.best(metric, label, threshold=value) for value in points]
        if any(found):
            rows.append(
                [
                    metric_title(metric),
                    *(cell(record, before=_fraction(reading, label, metric, value)) for record, value in zip(found, points, strict=True)),
                ]
            )
    rows += _restated_rows(reading, label, points)
    prevalence = reading.prevalence(label)
    held = [f"PPV and NPV hold for a prevalence of {percent(prevalence)}, that of this part."] if prevalence is not None else []
    note = " ".join([*held, *(["Chosen by:"] if rules else []), *rules])
    return Table(columns, rows, f"{label} at each stated threshold, with 95% intervals", note, numeric=range(1, len(columns)))


def _restated_rows(reading: Reading, label: str, points: list[float]) -> list[Row]:
    config = reading.facts.config
    given = config.evaluation.prevalence if config is not None else None
    where = f" at prevalence {percent(given)}" if given is not None else " at the prevalence given"
    rows: list[Row] = []
    for metric in ("ppv", "npv"):
        found = [reading.results.restated(metric, label, value) for value in points]
        if any(found):
            rows.append([metric_title(metric) + where, *(cell(record) for record in found)])
    return rows


def _fraction(reading: Reading, label: str, metric: str, value: float) -> str:
    fractions = reading.fractions(label, value)
    return f"{count(fractions[metric][0])}/{count(fractions[metric][1])}" if metric in fractions else ""


def _slider(reading: Reading, counts: ThresholdCounts) -> Slider:
    label = counts.label
    points = reading.thresholds[label]
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
    chart = threshold_chart(counts, name=label, id_words=[label], marks={f"threshold {threshold(start)}": min(start, 1.0)})
    spread = label_distribution(reading, label, words=["thresholds"])
    shown = {"t": threshold(start), "tp": count(tp), "fp": count(fp), "fn": count(fn), "tn": count(tn)}
    shown["prevalence"] = percent(counts.n_positive / max(counts.n_positive + counts.n_negative, 1))
    repeated = any(0 < record.n_patients < record.n for record in reading.results.find("sensitivity", label))
    clustered = (
        " Several images come from one patient: these Wilson intervals take each as independent and may be too narrow; the table’s do not."
        if repeated
        else ""
    )
    note = f"Trying thresholds out on the test set explores, it does not choose: a threshold chosen here needs new data to be tested on.{clustered}"
    return Slider(label, data, shown, listed(spread, chart), note)


def utility_section(reading: Reading) -> Section:
    """9: decision curves and the net benefit at the thresholds."""
    results, config = reading.results, reading.facts.config
    table = overview(results, UTILITY, "At each label’s first threshold", at_threshold=True) if len(results.labels) > 1 else None
    blocks = listed(table) + per_label(reading, lambda label: _utility(reading, label))
    span = (
        f" Range shown: {percent(config.evaluation.utility_range[0], 0)} to {percent(config.evaluation.utility_range[1], 0)}."
        if config is not None
        else ""
    )
    lead = "Net benefit at threshold probability t is TP/n − FP/n · t/(1 − t). A model is of use where its curve lies above both treating all and treating none."
    return Section("utility", "Clinical utility", blocks, lead + span)


def _utility(reading: Reading, label: str) -> list[Any]:
    points = reading.results.thresholds(label)
    results = reading.results
    chart = decision_chart(
        {"Model": results.curve("decision_curve", label)},
        results.curve("decision_curve_all", label),
        name=label,
        id_words=[label],
        mark=points[0] if points else None,
    )
    table = record_table(reading.results, UTILITY, [label], "At the stated thresholds", narrow=True)
    return [Figures([chart], beside=listed(table))] if chart else listed(table)
