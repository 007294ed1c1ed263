"""Each combination that cannot be is refused with what came and what to do; its nearest neighbour is not."""

import pytest
from plan_cases import cohort, plan

from medcnn.errors import InputError

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


def test_repeats_of_a_split_that_is_dealt_once_are_refused():
    found = cohort(parts={"train": 4000, "test": 1000})
    assert plan(found, split={"n_repeats": 2}).split.scheme == "kfold_holdout"  # auto finds what repeats need
