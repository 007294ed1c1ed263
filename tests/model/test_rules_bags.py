"""When labels are taken to be of slides, what a bag is then, and which numbers would count one answer many times."""

from typing import Any

import pytest
from plan_cases import cohort, plan

from medcnn.errors import InputError

SLIDES = {"tiled": 1, "n_studies": 100, "n_mixed_studies": 0, "n_patients": 80, "n_mixed_patients": 0}


def slides(**extra: int) -> Any:
    return cohort(n_patients=80, extra={**SLIDES, **extra})


def test_labels_of_slides_have_their_own_ladder() -> None:
    decided = plan(slides())
    assert decided.ladder.rungs == ("prevalence", "shortcuts", "frozen", "mil")
    assert (decided.ladder.headline, decided.ladder.bag) == ("mil", "study")
    assert decided.evaluation.levels == ("study", "patient")  # 80 patients have 100 slides
    assert "100 slides, not of their 5000 tiles" in decided.reasons["ladder.rungs"]
    assert "80 patients have 100 studies" in decided.reasons["evaluation.levels"]
    assert plan(cohort(n_patients=100, extra=SLIDES)).evaluation.levels == ("study",)


@pytest.mark.parametrize("extra", [{"tiled": 0}, {"n_studies": 0}, {"n_mixed_studies": 3}, {"n_studies": 5000}])
def test_images_with_their_own_labels_keep_theirs(extra: dict[str, int]) -> None:
    decided = plan(slides(**extra))
    assert "mil" not in decided.ladder.rungs
    assert decided.evaluation.levels == ("image",)


def test_without_weights_slides_are_still_what_is_evaluated() -> None:
    decided = plan(slides(), model={"name": "simple_cnn"})
    assert "mil" not in decided.ladder.rungs
    assert decided.evaluation.levels[0] == "study"


def test_several_findings_of_a_slide_are_no_mil() -> None:
    two = {
        "task": "multilabel",
        "labels": ("a", "b"),
        **{name: {"a": 900, "b": 900} for name in ("n_labelled", "n_positive", "n_positive_patients")},
    }
    found = cohort(n_patients=80, extra=SLIDES, prevalence={"a": 0.3, "b": 0.3}, **two)
    assert "mil" not in plan(found).ladder.rungs
    with pytest.raises(InputError, match="task is multilabel"):
        plan(found, ladder={"rungs": ["mil"]})


def test_bags_are_patients_where_no_study_is_named() -> None:
    decided = plan(cohort(extra={"n_studies": 0}), ladder={"rungs": ["frozen", "mil"]})
    assert (decided.ladder.bag, decided.evaluation.levels) == ("patient", ("patient",))


@pytest.mark.parametrize(
    ("sections", "extra", "words"),
    [
        ({"model": {"pretrained": False}}, {}, "model.pretrained is false"),
        ({"ladder": {"bag": "study"}}, {"n_studies": 0}, "names no study for every image"),
        ({"evaluation": {"levels": ["image", "study"]}}, {}, "levels starts with image"),
        ({"evaluation": {"aggregation": "noisy_or"}}, {}, "noisy_or"),
    ],
)
def test_bags_that_would_mislead_are_refused(sections: dict[str, Any], extra: dict[str, int], words: str) -> None:
    ladder = {"rungs": ["mil"], **sections.pop("ladder", {})}
    with pytest.raises(InputError, match=words):
        plan(slides(**extra), ladder=ladder, **sections)


def test_a_slide_of_two_classes_has_none() -> None:
    three = {name: {"a": 900, "b": 900, "c": 900} for name in ("n_labelled", "n_positive", "n_positive_patients")}
    facts: dict[str, Any] = {"task": "multiclass", "labels": ("a", "b", "c"), "prevalence": {"a": 0.3, "b": 0.3, "c": 0.4}, **three}
    with pytest.raises(InputError, match="7 studies have images of different classes"):
        plan(cohort(n_patients=80, extra={**SLIDES, "n_mixed_studies": 7}, **facts), ladder={"rungs": ["mil"]})
    binary = plan(slides(n_mixed_studies=7), ladder={"rungs": ["mil"]})  # one ill tile makes a slide ill
    assert binary.evaluation.levels[0] == "study"


def test_levels_that_are_asked_for_are_kept() -> None:
    assert plan(slides(), evaluation={"levels": ["patient"]}).evaluation.levels == ("patient",)
    assert plan(evaluation={"levels": ["patient", "image"]}).evaluation.levels == ("patient", "image")
