"""Every refusal, and recipes next to it that are allowed."""

import pytest
from model_cases import training_plan

from medcnn.errors import InputError
from medcnn.model.recipe import check_recipe
from medcnn.tables import Task


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("binary", {"loss": "asymmetric"}, "asymmetric, which is for several findings per image, but the task is binary; use focal"),
        ("multiclass", {"loss": "asymmetric"}, "asymmetric, which is for several findings"),
        ("binary", {"loss": "ordinal"}, "ordinal, which is for classes in their order, but the task is binary"),
        ("multilabel", {"loss": "ordinal"}, "ordinal, which is for classes in their order"),
        ("multiclass", {"loss": "ordinal", "label_smoothing": 0.1}, "ordinal, for which label smoothing is not defined"),
        ("multilabel", {"loss": "asymmetric", "label_smoothing": 0.1}, "asymmetric, for which label smoothing is not defined"),
        ("multiclass", {"loss": "ordinal", "mixup": 0.2}, "ordinal, for which a blend of two classes is not defined"),
        ("multiclass", {"loss": "ordinal", "cutmix": 0.2}, "ordinal, for which a blend of two classes is not defined"),
        ("binary", {"loss": "focal", "imbalance": "logit_adjusted"}, "focal, but training.imbalance=logit_adjusted is derived for"),
        ("multiclass", {"loss": "ordinal", "imbalance": "logit_adjusted"}, "ordinal, but training.imbalance=logit_adjusted"),
        ("binary", {"mixup": 0.2, "batch_size": 1}, "need at least 2 images per step"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(task: Task, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_recipe(training_plan(**changes), task)


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("binary", {"loss": "focal", "label_smoothing": 0.1, "mixup": 0.2, "cutmix": 1.0, "imbalance": "class_balanced"}),
        ("multiclass", {"loss": "ordinal", "imbalance": "class_balanced"}),
        ("multilabel", {"loss": "asymmetric", "imbalance": "loss_weights", "mixup": 0.2}),
        ("multilabel", {"imbalance": "logit_adjusted", "label_smoothing": 0.1, "cutmix": 0.2}),
    ],
)
def test_recipes_that_make_sense_are_not(task: Task, changes: dict[str, object]) -> None:
    check_recipe(training_plan(**changes), task)
