"""Labels as written to 0/1/blank columns, by hand-made examples."""

import numpy as np
import pandas as pd
import pytest

from medcnn.config_data import DataConfig
from medcnn.data.labels import class_labels, finding_labels
from medcnn.errors import InputError
from medcnn.tables import infer_task, label_matrix


def config(**values: object) -> DataConfig:
    return DataConfig.model_validate({"source": "folder", "path": "x", **values})


def columns(values: list[str | None], task: str = "auto", **settings: object) -> dict[str, list[float]]:
    return class_labels(values, config(**settings), task, source="here").y.to_dict("list")


def test_two_classes_become_one_column_named_by_the_positive() -> None:
    assert columns(["normal", "sick", "normal"]) == {"y_sick": [0.0, 1.0, 0.0]}
    assert columns(["normal", "sick", "normal"], classes=["sick", "normal"]) == {"y_normal": [1.0, 0.0, 1.0]}
    assert columns(["normal", "sick", "normal"], positive="normal") == {"y_normal": [1.0, 0.0, 1.0]}


def test_more_classes_become_one_hot_columns() -> None:
    assert columns(["b", "a", "c"]) == {"y_a": [0, 1, 0], "y_b": [1, 0, 0], "y_c": [0, 0, 1]}
    assert list(columns(["b", "a", "c"], classes=["c", "b", "a"])) == ["y_c", "y_b", "y_a"]
    assert list(columns(["a", "b"], task="multiclass")) == ["y_a", "y_b"]


def test_one_class_against_the_others() -> None:
    assert columns(["b", "a", "c"], task="binary", positive="b") == {"y_b": [1.0, 0.0, 0.0]}


@pytest.mark.parametrize("blank", ["", " ", "NA", "nan", "N/A", None])
def test_a_blank_class_is_left_out_and_stays_multiclass(blank: str | None) -> None:
    labels = class_labels(["a", blank, "b", "c"], config(), "auto", source="here")
    assert labels.left_out == {1: ("unlabelled", "the label is blank")}
    assert infer_task(label_matrix(labels.y.drop(index=1), ["a", "b", "c"])) == "multiclass"


def test_a_class_may_be_called_na_when_the_config_says_so() -> None:
    assert columns(["NA", "b"], classes=["b", "NA"]) == {"y_NA": [1.0, 0.0]}


def test_classes_not_kept_are_left_out() -> None:
    labels = class_labels(["a", "b", "c"], config(classes=["a", "b"]), "auto", source="here")
    assert {row: kind for row, (kind, _) in labels.left_out.items()} == {2: "class_not_kept"}


@pytest.mark.parametrize(("policy", "value"), [("ones", 1.0), ("zeros", 0.0)])
def test_an_uncertain_class_goes_by_the_policy(policy: str, value: float) -> None:
    assert columns(["0", "1", "-1"], uncertain=policy) == {"y_1": [0.0, 1.0, value]}


def test_an_uncertain_class_is_left_out_by_default_and_refused_among_many() -> None:
    assert class_labels(["0", "1", "-1"], config(), "auto", source="here").left_out[2][0] == "uncertain"
    with pytest.raises(InputError, match="cannot become ones with 3 classes"):
        class_labels(["a", "b", "c", "-1"], config(uncertain="ones"), "auto", source="here")


@pytest.mark.parametrize(
    ("values", "task", "settings", "message"),
    [
        (["a", "a"], "auto", {}, "only one class"),
        ([None, ""], "auto", {}, "no row has a label"),
        (["normal", "sick"], "auto", {"classes": ["normal", "sik"]}, "did you mean sick"),
        (["normal", "sick"], "auto", {"positive": "sik"}, "did you mean sick"),
        (["a", "b", "c"], "binary", {}, "name data.positive"),
        (["a", "b"], "multilabel", {}, "needs label_columns"),
    ],
)
def test_what_does_not_fit_is_refused(values: list[str | None], task: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_labels(values, config(**settings), task, source="here")


def test_findings_keep_missing_values_and_resolve_uncertain_ones() -> None:
    table = pd.DataFrame({"a": ["1", "0.0", "", "-1"], "b": ["", "1", "", "0"]})
    for policy, value in (("ignore", np.nan), ("ones", 1.0), ("zeros", 0.0)):
        labels = finding_labels(table, ["a", "b"], config(uncertain=policy), source="here")
        np.testing.assert_array_equal(labels.y["y_a"], [1, 0, np.nan, value])
        np.testing.assert_array_equal(labels.y["y_b"], [np.nan, 1, np.nan, 0])
        assert labels.left_out == {2: ("unlabelled", "every label is blank")}


@pytest.mark.parametrize("value", ["2", "0.5", "yes", "-2", "inf"])
def test_a_value_that_is_no_label_is_named_with_row_and_column(value: str) -> None:
    with pytest.raises(InputError, match=rf"here: b is '{value}' in row 3; expected 1, 0, blank"):
        finding_labels(pd.DataFrame({"a": ["1", "0"], "b": ["1", value]}), ["a", "b"], config(), source="here")
