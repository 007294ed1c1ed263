"""The checklist follows the facts: an item is stated when it is, and for the author when only the author knows."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from medcnn.report.checklist import ITEMS, fill_checklist
from medcnn.report.facts import Energy, RunFacts
from medcnn.report.html import report_sections
from medcnn.report.reading import read_facts

Facts = Callable[..., RunFacts]


def statuses(facts: RunFacts) -> dict[str, str]:
    return {row.text: row.status for row in fill_checklist(read_facts(facts))}


def test_every_item_points_to_a_section_that_exists(facts_of: Facts) -> None:
    known = {"summary", *(section.id for section in report_sections(read_facts(facts_of())))}
    items = [item for items in ITEMS.values() for item in items]
    assert len(items) > 35
    assert {item.section for item in items} <= known
    assert len({item.text for item in items}) == len(items)


def test_a_run_states_what_it_knows(facts_of: Facts) -> None:
    found = statuses(facts_of())
    for text in (
        "Flow with the numbers in and out",
        "Calibration plot",
        "AUROC with its interval, and the ROC curve",
        "Performance before and after recalibration",
    ):
        assert found[text] == "stated", text
    for text in ("Intended use, place in the care pathway, intended users", "Rationale of the test set’s size", "Devices and acquisition"):
        assert found[text] == "author", text


@pytest.mark.parametrize(
    ("change", "text", "status"),
    [
        ({"flow": None}, "Flow with the numbers in and out", "author"),
        ({"ledger": ()}, "How often the test set was opened", "absent"),
        ({"thresholds": ()}, "Thresholds: definition, rationale, set beforehand or explored", "author"),
        ({"errors": ()}, "Errors, with examples", "author"),
        ({"errors": ()}, "Saliency only with its validation", "stated"),
        ({"external": True}, "Performance elsewhere: external testing or internal-external validation, or why not", "stated"),
        ({"ladder": ()}, "How the final model was selected", "author"),
        ({"ladder": ()}, "Ensembling: how the predictions of several models were joined", "absent"),
        ({"ladder": ()}, "How far chance in training moves the results", "absent"),
        ({"ladder": ()}, "Simpler models on the same rows, one of which sees no disease", "absent"),
        ({"stamps": ()}, "Time and memory that training and prediction took", "absent"),
        ({"energy": Energy(watt_hours=5.0)}, "Energy and carbon", "stated"),
        ({"model": {}}, "Model, its version and the origin of its weights", "author"),
    ],
)
def test_an_item_follows_its_fact(facts_of: Facts, change: dict[str, object], text: str, status: str) -> None:
    facts = facts_of()
    assert statuses(replace(facts, **change))[text] == status  # type: ignore[arg-type]
    assert statuses(facts)[text] != status


def test_a_run_without_curves_states_no_plot(facts_of: Facts) -> None:
    facts = facts_of()
    found = statuses(replace(facts, curves=facts.curves.iloc[:0], records=[r for r in facts.records if r.metric != "oe_ratio"]))
    assert found["Calibration plot"] == "absent"
    assert found["Decision curve with treat all and treat none"] == "absent"
    assert found["O:E, calibration intercept and slope with intervals"] == "absent"
