"""Tables of records: every record with its method, or one row per label with an estimate over its interval in each cell."""

from collections.abc import Sequence

from medcnn.report.blocks import Cell, Row, Table
from medcnn.report.lookup import Results
from medcnn.report.numbers import NOT_ESTIMABLE, count, interval, is_known, method_title, metric_title, metric_value, threshold
from medcnn.tables import Record

AVERAGE_TITLES = {"macro": "macro average", "weighted": "weighted average", "micro": "micro average", "all": "all classes together"}


def cell(record: Record | None, *, before: str = "") -> Cell:
    """The value over its interval; before: stands first in the second line (counts)."""
    if record is None:
        return Cell("–")
    if not is_known(record.value):
        return Cell(NOT_ESTIMABLE, record.note.removeprefix("not estimable: "))
    limits = interval(record.metric, record.low, record.high)
    return Cell(metric_value(record.metric, record.value), "; ".join(part for part in (before, limits) if part))


def label_title(label: str, results: Results) -> str:
    """A label as it is; an average by its name in words."""
    return AVERAGE_TITLES[label] if label in results.averages else label


def size(record: Record | None) -> str:
    """`events/n` of a record."""
    if record is None:
        return "–"
    return f"{count(record.n_positive)}/{count(record.n)}" if record.n_positive is not None else count(record.n)


def record_table(
    results: Results,
    metrics: Sequence[str],
    labels: Sequence[str],
    caption: str,
    *,
    recalibration: str | None = None,
    note: str = "",
    narrow: bool = False,
) -> Table | None:
    """All records of these metrics and labels with every method; None when there is none. narrow: for half a page's width."""
    records = [record for label in labels for metric in metrics for record in results.find(metric, label, recalibration=recalibration)]
    if not records:
        return None
    named = len(labels) > 1
    rows: list[Row] = []
    for record in records:
        first = [label_title(record.label, results)] if named else []
        last = [] if narrow else [size(record)]
        rows.append(
            [
                *first,
                _titled(record),
                cell(record),
                Cell(method_title(record.method) or "–", record.note if is_known(record.value) else ""),
                *last,
            ]
        )
    columns = [*(["Label"] if named else []), "Measure", "Value", "95% interval by", *([] if narrow else ["Events/n"])]
    shift = 1 if named else 0
    return Table(columns, rows, caption, note, numeric=(1 + shift, 3 + shift))


def _titled(record: Record) -> str:
    return metric_title(record.metric) + (f" at {threshold(record.threshold)}" if record.threshold is not None else "")


def overview(
    results: Results,
    metrics: Sequence[str],
    caption: str,
    *,
    at_threshold: bool = False,
    note: str = "",
    averages: Sequence[str] | None = None,
) -> Table | None:
    """One row per label (averages first), one column per metric that has any record; None when there is none.

    at_threshold: at each label's first threshold, which gets a column. averages: those to show (default: all).
    """
    above = results.averages if averages is None else averages
    labels = [*above, *results.labels]
    points = {label: results.thresholds(label)[:1] for label in labels}

    def best(metric: str, label: str) -> Record | None:
        if not at_threshold:
            return results.best(metric, label)
        return results.best(metric, label, threshold=points[label][0]) if points[label] else None

    shown = [metric for metric in metrics if any(best(metric, label) for label in labels)]
    rows: list[Row] = []
    for label in labels:
        found = [best(metric, label) for metric in shown]
        if not any(found):
            continue
        first = [threshold(points[label][0]) if points[label] else "–"] if at_threshold else []
        rows.append(
            [
                label_title(label, results),
                size(results.first(label)) if label in results.labels else "",
                *first,
                *(cell(record) if record or label in results.labels else "" for record in found),
            ]
        )
    if not shown:
        return None
    columns = ["Label", "Events/n", *(["Threshold"] if at_threshold else []), *(metric_title(metric) for metric in shown)]
    strong = range(sum(any(best(metric, label) for metric in shown) for label in above))
    return Table(columns, rows, caption, note, numeric=range(1, len(columns)), strong_rows=strong)
