"""What the run cost: time, memory, energy."""

from collections.abc import Sequence
from typing import Any

from medcnn.artifact import Stamp
from medcnn.report.blocks import Facts, Row, Section, Table, Text
from medcnn.report.facts import RunFacts
from medcnn.report.ladder_words import rung_title
from medcnn.report.numbers import NOT_ESTIMABLE, compact, count, date, duration, fixed
from medcnn.report.reading import Reading

NOT_MEASURED = "not measured (install the extra energy)"


def cost_section(reading: Reading) -> Section:
    """Time and memory of each stage, from their stamps; speed; energy."""
    facts = reading.facts
    blocks: list[Any] = [_stages(facts.stamps)] if facts.stamps else []
    pairs = [
        ("Training time", duration(facts.model.get("training_seconds"))),
        ("GPU time in training", duration(sum(rung.gpu_seconds or 0.0 for rung in facts.ladder if rung.is_headline) or None)),
        ("Images per second, predicting", compact(facts.model.get("images_per_second"))),
        ("Energy", _energy(facts) if facts.stamps or facts.energy is not None else "–"),
    ]
    known = [(term, text) for term, text in pairs if text != "–"]
    blocks += [Facts(known)] if known else []
    return Section("cost", "Cost", blocks or [Text(f"Cost: {NOT_ESTIMABLE} from what this report knows.", "note")])


def _energy(facts: RunFacts) -> str:
    energy = facts.energy
    if energy is None:
        return NOT_MEASURED
    carbon = "" if energy.kg_co2 is None else f", {compact(energy.kg_co2)} kg CO₂ equivalents"
    return f"{compact(energy.watt_hours)} Wh{carbon} ({energy.source})"


def _stages(stamps: Sequence[Stamp]) -> Table:
    """A row for each stage, and for each rung of a stage that has one folder for each model."""
    groups: dict[str, list[Stamp]] = {}
    for stamp in stamps:
        groups.setdefault(_stage(stamp), []).append(stamp)
    rows = [_row(name, members) for name, members in groups.items()]
    total = ["all", "", *_row("all", list(stamps))[2:-1], ""]
    note = "Time: by the clock, summed over the folders of a stage, which may have been made side by side. Peak memory: of the largest process."
    columns = ["Stage", "Folders", "Time", "CPU time", "Peak memory", "Finished"]
    return Table(columns, [*rows, total], "Cost of each stage", note, numeric=[1, 2, 3, 4], strong_rows=[len(rows)])


def _stage(stamp: Stamp) -> str:
    rung = stamp.settings.get("rung")
    return f"{stamp.stage}, {rung_title(str(rung)).lower()}" if rung else stamp.stage


def _row(name: str, stamps: Sequence[Stamp]) -> Row:
    peak = max(stamp.peak_memory_mb for stamp in stamps)
    return [
        name,
        count(len(stamps)),
        duration(sum(stamp.wall_seconds for stamp in stamps)),
        duration(sum(stamp.cpu_seconds for stamp in stamps)),
        f"{fixed(peak / 1000, 1)} GB" if peak >= 1000 else f"{fixed(peak, 0)} MB",
        date(max(stamp.finished for stamp in stamps)),
    ]
