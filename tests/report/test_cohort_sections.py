"""Each way of dealing patients, in the words, boxes and tables of the report."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from medcnn.report.blocks import Text
from medcnn.report.cohort_sections import _part_boxes, data_section
from medcnn.report.facts import RunFacts
from medcnn.report.prose import methods_paragraph
from medcnn.report.reading import read_facts

Facts = Callable[..., RunFacts]


def dealt(facts: RunFacts, parts: list[str], n_patients: list[int], n: int, **split: Any) -> RunFacts:
    """Facts of a run whose every fold has these parts."""
    assert facts.plan is not None
    plan = facts.plan.model_copy(update={"split": facts.plan.split.model_copy(update=split)})
    one = pd.DataFrame({"part": parts, "n_images": [2 * n for n in n_patients], "n_patients": n_patients, "n_positive_pneumonia": 10})
    counts = pd.concat([one.assign(fold=fold) for fold in range(n)], ignore_index=True)
    table = pd.DataFrame({"image_id": "i", "patient_id": "p", "part": "train", "fold": range(n)})
    table.attrs["notes"] = ["12 patients share identical images and were dealt as 5 units."]
    return replace(facts, plan=plan, counts=counts, split=table)


@pytest.mark.parametrize(
    ("n_folds", "split", "sentence", "boxes"),
    [
        (
            10,
            {"scheme": "kfold", "n_folds": 5, "n_repeats": 2},
            "Patients were dealt to 5 folds, stratified by label, 2 times; all images of a patient stayed in one part.",
            [("5-fold cross-validation, 2 times", ["each of 100 patients tested once each time", "200 images"])],
        ),
        (
            4,
            {"scheme": "kfold", "n_folds": 4, "unit": "site"},
            "Sites were dealt to 4 folds, stratified by label (internal-external validation, doi:10.1136/bmj-2023-074819); all patients of a site stayed in one part.",
            [("4-fold cross-validation", ["each of 100 patients tested once", "200 images"])],
        ),
        (
            5,
            {"scheme": "kfold_holdout"},
            "One test part was set aside, the same for every model; all other patients were dealt to 5 folds, stratified by label, "
            "and each fold was the tuning part of one model; all images of a patient stayed in one part.",
            [
                ("5 folds", ["80 patients", "each tunes one model", "and trains the others"]),
                ("Internal test", ["20 patients", "40 images", "the same for every model"]),
            ],
        ),
        (
            4,
            {"scheme": "leave_site_out"},
            "Each site was tested by a model that was trained at the other sites (internal-external validation, doi:10.1136/bmj-2023-074819); "
            "all images of a patient stayed in one part.",
            [("4 sites, each left out once", ["each of 100 patients tested once", "by a model of the other sites", "200 images"])],
        ),
    ],
)
def test_each_scheme_in_words_and_boxes(
    facts_of: Facts, n_folds: int, split: dict[str, Any], sentence: str, boxes: list[tuple[str, list[str]]]
) -> None:
    n_tested = 100 // split.get("n_folds", n_folds)
    facts = dealt(facts_of(), ["train", "val", "test"], [85 - n_tested, 15, n_tested], n_folds, **split)
    assert sentence in methods_paragraph(read_facts(facts)).text
    assert [(box.title, list(box.lines)) for box in _part_boxes(facts)] == boxes


def words_of(facts: RunFacts) -> str:
    return str(data_section(read_facts(facts)))


def test_what_was_noted_when_the_split_was_made_is_said(facts_of: Facts) -> None:
    said = words_of(dealt(facts_of(), ["train", "test"], [80, 20], 5, scheme="kfold"))
    assert "12 patients share identical images and were dealt as 5 units." in said
    assert "Fold 4, training" in said and "first repeat" not in said


def test_only_the_first_repeat_is_listed(facts_of: Facts) -> None:
    said = words_of(dealt(facts_of(), ["train", "test"], [80, 20], 10, scheme="kfold", n_repeats=2))
    assert "Fold 4, training" in said and "Fold 5" not in said
    assert "the folds of the first repeat; counts.csv has them all" in said


def test_the_split_is_named_by_its_hash(facts_of: Facts) -> None:
    facts = replace(facts_of(), split_hash="0123456789abcdef" * 4)

    def said(shown: RunFacts) -> str:
        return " ".join(block.text for block in data_section(read_facts(shown)).blocks if isinstance(block, Text))

    assert "sha256 begins with 0123456789ab; runs that share it" in said(facts)
    assert "sha256" not in said(replace(facts, split_hash=""))
