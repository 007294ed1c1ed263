"""The page of a comparison of several models on the same images."""

import medcnn
from medcnn.report.blocks import Figure
from medcnn.report.comparison_prose import comparison_methods, comparison_results
from medcnn.report.comparison_sections import comparison_sections, model_table, typeset
from medcnn.report.contest import Contest, auroc_forest, decision_overlay, difference_forest, roc_overlay
from medcnn.report.facts import ComparisonFacts
from medcnn.report.html import render_page
from medcnn.report.numbers import (
    NOT_ESTIMABLE,
    count,
    difference,
    interval,
    is_known,
    join_words,
    method_title,
    metric_value,
    p_value,
    plural,
)
from medcnn.report.performance_sections import listed
from medcnn.report.summary import Summary, Tile
from medcnn.report.words import MIN_EVENTS, Caution
from medcnn.tables import Comparison

MOST_CLAIMS = 6
MOST_TILES = 3


def build_comparison_report(facts: ComparisonFacts) -> str:
    """One self-contained HTML page about several models: byte for byte the same for the same facts; no network, no outside file."""
    contest = Contest(facts)
    title = (facts.config.report.title if facts.config is not None else "") or facts.name
    authors = facts.config.report.authors if facts.config is not None else ""
    made = f"medcnn {medcnn.__version__}"
    return render_page(
        title=title,
        authors=authors,
        kicker="Comparison of models",
        summary=summarise(contest),
        sections=comparison_sections(contest, [comparison_methods(contest), comparison_results(contest)]),
        made=made,
    )


def summarise(contest: Contest) -> Summary:
    """The first page: the models’ AUROCs, the difference, what may be claimed."""
    facts = contest.facts
    few = len(facts.models) <= MOST_TILES - 1
    tiles = [_model_tile(contest, name) for name in contest.results] if few else []
    main = [record for record in contest.differences("auroc", label=contest.headline) if not record.method.endswith("_non_inferiority")]
    tiles += [_difference_tile(record) for record in main] if few else []
    caption = f"Each model, {contest.headline}, with 95% intervals"
    table = (
        model_table(contest, ("auroc", "brier", "calibration_slope"), contest.headline, caption)
        if not few and len(contest.labels) == 1
        else None
    )
    return Summary(_lead(contest), tiles, listed(table), _figures(contest), _cautions(contest), claims=_claims(contest))


def _lead(contest: Contest) -> str:
    record = contest.first.first(contest.labels[0]) if contest.labels else None
    size = (
        f" on the same {plural(record.n, contest.first.level, 'studies' if contest.first.level == 'study' else '')} of {plural(record.n_patients, 'patient')}"
        if record
        else ""
    )
    events = (
        f", {count(record.n_positive)} with {contest.labels[0]}"
        if record and record.n_positive is not None and len(contest.labels) == 1
        else ""
    )
    names = list(contest.results)
    return f"{join_words(names) if len(names) <= 4 else f'{len(names)} models'} were compared{size}{events}."


def _model_tile(contest: Contest, name: str) -> Tile:
    record = contest.results[name].best("auroc", contest.headline)
    what = "AUROC" if contest.headline in contest.labels else f"AUROC, {contest.headline} average"
    if record is None or not is_known(record.value):
        return Tile(f"{name}: {what}", NOT_ESTIMABLE, "", record.note if record else "", "#discrimination", small=True)
    return Tile(
        f"{name}: {what}",
        metric_value("auroc", record.value),
        interval("auroc", record.low, record.high),
        f"95% interval: {method_title(record.method)}",
        "#discrimination",
    )


def _difference_tile(record: Comparison) -> Tile:
    shown, _, limits = difference(record).removesuffix(")").partition(" (")
    tested = f"p = {p_value(record.p_adjusted)}, corrected" if is_known(record.p_adjusted) else ""
    detail = "; ".join(part for part in (method_title(record.method), tested, record.note) if part)
    return Tile(
        f"Difference, {record.a} − {record.b}", shown, limits, detail.replace("p = <", "p < "), "#differences", small=shown == NOT_ESTIMABLE
    )


def _claims(contest: Contest) -> list[str]:
    """The first sentences, those about the headline before those about single labels."""
    head = contest.headline
    ordered = sorted(contest.facts.sentences, key=lambda sentence: f" of {head}:" not in sentence and not sentence.startswith(f"{head} "))
    return [typeset(sentence, contest.labels) for sentence in ordered[:MOST_CLAIMS]]


def _figures(contest: Contest) -> list[Figure]:
    label = contest.labels[0] if len(contest.labels) == 1 else ""
    return listed(
        difference_forest(contest, contest.headline) if len(contest.results) > 1 else auroc_forest(contest, contest.headline),
        roc_overlay(contest, label, "summary") if label else None,
        decision_overlay(contest, label, "summary") if label else None,
        None if label else auroc_forest(contest, contest.headline),
    )


def _cautions(contest: Contest) -> list[Caution]:
    found = []
    record = contest.first.first(contest.labels[0]) if contest.labels else None
    if record is not None and record.n_positive is not None and min(record.n_positive, record.n - record.n_positive) < MIN_EVENTS:
        text = f"{count(record.n_positive)} with and {count(record.n - record.n_positive)} without {contest.labels[0]}: fewer than {MIN_EVENTS} in one class. No difference shown is not equality shown."
        found.append(Caution("warning", "Small test set", text))
    kinds = {results.recalibration for results in contest.results.values()}
    if len(kinds) > 1:
        found.append(
            Caution(
                "info",
                "Different recalibrations",
                f"The models’ probabilities went through {join_words(sorted(kinds))}; differences in calibration and Brier score include that.",
            )
        )
    found.append(
        Caution(
            "info",
            "Patients vary here, trainings do not",
            "The intervals say how the difference would vary over patients. Another training of the same models, with another seed, would vary too.",
        )
    )
    return found
