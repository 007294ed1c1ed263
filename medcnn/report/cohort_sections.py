"""Sections 1 to 4: what the model is for, the data and their parts, the reference standard, how it was evaluated."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from medcnn.cohort import Exclusion, Flow
from medcnn.report.audit_sections import finding_blocks
from medcnn.report.blocks import Cell, Details, Facts, Figures, Heading, Row, Section, Table, Text
from medcnn.report.diagrams import Box, flow_chart
from medcnn.report.facts import RunFacts
from medcnn.report.numbers import compact, count, date, join_words, method_title, metric_title, percent, plural, short_hash, threshold
from medcnn.report.reading import Reading
from medcnn.report.words import missing_labels, part_name, recalibration_name, search_words

MANY = 40


def author(facts: RunFacts, key: str, what: str) -> Text:
    """What the author wrote in the config's report section, or a mark that it is still to be stated."""
    text = str(getattr(facts.config.report, key, "")).strip() if facts.config is not None else ""
    return Text(text) if text else Text(f"{what} (config: report.{key})", "author")


def identity_section(reading: Reading) -> Section:
    """1: model, origin of the weights, intended use."""
    facts = reading.facts
    model, plan = facts.model, facts.plan
    task = plan.task if plan else (facts.fingerprint.task if facts.fingerprint else "")
    pairs = [
        ("Run", facts.name),
        (
            "Labels",
            join_words(reading.results.labels[:12])
            + (f" and {len(reading.results.labels) - 12} more" if len(reading.results.labels) > 12 else ""),
        ),
        (
            "Task",
            {
                "binary": "binary",
                "multiclass": "multi-class: exactly one class per image",
                "multilabel": "multi-label: each finding on its own",
            }.get(task, task),
        ),
        (
            "Output",
            "a probability for each label"
            + (f", {recalibration_name(reading.results.recalibration)}" if reading.results.recalibration != "none" else ""),
        ),
        ("Model", str(model.get("name") or (plan.model.name if plan else ""))),
        ("Parameters", compact(model.get("n_parameters"))),
        ("Multiply-adds per image", compact(model.get("multiply_adds"))),
        ("Input", _input_size(facts)),
        ("Weights started from", str(model.get("weights", ""))),
        ("Seed", "" if facts.seed is None else str(facts.seed)),
    ]
    blocks = [Facts([(term, text) for term, text in pairs if text and text != "–"])]
    return Section(
        "identity",
        "Identity and intended use",
        [*blocks, Heading("Intended use"), author(facts, "intended_use", "Intended use, intended users, place in the care pathway")],
    )


def _input_size(facts: RunFacts) -> str:
    if facts.plan is not None:
        image = facts.plan.image
        return f"{image.size_px} × {image.size_px} px, {'grey' if image.channels == 1 else 'colour'}, {image.fit}"
    size = facts.model.get("input_size_px")
    return f"{size} × {size} px" if size else ""


def data_section(reading: Reading) -> Section:
    """2: who came in, who was left out, how the parts were made and checked, what the audit saw."""
    facts = reading.facts
    blocks: list[Any] = [Heading("Population"), author(facts, "population", "Target population, dates, centres, devices and eligibility")]
    if facts.flow is not None:
        blocks += [Heading("Flow"), *flow_blocks(facts)]
    if facts.counts is not None or facts.predictions is not None:
        blocks += [Heading("Partitions"), *_partitions(reading)]
    missing = {label: n for label, n in missing_labels(facts, reading.results.labels).items() if n}
    known = facts.fingerprint is not None or facts.predictions is not None
    if missing:
        rows = [[label, count(n)] for label, n in missing.items()]
        blocks.append(
            Table(
                ["Label", "Images without it"],
                rows,
                "Missing labels",
                "An image without a label is left out of that label’s numbers only.",
                numeric=[1],
            )
        )
    elif known:
        blocks.append(Text("No image lacks a label.", "note"))
    blocks += [Heading("Audit"), *finding_blocks(facts.findings, facts.pictures, known=facts.flow is not None)]
    return Section("data", "Data and partitions", blocks)


def flow_blocks(facts: RunFacts) -> list[Any]:
    """The flow of files, images and patients, and what was left out; nothing where the flow is not known."""
    return [_flow(facts, facts.flow), *_exclusions([*facts.flow.excluded, *facts.excluded])] if facts.flow is not None else []


def _flow(facts: RunFacts, flow: Flow) -> Figures:
    unit = "files" if flow.source.split()[0] in {"folder", "dicom"} else "entries"
    found = Box(f"{count(flow.n_found)} {unit} found", [f"source: {flow.source}"])
    came = Box(f"{plural(flow.n_images, 'image')} came in", [plural(flow.n_patients, "patient"), f"from {count(flow.n_files)} {unit}"])
    steps: list[tuple[Box, Box | None]] = [(found, _left_out(flow.counts())), (came, None)]
    if facts.excluded:
        steps[-1] = (came, _left_out(dict(Counter(item.kind for item in facts.excluded).most_common()), "taken out by the audit"))
        if facts.fingerprint is not None:
            steps.append(
                (Box(f"{plural(facts.fingerprint.n_images, 'image')} analysed", [plural(facts.fingerprint.n_patients, "patient")]), None)
            )
    return Figures([flow_chart(steps, _part_boxes(facts))])


def _left_out(kinds: dict[str, int], words: str = "left out") -> Box | None:
    if not kinds:
        return None
    lines = [f"{count(n)} {kind.replace('_', ' ')}" for kind, n in list(kinds.items())[:7]]
    rest = sum(list(kinds.values())[7:])
    return Box(f"{count(sum(kinds.values()))} {words}", [*lines, *([f"{count(rest)} for other reasons"] if rest else [])])


def _part_boxes(facts: RunFacts) -> list[Box]:
    table = facts.counts
    if table is None or table.empty:
        return []
    if "fold" in table and table["fold"].nunique() > 1:
        return _fold_boxes(facts, table)
    labels = _counted_labels(table)
    boxes = []
    for row in table.to_dict("records"):
        lines = [plural(int(row["n_images"]), "image"), plural(int(row["n_patients"]), "patient")]
        lines += [f"{count(row[f'n_positive_{label}'])} {label}" for label in labels[:4]]
        boxes.append(Box(part_name(str(row["part"]), testing=facts.testing).capitalize(), lines))
    return boxes


def _fold_boxes(facts: RunFacts, table: pd.DataFrame) -> list[Box]:
    """Several folds in one or two boxes."""
    split = facts.plan.split if facts.plan is not None else None
    n_folds, n_repeats = table["fold"].nunique(), split.n_repeats if split is not None else 1
    times = f", {n_repeats} times" if n_repeats > 1 else ""
    if split is not None and split.scheme == "kfold_holdout":
        first = table[table["fold"] == table["fold"].min()]
        others, test = _sizes(first[first["part"] != "test"]), _sizes(first[first["part"] == "test"])
        name = part_name("test", testing=facts.testing).capitalize()
        return [
            Box(f"{split.n_folds} folds{times}", [others[0], "each tunes one model", "and trains the others"]),
            Box(name, [*test, "the same for every model"]),
        ]
    sizes = _sizes(table[table["part"] == "test"], n_repeats)
    if split is not None and split.scheme == "leave_site_out":
        return [Box(f"{n_folds} sites, each left out once", [f"each of {sizes[0]} tested once", "by a model of the other sites", sizes[1]])]
    title = f"{n_folds // n_repeats}-fold cross-validation{times}"
    return [Box(title, [f"each of {sizes[0]} tested once{' each time' if times else ''}", sizes[1]])]


def _sizes(rows: pd.DataFrame, n_repeats: int = 1) -> list[str]:
    """How many patients and images stand in these rows of the counts."""
    return [plural(int(rows[column].sum()) // n_repeats, word) for column, word in (("n_patients", "patient"), ("n_images", "image"))]


def _exclusions(excluded: Sequence[Exclusion]) -> list[Any]:
    if not excluded:
        return [Text("Nothing that was found was left out.", "note")]
    kinds = Counter(item.kind for item in excluded)
    example = {item.kind: item.reason for item in reversed(excluded)}
    rows = [[kind.replace("_", " "), count(n), example[kind]] for kind, n in kinds.most_common()]
    table = Table(["Kind", "n", "Reason (first of the kind)"], rows, "Left out, by reason", numeric=[1])
    listed = Table(["Where", "Kind", "Reason"], [[item.where, item.kind.replace("_", " "), item.reason] for item in excluded[:MANY]])
    more = f", the first {MANY}" if len(excluded) > MANY else ""
    return [table, Details(f"Each of the {plural(len(excluded), 'exclusion')}{more}; all are in flow.json", [listed])]


def _partitions(reading: Reading) -> list[Any]:
    facts = reading.facts
    table = facts.counts if facts.counts is not None else _count_parts(reading)
    table, notes = _first_repeat(facts, table)
    labels = _counted_labels(table)
    with_fold = "fold" in table and table["fold"].nunique() > 1
    parts = table.to_dict("records")
    names = [part_name(str(row["part"]), testing=facts.testing) for row in parts]
    names = [f"Fold {row['fold']}, {name}" if with_fold else name.capitalize() for row, name in zip(parts, names, strict=True)]
    caption, note = "Patients, images and events in each part", "Events: images with the label, as a share of the part’s labelled images."
    sizes: list[tuple[str, Row]] = [
        ("Patients", [count(row["n_patients"]) for row in parts]),
        ("Images", [count(row["n_images"]) for row in parts]),
    ]
    sizes += [(label, [_events(row, label) for row in parts]) for label in labels]
    if len(labels) > len(parts):
        rows: list[Row] = [[title, *cells] for title, cells in sizes]
        shown = Table(["", *names], rows, caption, note, numeric=range(1, 1 + len(parts)))
    else:
        rows = [[name, *(cells[k] for _, cells in sizes)] for k, name in enumerate(names)]
        shown = Table(["Part", *(title for title, _ in sizes)], rows, caption, note, numeric=range(1, 1 + len(sizes)))
    notes += facts.split.attrs.get("notes", []) if facts.split is not None else []
    if facts.split_hash:
        notes.append(
            f"The split’s sha256 begins with {short_hash(facts.split_hash)}; runs that share it were trained and tested on the same images."
        )
    return [shown, *([Text(" ".join(notes), "note")] if notes else []), Text(_disjointness(reading))]


def _first_repeat(facts: RunFacts, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The counts without those of later repeats, and a sentence when some were left out."""
    split = facts.plan.split if facts.plan is not None else None
    if split is None or split.n_repeats == 1 or "fold" not in table:
        return table, []
    return table[table["fold"] < split.n_folds], ["The table shows the folds of the first repeat; counts.csv has them all."]


def _counted_labels(table: pd.DataFrame) -> list[str]:
    """Labels with a column n_positive_LABEL; n_positive_patients_LABEL counts the patients of one of them."""
    names = [str(column).removeprefix("n_positive_") for column in table.columns if str(column).startswith("n_positive_")]
    return [name for name in names if name.removeprefix("patients_") == name or name.removeprefix("patients_") not in names]


def _events(row: Mapping[Any, Any], label: str) -> Cell:
    n, of = row[f"n_positive_{label}"], row.get(f"n_labelled_{label}", row["n_images"])
    patients = row.get(f"n_positive_patients_{label}")
    return Cell(count(n), percent(n / max(of, 1)) + (f"; {plural(patients, 'patient')}" if patients is not None else ""))


def _count_parts(reading: Reading) -> pd.DataFrame:
    rows = reading.facts.predictions if reading.facts.predictions is not None else pd.DataFrame(columns=["part", "image_id", "patient_id"])
    labels = reading.results.labels
    parts = rows.groupby("part", sort=False)
    counted = parts.agg(n_images=("image_id", "size"), n_patients=("patient_id", "nunique"))
    for label in labels:
        if f"y_{label}" in rows:
            counted[f"n_positive_{label}"] = parts[f"y_{label}"].sum().astype(int)
    return counted.reset_index()


def _disjointness(reading: Reading) -> str:
    table = reading.facts.split if reading.facts.split is not None else reading.facts.predictions
    if table is None or table["part"].nunique() < 2:
        return "Only one part is known to this report, so it could not check that the parts share no patient."
    parts = table.groupby(["fold", "patient_id"], observed=True)["part"].nunique()
    shared = int((parts > 1).sum())
    n = table["patient_id"].nunique()
    if shared:
        return f"The parts share patients: {plural(shared, 'patient')} of {count(n)} stand in more than one part. The numbers are too good."
    folds = " within each fold" if table["fold"].nunique() > 1 else ""
    return f"The parts are disjoint at the level of the patient{folds}: checked over {plural(n, 'patient')}, none stands in two parts."


def reference_section(reading: Reading) -> Section:
    """3: how the labels were made."""
    return Section(
        "reference",
        "Reference standard",
        [
            author(
                reading.facts,
                "reference_standard",
                "How the labels were made: definition, rationale, annotators and their experience, blinding, agreement between raters (kappa with interval)",
            )
        ],
    )


def methods_section(reading: Reading) -> Section:
    """4: how the numbers were taken; thresholds; how often the test part was opened."""
    facts, results = reading.facts, reading.results
    used = [
        [
            metric_title(metric),
            join_words(sorted({method_title(r.method) for r in results.records if r.metric == metric and r.method and r.low is not None}))
            or "–",
        ]
        for metric in dict.fromkeys(record.metric for record in results.records if record.method != "count")
    ]
    unit = {"image": "the image", "study": "the study", "patient": "the patient"}[results.level]
    repeated = next((r for r in results.records if 0 < r.n_patients < r.n), None)
    cluster = (
        "Several images of one patient are dealt with by intervals that treat the patient as a cluster, where the method’s name says so."
        if repeated
        else "Every unit comes from a different patient, as far as is known."
    )
    aggregation = (
        f" A {results.level}’s probability is the {facts.config.evaluation.aggregation.replace('_', '-')} of its images’."
        if facts.config is not None and results.level != "image"
        else ""
    )
    blocks: list[Any] = [Text(f"Unit of evaluation: {unit}.{aggregation} {cluster} Intervals are 95% intervals.")]
    blocks += [Text(searched)] if (searched := search_words(facts)) else []
    blocks += [_thresholds(reading), Details("Interval of each measure", [Table(["Measure", "95% interval by"], used)])]
    return Section("methods", "Methods of evaluation", [*blocks, Heading("Test-set ledger"), *_ledger(facts)])


def _thresholds(reading: Reading) -> Any:
    rows = [
        [label, threshold(value), reading.rule(label, value) or "not known to this report"]
        for label, values in reading.thresholds.items()
        for value in values
    ]
    if not rows:
        return Text("No threshold was set; only measures that need none are reported.", "note")
    return Table(["Label", "Threshold", "Chosen by"], rows, "Thresholds; the rule is p ≥ threshold", numeric=[1])


def _ledger(facts: RunFacts) -> list[Any]:
    if not facts.ledger:
        return [Text("No ledger of openings of the test part is known to this report.", "note")]
    n = len(facts.ledger)
    said = (
        "The test part was opened once, for this report."
        if n == 1
        else f"The test part was opened {n} times, this report’s opening included."
    )
    rows = [
        [date(line.get("when")), str(line.get("who", "")), *(short_hash(_entry(line, key)) for key in ("config", "predictions"))]
        for line in facts.ledger[-MANY:]
    ]
    return [Text(said), Table(["When", "Who", "Config", "Predictions"], rows, note="The first 12 characters of each sha256.")]


def _entry(line: Any, key: str) -> str:
    return str(line.get(key) or line.get(f"{key}_hash") or line.get(f"{key}_sha256") or "")
