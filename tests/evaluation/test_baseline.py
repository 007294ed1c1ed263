"""Prevalence as a model: shares of the train rows alone."""

import numpy as np
import pandas as pd
import pytest

from medcnn.evaluation.baseline import predict_prevalence


def test_shares_are_those_of_each_folds_train_rows() -> None:
    manifest = pd.DataFrame({"image_id": list("abcdef"), "y_x": [1, 0, 0, 1, np.nan, 1]})
    split = pd.DataFrame(
        {
            "image_id": list("abcdefabcdef"),
            "fold": [0] * 6 + [1] * 6,
            "part": ["train"] * 3 + ["val", "train", "test"] + ["test"] * 3 + ["train"] * 3,
        }
    )
    found = predict_prevalence(manifest, split, ["x"], task="binary").set_index(["fold", "image_id"])["p_x"]
    assert dict(found.loc[0]) == pytest.approx({"d": 2 / 5, "f": 2 / 5})  # 1 of 3 known
    assert dict(found.loc[1]) == pytest.approx({"a": 3 / 4, "b": 3 / 4, "c": 3 / 4})  # 2 of 2 known


def test_classes_add_up_to_one() -> None:
    classes = np.array([0, 0, 1, 2, 0, 1])
    manifest = pd.DataFrame({"image_id": list("abcdef"), **{f"y_{k}": (classes == k).astype(float) for k in range(3)}})
    split = pd.DataFrame({"image_id": list("abcdef"), "fold": 0, "part": ["train"] * 5 + ["test"]})
    found = predict_prevalence(manifest, split, ["0", "1", "2"], task="multiclass")
    np.testing.assert_allclose(found[["p_0", "p_1", "p_2"]].to_numpy(), [[4 / 8, 2 / 8, 2 / 8]])
