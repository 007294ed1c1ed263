"""Calibration in words, and the cautions."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medcnn.cohort import Finding
from medcnn.plan import SplitPlan
from medcnn.report.checklist import fill_checklist
from medcnn.report.cohort_sections import methods_section
from medcnn.report.facts import CURVE_COLUMNS, RunFacts, SearchFacts
from medcnn.report.html import build_report
from medcnn.report.lookup import Results
from medcnn.report.prose import methods_paragraph
from medcnn.report.reading import read_facts
from medcnn.report.words import calibration_verdict, cautions, part_name, rule_words, search_words
from medcnn.tables import Record

Facts = Callable[..., RunFacts]
Interval = tuple[float | None, float | None]


def results(intercept: Interval, slope: Interval) -> Results:
    records = [
        Record(metric="calibration_intercept", label="x", value=0.1, low=intercept[0], high=intercept[1]),
        Record(metric="calibration_slope", label="x", value=0.8, low=slope[0], high=slope[1]),
        Record(metric="oe_ratio", label="x", value=1.1, low=0.9, high=1.3),
    ]
    return Results(records, pd.DataFrame(columns=list(CURVE_COLUMNS)))


@pytest.mark.parametrize(
    ("intercept", "slope", "word", "said"),
    [
        ((-0.2, 0.3), (0.8, 1.3), "No departure shown", "agree within the uncertainty"),
        ((0.1, 0.3), (0.8, 1.3), "Too low", "too low on average (observed to expected 1.10, 0.90 to 1.30)"),
        ((-0.3, -0.1), (0.8, 1.3), "Too high", "too high on average"),
        ((-0.2, 0.3), (0.5, 0.9), "Too extreme", "low ones too low, high ones too high"),
        ((-0.2, 0.3), (1.1, 1.3), "Too moderate", "low ones too high, high ones too low"),
        ((0.1, 0.3), (0.5, 0.9), "Too low and too extreme", "too low on average"),
        ((None, None), (0.5, 0.9), "Too extreme", "too extreme"),
    ],
)
def test_calibration_in_words(intercept: Interval, slope: Interval, word: str, said: str) -> None:
    if intercept == (None, None):
        made = results(intercept, slope)
        made.records = [record for record in made.records if record.metric != "oe_ratio"]
    else:
        made = results(intercept, slope)
    verdict, sentence = calibration_verdict(made, "x")
    assert verdict == word
    assert said in sentence


def test_no_interval_is_no_verdict() -> None:
    made = results((None, None), (None, None))
    made.records = [record for record in made.records if record.metric != "oe_ratio"]
    assert calibration_verdict(made, "x")[0] == "Not estimable"


def titles(facts: RunFacts) -> Sequence[str]:
    reading = read_facts(facts)
    return [caution.title for caution in cautions(facts, reading.results)]


def test_errors_come_first(facts_of: Facts) -> None:
    facts = facts_of()
    grave = Finding(severity="error", kind="patient_in_two_parts", text="3 patients.", todo="")
    quiet = Finding(severity="info", kind="sizes", text="Many sizes.", todo="")
    found = titles(replace(facts, findings=[quiet, *facts.findings, grave]))
    assert found[:2] == ["Audit: patient in two parts", "Audit: shortcut"]
    assert not any("sizes" in title for title in found)


def test_the_ledger_counts(facts_of: Facts) -> None:
    facts = facts_of()
    assert "Test set opened 2 times" in titles(facts)
    assert not any("opened" in title for title in titles(replace(facts, ledger=facts.ledger[:1])))


def test_certainty_is_counted(facts_of: Facts) -> None:
    facts = facts_of(rich=False)
    assert facts.predictions is not None
    certain = facts.predictions.assign(p_pneumonia=np.where(np.arange(400) < 3, 1.0, facts.predictions["p_pneumonia"]))
    assert "Probabilities of exactly 0 or 1" not in titles(facts)
    assert "Probabilities of exactly 0 or 1" in titles(replace(facts, predictions=certain))


def test_unknown_origin_of_thresholds_is_said(facts_of: Facts) -> None:
    assert "Thresholds" in titles(facts_of(rich=False))
    assert "Thresholds" not in titles(facts_of())


def test_parts_in_words() -> None:
    assert [part_name(part) for part in ("train", "val", "test")] == ["training", "tuning", "test"]
    assert part_name("test", testing="internal") == "internal test"
    assert part_name("test", testing="external") == "external test"
    assert part_name("test", testing="internal-external") == "internal-external validation"


@pytest.mark.parametrize(
    ("split", "testing"),
    [
        ({"scheme": "leave_site_out"}, "internal-external"),
        ({"scheme": "kfold", "unit": "site"}, "internal-external"),
        ({"scheme": "kfold"}, "internal"),
        ({"scheme": "holdout", "unit": "site"}, "internal"),  # one site or several, set aside once
    ],
)
def test_sites_that_are_left_out_in_turn_are_internal_external_validation(facts_of: Facts, split: dict[str, str], testing: str) -> None:
    facts = facts_of()
    facts = replace(facts, plan=facts.plan.model_copy(update={"split": SplitPlan(**split)}))
    assert facts.testing == testing
    assert replace(facts, external=True).testing == "external"
    assert replace(facts, plan=None).testing is None
    text = re.sub(r"<[^>]+>", " ", build_report(facts))
    found = fill_checklist(read_facts(facts))
    (elsewhere,) = [row.status for row in found if row.text.startswith("Performance elsewhere")]
    if testing == "internal":
        assert text.lower().count("internal-external") == 1  # in the checklist, as what was not done
        assert "Internal test only" in text and elsewhere == "author"
    else:
        assert "internal test" not in text.lower() and elsewhere == "stated"
        assert "It was evaluated by internal-external validation (each site by models of other sites): " in text
        assert "The sites of the internal-external validation held 400 images" in text
        assert "(internal-external validation, doi:10.1136/bmj-2023-074819)" in text
        assert "all sites are of one data collection" in text


@pytest.mark.parametrize(
    ("adopted", "words"),
    [
        (["a.b", "c.d"], "Before, 9 settings were tried. The model has the best of them."),
        (["a.b"], "Before, 9 settings were tried. Of the best of them a.b was adopted."),
        ([], "Before, 9 settings were tried. The best of them was not adopted."),
    ],
)
def test_a_search_is_stated_with_what_became_of_it(facts_of: Facts, adopted: list[str], words: str) -> None:
    facts = replace(facts_of(), search=SearchFacts(statement="Before, 9 settings were tried.", keys=["a.b", "c.d"], adopted=adopted))
    assert search_words(facts) == words
    assert words in str(methods_section(read_facts(facts)))
    assert words in methods_paragraph(read_facts(facts)).text
    item = "Tuning of hyper-parameters: which, on whom, how many settings"
    status = {row.text: row.status for row in fill_checklist(read_facts(facts))}
    assert status[item] == "stated"
    bare = facts_of()
    assert search_words(bare) == ""
    assert {row.text: row.status for row in fill_checklist(read_facts(bare))}[item] == "author"


def test_rules_in_words() -> None:
    assert rule_words("youden") == "the highest Youden index"
    assert rule_words("specificity 0.9") == "a specificity of at least 0.9"
    assert rule_words("what the committee said") == "what the committee said"


def test_recalibration_that_made_it_worse_is_said(facts_of: Facts) -> None:
    facts = facts_of()
    assert "Recalibration did not help here" not in titles(facts)
    worse = [
        replace(r, value=0.9) if r.metric == "brier" and r.recalibration == "temperature" and r.subset == "all" else r
        for r in facts.records
    ]
    reading = read_facts(replace(facts, records=worse))
    said = next(caution.text for caution in cautions(reading.facts, reading.results) if caution.title == "Recalibration did not help here")
    assert "to 0.900" in said


def test_a_note_on_the_headline_interval_is_passed_on(facts_of: Facts) -> None:
    facts = facts_of()
    noted = [replace(r, note="covers less than 95% here") if r.metric == "auroc" and r.method == "delong" else r for r in facts.records]
    assert "Interval of the AUROC" in titles(replace(facts, records=noted))
    assert "Interval of the AUROC" not in titles(facts)
