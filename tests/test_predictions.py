"""Runs are compared at the level that their own reports are about."""

from typing import Any

import pandas as pd
import pytest

from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.predictions import TestedModel, _at_common_level


def of_level(name: str, level: Any) -> TestedModel:
    return TestedModel(name, pd.DataFrame(), "binary", {}, level=level)


def test_the_level_is_that_of_the_runs_unless_it_is_named() -> None:
    both = [of_level("a", "study"), of_level("b", "study"), of_level("file", None)]
    assert _at_common_level(both, EvaluationConfig()).units == ("study",)
    assert _at_common_level(both, EvaluationConfig(levels=("patient",))).units == ("patient",)
    assert _at_common_level(both[2:], EvaluationConfig()).units == ("image",)


def test_runs_of_different_levels_are_not_mixed() -> None:
    with pytest.raises(InputError, match="a: image, b: study"):
        _at_common_level([of_level("a", "image"), of_level("b", "study")], EvaluationConfig())
