"""The sections of a comparison: the models, what is the same, each domain of performance side by side, every paired difference, cost."""

import re
from collections.abc import Sequence
from typing import Any

from medcnn.report.blocks import Bullets, Cell, Details, Editable, Facts, Figures, Heading, Row, Section, Table, Text
from medcnn.report.charts import calibration_chart
from medcnn.report.contest import Contest, auroc_forest, cost_figure, decision_overlay, roc_overlay
from medcnn.report.numbers import MINUS, compact, count, difference, duration, method_title, metric_title, p_value, threshold
from medcnn.report.performance_sections import listed
from medcnn.report.tabulate import cell
from medcnn.report.words import recalibration_name
from medcnn.tables import Comparison

COSTS = (("multiply_adds", "Multiply-adds per image"), ("n_parameters", "Parameters"), ("training_seconds", "Training time, seconds"))
DUPLICATES = frozenset({"mcnemar_exact", "mcnemar_mid_p"})  # other p values of a difference that has a row; section 8 has them all
DECISIONS = ("sensitivity", "specificity", "accuracy")


def comparison_sections(contest: Contest, texts: Sequence[Editable] = ()) -> list[Section]:
    """The numbered sections of a comparison report; texts: paragraphs for a manuscript."""
    return [
        models_section(contest),
        same_section(contest),
        discrimination(contest),
        calibration(contest),
        overall(contest),
        decisions(contest),
        utility(contest),
        every_difference(contest),
        cost(contest),
        provenance(contest, texts),
    ]


def models_section(contest: Contest) -> Section:
    """1: what is compared."""
    rows = []
    for model in contest.facts.models:
        info = model.model
        kind = contest.results[model.name].recalibration
        rows.append(
            [
                model.name,
                str(info.get("name", "–")),
                compact(info.get("n_parameters")),
                str(info.get("input_size_px", "–")),
                str(info.get("weights", "–")),
                recalibration_name(kind),
            ]
        )
    return Section(
        "models",
        "The models",
        [Table(["Model", "Architecture", "Parameters", "Input, px", "Weights from", "Probabilities"], rows, numeric=[2, 3])],
    )


def same_section(contest: Contest) -> Section:
    """2: what was checked to be the same."""
    pairs = [
        (str(key).replace("_", " ").capitalize(), count(value) if isinstance(value, int | float) else str(value))
        for key, value in contest.facts.same.items()
    ]
    events = [
        (f"With {label}", count(record.n_positive))
        for label in contest.labels[:12]
        if (record := contest.first.first(label)) is not None and record.n_positive is not None
    ]
    text = "All models were tested on the same images of the same patients with the same labels; this was checked, and models that differ are refused. Each difference is paired."
    return Section("same", "The same images", [Text(text), Facts([*pairs, *events])])


def discrimination(contest: Contest) -> Section:
    """3: AUROC of each model, ROC curves together, paired differences."""
    blocks = listed(auroc_forest(contest, contest.headline))
    blocks = [Figures(blocks)] if blocks else []
    if contest.headline not in contest.labels:
        average = contest.headline
        blocks += listed(
            model_table(contest, ("auroc", "hand_till_m"), average, f"{average} average"),
            _differences(contest, ("auroc", "hand_till_m"), average, f"Paired differences of the {average} average"),
        )
    blocks += contest.per_label(lambda label: _discrimination(contest, label))
    return Section("discrimination", "Discrimination", blocks)


def _discrimination(contest: Contest, label: str) -> list[Any]:
    chart = roc_overlay(contest, label)
    tables = listed(
        model_table(contest, ("auroc", "average_precision"), label, "Each model, with 95% intervals"),
        _differences(contest, ("auroc", "average_precision"), label, "Paired differences"),
    )
    return [*([Figures([chart], beside=tables[:1])] if chart else tables[:1]), *tables[1:]]


def calibration(contest: Contest) -> Section:
    """4: a calibration plot for each model, measures, paired differences of the slope."""
    return Section("calibration", "Calibration", contest.per_label(lambda label: _calibration(contest, label)))


def _calibration(contest: Contest, label: str) -> list[Any]:
    charts = [
        calibration_chart(results, label, name=f"{name}, {label}", id_words=[label, name], spread=results.distribution(label))
        for name, results in contest.results.items()
    ]
    drawn = listed(*charts)
    tables = listed(
        model_table(
            contest, ("calibration_intercept", "calibration_slope", "oe_ratio", "ici", "ece"), label, "Each model, with 95% intervals"
        ),
        _differences(
            contest,
            ("calibration_slope",),
            label,
            "Paired differences",
            "A slope closer to 1 is better: the sign of the difference does not say which.",
        ),
    )
    return [*([Figures(drawn)] if drawn else []), *tables]


def overall(contest: Contest) -> Section:
    """5: Brier score and log-loss."""
    blocks = contest.per_label(
        lambda label: listed(
            model_table(contest, ("brier", "scaled_brier", "log_loss"), label, "Each model, with 95% intervals"),
            _differences(contest, ("brier", "log_loss"), label, "Paired differences", "Lower is better."),
        )
    )
    return Section("overall", "Overall performance", blocks, "Strictly proper scores compare models on the same rows.")


def decisions(contest: Contest) -> Section:
    """6: rates at each model's own thresholds, McNemar tests."""
    return Section(
        "classification",
        "Classification at stated thresholds",
        contest.per_label(lambda label: _decisions(contest, label)),
        "Each model at its own stated thresholds; p ≥ threshold is called positive.",
    )


def _decisions(contest: Contest, label: str) -> list[Any]:
    metrics = ("sensitivity", "specificity", "ppv", "npv")
    rows: list[Row] = [
        [name, threshold(value), *(cell(results.best(metric, label, threshold=value)) for metric in metrics)]
        for name, results in contest.results.items()
        for value in results.thresholds(label)
    ]
    table = (
        Table(
            ["Model", "Threshold", *(metric_title(metric) for metric in metrics)],
            rows,
            "Each model, with 95% intervals",
            numeric=range(1, 6),
        )
        if rows
        else None
    )
    return listed(table, _differences(contest, DECISIONS, label, "Paired differences"))


def utility(contest: Contest) -> Section:
    """7: decision curves together, net benefit."""
    return Section("utility", "Clinical utility", contest.per_label(lambda label: _utility(contest, label)))


def _utility(contest: Contest, label: str) -> list[Any]:
    chart = decision_overlay(contest, label)
    table = _differences(contest, ("net_benefit",), label, "Paired differences")
    return listed(Figures([chart]) if chart else None, table)


def every_difference(contest: Contest) -> Section:
    """8: all paired differences in one table."""
    several = len({record.label for record in contest.facts.comparisons}) > 1
    table = difference_table(
        contest.facts.comparisons,
        "All paired differences, a − b, with 95% intervals",
        correction=contest.facts.correction,
        with_label=several,
    )
    margin = contest.facts.margin
    said = f"Non-inferiority margin of the AUROC: {threshold(margin)}." if margin is not None else "No non-inferiority margin was set."
    told = (
        [
            Details(
                f"What may be claimed, in {count(len(contest.facts.sentences))} sentences",
                [Bullets([typeset(sentence, contest.labels) for sentence in contest.facts.sentences])],
            )
        ]
        if contest.facts.sentences
        else []
    )
    return Section("differences", "Every paired difference", [Text(said), *told, *listed(table)])


def cost(contest: Contest) -> Section:
    """9: cost beside quality."""
    rows: list[Row] = []
    for model in contest.facts.models:
        info = model.model
        auroc = contest.results[model.name].best("auroc", contest.headline)
        rows.append(
            [
                model.name,
                cell(auroc),
                compact(info.get("n_parameters")),
                compact(info.get("multiply_adds")),
                compact(info.get("images_per_second")),
                duration(info.get("training_seconds")),
            ]
        )
    table = Table(["Model", "AUROC", "Parameters", "Multiply-adds", "Images per second", "Training time"], rows, numeric=range(1, 6))
    charts = listed(*(cost_figure(contest, key, title) for key, title in COSTS[:2]))
    known = any(model.model for model in contest.facts.models)
    note = [] if known else [Text("Nothing is known of the models’ cost: they came as predictions.", "note")]
    return Section("cost", "Cost beside quality", [*([Figures(charts)] if charts else []), *([table] if known else []), *note])


def provenance(contest: Contest, texts: Sequence[Editable]) -> Section:
    """10: text for a manuscript, hashes and versions."""
    facts = contest.facts
    blocks: list[Any] = [Heading("Text for a manuscript"), *texts] if texts else []
    if facts.hashes:
        blocks.append(
            Table(["What", "sha256"], [[str(key), str(value)] for key, value in facts.hashes.items()], "Hashes of the predictions")
        )
    if facts.versions:
        blocks += [Heading("Versions"), Facts([(str(key), str(value)) for key, value in facts.versions.items()])]
    return Section("provenance", "Text and provenance", blocks or [Text("No versions or hashes are known to this report.", "note")])


def typeset(sentence: str, labels: Sequence[str]) -> str:
    """A sentence with a capital (unless a label comes first) and true minus signs."""
    text = re.sub(r"(?<![\w-])-(?=\d)", MINUS, sentence)
    return text if text.startswith(tuple(f"{label}:" for label in labels)) else text[:1].upper() + text[1:]


# ---------------------------------------------------------------- tables that recur


def model_table(contest: Contest, metrics: Sequence[str], label: str, caption: str) -> Table | None:
    """One row per model, one column per metric."""
    shown = [metric for metric in metrics if any(results.best(metric, label) for results in contest.results.values())]
    if not shown:
        return None
    rows: list[Row] = [[name, *(cell(results.best(metric, label)) for metric in shown)] for name, results in contest.results.items()]
    return Table(["Model", *(metric_title(metric) for metric in shown)], rows, caption, numeric=range(1, 1 + len(shown)))


def difference_table(
    found: Sequence[Comparison], caption: str, *, correction: str, with_label: bool = False, note: str = ""
) -> Table | None:
    """One row per paired difference: interval first, then the test."""
    if not found:
        return None
    words = {"none": "p values are not corrected for several pairs."}
    rows: list[Row] = []
    for record in found:
        at = f" at {threshold(record.threshold)}" if record.threshold is not None else ""
        shown, _, limits = difference(record).removesuffix(")").partition(" (")
        label = [record.label] if with_label else []
        rows.append(
            [
                f"{record.a} − {record.b}",
                *label,
                metric_title(record.metric) + at,
                Cell(shown, limits),
                p_value(record.p),
                p_value(record.p_adjusted),
                Cell(method_title(record.method), record.note),
            ]
        )
    columns = ["Pair", *(["Label"] if with_label else []), "Measure", "Difference", "p", "p, corrected", "Method"]
    shift = 1 if with_label else 0
    told = words.get(correction, f"p values are corrected over the pairs ({correction.capitalize()}) within one measure and label.")
    return Table(columns, rows, caption, f"{note} {told}".strip(), numeric=(2 + shift, 3 + shift, 4 + shift))


def _differences(contest: Contest, metrics: Sequence[str], label: str, caption: str, note: str = "") -> Table | None:
    found = [record for record in contest.differences(*metrics, label=label) if record.method not in DUPLICATES]
    return difference_table(found, caption, correction=contest.facts.correction, note=note)
