"""What a hyper-parameter search may change: keys of the config, each with a range or choices, checked before anything is trained."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from medcnn.config import Config
from medcnn.config_file import build_config
from medcnn.errors import InputError

Value = float | int | str | bool
SECTIONS = ("augment", "model", "training")  # what a trained model depends on, apart from the images
FIXED = {
    "model.weights", "training.minutes", "training.device", "training.n_workers", "training.compile", "training.checkpoint_minutes"
}  # fmt: skip
DIGITS = 4  # significant digits of a number that is tried: what is written down is what was trained


@dataclass(frozen=True)
class Dimension:
    """A key of the config and where it may lie: from low to high, or one of choices (then low and high are 0).

    whole: the number is an integer.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Value, ...] = ()
    whole: bool = False

    @property
    def log(self) -> bool:
        """Searched by its logarithm."""
        return self.low > 0

    def settle(self, value: Value) -> Value:
        """The value as it is trained and written down: an integer, or a number of four digits within the range."""
        if self.choices or isinstance(value, str | bool):
            return value
        return round(value) if self.whole else float(np.clip(float(f"{value:.{DIGITS}g}"), self.low, self.high))


def read_space(config: Config) -> list[Dimension]:
    """The config's search space. Raises InputError for an unknown key, a value that the key does not take, a range that is none."""
    if not config.search.space:
        raise InputError("search.space is empty; name at least one key, for instance training.learning_rate: [0.0003, 0.01]")
    space = [_dimension(key, values) for key, values in config.search.space.items()]
    for dimension in space:
        for value in dimension.choices or (dimension.low, dimension.high):
            with_values(config, {dimension.key: dimension.settle(value)})
    return space


def with_values(config: Config, values: Mapping[str, Value]) -> Config:
    """The config with other values for these dotted keys. Raises InputError for those that it does not take."""
    tree = config.model_dump(mode="json")
    for key, value in values.items():
        section, _, name = key.partition(".")
        tree[section][name] = value
    return build_config(tree, source="search.space")


def nested(values: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """Dotted keys as the sections of a config file."""
    tree: dict[str, dict[str, Value]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return tree


def _dimension(key: str, values: tuple[Any, ...]) -> Dimension:
    section, _, name = key.partition(".")
    if section not in SECTIONS or not name or key in FIXED:
        raise InputError(
            f"search.space: {key} is not searched; expected keys of {', '.join(SECTIONS)} on which a model's weights depend, "
            "for instance training.learning_rate (images and split stay the same in all trials)"
        )
    kinds = set(_kinds(key))
    if len(values) == 2 and kinds & {int, float} and all(isinstance(value, float) for value in values):
        low, high = values
        whole = float not in kinds
        if low >= high or (whole and not (low.is_integer() and high.is_integer())):
            numbers = "whole numbers" if whole else "numbers"
            raise InputError(
                f"search.space: {key}: expected two {numbers} [low, high] with low < high, or three or more choices, got {list(values)}"
            )
        return Dimension(key, low, high, whole=whole)
    if len(values) < 2 or len(set(values)) < len(values):
        raise InputError(f"search.space: {key}: expected [low, high] of a number, or different choices, got {list(values)}")
    return Dimension(key, choices=tuple(_choice(value, kinds) for value in values))


def _choice(value: Value, kinds: set[type]) -> Value:
    """The config holds every number of a space as a float; here it is what the key takes."""
    if not isinstance(value, float) or float in kinds:
        return value
    if int in kinds and value.is_integer():
        return int(value)
    return bool(value) if bool in kinds and value in {0, 1} else value


def _kinds(key: str) -> Iterator[type]:
    """Plain types that a key takes; none for a key that is not there."""
    section, _, name = key.partition(".")
    fields = getattr(Config.model_fields[section].annotation, "model_fields", {})
    waiting: list[Any] = [fields[name].annotation] if name in fields else []
    while waiting:
        candidate = waiting.pop()
        if candidate in {int, float, bool, str}:
            yield candidate
        elif getattr(candidate, "__origin__", None) is not Literal:
            waiting += get_args(candidate)
