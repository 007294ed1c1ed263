"""Subgroups, training, errors, limits and provenance."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import yaml

from medcnn.report.attention_blocks import attention_blocks
from medcnn.report.blocks import Code, Details, Editable, Facts, Figures, Gallery, Heading, Picture, Row, Section, Table, Text
from medcnn.report.charts import slug, training_charts
from medcnn.report.cohort_sections import author
from medcnn.report.diagrams import ForestRow, forest_chart
from medcnn.report.facts import ErrorImage
from medcnn.report.numbers import NOT_ESTIMABLE, count, estimate, fixed, is_known, p_value, threshold
from medcnn.report.performance_sections import per_label
from medcnn.report.reading import Reading
from medcnn.report.tabulate import cell, size
from medcnn.tables import Record

MOST_PICTURE_BYTES = 1_500_000
SUBGROUP_METRICS = ("auroc", "calibration_slope", "oe_ratio", "sensitivity", "specificity")


def subgroups_section(reading: Reading) -> Section:
    """Every key measure by subgroup."""
    if not reading.results.subsets():
        note = "No subgroups were evaluated. Name covariates in evaluation.by (sex, age, site, scanner ...) to see whether performance holds in each."
        return Section("subgroups", "Subgroups and sites", [Text(note, "note")])
    return Section(
        "subgroups",
        "Subgroups and sites",
        per_label(reading, lambda label: _subgroups(reading, label)),
        "Where too few cases stand in a subgroup, it says so.",
    )


def split_subset(subset: str) -> tuple[str, str]:
    """`sex=F` -> (sex, F)."""
    for sign in ("=", ": "):
        if sign in subset:
            covariate, _, value = subset.partition(sign)
            return covariate.strip(), value.strip()
    return "", subset


def _subgroups(reading: Reading, label: str) -> list[Any]:
    results = reading.results
    subsets = [subset for subset in results.subsets() if results.best("auroc", label, subset=subset) is not None]
    if not subsets:
        return []
    overall = results.best("auroc", label)
    most = max((record.n for subset in subsets if (record := results.best("auroc", label, subset=subset)) is not None), default=1)
    rows = [_forest_row("All", overall, overall.n)] if overall is not None else []
    covariate = None
    for subset in subsets:
        name, value = split_subset(subset)
        if name != covariate:
            rows.append(ForestRow(name or "Subgroup", heading=True))
            covariate = name
        rows.append(_forest_row(value, results.best("auroc", label, subset=subset), most))
    chart = forest_chart(
        rows,
        id=slug("forest", label),
        title=f"AUROC by subgroup, {label}",
        axis_title="AUROC",
        columns=("n", "Events"),
        reference=overall.value if overall else None,
    )
    return [Figures([chart]), _subgroup_table(reading, label, subsets), *_heterogeneity(reading, label)]


def _forest_row(name: str, record: Record | None, most: int) -> ForestRow:
    if record is None:
        return ForestRow(name)
    return ForestRow(
        name,
        (count(record.n), count(record.n_positive)),
        record.value,
        record.low,
        record.high,
        estimate(record),
        weight=(record.n / max(most, 1)) ** 0.5,
    )


def _subgroup_table(reading: Reading, label: str, subsets: Sequence[str]) -> Table:
    results = reading.results
    points = results.thresholds(label)
    at = points[0] if points else None
    rows: list[Row] = []
    for subset in subsets:
        found = [results.best(metric, label, subset=subset) for metric in SUBGROUP_METRICS[:3]]
        found += [results.best(metric, label, subset=subset, threshold=at) if at is not None else None for metric in SUBGROUP_METRICS[3:]]
        base = found[0]
        name, value = split_subset(subset)
        rows.append([f"{name}: {value}" if name else value, size(base), *(cell(record) for record in found)])
    note = f"Sensitivity and specificity at threshold {threshold(at)}." if at is not None else ""
    return Table(
        ["Subgroup", "Events/n", "AUROC", "Calibration slope", "O:E", "Sensitivity", "Specificity"],
        rows,
        "Key measures by subgroup, with 95% intervals",
        note,
        numeric=range(1, 7),
    )


def _heterogeneity(reading: Reading, label: str) -> list[Any]:
    found = reading.results.heterogeneity(label)
    if not found:
        return []
    rows = [
        [record.subset, p_value(record.value) if is_known(record.value) else NOT_ESTIMABLE, record.note.removeprefix("p value; ")]
        for record in found
    ]
    return [Table(["Covariate", "p", ""], rows, "Is the AUROC the same in all subgroups? Cochran’s Q test", numeric=[1])]


def training_section(reading: Reading) -> Section:
    """How training went; what the plan decided and why."""
    facts = reading.facts
    blocks: list[Any] = []
    if facts.history is not None and not facts.history.empty:
        runs = facts.history[[column for column in ("fold", "seed") if column in facts.history]].drop_duplicates()
        note = [Text(f"Mean over {len(runs)} trainings (folds or seeds).", "note")] if len(runs) > 1 else []
        blocks += [Figures(training_charts(facts.history)), *note]
    if facts.plan is not None:
        tree = facts.plan.model_dump(mode="json", exclude={"reasons"})
        rows = [[key, _value(tree, key), reason] for key, reason in facts.plan.reasons.items()]
        blocks += [Details("What was decided for this run, and why", [Table(["Setting", "Value", "Reason"], rows)])] if rows else []
    if not blocks:
        blocks = [Text("The training of this model is not known to this report.", "note")]
    return Section("training", "Training", blocks)


def _value(tree: Any, dotted: str) -> str:
    for key in dotted.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return "" if tree is None else str(tree)


def errors_section(reading: Reading) -> Section:
    """The most confident errors, with where the model looked."""
    errors, bags = reading.facts.errors, attention_blocks(reading.facts.bags)
    if bags and not errors:
        return Section("errors", "Errors and explainability", bags)
    if not errors:
        note = (
            "No images are shown."
            if reading.facts.config is not None and reading.facts.config.report.n_errors == 0
            else "The images are not known to this report, so no errors are shown."
        )
        return Section("errors", "Errors and explainability", [Text(note, "note")])
    overlay = next((error.method for error in errors if error.heatmap), "")
    shown = _affordable(errors)
    gallery = Gallery([_picture(error) for error in shown], overlay)
    blocks: list[Any] = [gallery]
    if len(shown) < len(errors):
        blocks.append(Text(f"The first {len(shown)} of {len(errors)}; more would make the page too large.", "note"))
    if overlay:
        blocks.append(
            Text(
                f"{overlay} (right) marks what raised the probability. It is not evidence that the model used the right sign, and it has not been validated here.",
                "note",
            )
        )
    return Section(
        "errors", "Errors and explainability", [*blocks, *bags], "The most confident errors: where the model was surest and wrong."
    )


def _affordable(errors: Sequence[ErrorImage]) -> Sequence[ErrorImage]:
    """The first errors whose pictures together stay within the page's budget; at least one."""
    sizes = np.cumsum([len(error.picture) + len(error.heatmap or b"") for error in errors])
    return errors[: max(int((sizes <= MOST_PICTURE_BYTES).sum()), 1)]


def _picture(error: ErrorImage) -> Picture:
    missed = error.y >= 0.5
    kind = "Missed" if missed else "False alarm"
    lines = [
        error.image_id,
        f"probability {fixed(error.p)}" + (f", threshold {threshold(error.threshold)}" if error.threshold is not None else ""),
    ]
    return Picture(f"{kind}: {error.label}", lines, _data_uri(error.picture), _data_uri(error.heatmap) if error.heatmap else "")


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def provenance_section(reading: Reading, checklist: Sequence[Any], texts: Sequence[Editable]) -> Section:
    """Limits, text for a manuscript, checklist, config, versions, hashes."""
    facts = reading.facts
    blocks: list[Any] = [
        Heading("Ethics, registration, funding"),
        author(facts, "ethics", "Ethics approval, registration, funding, conflicts of interest"),
    ]
    blocks += [
        Heading("Text for a manuscript"),
        *texts,
        Heading("Reporting checklist"),
        *checklist,
        Heading("Provenance"),
    ]
    if facts.hashes:
        blocks.append(Table(["What", "sha256"], [[str(key), str(value)] for key, value in facts.hashes.items()], "Hashes"))
    if facts.versions:
        blocks.append(Facts([(str(key), str(value)) for key, value in facts.versions.items()]))
    if facts.config is not None:
        text = yaml.safe_dump(_without_folders(facts.config.model_dump(mode="python")), sort_keys=False, allow_unicode=True)
        blocks.append(Details("The whole config, paths by their last name", [Code(text)]))
    return Section("provenance", "Limits, availability and provenance", blocks)


def _without_folders(value: Any) -> Any:
    """Plain values; a path is its last name, since folders can name a machine, a user or a patient."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    return value.name if isinstance(value, PurePath) else value
