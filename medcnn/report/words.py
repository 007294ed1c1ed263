"""What the numbers mean, in words that a clinician reads and a statistician accepts; and what to be wary of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medcnn.plan import SplitPlan
from medcnn.report.facts import RunFacts, Testing
from medcnn.report.lookup import Results
from medcnn.report.numbers import NOT_ESTIMABLE, count, estimate, fixed, is_known, join_words, plural, share
from medcnn.tables import Record, label_names

PART_NAMES = {"train": "training", "val": "tuning"}
RECALIBRATIONS = {
    "none": "as the model gave them",
    "temperature": "temperature scaling",
    "platt": "Platt scaling",
    "isotonic": "isotonic regression",
    "beta": "beta calibration",
    "intercept": "recalibration in the large",
}
RULES = {
    "youden": "the highest Youden index",
    "sensitivity": "a sensitivity of at least {value}",
    "specificity": "a specificity of at least {value}",
    "cost": "the lowest cost, one missed case weighing as much as {value} false alarms",
    "fixed": "a value fixed beforehand",
}
MIN_EVENTS = 100
INTERNAL_EXTERNAL = "internal-external validation, doi:10.1136/bmj-2023-074819"


@dataclass(frozen=True)
class Caution:
    """Something to know before believing a number. level: error, warning or info."""

    level: Literal["error", "warning", "info"]
    title: str
    text: str


def part_name(part: str, *, testing: Testing | None = None) -> str:
    """train -> training; val -> tuning; test -> internal test, internal-external validation, external test; test when it is unknown."""
    if part == "test" and testing is not None:
        return "internal-external validation" if testing == "internal-external" else f"{testing} test"
    return PART_NAMES.get(part, part)


def split_words(split: SplitPlan) -> str:
    """How patients came into their parts, without a full stop."""
    dealt = "Sites were dealt" if split.unit == "site" else "Patients were dealt"
    by_site = f" ({INTERNAL_EXTERNAL})" if split.unit == "site" else ""
    folds = f"{split.n_folds} folds, stratified by label" + (f", {split.n_repeats} times" if split.n_repeats > 1 else "")
    return {
        "given": "The given split was used",
        "holdout": f"{dealt} at random, stratified by label",
        "kfold": f"{dealt} to {folds}{by_site}",
        "kfold_holdout": f"One test part was set aside, the same for every model; all other {split.unit}s were dealt to {folds}, and each fold was the tuning part of one model",
        "leave_site_out": f"Each site was tested by a model that was trained at the other sites ({INTERNAL_EXTERNAL})",
    }[split.scheme]


def kept_together(split: SplitPlan) -> str:
    """What the parts never tear apart, without a full stop."""
    whole = split.unit == "site" and split.scheme != "given"  # a given part is taken as it is
    return "all patients of a site stayed in one part" if whole else "all images of a patient stayed in one part"


def search_words(facts: RunFacts) -> str:
    """How the settings were searched, and what became of what was found; blank where nothing was searched."""
    found = facts.search
    if found is None:
        return ""
    if set(found.adopted) == set(found.keys):
        return f"{found.statement} The model has the best of them."
    if not found.adopted:
        return f"{found.statement} The best of them was not adopted."
    were = "was" if len(found.adopted) == 1 else "were"
    return f"{found.statement} Of the best of them {join_words(list(found.adopted))} {were} adopted."


def rule_words(rule: str) -> str:
    """`sensitivity 0.95` -> a sensitivity of at least 0.95; other words stay as they are."""
    name, _, value = rule.partition(" ")
    return RULES[name].format(value=value) if name in RULES and bool(value) == ("{value}" in RULES[name]) else rule


def rows_words(rows: str) -> str:
    """The rows that something was fitted on, in CLAIM's words: validation rows -> tuning rows."""
    return rows.replace("validation", "tuning")


def recalibration_name(kind: str) -> str:
    """The recalibration in words."""
    return RECALIBRATIONS.get(kind, kind.replace("_", " "))


def _side(record: Record | None, ideal: float) -> int | None:
    """-1, 0, 1: the interval lies below, covers, lies above the ideal; None when there is no interval."""
    if record is None or not is_known(record.low) or not is_known(record.high) or record.low is None or record.high is None:
        return None
    return -1 if record.high < ideal else 1 if record.low > ideal else 0


def _inline(record: Record | None) -> str:
    """`1.02, 0.90 to 1.15`: an estimate that stands within brackets."""
    return estimate(record).replace(" (", ", ").removesuffix(")")


def calibration_verdict(results: Results, label: str) -> tuple[str, str]:
    """A word or two and a sentence on calibration, from the intervals of O:E, intercept and slope.

    No departure shown is not agreement shown: the words keep the two apart.
    """
    ratio, intercept, slope = (results.best(metric, label) for metric in ("oe_ratio", "calibration_intercept", "calibration_slope"))
    level = _side(intercept, 0) if _side(intercept, 0) is not None else _side(ratio, 1)
    spread = _side(slope, 1)
    if level is None and spread is None:
        return NOT_ESTIMABLE.capitalize(), "Calibration could not be estimated from these data."
    size = f" (observed to expected {_inline(ratio)})" if ratio is not None and is_known(ratio.value) else ""
    sentences = {
        1: f"Probabilities are too low on average{size}.",
        -1: f"Probabilities are too high on average{size}.",
        0: f"On average, predicted and observed agree within the uncertainty{size}.",
        None: "",
    }
    tilt = {
        1: f"They are too moderate: low ones too high, high ones too low (slope {_inline(slope)}).",
        -1: f"They are too extreme: low ones too low, high ones too high (slope {_inline(slope)}).",
        0: f"Their spread shows no departure from the ideal (slope {_inline(slope)}).",
        None: "",
    }
    words = [{1: "too low", -1: "too high"}.get(level or 0, ""), {1: "too moderate", -1: "too extreme"}.get(spread or 0, "")]
    said = [word for word in words if word]
    return (join_words(said).capitalize() if said else "No departure shown"), " ".join(
        part for part in (sentences[level], tilt[spread]) if part
    )


def discrimination_sentence(results: Results, label: str) -> str:
    """What the AUROC says, in one sentence."""
    record = results.best("auroc", label)
    if record is None or not is_known(record.value):
        return "The AUROC is not estimable" + (f": {record.note}." if record is not None and record.note else ".")
    value = record.value if record.value is not None else 0.0
    if label in results.averages:
        return f"The {label} average of the labels’ AUROCs is {estimate(record)}."
    return f"In {fixed(100 * value, 0)} of 100 pairs of one image with and one without the finding, the model gives the higher probability to the one with it."


def tested(results: Results) -> str:
    """Who was tested: images, patients, events."""
    record = results.first(results.headline if results.headline in results.labels else (results.labels[0] if results.labels else ""))
    if record is None:
        return ""
    units = {"image": "image", "study": "study", "patient": "patient"}[results.level]
    several = "studies" if units == "study" else ""
    text = f"{plural(record.n, units, several)}" + (
        f" of {plural(record.n_patients, 'patient')}" if record.n_patients and units != "patient" else ""
    )
    if len(results.labels) == 1 and record.n_positive is not None:
        text += f", {share(record.n_positive, record.n)} with {results.labels[0]}"
    return text


def cautions(facts: RunFacts, results: Results) -> list[Caution]:
    """Everything a reader should be wary of, gravest first."""
    found = [
        *_audit_cautions(facts),
        *_size_cautions(results),
        *_ledger_cautions(facts),
        *_threshold_cautions(facts, results),
        *_probability_cautions(facts, results),
    ]
    found += [*_partition_cautions(facts, results), *_recalibration_cautions(results), *_interval_cautions(results)]
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda caution: order[caution.level])


def _audit_cautions(facts: RunFacts) -> list[Caution]:
    return [
        Caution(finding.severity, f"Audit: {finding.kind.replace('_', ' ')}", f"{finding.text} {finding.todo}".strip())
        for finding in facts.findings
        if finding.severity != "info"
    ]


def _size_cautions(results: Results) -> list[Caution]:
    small, one_class = [], []
    for label in results.labels:
        record = results.first(label)
        if record is None or record.n_positive is None:
            continue
        events, others = record.n_positive, record.n - record.n_positive
        if min(events, others) == 0:
            one_class.append(label)
        elif min(events, others) < MIN_EVENTS:
            small.append(f"{label} ({count(events)} with, {count(others)} without)")
    found = []
    if one_class:
        found.append(
            Caution(
                "warning",
                "One class only",
                f"{join_words(one_class)}: all tested images have the same label; nothing that compares the classes can be estimated.",
            )
        )
    if small:
        found.append(
            Caution(
                "warning",
                "Small test set",
                f"{join_words(small[:6])}{' and further labels' if len(small) > 6 else ''}: fewer than {MIN_EVENTS} cases in one class, the usual least for judging"
                " performance, calibration above all (doi:10.1002/sim.6787). Read the intervals, not the values.",
            )
        )
    return found


def _ledger_cautions(facts: RunFacts) -> list[Caution]:
    n = len(facts.ledger)
    if n <= 1:
        return []
    return [
        Caution(
            "warning",
            f"Test set opened {n} times",
            "Each earlier opening may have steered a choice; the numbers are then too good. Section 4 lists the openings.",
        )
    ]


def _threshold_cautions(facts: RunFacts, results: Results) -> list[Caution]:
    if facts.thresholds or not any(results.thresholds(label) for label in results.labels):
        return []
    return [
        Caution(
            "info",
            "Thresholds",
            "It is not known to this report how the thresholds were chosen. If they were chosen on these rows, sensitivity and specificity are too good.",
        )
    ]


def _probability_cautions(facts: RunFacts, results: Results) -> list[Caution]:
    if facts.predictions is None:
        return []
    rows = facts.predictions[facts.predictions["part"] == results.part]
    certain = {label: int(((rows[f"p_{label}"] <= 0) | (rows[f"p_{label}"] >= 1)).sum()) for label in label_names(rows)}
    named = [f"{count(n)} of {label}" for label, n in certain.items() if n]
    if not named:
        return []
    return [
        Caution(
            "info",
            "Probabilities of exactly 0 or 1",
            f"{join_words(named[:6])}. Such a claim of certainty makes the log-loss infinite when wrong; calibration is estimated with these moved a hair inwards.",
        )
    ]


def _recalibration_cautions(results: Results) -> list[Caution]:
    """Says where recalibration made the Brier score of the tested rows worse."""
    if results.recalibration == "none" or "none" not in results.recalibrations:
        return []
    worse = []
    for label in results.labels:
        before, after = results.best("brier", label, recalibration="none"), results.best("brier", label)
        if before is not None and after is not None and before.value is not None and after.value is not None and after.value > before.value:
            worse.append(f"{label} (from {fixed(before.value)} to {fixed(after.value)})")
    if not worse:
        return []
    text = f"After {recalibration_name(results.recalibration)} the Brier score of the tested rows is worse for {join_words(worse[:6])}. Section 6 shows both, with their uncertainty."
    return [Caution("info", "Recalibration did not help here", text)]


def _interval_cautions(results: Results) -> list[Caution]:
    """What the evaluation itself notes on the headline's interval."""
    record = results.best("auroc", results.headline) if results.headline in results.labels else None
    if record is None or not record.note or not is_known(record.value):
        return []
    return [Caution("info", "Interval of the AUROC", f"{record.note[:1].upper()}{record.note[1:]}.")]


def _partition_cautions(facts: RunFacts, results: Results) -> list[Caution]:
    found = []
    if facts.fingerprint is not None and facts.flow is not None and facts.fingerprint.n_patients == facts.fingerprint.n_images:
        found.append(
            Caution(
                "info",
                "One image per patient",
                "Every image counts as its own patient. If a patient may have several images and no patient column was given, the parts may share patients and the intervals are too narrow.",
            )
        )
    if results.part == "test" and facts.testing == "internal-external":
        found.append(
            Caution(
                "info",
                "Internal-external validation",
                "Every site was tested by models of other sites, but all sites are of one data collection; performance at a site beyond it may differ more.",
            )
        )
    if results.part == "test" and facts.testing == "internal":
        found.append(
            Caution("info", "Internal test only", "Performance at another site may differ; external testing has not been reported here.")
        )
    return found


def missing_labels(facts: RunFacts, labels: Sequence[str]) -> dict[str, int]:
    """Images without a label, per label; empty when not known."""
    if facts.fingerprint is not None:
        return {label: facts.fingerprint.n_images - facts.fingerprint.n_labelled.get(label, 0) for label in facts.fingerprint.labels}
    if facts.predictions is not None:
        return {label: int(facts.predictions[f"y_{label}"].isna().sum()) for label in labels if f"y_{label}" in facts.predictions}
    return {}
