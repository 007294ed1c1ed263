"""The ladder's section: every rung with its numbers and its cost, sentences that follow the intervals, the alert on shortcuts."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from medcnn.config import LadderConfig
from medcnn.evaluation.ensemble_weights import EnsembleWeights, FoldWeights
from medcnn.evaluation.estimates import Estimate
from medcnn.evaluation.selection import Selection
from medcnn.evaluation.significance import Difference
from medcnn.report.blocks import Bullets, Cell, Figures, Table, Text
from medcnn.report.diagrams import cost_chart
from medcnn.report.facts import RunFacts, RungFacts
from medcnn.report.html import build_report
from medcnn.report.ladder_sections import ladder_section
from medcnn.report.ladder_words import OVERTURNED, headline_of, ladder_methods, ladder_results, ladder_sentences, shortcut_alert
from medcnn.report.prose import methods_paragraph, results_paragraph
from medcnn.report.reading import read_facts

Facts = Callable[..., RunFacts]


def with_rung(facts: RunFacts, name: str, **changes: object) -> RunFacts:
    """The facts with one rung's numbers (AUROC, differences) or cost changed."""
    own = {key: changes.pop(key) for key in ("auroc", "to_previous", "to_headline", "single") if key in changes}

    def changed(rung: RungFacts) -> RungFacts:
        return replace(rung, numbers=replace(rung.numbers, **own), **changes) if rung.name == name else rung  # type: ignore[arg-type]

    return replace(facts, ladder=[changed(rung) for rung in facts.ladder])


def blocks_of(facts: RunFacts, kind: type) -> Sequence[object]:
    return [block for block in ladder_section(read_facts(facts)).blocks if isinstance(block, kind)]


def text_of(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else f"{cell.text} {cell.small}"


def test_each_rung_has_a_row_with_its_numbers_and_its_cost(facts_of: Facts) -> None:
    facts = facts_of()
    kinds, numbers = (table for table in blocks_of(facts, Table) if isinstance(table, Table))
    assert len(kinds.rows) == len(numbers.rows) == len(facts.ladder) == 6
    for rung, about, row in zip(facts.ladder, kinds.rows, numbers.rows, strict=True):
        found = rung.numbers
        assert text_of(row[1]).startswith(f"{found.auroc.value:.3f} {found.auroc.low:.3f} to {found.auroc.high:.3f}")
        for cell, estimate in zip(row[3:5], (found.brier, found.log_loss), strict=True):
            assert text_of(cell).startswith(f"{estimate.value:.3f}")
        assert text_of(row[5]).startswith(f"{100 * found.accuracy.value:.1f}%")
        assert text_of(about[0]).split()[0] == text_of(row[0]).split()[0]
    assert text_of(kinds.rows[2][2]) == "35 s"
    assert text_of(kinds.rows[0][2]) == "none"
    assert text_of(numbers.rows[0][2]) == "–"
    step = facts.ladder[2].numbers.to_previous
    assert text_of(numbers.rows[2][2]) == f"+{step.difference:.3f} {step.low:.3f} to {step.high:.3f}"
    assert list(numbers.strong_rows) == list(kinds.strong_rows) == [5]


def test_charts_show_the_estimable_rungs(facts_of: Facts) -> None:
    facts = with_rung(facts_of(), "frozen", auroc=Estimate(value=None, note="not estimable: one class only"))
    forest, cost = (figure for block in blocks_of(facts, Figures) for figure in block.figures)
    assert list(forest.numbers["subgroup"]) == ["Prevalence", "Shortcuts", "Frozen features", "Small network", "Main model", "Ensemble"]
    assert np.isnan(forest.numbers["value"].to_numpy(dtype=float)[2])
    assert list(cost.numbers["name"]) == ["Small network", "Main model", "Ensemble"]
    assert list(cost.numbers["cost"]) == [410.0, 5200.0, 5645.0]
    nobody = replace(facts, ladder=[replace(rung, cpu_seconds=None) for rung in facts.ladder])
    assert len(blocks_of(nobody, Figures)) == 1


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.07, "From the small network to the main model the AUROC rises: +0.040 (0.010 to 0.070)"),
        (-0.07, -0.01, "From the small network to the main model the AUROC falls: −0.040 (−0.070 to −0.010)"),
        (-0.01, 0.05, "From the small network to the main model no difference in AUROC is shown: +0.020 (−0.010 to 0.050)"),
    ],
)
def test_what_a_rung_buys_follows_the_interval(facts_of: Facts, low: float, high: float, words: str) -> None:
    facts = with_rung(facts_of(), "main", to_previous=Difference(difference=(low + high) / 2, low=low, high=high))
    (said,) = [sentence for sentence in ladder_sentences(facts) if sentence.startswith("From the small")]
    assert said == f"{words}; 1 h 26 min of CPU time in training instead of 6 min 50 s and 10 models to ask instead of 5."


def test_the_cheapest_rung_that_is_not_shown_to_be_worse(facts_of: Facts) -> None:
    facts = with_rung(facts_of(), "main", to_headline=Difference(difference=-0.1, low=-0.2, high=-0.01))
    assert any(sentence.startswith("Every other rung is shown to be worse") for sentence in ladder_sentences(facts))
    near = with_rung(facts, "frozen", to_headline=Difference(difference=-0.03, low=-0.07, high=0.01))
    (said,) = [sentence for sentence in ladder_sentences(near) if sentence.startswith("The cheapest")]
    assert "is frozen features: 35 s of CPU time in training instead of 1 h 34 min" in said
    assert said.endswith("−0.030 (−0.070 to 0.010).")
    also = with_rung(near, "simple_cnn", to_headline=Difference(difference=-0.01, low=-0.05, high=0.03))
    assert [sentence for sentence in ladder_sentences(also) if sentence.startswith("The cheapest")] == [said]
    dear = with_rung(near, "frozen", cpu_seconds=9000.0)
    assert not any(sentence.startswith(("The cheapest", "Every other")) for sentence in ladder_sentences(dear))


def test_a_prevalence_below_one_half_is_explained(facts_of: Facts) -> None:
    def note(value: float) -> str:
        table = blocks_of(with_rung(facts_of(), "prevalence", auroc=Estimate(value=value, low=0.3, high=0.55)), Table)[1]
        assert isinstance(table, Table)
        return table.note

    assert "over folds it can fall below" in note(0.43)
    assert "over folds" not in note(0.5)


def test_the_headline_was_named_beforehand(facts_of: Facts) -> None:
    facts = facts_of()
    assert headline_of(facts.ladder).name == "ensemble"
    assert (
        "named before the test part was opened, by the rule that the last rung is the headline; it was not chosen"
        in ladder_sentences(facts)[0]
    )
    asked = replace(facts, config=facts.config.model_copy(update={"ladder": LadderConfig(headline="ensemble")}))
    assert "opened, in the config;" in ladder_sentences(asked)[0]


def test_chance_and_choice_are_told(facts_of: Facts) -> None:
    found = Selection(
        best="main", naive=0.934, corrected=Estimate(value=0.921, low=0.89, high=0.95), picked={"frozen": 0.38, "main": 0.62}, n=400, n_patients=400
    )  # fmt: skip
    facts = replace(facts_of(), selection=found)
    said = " ".join(ladder_sentences(facts))
    assert "Main model: single models reach an AUROC of 0.910 on average (SD 0.008, 5 models)" in said
    assert "would choose the main model, in 62% of the resamples. Its AUROC of 0.934 there is too good" in said
    assert "corrected for the choice it is 0.921 (0.890 to 0.950)" in said
    table = blocks_of(facts, Table)[-1]
    assert [list(row) for row in table.rows] == [["Main model", "62%"], ["Frozen features", "38%"]]
    assert "corrected" not in " ".join(ladder_sentences(facts_of()))


def test_the_weights_of_an_ensemble_are_told(facts_of: Facts) -> None:
    def weights(how: str, *shares: float) -> EnsembleWeights:
        folds = [FoldWeights(part="test", fold=k, weights={"main": share, "frozen": 1 - share}) for k, share in enumerate(shares)]
        fitted_on = "out-of-fold predictions of the other folds" if how == "fitted" else ""
        return EnsembleWeights(how=how, folds=tuple(folds), fitted_on=fitted_on)

    fitted = with_rung(facts_of(), "ensemble", weights=weights("fitted", 0.96, 0.98))
    (said,) = [sentence for sentence in ladder_sentences(fitted) if "weights" in sentence]
    assert "lowest log-loss on out-of-fold predictions of the other folds, without the patients whom the fold tests: " in said
    assert "the main model 0.970 (0.960 to 0.980 over the folds) and frozen features 0.030 (0.020 to 0.040 over the folds);" in said
    assert (
        "the weighted mean of 20 models (weights of the lowest log-loss on out-of-fold predictions of the other folds)."
        in ladder_methods(fitted)
    )
    assert "the weighted mean of the predictions of all trained models" in build_report(fitted)
    once = with_rung(facts_of(), "ensemble", weights=weights("fitted", 0.9))
    assert any("the main model 0.900 and frozen features 0.100;" in sentence for sentence in ladder_sentences(once))
    equal = with_rung(facts_of(), "ensemble", weights=weights("equal", 0.5))
    assert any(
        "weighs its rungs alike, whatever their quality: a weak rung pulls it down" in sentence for sentence in ladder_sentences(equal)
    )
    assert "the mean of 20 models." in ladder_methods(equal)
    assert not any("weigh" in sentence for sentence in ladder_sentences(facts_of()))  # a run that is older than weights


# ---------------------------------------------------------------- shortcuts


@pytest.mark.parametrize(
    ("shortcuts", "headline", "alarmed"),
    [
        ((0.80, 0.76, 0.84), (0.87, 0.85, 0.89), False),
        ((0.84, 0.80, 0.86), (0.87, 0.85, 0.89), True),
        ((0.95, 0.93, 0.97), (0.87, 0.85, 0.89), True),
        ((0.86, None, None), (0.87, 0.85, 0.89), True),
        ((None, None, None), (0.87, 0.85, 0.89), False),
    ],
)
def test_shortcuts_that_do_as_well_stand_at_the_very_top(facts_of: Facts, shortcuts: tuple, headline: tuple, alarmed: bool) -> None:
    facts = with_rung(facts_of(), "shortcuts", auroc=Estimate(value=shortcuts[0], low=shortcuts[1], high=shortcuts[2]))
    facts = with_rung(facts, "ensemble", auroc=Estimate(value=headline[0], low=headline[1], high=headline[2]))
    assert bool(shortcut_alert(facts)) == alarmed
    html = build_report(facts)
    assert (OVERTURNED in html) == alarmed
    assert any(isinstance(block, Text) and block.tone == "caution" for block in ladder_section(read_facts(facts)).blocks) == alarmed
    if alarmed:
        assert html.index(OVERTURNED) < html.index("gives a probability") < html.index('class="tiles')


def test_no_alert_without_a_ladder_or_where_shortcuts_are_the_headline(facts_of: Facts) -> None:
    facts = facts_of()
    assert shortcut_alert(replace(facts, ladder=())) == ""
    alone = [replace(rung, numbers=replace(rung.numbers, to_headline=None)) for rung in facts.ladder if rung.name == "shortcuts"]
    assert shortcut_alert(replace(facts, ladder=alone)) == ""


# ---------------------------------------------------------------- text for a manuscript


def test_the_manuscript_names_the_other_rungs(facts_of: Facts) -> None:
    facts = facts_of()
    reading = read_facts(facts)
    assert ladder_methods(facts) in methods_paragraph(reading).text
    assert (
        "the ensemble was named as the headline before the test part was opened. Its prediction is the mean of 20 models."
        in ladder_methods(facts)
    )
    assert ladder_results(facts) in results_paragraph(reading).text
    assert f"{facts.ladder[2].numbers.auroc.value:.3f}" in ladder_results(facts)
    bare = replace(facts, ladder=())
    assert ladder_methods(bare) == ladder_results(bare) == ""
    assert "On the same split" not in methods_paragraph(read_facts(bare)).text


@pytest.mark.parametrize("imbalance", ["loss_weights", "class_balanced", "logit_adjusted", "oversample"])
def test_each_remedy_for_imbalance_has_words(facts_of: Facts, imbalance: str) -> None:
    facts = facts_of()
    training = facts.plan.training.model_copy(update={"imbalance": imbalance})
    text = methods_paragraph(read_facts(replace(facts, plan=facts.plan.model_copy(update={"training": training})))).text
    assert "Class imbalance was met with" in text


def test_several_labels_have_a_macro_auroc(facts_of: Facts) -> None:
    facts = facts_of(labels=("effusion", "mass"), n=300)
    table = blocks_of(facts, Table)[1]
    assert table.columns[1] == "AUROC, macro"
    assert isinstance(blocks_of(facts, Bullets)[0], Bullets)


# ---------------------------------------------------------------- names that would touch


def test_names_in_the_cost_chart_do_not_touch() -> None:
    points = [
        ("first", 1000.0, 0.900, 0.5, 1.0),
        ("second", 1050.0, 0.901, 0.5, 1.0),
        ("third", 1100.0, 0.899, 0.5, 1.0),
        ("far", 10.0, 0.9, None, None),
    ]
    svg = str(cost_chart(points, axis_title="CPU seconds", id="cost").svg)
    places = {name: float(y) for y, name in re.findall(r'<text class="quiet" x="[\d.]+" y="([\d.]+)"[^>]*>(\w+)</text>', svg)}
    heights = sorted(places[name] for name in ("first", "second", "third"))
    assert min(np.diff(heights)) > 12
    circles = [float(value) for value in re.findall(r'<circle[^>]*cy="([\d.]+)"', svg)]
    assert abs(places["far"] - 4 - circles[3]) < 0.2  # nothing near it: beside its point
    assert "AUROC against CPU seconds" in svg
