"""Each combination that cannot be is refused with what came and what to do; its nearest neighbour is not."""

import pytest
from plan_cases import cohort, config, plan
from pydantic import ValidationError

from medcnn.errors import InputError
from medcnn.model.rules_checks import check_plan
from medcnn.plan import Plan

TWO_SITES = {"sites": {"A": 2500, "B": 2500}}
NO_FIT = {"calibration": {"method": "none"}, "evaluation": {"thresholds": [{"rule": "fixed", "value": 0.5}]}}
HOLDOUT_ALL = {"scheme": "holdout", "val_fraction": 0}


@pytest.mark.parametrize(
    ("facts", "sections", "message", "mended"),
    [
        ({}, {"split": {"scheme": "leave_site_out"}}, "names 0 sites.*set data.site_column", ({}, {"split": {"scheme": "kfold"}})),
        (
            {"sites": {"A": 5000}},
            {"split": {"scheme": "leave_site_out"}},
            "names 1 sites",
            (TWO_SITES, {"split": {"scheme": "leave_site_out"}}),
        ),
        ({}, {"split": {"unit": "site"}}, "split.unit is site", (TWO_SITES, {"split": {"unit": "site"}})),
        (
            {},
            {"training": {"epochs": 3, "minutes": 5}},
            "epochs is 3 and training.minutes is 5; expected one of them",
            ({}, {"training": {"minutes": 5}}),
        ),
        (
            {},
            {"model": {"name": "simple_cnn", "pretrained": True}},
            "no pretrained weights of simple_cnn",
            ({}, {"model": {"name": "resnet18", "pretrained": True}}),
        ),
        (
            {},
            {"split": {"scheme": "kfold"}, "training": {"select": "best"}},
            "select is best, which needs a validation part.*set split.val_fraction",
            ({}, {"split": {"scheme": "kfold", "val_fraction": 0.1}, "training": {"select": "best"}}),
        ),
        (
            {},
            {"split": {"scheme": "kfold"}, "training": {"patience": 2}},
            "patience is 2, which needs a validation part",
            ({}, {"split": {"scheme": "kfold_holdout"}, "training": {"patience": 2}}),
        ),
        (
            {},
            {"training": {"accumulate": 9, "batch_size": 8}},
            "accumulate is 9, more than training.batch_size 8",
            ({}, {"training": {"accumulate": 8, "batch_size": 8}}),
        ),
        (
            {},
            {"model": {"name": "vit_tiny_patch16_224", "pretrained": False, "lora_rank": 4}},
            "lora_rank is 4, but the weights are random",
            ({}, {"model": {"name": "vit_tiny_patch16_224", "lora_rank": 4}}),
        ),
        ({}, {"split": HOLDOUT_ALL}, "calibration and thresholds have no rows", ({}, {"split": HOLDOUT_ALL, **NO_FIT})),
        (
            {},
            {"training": {"loss": "asymmetric"}},
            "asymmetric",
            ({"task": "multilabel"}, {"training": {"loss": "asymmetric"}}),
        ),
    ],
)
def test_what_cannot_be_is_refused(facts, sections, message, mended):
    with pytest.raises(InputError, match=message):
        plan(cohort(**facts), **sections)
    plan(cohort(**mended[0]), **mended[1])


VAL = {"scheme": "holdout"}


@pytest.mark.parametrize(
    ("ladder", "model", "split", "message", "mended"),
    [
        ({"rungs": []}, "resnet18", VAL, "names no rung", {"rungs": ["main"]}),
        (
            {"rungs": ["prevalence", "shortcuts"]},
            "resnet18",
            VAL,
            "no rung that is trained.*simple_cnn",
            {"rungs": ["prevalence", "frozen"]},
        ),
        ({"rungs": ["main", "main"]}, "resnet18", VAL, "twice: main, main", {"rungs": ["main"]}),
        ({"rungs": ["frozen", "main"]}, "simple_cnn", VAL, "model.pretrained is false", {"rungs": ["main"]}),
        ({"rungs": ["main", "soup"]}, "resnet18", VAL, "n_seeds is 1", {"rungs": ["main", "soup"], "n_seeds": 2}),
        (
            {"rungs": ["main", "soup"], "n_seeds": 2},
            "resnet18",
            {"scheme": "kfold"},
            "chosen on validation patients, but there are none",
            {"rungs": ["main"], "n_seeds": 2},
        ),
        ({"rungs": ["main", "ensemble"]}, "resnet18", VAL, "would hold one", {"rungs": ["main", "ensemble"], "n_seeds": 2}),
        (
            {"rungs": ["prevalence", "ensemble"], "n_seeds": 2},
            "resnet18",
            VAL,
            "would hold one",
            {"rungs": ["simple_cnn", "ensemble"], "n_seeds": 2},
        ),
        ({"rungs": ["frozen", "ensemble"], "n_seeds": 2}, "resnet18", VAL, "would hold one", {"rungs": ["frozen", "main", "ensemble"]}),
        (
            {"rungs": ["main", "prevalence"], "headline": "ensemble"},
            "resnet18",
            VAL,
            r"headline is ensemble, which is not among ladder.rungs \(main, prevalence\)",
            {"rungs": ["main", "prevalence"], "headline": "main"},
        ),
    ],
)
def test_rungs_that_cannot_stand_are_refused(ladder, model, split, message, mended):
    with pytest.raises(InputError, match=message):
        plan(ladder=ladder, model={"name": model}, split=split)
    plan(ladder=mended, model={"name": model}, split=split)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({}, ""),
        ({"training.epochs": 77, "training.learning_rate": 0.5, "ladder.n_seeds": 2, "split.n_folds": 7}, ""),
        ({"split.scheme": "leave_site_out"}, "names 0 sites"),
        ({"split.unit": "site"}, "split.unit is site"),
        ({"split.scheme": "given"}, "the cohort brings no split"),
        ({"split.scheme": "holdout", "split.n_repeats": 2}, "n_repeats 2 needs scheme kfold"),
        ({"model.name": "simple_cnn"}, "no pretrained weights of simple_cnn"),
        ({"training.select": "best", "split.scheme": "kfold", "split.val_fraction": 0}, "select is best, which needs a validation part"),
        (
            {"training.select": "last", "simple_cnn.training.patience": 2, "split.scheme": "kfold", "split.val_fraction": 0},
            "patience is 2, which needs",
        ),
        ({"training.accumulate": 9, "training.batch_size": 8}, "accumulate is 9, more than"),
        ({"model.pretrained": False, "model.lora_rank": 4}, "lora_rank is 4, but the weights are random"),
        ({"split.scheme": "holdout", "split.val_fraction": 0, "training.select": "last"}, "calibration and thresholds have no rows"),
        ({"training.loss": "asymmetric"}, "asymmetric, which is for several findings"),
        ({"simple_cnn.training.loss": "ordinal"}, "ordinal, which is for classes in their order"),
        ({"ladder.rungs": ["main", "main"], "ladder.headline": "main"}, "twice: main, main"),
        ({"ladder.rungs": ["main", "soup"], "ladder.headline": "soup"}, "n_seeds is 1"),
        ({"ladder.rungs": ["main", "ensemble"], "ladder.headline": "main"}, "would hold one"),
        ({"model.pretrained": False}, "has frozen, which needs pretrained features"),
        ({"task": "multilabel"}, "task and labels are multilabel of ill, but the cohort's are binary of ill"),
        ({"labels": ["well"]}, "binary of well, but the cohort's are binary of ill"),
    ],
)
def test_an_edited_plan_is_checked_like_a_decided_one(edit, message):
    tree = plan(model={"name": "resnet18"}, split={"scheme": "holdout"}).model_dump(mode="json")
    for key, value in edit.items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place[section]
        assert name in place
        place[name] = value
    if not message:
        check_plan(Plan.model_validate(tree), cohort(), config())
        return
    with pytest.raises((InputError, ValidationError), match=message):
        check_plan(Plan.model_validate(tree), cohort(), config())


def test_weights_without_rows_to_fit_them_are_refused():
    sections = {"model": {"name": "resnet18"}, "split": HOLDOUT_ALL, **NO_FIT, "ladder": {"rungs": ["frozen", "main", "ensemble"]}}
    assert plan(**sections).ladder.weights == "equal"
    with pytest.raises(InputError, match=r"there are none; set ladder\.weights=equal"):
        plan(**{**sections, "ladder": {**sections["ladder"], "weights": "fitted"}})


def test_repeats_of_a_split_that_is_dealt_once_are_refused():
    found = cohort(parts={"train": 4000, "test": 1000})
    assert plan(found, split={"n_repeats": 2}).split.scheme == "kfold_holdout"  # auto finds what repeats need
