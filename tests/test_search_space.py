"""The space that a search may try: what each key takes, and what is refused before anything is trained."""

from typing import Any

import pytest

from medcnn.config import Config
from medcnn.config_file import build_config
from medcnn.errors import InputError
from medcnn.search_space import Dimension, nested, read_space, with_values


def config_of(space: dict[str, Any]) -> Config:
    return build_config({"name": "x", "data": {"source": "phantom"}, "search": {"space": space}}, source="test")


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("training.learning_rate", [1e-4, 1e-2], {"low": 1e-4, "high": 1e-2}),
        ("training.label_smoothing", [0, 0.2], {"low": 0.0, "high": 0.2}),
        ("training.epochs", [2, 9], {"low": 2.0, "high": 9.0, "whole": True}),
        ("training.batch_size", [16, 32, 64], {"choices": (16, 32, 64)}),
        ("training.mixup", [0, 0.2, 1], {"choices": (0.0, 0.2, 1.0)}),
        ("training.freeze_backbone", [True, False], {"choices": (True, False)}),
        ("training.loss", ["focal", "cross_entropy"], {"choices": ("focal", "cross_entropy")}),
        ("augment.policy", ["none", "xray"], {"choices": ("none", "xray")}),
    ],
)
def test_a_dimension_is_what_the_key_takes(key: str, values: list[Any], expected: dict[str, Any]) -> None:
    found = read_space(config_of({key: values}))
    assert found == [Dimension(key, **expected)]
    assert [type(choice) for choice in found[0].choices] == [type(choice) for choice in expected.get("choices", ())]


def test_the_default_space_is_a_space() -> None:
    space = read_space(build_config({"name": "x", "data": {"source": "phantom"}}, source="test"))
    assert [dimension.log for dimension in space] == [True, True, True, False]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "search.space is empty"),
        ({"training.learning_rat": [0.1, 0.2]}, "training.learning_rat is not a known key; did you mean training.learning_rate"),
        ({"trainin.learning_rate": [0.1, 0.2]}, "trainin.learning_rate is not searched; expected keys of augment, model, training"),
        ({"training": [0.1, 0.2]}, "training is not searched"),
        ({"split.n_folds": [2, 5]}, "split.n_folds is not searched"),
        ({"image.size_px": [64, 128]}, "images and split stay the same"),
        ({"training.device": ["cpu", "cuda"]}, "training.device is not searched"),
        ({"training.epochs": [1.5, 4]}, "training.epochs: expected two whole numbers"),
        ({"training.epochs": [1, 2.5, 4]}, "training.epochs: expected a valid integer.*got 2.5"),
        ({"training.epochs": [0, 4]}, "training.epochs: .*greater than or equal to 1.*got 0"),
        ({"training.learning_rate": [0.2, 0.1]}, "expected two numbers .* low < high"),
        ({"training.learning_rate": [0.1, 0.1]}, "expected two numbers .* low < high"),
        ({"training.learning_rate": [0.1]}, "different choices, got \\[0.1\\]"),
        ({"training.learning_rate": [0.1, 0.2, 0.1]}, "different choices"),
        ({"training.learning_rate": ["a", "b", "c"]}, "training.learning_rate: .*got 'a'"),
        ({"training.label_smoothing": [0.0, 0.7]}, "training.label_smoothing: .*less than 0.5.*got 0.7"),
        ({"training.loss": ["focal", "hinge"]}, "training.loss: .*got 'hinge'"),
        ({"training.freeze_backbone": [0.2, 0.4]}, "training.freeze_backbone: expected a valid boolean"),
    ],
)
def test_what_cannot_be_searched_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_space(config_of(space))


def test_values_settle_within_the_range_and_read_as_they_are_written() -> None:
    rate = Dimension("training.learning_rate", 0.000123446, 0.0123456)
    assert rate.settle(0.0012345678) == 0.001235
    assert rate.settle(0.0123456) == 0.0123456 and rate.settle(0.000123446) == 0.000123446  # four digits would leave the range
    assert Dimension("training.epochs", 1, 9, whole=True).settle(3) == 3
    assert Dimension("training.freeze_backbone", choices=(True, False)).settle(True) is True


def test_values_go_into_the_config() -> None:
    config = with_values(config_of({}), {"training.epochs": 3, "augment.strength": 0.5, "training.loss": "focal"})
    assert (config.training.epochs, config.augment.strength, config.training.loss) == (3, 0.5, "focal")
    assert nested({"training.epochs": 3, "augment.strength": 0.5, "training.loss": "focal"}) == {
        "training": {"epochs": 3, "loss": "focal"},
        "augment": {"strength": 0.5},
    }
