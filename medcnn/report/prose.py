"""A paragraph of methods and one of results, from the run's own facts, ready to edit into a manuscript."""

from medcnn.report.blocks import Editable
from medcnn.report.ladder_words import ladder_methods, ladder_results
from medcnn.report.lookup import Results
from medcnn.report.numbers import (
    compact,
    count,
    estimate,
    interval,
    is_known,
    join_words,
    method_title,
    metric_title,
    metric_value,
    percent,
    plural,
    share,
    threshold,
)
from medcnn.report.reading import Reading
from medcnn.report.words import (
    calibration_verdict,
    kept_together,
    part_name,
    recalibration_name,
    rows_words,
    rule_words,
    search_words,
    split_words,
)
from medcnn.tables import Record

MANY_LABELS = 6
PURPOSES = {"train": "training", "val": "tuning", "test": "testing"}
IMBALANCE = {
    "loss_weights": "weights in the loss",
    "class_balanced": "weights in the loss by the effective number of images",
    "logit_adjusted": "class shares added to the scores in the loss",
    "oversample": "oversampling",
}
MEASURE_WORDS = {
    "calibration_intercept": "calibration intercept",
    "calibration_slope": "calibration slope",
    "oe_ratio": "ratio of observed to expected events",
    "brier": "Brier score",
    "sensitivity": "sensitivity, specificity, PPV and NPV",
    "net_benefit": "net benefit",
}


def methods_paragraph(reading: Reading) -> Editable:
    """What was done, in the past tense."""
    sentences = [
        *_cohort_sentences(reading),
        *_model_sentences(reading),
        *_split_sentences(reading),
        search_words(reading.facts),
        ladder_methods(reading.facts),
        *_measure_sentences(reading),
        _software_sentence(reading),
    ]
    return Editable("Methods", " ".join(sentence for sentence in sentences if sentence))


def _cohort_sentences(reading: Reading) -> list[str]:
    flow, counts = reading.facts.flow, reading.facts.counts
    sentences = []
    if flow is not None:
        left = f"; {plural(len(flow.excluded), 'entry', 'entries')} of {count(flow.n_found)} found were left out" if flow.excluded else ""
        sentences.append(f"The cohort held {plural(flow.n_images, 'image')} of {plural(flow.n_patients, 'patient')}{left}.")
    if counts is not None and ("fold" not in counts or counts["fold"].nunique() == 1):
        said = [
            f"{plural(row['n_patients'], 'patient')} ({plural(row['n_images'], 'image')}) for {PURPOSES.get(str(row['part']), str(row['part']))}"
            for row in counts.to_dict("records")
        ]
        sentences.append(f"We used {join_words(said)}.")
    return sentences


def _software_sentence(reading: Reading) -> str:
    named = [f"{key} {value}" for key, value in reading.facts.versions.items() if key in {"medcnn", "torch"}]
    return f"The analysis was made with {join_words(named)}." if named else ""


def _model_sentences(reading: Reading) -> list[str]:
    facts, plan = reading.facts, reading.facts.plan
    name = str(facts.model.get("name") or (plan.model.name if plan else ""))
    if not name:
        return []
    size = compact(facts.model.get("n_parameters"))
    weights = str(facts.model.get("weights", ""))
    start = f", started from {weights}," if weights else ""
    sentences = [
        f"We trained {name}{f' ({size} parameters)' if size != '–' else ''}{start} to give a probability of {join_words(reading.results.labels[:MANY_LABELS])}."
    ]
    if plan is not None:
        training, image = plan.training, plan.image
        sentences.append(
            f"Images were brought to {image.size_px} × {image.size_px} pixels and the model was trained with AdamW for {plural(training.epochs, 'epoch')},"
            f" batches of {training.batch_size}, peak learning rate {training.learning_rate:g} with warm-up and cosine decay (seed {plan.seed})."
        )
        if training.imbalance != "none":
            words = IMBALANCE[training.imbalance]
            sentences.append(
                f"Class imbalance was met with {words}; probabilities were shifted back to the training prevalence afterwards."
            )
    return sentences


def _split_sentences(reading: Reading) -> list[str]:
    plan, config = reading.facts.plan, reading.facts.config
    sentences = []
    if plan is not None:
        sentences.append(f"{split_words(plan.split)}; {kept_together(plan.split)}.")
    kind = reading.results.recalibration
    if kind != "none":
        fitted = rows_words(str(reading.facts.recalibration_info.get("fitted_on", "the tuning part")))
        sentences.append(f"Probabilities were recalibrated by {recalibration_name(kind)}, fitted on {fitted} only.")
    rules = list(dict.fromkeys(rule_words(point.rule) for point in reading.facts.thresholds))
    if rules:
        where = list(dict.fromkeys(rows_words(point.chosen_on) for point in reading.facts.thresholds if point.chosen_on))
        sentences.append(
            f"Thresholds were set by {join_words(rules)}"
            + (f" on {join_words(where)}" if where else "")
            + " before the test part was opened."
        )
    if config is not None and reading.results.level != "image":
        sentences.append(
            f"The unit of evaluation was the {reading.results.level}, whose probability was the {config.evaluation.aggregation.replace('_', '-')} of its images’."
        )
    return sentences


def _measure_sentences(reading: Reading) -> list[str]:
    results = reading.results
    named = []
    for metric in ("auroc", "brier", "calibration_intercept", "calibration_slope", "oe_ratio", "sensitivity", "net_benefit"):
        record = next(
            (record for label in [*results.labels, *results.averages] if (record := results.best(metric, label)) is not None), None
        )
        if record is None:
            continue
        title = MEASURE_WORDS.get(metric, metric_title(metric))
        named.append(f"{title}{f' ({method_title(record.method)})' if record.method and record.low is not None else ''}")
    if not named:
        return []
    parts = [f"We report {join_words(named)}, with 95% intervals by the methods named."]
    if not results.curve("calibration_smooth", results.labels[0] if results.labels else "").empty:
        parts.append("Calibration was also shown as a smoothed curve with a 95% band.")
    if not results.curve("decision_curve", results.labels[0] if results.labels else "").empty:
        parts.append("Net benefit was compared with treating all and treating none in a decision curve.")
    return parts


def results_paragraph(reading: Reading) -> Editable:
    """What was found."""
    results = reading.results
    sentences = [_tested_sentence(reading)]
    if len(results.labels) == 1:
        sentences += _label_sentences(reading, results.labels[0])
    else:
        sentences += [_average_sentence(results), *(_short_label(reading, label) for label in results.labels[:MANY_LABELS])]
        if len(results.labels) > MANY_LABELS:
            sentences.append(f"The other {len(results.labels) - MANY_LABELS} labels are in the table.")
    sentences.append(ladder_results(reading.facts))
    return Editable("Results", " ".join(sentence for sentence in sentences if sentence))


def _tested_sentence(reading: Reading) -> str:
    results = reading.results
    record = results.first(results.labels[0]) if results.labels else None
    if record is None:
        return ""
    several = {"image": "images", "study": "studies", "patient": "patients"}[results.level]
    patients = f" of {plural(record.n_patients, 'patient')}" if record.n_patients and results.level != "patient" else ""
    events = (
        f", {share(record.n_positive, record.n)} with {results.labels[0]}"
        if len(results.labels) == 1 and record.n_positive is not None
        else ""
    )
    part = f"The {part_name(results.part, testing=reading.facts.testing)} part"
    if results.part == "test" and reading.facts.testing == "internal-external":
        part = "The sites of the internal-external validation"
    return f"{part} held {plural(record.n, results.level, several)}{patients}{events}."


def _label_sentences(reading: Reading, label: str) -> list[str]:
    results = reading.results
    auroc, brier = results.best("auroc", label), results.best("brier", label)
    sentences = []
    if auroc is not None:
        sentences.append(f"The AUROC was {_ci(auroc)}.")
    sentences.append(_past(calibration_verdict(results, label)[1]))
    if brier is not None and is_known(brier.value):
        sentences.append(f"The Brier score was {estimate(brier)}.")
    points = results.thresholds(label)
    if points:
        sentences.append(_rates_sentence(reading, label, points[0]))
    return sentences


def _ci(record: Record) -> str:
    limits = interval(record.metric, record.low, record.high)
    return f"{metric_value(record.metric, record.value)}" + (f" (95% interval {limits}, {method_title(record.method)})" if limits else "")


def _past(text: str) -> str:
    for now, then in (
        ("Probabilities are", "Probabilities were"),
        ("They are", "They were"),
        ("agree within", "agreed within"),
        ("spread shows", "spread showed"),
    ):
        text = text.replace(now, then)
    return text


def _rates_sentence(reading: Reading, label: str, at: float) -> str:
    fractions = reading.fractions(label, at)
    said = []
    for metric, title in (("sensitivity", "sensitivity"), ("specificity", "specificity"), ("ppv", "PPV"), ("npv", "NPV")):
        record = reading.results.best(metric, label, threshold=at)
        if record is None or not is_known(record.value):
            continue
        counts = f"{count(fractions[metric][0])}/{count(fractions[metric][1])}; " if metric in fractions else ""
        said.append(f"{title} was {percent(record.value)} ({counts}{interval(metric, record.low, record.high)})")
    return f"At threshold {threshold(at)}, {join_words(said)}." if said else ""


def _average_sentence(results: Results) -> str:
    record = results.best("auroc", results.averages[0]) if results.averages else None
    return f"The {results.averages[0]} AUROC over {plural(len(results.labels), 'label')} was {_ci(record)}." if record is not None else ""


def _short_label(reading: Reading, label: str) -> str:
    record, slope = reading.results.best("auroc", label), reading.results.best("calibration_slope", label)
    if record is None:
        return ""
    events = f" ({count(record.n_positive)} of {count(record.n)})" if record.n_positive is not None else ""
    slope_words = f", calibration slope {estimate(slope)}" if slope is not None and is_known(slope.value) else ""
    return f"{label}{events}: AUROC {estimate(record)}{slope_words}."
