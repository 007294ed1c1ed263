"""What reporting guidelines ask for, item by item: stated in this report (and where), for the author to state, or not part of this run.

Items are paraphrased and carry the item numbers of TRIPOD+AI (T, doi:10.1136/bmj-2023-078378), CLAIM 2024 (C, doi:10.1148/ryai.240300),
STARD-AI (S, doi:10.1038/s41591-025-03953-8) and the measures of Van Calster and colleagues (V, doi:10.1016/j.landig.2025.100916).
Where no guideline settles a point, the project's choice is marked so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from medcnn.report.blocks import Checklist, ChecklistRow, Text
from medcnn.report.ladder_words import headline_of
from medcnn.report.numbers import count
from medcnn.report.reading import Reading

Check = Callable[[Reading], bool]
Otherwise = Literal["author", "absent"]


@dataclass(frozen=True)
class Item:
    """One thing to state. section: where this report states it. check: whether it does. otherwise: who has to, if it does not."""

    section: str
    text: str
    sources: str
    check: Check
    otherwise: Otherwise = "author"


def _written(key: str) -> Check:
    return lambda reading: reading.facts.config is not None and bool(str(getattr(reading.facts.config.report, key)).strip())


def _known(key: str) -> Check:
    def check(reading: Reading) -> bool:
        value: Any = getattr(reading.facts, key)
        return value is not None and len(value) > 0 if hasattr(value, "__len__") else value is not None

    return check


def _metric(*names: str) -> Check:
    return lambda reading: all(reading.results.find(name) for name in names)


def _curve(name: str) -> Check:
    return lambda reading: any(not reading.results.curve(name, label).empty for label in reading.results.labels)


def _intervals(reading: Reading) -> bool:
    return any(record.low is not None and record.method for record in reading.results.records)


def _always(_: Reading) -> bool:
    return True


def _never(_: Reading) -> bool:
    return False


def _recalibrated(reading: Reading) -> bool:
    return len(reading.results.recalibrations) > 1


def _partitions(reading: Reading) -> bool:
    return reading.facts.counts is not None or reading.facts.predictions is not None


def _disjoint(reading: Reading) -> bool:
    table = reading.facts.split if reading.facts.split is not None else reading.facts.predictions
    return table is not None and table["part"].nunique() > 1


def _distribution(reading: Reading) -> bool:
    return reading.units is not None


def _rules(reading: Reading) -> bool:
    return bool(reading.facts.thresholds)


def _subgroups(reading: Reading) -> bool:
    return bool(reading.results.subsets())


def _model(key: str) -> Check:
    return lambda reading: bool(reading.facts.model.get(key))


def _software(reading: Reading) -> bool:
    return bool(reading.facts.versions) and reading.facts.seed is not None


def _heatmaps(reading: Reading) -> bool:
    return any(error.heatmap for error in reading.facts.errors)


def _confusion(reading: Reading) -> bool:
    return bool(reading.counts) and bool(reading.results.find("sensitivity"))


def _ledger(reading: Reading) -> bool:
    return bool(reading.facts.ledger)


def _compared(reading: Reading) -> bool:
    return len(reading.facts.ladder) > 1


def _named(reading: Reading) -> bool:
    return headline_of(reading.facts.ladder) is not None


def _averaged(reading: Reading) -> bool:
    return any((rung.n_models or 0) > 1 for rung in reading.facts.ladder)


def _repeated(reading: Reading) -> bool:
    return any(rung.numbers.single is not None for rung in reading.facts.ladder)


ITEMS: dict[str, tuple[Item, ...]] = {
    "Identity and intended use": (
        Item(
            "identity", "Kind of study, target population, outcome; the technology is named", "T1, T4, C1, C6, S1", _written("population")
        ),
        Item("identity", "Intended use, place in the care pathway, intended users", "T3b, T27b, C3, S3, S15d", _written("intended_use")),
        Item("identity", "Model, its version and the origin of its weights", "C22–C25, T22", _model("weights")),
        Item("provenance", "Software versions and seed", "C22–C25, T22; seed: inferred", _software),
        Item("identity", "Type of output and how a prediction is calculated", "T15, T12g", _always),
        Item("summary", "A measure of diagnostic accuracy in the title or abstract", "S1", _metric("auroc")),
    ),
    "Data and partitions": (
        Item("data", "Sources, dates, centres, eligibility of participants and of data", "T5–T6, C7–C8, S7–S11", _written("population")),
        Item("training", "Pre-processing of the images", "T7, C9, C13, S13–S14", _known("plan")),
        Item("data", "Devices and acquisition", "T7, C9, S13", _never),
        Item("data", "Flow with the numbers in and out", "T20a, C35, S24", _known("flow")),
        Item("data", "Patients, images and events in each partition", "T21, C19, S15b, S25", _partitions),
        Item("data", "Level at which the partitions are disjoint, and the check", "C20", _disjoint),
        Item("data", "Characteristics of each partition; how development and evaluation data differ", "T16, T20b–c, C36, S25, S29", _never),
        Item("classification", "Prevalence in the test set", "S28", _metric("ppv")),
        Item("data", "Rationale of the test set’s size", "T10, C21, S22", _never),
        Item("data", "Missing labels: count and handling", "T11, C12, S20", _partitions),
        Item("training", "Class imbalance: what was done about it", "T13, C19", _known("plan")),
    ),
    "Reference standard": (
        Item(
            "reference",
            "Definition, rationale, annotators, agreement between raters, blinding",
            "T8a–c, C14–C18, S12, S16–S17",
            _written("reference_standard"),
        ),
    ),
    "Methods of evaluation": (
        Item("methods", "Every measure used", "T12e, C28, S18", _always),
        Item("methods", "Method of each interval", "C29, S18", _intervals),
        Item("methods", "How several images of one patient are handled", "T12d", _intervals),
        Item("methods", "Thresholds: definition, rationale, set beforehand or explored", "T15, S15c", _rules),
        Item("methods", "How often the test set was opened", "project’s choice", _ledger, "absent"),
        Item("ladder", "How the final model was selected", "T12c, C26", _named),
        Item("methods", "Tuning of hyper-parameters: which, on whom, how many settings", "T12c, C26", _known("search")),
        Item("ladder", "Ensembling: how the predictions of several models were joined", "C27", _averaged, "absent"),
        Item("ladder", "How far chance in training moves the results", "C30; project’s choice", _repeated, "absent"),
        Item("methods", "Sensitivity analyses", "C30, S21", _never),
    ),
    "Performance": (
        Item("discrimination", "AUROC with its interval, and the ROC curve", "V essential; T23a, C38, S31", _metric("auroc")),
        Item("ladder", "Simpler models on the same rows, one of which sees no disease", "project’s choice", _compared, "absent"),
        Item("calibration", "Calibration plot", "V essential", _curve("calibration_smooth"), "absent"),
        Item(
            "calibration",
            "O:E, calibration intercept and slope with intervals",
            "V, T12e",
            _metric("oe_ratio", "calibration_intercept", "calibration_slope"),
            "absent",
        ),
        Item("calibration", "Performance before and after recalibration", "T12f, T24, T13", _recalibrated, "absent"),
        Item("overall", "Brier score and scaled Brier score", "V", _metric("brier"), "absent"),
        Item("overall", "Distribution of the probabilities by outcome", "V essential", _distribution, "absent"),
        Item("classification", "2 × 2 (or K × K) table with counts", "S30, C39", _confusion, "absent"),
        Item(
            "classification",
            "Sensitivity, specificity and predictive values with intervals",
            "S31, C38",
            _metric("sensitivity", "specificity", "ppv", "npv"),
            "absent",
        ),
        Item("utility", "Decision curve with treat all and treat none", "V essential; T12e", _curve("decision_curve"), "absent"),
        Item("subgroups", "Key measures by subgroup", "T23a, C37, S21, S23", _subgroups),
        Item(
            "subgroups",
            "Performance elsewhere: external testing or internal-external validation, or why not",
            "C32, C33, S29",
            lambda reading: reading.facts.testing in {"external", "internal-external"},
        ),
        Item("errors", "Errors, with examples", "C39, S23", _known("errors")),
        Item("errors", "Saliency only with its validation", "C31", lambda reading: not _heatmaps(reading)),
    ),
    "Limits, availability, governance": (
        Item("provenance", "Limitations: bias, uncertainty, generalisability, fairness", "T25–T26, C40, S33, S35", _never),
        Item("provenance", "What happens to poor or missing input in use", "T27a", _never),
        Item("provenance", "Availability of code, model and data", "T18e–f, T22, C43, S40a", _never),
        Item("cost", "Time and memory that training and prediction took", "project’s choice", _known("stamps"), "absent"),
        Item("cost", "Energy and carbon", "project’s choice", _known("energy"), "absent"),
        Item("provenance", "Outputs are stored and can be audited", "S40b", _known("hashes"), "absent"),
        Item(
            "provenance",
            "Protocol, registration, ethics, funding, conflicts of interest",
            "T17–T19, C34, C42, C44, S6, S36–S39",
            _written("ethics"),
        ),
    ),
}


def fill_checklist(reading: Reading) -> list[ChecklistRow]:
    """Every item with its status: stated, author or absent."""
    return [
        ChecklistRow(topic, item.text, item.sources, "stated" if item.check(reading) else item.otherwise, item.section)
        for topic, items in ITEMS.items()
        for item in items
    ]


def checklist_blocks(reading: Reading) -> list[Any]:
    """The checklist with a line that counts it."""
    rows = fill_checklist(reading)
    n = {status: sum(row.status == status for row in rows) for status in ("stated", "author", "absent")}
    said = (
        f"{count(n['stated'])} of {count(len(rows))} items are stated in this report, {count(n['author'])} are for the author to state"
        + (f", {count(n['absent'])} are not part of this run." if n["absent"] else ".")
    )
    sources = (
        "Items are paraphrased, with their numbers in TRIPOD+AI (T), CLAIM 2024 (C), STARD-AI (S) and the essential measures of Van Calster and colleagues (V);"
        " compare with the guideline itself before citing it."
    )
    return [Text(said), Checklist(rows), Text(sources, "note")]
