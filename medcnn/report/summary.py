"""The first page: what a clinician reads in a minute."""

from collections.abc import Sequence
from dataclasses import dataclass

from medcnn.report.blocks import Figure, Table
from medcnn.report.facts import RunFacts
from medcnn.report.ladder_words import shortcut_alert
from medcnn.report.lookup import Results
from medcnn.report.numbers import NOT_ESTIMABLE, count, interval, is_known, method_title, metric_value, threshold
from medcnn.report.reading import Reading
from medcnn.report.tabulate import overview
from medcnn.report.words import Caution, calibration_verdict, cautions, discrimination_sentence, part_name, tested
from medcnn.tables import Record

MOST_CAUTIONS = 7


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
    """The first page. alert: what a reader must know before the first number."""

    lead: str
    tiles: Sequence[Tile]
    tables: Sequence[Table]
    figures: Sequence[Figure]
    cautions: Sequence[Caution]
    n_more: int = 0
    claims: Sequence[str] = ()
    alert: str = ""


def summarise(reading: Reading, figures: Sequence[Figure]) -> Summary:
    """The first page from the run's facts; figures: small versions of the essential ones."""
    facts, results = reading.facts, reading.results
    label = results.headline
    tiles = [_auroc_tile(results, label), _calibration_tile(results, label)]
    tiles += _point_tiles(reading, label) if len(results.labels) == 1 else []
    table = label_table(results) if len(results.labels) > 1 else None
    found = cautions(facts, results)
    return Summary(
        lead(facts, results),
        tiles,
        [table] if table else [],
        figures,
        found[:MOST_CAUTIONS],
        max(len(found) - MOST_CAUTIONS, 0),
        alert=shortcut_alert(facts),
    )


def lead(facts: RunFacts, results: Results) -> str:
    """One sentence: which model, for what, tested on whom."""
    model = str(facts.model.get("name", "")) or (facts.plan.model.name if facts.plan else "")
    subject = f"The model {model}" if model else f"The model of {facts.name}"
    finding = f"for {results.labels[0]}" if len(results.labels) == 1 else f"for {len(results.labels)} labels"
    if results.part == "test" and facts.testing == "internal-external":
        where = "by internal-external validation (each site by models of other sites)"
    else:
        where = f"on the {part_name(results.part, testing=facts.testing)} part"
    return f"{subject} gives a probability {finding}. It was evaluated {where}: {tested(results)}."


def _auroc_tile(results: Results, label: str) -> Tile:
    record = results.best("auroc", label)
    title = "AUROC" if label in results.labels else f"AUROC, {label} average"
    if record is None or not is_known(record.value):
        return Tile(title, NOT_ESTIMABLE, "", record.note if record else "", "#discrimination", small=True)
    limits = interval("auroc", record.low, record.high)
    method = f"95% interval: {method_title(record.method)}. " if limits and record.method else ""
    detail = (
        discrimination_sentence(results, label) if label in results.labels else f"{len(results.labels)} labels; each is in the table below."
    )
    return Tile(title, metric_value("auroc", record.value), limits, method + detail, "#discrimination")


def _calibration_tile(results: Results, label: str) -> Tile:
    if label in results.labels:
        word, sentence = calibration_verdict(results, label)
        return Tile("Calibration", word, "", sentence, "#calibration", small=True)
    verdicts = {name: calibration_verdict(results, name)[0] for name in results.labels}
    fine = [name for name, verdict in verdicts.items() if verdict == "No departure shown"]
    return Tile(
        "Calibration",
        f"No departure shown in {len(fine)} of {len(verdicts)} labels",
        "",
        "from ideal calibration, within the uncertainty. The table has each label’s slope and O:E.",
        "#calibration",
        small=True,
    )


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
    return Tile(
        title, metric_value(record.metric, record.value), interval(record.metric, record.low, record.high), words, "#classification"
    )


def label_table(results: Results) -> Table | None:
    """One row per label: events, AUROC, calibration slope, O:E, then sensitivity and specificity at the first threshold."""
    threshold_free = overview(results, ("auroc", "calibration_slope", "oe_ratio"), "", averages=results.averages[:1])
    at_point = overview(results, ("sensitivity", "specificity"), "", at_threshold=True)
    if threshold_free is None or at_point is None:
        return threshold_free or at_point
    rates = {row[0]: list(row[2:]) for row in at_point.rows}
    n_rates = len(at_point.columns) - 2
    rows = [[*row, *rates.get(row[0], [""] * n_rates)] for row in threshold_free.rows]
    short = {"Calibration slope": "Slope", "O:E ratio": "O:E"}
    columns = [short.get(column, column) for column in (*threshold_free.columns, *at_point.columns[2:])]
    return Table(columns, rows, "Each label, with 95% intervals", numeric=range(1, len(columns)), strong_rows=threshold_free.strong_rows)
