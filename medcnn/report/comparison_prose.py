"""A paragraph of methods and one of results for a comparison, ready to edit into a manuscript."""

from medcnn.report.blocks import Editable
from medcnn.report.comparison_sections import DUPLICATES, typeset
from medcnn.report.contest import Contest
from medcnn.report.numbers import difference, estimate, is_known, join_words, method_title, metric_title, p_value, plural, threshold
from medcnn.tables import Comparison

MOST_PAIRS = 6


def comparison_methods(contest: Contest) -> Editable:
    """How the models were compared, in the past tense."""
    facts = contest.facts
    record = contest.first.first(contest.labels[0]) if contest.labels else None
    level = contest.first.level
    size = f" of {plural(record.n_patients, 'patient')}" if record is not None and record.n_patients and level != "patient" else ""
    rows = f" the same {plural(record.n, level, 'studies' if level == 'study' else '')}{size}" if record is not None else " the same images"
    sentences = [f"We compared {join_words(list(contest.results))} on{rows}; all differences are paired."]
    sentences += _test_sentences(contest)
    if facts.correction != "none":
        sentences.append(
            f"p values were corrected over the pairs of models within each measure and label ({facts.correction.capitalize()})."
        )
    if facts.margin is not None:
        sentences.append(
            f"A model was called non-inferior when its AUROC was shown to be less than {threshold(facts.margin)} below the other’s."
        )
    return Editable("Methods", " ".join(sentences))


def _test_sentences(contest: Contest) -> list[str]:
    named: dict[str, list[str]] = {}
    for record in contest.facts.comparisons:
        if record.method and record.method not in DUPLICATES and not record.method.endswith("_non_inferiority"):
            titles = named.setdefault(method_title(record.method), [])
            title = metric_title(record.metric)
            titles += [title] if title not in titles else []
    said = [f"{join_words(titles)} ({method})" for method, titles in named.items()]
    return [f"Differences with 95% intervals were taken in {'; '.join(said)}."] if said else []


def comparison_results(contest: Contest) -> Editable:
    """What was found: each model’s AUROC, the differences, and what else may be claimed."""
    label = contest.headline
    values = [
        f"{name} {estimate(record)}"
        for name, results in contest.results.items()
        if (record := results.best("auroc", label)) is not None and is_known(record.value)
    ]
    what = "AUROC" if label in contest.labels else f"{label} AUROC"
    sentences = [f"The {what} was {join_words(values)}."] if values else []
    pairs = [record for record in contest.differences("auroc", label=label) if not record.method.endswith("_non_inferiority")]
    sentences += [_pair_sentence(record) for record in pairs[:MOST_PAIRS] if is_known(record.difference)]
    others = [sentence for sentence in contest.facts.sentences if "AUROC" not in sentence]
    return Editable("Results", " ".join([*sentences, *(typeset(sentence, contest.labels) for sentence in others[:MOST_PAIRS])]))


def _pair_sentence(record: Comparison) -> str:
    p = p_value(record.p_adjusted)
    tested = f", corrected p {p if p.startswith('<') else f'= {p}'}" if is_known(record.p_adjusted) else ""
    return f"The difference between {record.a} and {record.b} was {difference(record)}{tested}."
