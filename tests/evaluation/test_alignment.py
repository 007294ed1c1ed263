import numpy as np
import pandas as pd
import pytest

from medcnn.errors import InputError
from medcnn.evaluation.alignment import align_tables


def table(n: int = 6) -> pd.DataFrame:
    number = np.arange(n)
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in number],
            "patient_id": [f"p{k // 2}" for k in number],
            "part": "test",
            "fold": 0,
            "y_cat": (number % 2).astype(float),
            "p_cat": number / n,
        }
    )


def test_rows_come_into_one_order() -> None:
    first, second = table(), table().sample(frac=1, random_state=0)
    aligned = align_tables({"a": first, "b": second})
    assert aligned["a"]["image_id"].tolist() == aligned["b"]["image_id"].tolist()
    pd.testing.assert_frame_equal(aligned["a"], aligned["b"])


def test_other_folds_of_the_same_images_are_the_same_test() -> None:
    first, second = table(), table()
    second["fold"] = [0, 0, 1, 1, 2, 2]
    assert list(align_tables({"a": first, "b": second})["b"]["fold"]) == [0, 0, 1, 1, 2, 2]


def test_images_of_several_folds_are_told_apart_by_fold() -> None:
    twice = pd.concat([table(), table().assign(fold=1)])
    aligned = align_tables({"a": twice, "b": twice.sample(frac=1, random_state=1)})
    pd.testing.assert_frame_equal(aligned["a"], aligned["b"])
    with pytest.raises(InputError, match="6 in common, 6 only in a"):
        align_tables({"a": twice, "b": table()})


def test_missing_labels_in_the_same_rows_are_the_same() -> None:
    first = table()
    first.loc[2, "y_cat"] = np.nan
    align_tables({"a": first, "b": first.copy()})
    with pytest.raises(InputError, match=r"y_cat differs in 1 of 6, first i2 has .*nan.* in a"):
        align_tables({"a": first, "b": table()})


def test_other_images_are_refused_and_counted() -> None:
    with pytest.raises(
        InputError, match=r"a and c were not tested on the same images: 4 in common, 2 only in a \(such as i4\), 0 only in c"
    ):
        align_tables({"a": table(), "b": table(), "c": table(4)})


@pytest.mark.parametrize(("column", "value"), [("part", "val"), ("patient_id", "somebody"), ("y_cat", 1.0)])
def test_other_facts_about_an_image_are_refused(column: str, value: object) -> None:
    other = table()
    other.loc[0, column] = value
    with pytest.raises(InputError, match=f"{column} differs in 1 of 6, first i0"):
        align_tables({"a": table(), "b": other})


def test_other_labels_are_refused() -> None:
    other = table().rename(columns={"y_cat": "y_dog", "p_cat": "p_dog"})
    with pytest.raises(InputError, match="same labels: cat, dog only in one of them"):
        align_tables({"a": table(), "b": other})


def test_one_model_is_no_comparison() -> None:
    with pytest.raises(InputError, match="two models or more, got 1"):
        align_tables({"a": table()})
