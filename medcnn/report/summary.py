"""The first page: what a clinician reads in a minute."""

from collections.abc import Sequence
from dataclasses import dataclass

from medcnn.report.blocks import Figure, Table
from medcnn.report.facts import RunFacts
from medcnn.report.lookup import Results
from medcnn.report.numbers import NOT_ESTIMABLE, count, estimate, interval, is_known, method_title, metric_value, threshold
from medcnn.report.reading import Reading
from medcnn.report.words import Caution, calibration_verdict, cautions, discrimination_sentence, tested
from medcnn.tables import Record


@dataclass(frozen=True)
class Tile:
    """One headline number. small: smaller type, for words."""

    title: str
    value: str
    interval: str
    detail: str
    link: str
    small: bool = False


@dataclass(frozen=True)
class Summary:
    """The first page."""

    lead: str
    tiles: Sequence[Tile]
    tables: Sequence[Table]
    figures: Sequence[Figure]
    cautions: Sequence[Caution]
    tested: str


def summarise(reading: Reading, figures: Sequence[Figure]) -> Summary:
    """The first page from the run's facts; figures: small versions of the essential ones."""
    facts, results = reading.facts, reading.results
    label = results.headline
    tiles = [_auroc_tile(results, label), _calibration_tile(results, label)]
    tiles += _point_tiles(reading, label) if len(results.labels) == 1 else []
    tables = [label_table(results)] if len(results.labels) > 1 else []
    return Summary(lead(facts, results), tiles, tables, figures, cautions(facts, results), tested(results, facts))


def lead(facts: RunFacts, results: Results) -> str:
    """One sentence: which model, for what, tested on whom."""
    model = str(facts.model.get("name", "")) or (facts.plan.model.name if facts.plan else "")
    subject = f"The model {model}" if model else f"The model of {facts.name}"
    finding = f"for {results.labels[0]}" if len(results.labels) == 1 else f"for {len(results.labels)} labels"
    return f"{subject} gives a probability {finding}. Tested on {tested(results, facts)}."


def _auroc_tile(results: Results, label: str) -> Tile:
    record = results.best("auroc", label)
    title = "AUROC" if label in results.labels else f"AUROC, {label} average"
    if record is None or not is_known(record.value):
        return Tile(title, NOT_ESTIMABLE, "", record.note if record else "", "#discrimination", small=True)
    limits = interval("auroc", record.low, record.high)
    method = f"95% interval: {method_title(record.method)}. " if limits and record.method else ""
    detail = discrimination_sentence(results, label) if label in results.labels else f"{len(results.labels)} labels; each is in the table below."
    return Tile(title, metric_value("auroc", record.value), limits, method + detail, "#discrimination")


def _calibration_tile(results: Results, label: str) -> Tile:
    if label in results.labels:
        word, sentence = calibration_verdict(results, label)
        return Tile("Calibration", word, "", sentence, "#calibration", small=True)
    verdicts = {name: calibration_verdict(results, name)[0] for name in results.labels}
    fine = [name for name, verdict in verdicts.items() if verdict == "No departure shown"]
    return Tile("Calibration", f"{len(fine)} of {len(verdicts)} labels", "", "show no departure from ideal calibration within the uncertainty; see the table.", "#calibration", small=True)


def _point_tiles(reading: Reading, label: str) -> list[Tile]:
    thresholds = reading.results.thresholds(label)
    if not thresholds:
        return []
    at = thresholds[0]
    fractions = reading.fractions(label, at)
    tiles = []
    for metric, title, words in (
        ("sensitivity", "Sensitivity", "of those with the finding are called positive"),
        ("specificity", "Specificity", "of those without are called negative"),
        ("ppv", "PPV", "of positive calls are right"),
        ("npv", "NPV", "of negative calls are right"),
    ):
        record = reading.results.best(metric, label, threshold=at)
        if record is not None:
            counted = f"{count(fractions[metric][0])} of {count(fractions[metric][1])}: " if metric in fractions else ""
            tiles.append(_rate_tile(record, title, f"{counted}{words}, at threshold {threshold(at)}"))
    return tiles


def _rate_tile(record: Record, title: str, words: str) -> Tile:
    if not is_known(record.value):
        return Tile(title, NOT_ESTIMABLE, "", record.note, "#classification", small=True)
    return Tile(title, metric_value(record.metric, record.value), interval(record.metric, record.low, record.high), words, "#classification")


def label_table(results: Results) -> Table:
    """One row per label: events, AUROC, calibration slope, O:E, sensitivity and specificity at the first threshold."""
    rows: list[list[str]] = []
    for label in [*results.averages, *results.labels]:
        record, points = results.first(label), results.thresholds(label)
        at = points[0] if points else None
        cells = [results.best("auroc", label), results.best("calibration_slope", label), results.best("oe_ratio", label)]
        rates = [results.best(metric, label, threshold=at) if at is not None else None for metric in ("sensitivity", "specificity")]
        if label in results.averages:
            rows.append([label, "", estimate(cells[0]), "", "", "", "", ""])
            continue
        size = f"{record.n_positive:,}/{record.n:,}" if record is not None and record.n_positive is not None else "–"
        rows.append([label, size, *(estimate(cell) for cell in cells), threshold(at) if at is not None else "–", *(estimate(rate) if rate else "–" for rate in rates)])
    return Table(
        ["Label", "Events/n", "AUROC", "Calibration slope", "O:E", "Threshold", "Sensitivity", "Specificity"],
        rows,
        "Each label at its first threshold, with 95% intervals",
        numeric=range(1, 8),
        strong_rows=range(len(results.averages)),
    )
