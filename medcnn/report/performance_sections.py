"""Sections 5 to 7: discrimination, calibration, overall performance."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medcnn.evaluation.calibration_rows import FITTED_ON
from medcnn.report.blocks import Facts, Figure, Figures, Heading, Panels, Row, Section, Table, Text
from medcnn.report.charts import calibration_chart, distribution_chart, precision_recall_chart, roc_chart
from medcnn.report.diagrams import ForestRow, forest_chart
from medcnn.report.lookup import Results
from medcnn.report.numbers import count, estimate, fixed, is_known, metric_title, plural, threshold
from medcnn.report.reading import Reading
from medcnn.report.tabulate import cell, overview, record_table
from medcnn.report.words import calibration_verdict, discrimination_sentence, recalibration_name, rows_words

DISCRIMINATION = ("auroc", "partial_auroc", "average_precision", "hand_till_m")
CALIBRATION = (
    "calibration_intercept",
    "calibration_slope",
    "oe_ratio",
    "ici",
    "e50",
    "e90",
    "emax",
    "eci",
    "ece",
    "ece_noise_floor",
    "smooth_ece",
)
OVERALL = ("brier", "scaled_brier", "log_loss")
FEW_CURVES = 6
POOLED = (
    "The map was fitted on out-of-fold predictions of single models and is applied to the mean of the fold models, which is less extreme: "
    "a calibration slope somewhat above 1 is expected (doi:10.1111/j.1467-9868.2009.00726.x)."
)


def per_label(reading: Reading, build: Callable[[str], Sequence[Any]]) -> list[Any]:
    """Blocks of each label: as they are when there is one label, else one panel per label."""
    labels = reading.results.labels
    if len(labels) == 1:
        return list(build(labels[0]))
    panels = [(label, list(build(label))) for label in labels]
    kept = [(label, blocks) for label, blocks in panels if blocks]
    return [Panels([label for label, _ in kept], [blocks for _, blocks in kept])] if kept else []


def listed(*blocks: Any) -> list[Any]:
    """Blocks that are there."""
    return [block for block in blocks if block is not None]


def operating_points(reading: Reading, label: str) -> dict[str, tuple[float, float]]:
    """Text -> (1 - specificity, sensitivity) at each threshold of a label."""
    points = {}
    for value in reading.results.thresholds(label)[:3]:
        found = [reading.results.best(metric, label, threshold=value) for metric in ("sensitivity", "specificity")]
        if all(record is not None and is_known(record.value) for record in found):
            sensitivity, specificity = (float(record.value or 0.0) for record in found if record is not None)
            points[threshold(value)] = (1 - specificity, sensitivity)
    return points


# ---------------------------------------------------------------- discrimination


def discrimination_section(reading: Reading) -> Section:
    """5: ROC curves, AUROC by every method; average precision as secondary."""
    results = reading.results
    note = (
        "Average precision is the step sum over recall, without interpolation; its baseline is the prevalence."
        if results.find("average_precision")
        else ""
    )
    if len(results.labels) == 1:
        return Section(
            "discrimination",
            "Discrimination",
            _discrimination(reading, results.labels[0], note),
            discrimination_sentence(results, results.labels[0]),
        )
    blocks = listed(overview(results, DISCRIMINATION, "Discrimination by label", note=note), _all_roc(results))
    averages = (
        record_table(results, DISCRIMINATION, results.averages, "Averages over the labels, by every method") if results.averages else None
    )
    blocks += listed(averages) + per_label(reading, lambda label: _discrimination(reading, label, ""))
    return Section("discrimination", "Discrimination", blocks, _averages_lead(reading))


def _all_roc(results: Results) -> Figures | None:
    chart = (
        roc_chart({label: results.curve("roc", label) for label in results.labels}, name="all labels", id_words=["all"])
        if len(results.labels) <= FEW_CURVES
        else None
    )
    forest = label_forest(results)
    return Figures(listed(chart, forest)) if chart or forest else None


def label_forest(results: Results, *, id: str = "forest-labels") -> Figure | None:
    """The AUROC of each label with its interval, and the average."""
    found = [(label, record) for label in [*results.averages[:1], *results.labels] if (record := results.best("auroc", label)) is not None]
    if len(found) < 2:
        return None
    rows = [
        ForestRow(label, (count(record.n), count(record.n_positive)), record.value, record.low, record.high, estimate(record))
        for label, record in found
    ]
    average = results.best("auroc", results.averages[0]) if results.averages else None
    return forest_chart(
        rows,
        id=id,
        title="AUROC by label",
        axis_title="AUROC",
        columns=("n", "Events"),
        reference=average.value if average else None,
        first="Label",
    )


def _averages_lead(reading: Reading) -> str:
    results = reading.results
    said = [f"{average} {estimate(record)}" for average in results.averages if (record := results.best("auroc", average)) is not None]
    against = "each class against all others" if reading.task == "multiclass" else "each label on its own"
    return f"AUROC over {plural(len(results.labels), 'label')}, {against}: {'; '.join(said)}." if said else ""


def _discrimination(reading: Reading, label: str, note: str) -> list[Any]:
    results = reading.results
    charts = listed(
        roc_chart({label: results.curve("roc", label)}, name=label, id_words=[label], points=operating_points(reading, label)),
        precision_recall_chart(
            results.curve("precision_recall", label), name=label, id_words=[label], prevalence=reading.prevalence(label)
        ),
    )
    table = record_table(results, DISCRIMINATION, [label], "Discrimination, by every method", note=note)
    return listed(Figures(charts) if charts else None, table)


# ---------------------------------------------------------------- calibration


def calibration_section(reading: Reading) -> Section:
    """6: calibration plot, measures, before and after recalibration."""
    results = reading.results
    note = "Intercept: slope fixed at 1 (calibration in the large), ideal 0. Slope and O:E: ideal 1. ICI, E50, E90, Emax, ECI and ECE: ideal 0; the ECE depends on its bins."
    lead = calibration_verdict(results, results.labels[0])[1] if len(results.labels) == 1 else ""
    table = overview(results, (*CALIBRATION[:4], "ece"), "Calibration by label", note=note) if len(results.labels) > 1 else None
    blocks = listed(table) + per_label(reading, lambda label: _calibration(reading, label, "" if table else note))
    if len(results.recalibrations) > 1:
        blocks += [
            Heading("Before and after recalibration"),
            *_recalibration_facts(reading),
            *per_label(reading, lambda label: [_before_after(results, label)]),
        ]
    return Section("calibration", "Calibration", blocks, lead)


def _calibration(reading: Reading, label: str, note: str) -> list[Any]:
    results = reading.results
    after = calibration_chart(results, label, name=label, id_words=[label], spread=reading.distribution(label))
    before = None
    if results.recalibration != "none" and "none" in results.recalibrations:
        before = calibration_chart(
            results,
            label,
            name=f"{label}, before recalibration",
            id_words=[label, "before"],
            recalibration="none",
            spread=reading.distribution(label, recalibration="none"),
        )
    sentence = None if len(results.labels) == 1 else Text(calibration_verdict(results, label)[1])
    charts = listed(after, before)
    table = record_table(results, CALIBRATION, [label], "Calibration measures", note=note)
    return listed(sentence, Figures(charts) if charts else None, table)


def _recalibration_facts(reading: Reading) -> list[Any]:
    info = dict(reading.facts.recalibration_info)
    fitted = info.pop("parameters", {})
    if info.get("requested") == info.get("method"):
        info.pop("requested", None)
    pairs = [(str(key).replace("_", " ").capitalize(), rows_words(_written(value))) for key, value in info.items()]
    known = [(term, text) for term, text in pairs if text]
    rows: list[Row] = [[str(name), *_fitted(part)] for name, part in fitted.items()] if isinstance(fitted, Mapping) else []
    table = Table(["What was fitted", "Method", "Parameters", "Events/n"], rows, numeric=[3]) if rows else None
    pooled = Text(POOLED, "note") if info.get("fitted_on") == FITTED_ON["out_of_fold"] else None
    return listed(Facts(known) if known else None, pooled, table)


def _fitted(part: Any) -> list[str]:
    """Method, parameters and size of one fitted map."""
    if not isinstance(part, Mapping):
        return ["", _written(part), ""]
    parameters = part.get("parameters", {})
    size = f"{count(part.get('n_positive'))}/{count(part['n'])}" if "n" in part else ""
    return [recalibration_name(str(part.get("method", ""))), _written(parameters), size]


def _written(value: Any) -> str:
    if isinstance(value, float):
        return fixed(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_written(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return f"{len(value)} values" if len(value) > 6 else ", ".join(_written(item) for item in value)
    return str(value)


def _before_after(results: Results, label: str) -> Table:
    kinds = sorted(results.recalibrations, key=lambda kind: kind != "none")
    rows: list[Row] = []
    for metric in ("auroc", "brier", "log_loss", *CALIBRATION):
        found = [results.best(metric, label, recalibration=kind) for kind in kinds]
        if any(found):
            rows.append([metric_title(metric), *(cell(record) for record in found)])
    columns = ["Measure", *(recalibration_name(kind).capitalize() for kind in kinds)]
    note = "Temperature, Platt and beta scaling keep the order of the probabilities, and so the AUROC of a binary label."
    return Table(columns, rows, f"{label}: the same rows, before and after", note, numeric=range(1, len(columns)))


# ---------------------------------------------------------------- overall


def overall_section(reading: Reading) -> Section:
    """7: Brier, scaled Brier, log-loss; the probabilities by class."""
    results = reading.results
    note = "Strictly proper scores: fit for comparing models on the same rows. Scaled Brier: 1 − Brier / Brier of the prevalence."
    table = overview(results, OVERALL, "Overall performance by label", note=note) if len(results.labels) > 1 else None
    blocks = listed(table) + per_label(reading, lambda label: _overall(reading, label, "" if table else note))
    return Section("overall", "Overall performance", blocks, "How close the probabilities are to what happened.")


def _overall(reading: Reading, label: str, note: str) -> list[Any]:
    chart = label_distribution(reading, label)
    table = record_table(reading.results, OVERALL, [label], "Overall performance", note=note, narrow=True)
    if chart is None:
        return listed(table)
    return [Figures([chart], beside=listed(table))]


def label_distribution(reading: Reading, label: str, *, words: Sequence[str] = ()) -> Figure | None:
    """The predicted probability by class, with the label's first threshold marked."""
    spread = reading.distribution(label)
    if spread is None:
        return None
    marks = {f"threshold {threshold(value)}": min(value, 1.0) for value in reading.results.thresholds(label)[:1]}
    return distribution_chart(spread, name=label, id_words=[label, *words], marks=marks)
