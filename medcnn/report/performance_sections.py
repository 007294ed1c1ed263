"""Sections 5 to 7: discrimination, calibration, overall performance."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medcnn.report.blocks import Facts, Figure, Figures, Heading, Panels, Section, Table, Text
from medcnn.report.charts import calibration_chart, distribution_chart, precision_recall_chart, roc_chart
from medcnn.report.counts import probability_bins
from medcnn.report.lookup import Results
from medcnn.report.numbers import count, estimate, fixed, is_known, method_title, metric_title, metric_value, plural, threshold
from medcnn.report.reading import Reading
from medcnn.report.words import calibration_verdict, discrimination_sentence, recalibration_name
from medcnn.tables import Record

DISCRIMINATION = ("auroc", "partial_auroc", "average_precision", "hand_till_m")
CALIBRATION = ("calibration_intercept", "calibration_slope", "oe_ratio", "ici", "e50", "e90", "emax", "eci", "ece", "smooth_ece")
OVERALL = ("brier", "scaled_brier", "log_loss")


def per_label(reading: Reading, build: Callable[[str], Sequence[Any]]) -> list[Any]:
    """Blocks of each label: as they are when there is one label, else one panel per label."""
    labels = reading.results.labels
    if len(labels) == 1:
        return list(build(labels[0]))
    panels = [(label, list(build(label))) for label in labels]
    kept = [(label, blocks) for label, blocks in panels if blocks]
    return [Panels([label for label, _ in kept], [blocks for _, blocks in kept])] if kept else []


def record_rows(records: Sequence[Record], *, with_label: bool) -> list[list[str]]:
    """Rows of a table of records: label, measure, estimate, method, n, note."""
    rows = []
    for record in records:
        title = metric_title(record.metric) + (f" at {threshold(record.threshold)}" if record.threshold is not None else "")
        value = metric_value(record.metric, record.value)
        limits = estimate(record).removeprefix(value).strip(" ()") or "–"
        size = f"{count(record.n_positive)}/{count(record.n)}" if record.n_positive is not None else count(record.n)
        rows.append([*([record.label] if with_label else []), title, value, limits, method_title(record.method) or "–", size, record.note])
    return rows


def record_table(results: Results, metrics: Sequence[str], caption: str, *, recalibration: str | None = None, note: str = "") -> Table | None:
    """All records of these metrics with every method, averages first; None when there is none."""
    with_label = len(results.labels) > 1
    records = [record for label in [*results.averages, *results.labels] for metric in metrics for record in results.find(metric, label, recalibration=recalibration)]
    if not records:
        return None
    rows = record_rows(records, with_label=with_label)
    columns = [*(["Label"] if with_label else []), "Measure", "Value", "95% interval", "Interval by", "Events/n", "Note"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    shift = 1 if with_label else 0
    return Table(columns, rows, caption, note, numeric=(1 + shift, 2 + shift, 4 + shift))


def operating_points(reading: Reading, label: str) -> dict[str, tuple[float, float]]:
    """Text -> (1 - specificity, sensitivity) at each threshold of a label."""
    points = {}
    for value in reading.results.thresholds(label)[:3]:
        found = [reading.results.best(metric, label, threshold=value) for metric in ("sensitivity", "specificity")]
        if all(record is not None and is_known(record.value) for record in found):
            sensitivity, specificity = (float(record.value or 0.0) for record in found if record is not None)
            points[threshold(value)] = (1 - specificity, sensitivity)
    return points


def discrimination_section(reading: Reading) -> Section:
    """5: ROC curves, AUROC by every method; average precision as secondary."""
    results = reading.results
    blocks: list[Any] = []
    if 1 < len(results.labels) <= 6:
        chart = roc_chart({label: results.curve("roc", label) for label in results.labels}, name="all labels", id_words=["all"])
        blocks += [Figures([chart])] if chart else []
    blocks += per_label(reading, lambda label: _discrimination(reading, label))
    note = "Average precision is the step sum over recall (no interpolation); its baseline is the prevalence. The first AUROC is the headline." if results.find("average_precision") else ""
    table = record_table(results, DISCRIMINATION, "Discrimination, by every method", note=note)
    return Section("discrimination", "Discrimination", [*blocks, *([table] if table else [])], _averages_lead(results))


def _averages_lead(results: Results) -> str:
    if len(results.labels) == 1:
        return discrimination_sentence(results, results.labels[0])
    if not results.averages:
        return ""
    said = [f"{average} {estimate(record)}" for average in results.averages if (record := results.best("auroc", average)) is not None]
    return f"AUROC over {plural(len(results.labels), 'label')}: {'; '.join(said)}. Each label against all others." if said else ""


def _discrimination(reading: Reading, label: str) -> list[Any]:
    results, record = reading.results, reading.results.first(label)
    prevalence = record.n_positive / record.n if record is not None and record.n_positive is not None and record.n else None
    points = operating_points(reading, label)
    charts = [
        roc_chart({label: results.curve("roc", label)}, name=label, id_words=[label], points=points),
        precision_recall_chart(results.curve("precision_recall", label), name=label, id_words=[label], prevalence=prevalence),
    ]
    drawn = [chart for chart in charts if chart is not None]
    return [Figures(drawn)] if drawn else []


def calibration_section(reading: Reading) -> Section:
    """6: calibration plot, measures, before and after recalibration."""
    results = reading.results
    blocks = per_label(reading, lambda label: _calibration(reading, label))
    note = "Intercept: slope fixed at 1 (calibration in the large), ideal 0. Slope and O:E: ideal 1. ICI, E50, E90, Emax, ECI, ECE: ideal 0; ECE depends on its bins."
    table = record_table(results, CALIBRATION, "Calibration measures", note=note)
    blocks += [table] if table else []
    if len(results.recalibrations) > 1:
        blocks += [Heading("Before and after recalibration"), *_recalibration_facts(reading), _before_after(results)]
    lead = calibration_verdict(results, results.labels[0])[1] if len(results.labels) == 1 else ""
    return Section("calibration", "Calibration", blocks, lead)


def _calibration(reading: Reading, label: str) -> list[Any]:
    results = reading.results
    rows = reading.labelled(label) if results.level == "image" else None
    after = calibration_chart(results, label, name=label, id_words=[label], p=rows[1] if rows else None)
    charts = [after] if after else []
    if results.recalibration != "none" and "none" in results.recalibrations:
        before = calibration_chart(results, label, name=f"{label}, before recalibration", id_words=[label, "before"], recalibration="none")
        charts += [before] if before else []
    sentence = [] if len(results.labels) == 1 else [Text(calibration_verdict(results, label)[1])]
    return [*sentence, Figures(charts)] if charts else sentence


def _recalibration_facts(reading: Reading) -> list[Any]:
    info = reading.facts.recalibration_info
    if not info:
        return []
    pairs = [(str(key).replace("_", " ").capitalize(), _written(value)) for key, value in info.items()]
    return [Facts([(term, text) for term, text in pairs if text])]


def _written(value: Any) -> str:
    if isinstance(value, float):
        return fixed(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_written(item)}" for key, item in value.items())
    return str(value)


def _before_after(results: Results) -> Table:
    metrics = [metric for metric in (*OVERALL[:1], "log_loss", *CALIBRATION) if results.find(metric)]
    kinds = results.recalibrations
    rows = []
    for label in results.labels:
        for metric in metrics:
            found = [results.best(metric, label, recalibration=kind) for kind in kinds]
            if any(record is not None for record in found):
                rows.append([*([label] if len(results.labels) > 1 else []), metric_title(metric), *(estimate(record) if record else "–" for record in found)])
    shift = 1 if len(results.labels) > 1 else 0
    columns = [*(["Label"] if shift else []), "Measure", *(recalibration_name(kind).capitalize() for kind in kinds)]
    return Table(columns, rows, "The same rows, before and after", "Recalibration does not change the AUROC when it keeps the order of the probabilities.", numeric=range(1 + shift, len(columns)))


def overall_section(reading: Reading) -> Section:
    """7: Brier, scaled Brier, log-loss; the probabilities by class."""
    blocks = per_label(reading, lambda label: _distribution(reading, label))
    note = "Strictly proper scores: fit to compare models on the same rows. Scaled Brier: 1 − Brier / Brier of the prevalence."
    table = record_table(reading.results, OVERALL, "Overall performance", note=note)
    return Section("overall", "Overall performance", [*blocks, *([table] if table else [])], "How close the probabilities are to what happened.")


def _distribution(reading: Reading, label: str) -> list[Any]:
    chart = label_distribution(reading, label)
    return [Figures([chart])] if chart else []


def label_distribution(reading: Reading, label: str, *, words: Sequence[str] = ()) -> Figure | None:
    """The predicted probability by class, with the label's thresholds marked."""
    rows = reading.labelled(label)
    if rows is None or not rows[0].size or reading.results.level != "image":
        return None
    edges, negatives, positives = probability_bins(*rows)
    marks = {f"threshold {threshold(value)}": value for value in reading.results.thresholds(label)[:1]}
    return distribution_chart(edges, np.asarray(negatives), np.asarray(positives), name=label, id_words=[label, *words], marks=marks)


