"""The ladder's section: what each rung predicts on the same test rows, and what it costs."""

from typing import Any

from medcnn.report.blocks import Bullets, Cell, Figure, Figures, Heading, Row, Section, Table, Text
from medcnn.report.diagrams import ForestRow, cost_chart, forest_chart
from medcnn.report.ladder_words import (
    as_record,
    auroc_text,
    gap,
    headline_of,
    ladder_sentences,
    model_words,
    picked_rows,
    rung_title,
    rung_words,
    shortcut_alert,
    time_words,
)
from medcnn.report.numbers import compact, duration, is_known
from medcnn.report.reading import Reading
from medcnn.report.tabulate import cell


def ladder_section(reading: Reading) -> Section:
    """Two tables of rungs, AUROC by rung and against its cost, and what each rung buys, in sentences."""
    facts = reading.facts
    alert = shortcut_alert(facts)
    blocks: list[Any] = [Text(alert, "caution")] if alert else []
    blocks += [_kinds(reading), _numbers(reading)]
    blocks += [Figures([figure]) for figure in (_forest(reading), _cost(reading)) if figure is not None]
    blocks += [Heading("What each rung buys and costs"), Bullets(ladder_sentences(facts))]
    if facts.selection is not None and len(facts.selection.picked) > 1:
        rows: list[Row] = [[name, share] for name, share in picked_rows(facts.selection.picked)]
        blocks.append(Table(["Rung", "Picked"], rows, "How often each rung had the lowest log-loss in a resample of patients", numeric=[1]))
    return Section(
        "ladder",
        "Ladder",
        blocks,
        "The same patients, the same split, from the plainest guess to the model of this report: what each step buys and what it costs.",
    )


def _kinds(reading: Reading) -> Table:
    """What each rung is, its size and its cost."""
    rows: list[Row] = []
    for rung in reading.facts.ladder:
        number, size = model_words(rung)
        rows.append(
            [
                Cell(rung_title(rung.name), rung_words(rung)),
                Cell(number, size),
                time_words(rung.cpu_seconds),
                compact(rung.images_per_second),
            ]
        )
    columns = ["Rung", "Models", "Training, CPU time", "Images/s"]
    gpu = [f"{rung_title(rung.name)} {duration(rung.gpu_seconds)}" for rung in reading.facts.ladder if rung.gpu_seconds]
    note = "Training: of all models of the rung and of those that it is made of. Images/s: predictions of one model."
    if gpu:
        note += f" Training time on a GPU: {', '.join(gpu)}."
    return Table(columns, rows, "What each rung is, and its cost", note, numeric=range(1, 4), strong_rows=_headline_rows(reading))


def _numbers(reading: Reading) -> Table:
    """What each rung predicts."""
    rows: list[Row] = []
    for rung in reading.facts.ladder:
        found, step = rung.numbers, rung.numbers.to_previous
        rows.append(
            [
                rung_title(rung.name),
                cell(as_record("auroc", found.auroc)),
                "–" if step is None else _gap_cell(gap(step)),
                cell(as_record("brier", found.brier)),
                cell(as_record("log_loss", found.log_loss)),
                cell(as_record("accuracy", found.accuracy)),
            ]
        )
    auroc = "AUROC, macro" if len(reading.results.labels) > 1 else "AUROC"
    columns = ["Rung", auroc, "To the rung before", "Brier score", "Log-loss", "Accuracy"]
    caption = "What each rung predicts on the same test rows, with 95% intervals"
    return Table(columns, rows, caption, _note(reading), numeric=range(1, 6), strong_rows=_headline_rows(reading))


def _headline_rows(reading: Reading) -> list[int]:
    return [number for number, rung in enumerate(reading.facts.ladder) if rung.is_headline]


def _gap_cell(text: str) -> Cell:
    """`+0.012 (-0.003 to 0.027)` over two lines."""
    value, _, limits = text.partition(" (")
    return Cell(value, limits.removesuffix(")"))


def _note(reading: Reading) -> str:
    ladder = reading.facts.ladder
    accuracy = "of the most probable class" if reading.task == "multiclass" else "at a probability of 0.5"
    parts = [f"Bold: the headline. To the rung before: the paired difference in AUROC. Accuracy: {accuracy}."]
    if any(rung.name == "prevalence" and (rung.numbers.auroc.value or 0.5) < 0.5 for rung in ladder):
        parts.append(
            "The AUROC of the prevalence is 0.5 within a fold; over folds it can fall below, because a fold’s training share is lower where"
            " its test share is higher."
        )
    return " ".join(parts)


def _forest(reading: Reading) -> Figure | None:
    ladder = reading.facts.ladder
    if not any(is_known(rung.numbers.auroc.value) for rung in ladder):
        return None
    rows = [
        ForestRow(
            rung_title(rung.name),
            (time_words(rung.cpu_seconds),),
            rung.numbers.auroc.value,
            rung.numbers.auroc.low,
            rung.numbers.auroc.high,
            auroc_text(rung),
            weight=1.0 if rung.is_headline else 0.4,
        )
        for rung in ladder
    ]
    headline = headline_of(ladder)
    return forest_chart(
        rows, id="ladder", title="AUROC by rung", axis_title="AUROC", columns=("CPU time",),
        reference=headline.numbers.auroc.value if headline is not None else None, first="Rung",
    )  # fmt: skip


def _cost(reading: Reading) -> Figure | None:
    """AUROC against CPU seconds of training, of the rungs that were trained at all."""
    points = [
        (rung_title(rung.name), rung.cpu_seconds, rung.numbers.auroc.value, rung.numbers.auroc.low, rung.numbers.auroc.high)
        for rung in reading.facts.ladder
        if rung.cpu_seconds and rung.numbers.auroc.value is not None and is_known(rung.numbers.auroc.value)
    ]
    return cost_chart(points, axis_title="CPU seconds of training", id="ladder-cost", wide=True) if len(points) > 1 else None
