"""The shortcuts as a rung: they learn from a fold's train rows and say something of the others."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medcnn.data.shortcut_model import predict_shortcuts


def cohort(n: int = 240, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """Images of noise whose file size gives the label away."""
    rng = np.random.default_rng(seed)
    sick = rng.integers(0, 2, n)
    table = pd.DataFrame(
        {"image_id": [f"{i:03d}" for i in range(n)], "patient_id": [f"p{i:03d}" for i in range(n)], "path": "x.png", "frame": 0}
    )
    table = table.assign(
        height=500 + 40 * sick + rng.integers(0, 30, n), width=500, bit_depth=8, channels=1, sha256="", y_sick=sick.astype(float)
    )
    images = rng.integers(0, 256, (n, 16, 16, 1)).astype(np.uint8)
    parts = np.array(["train"] * 160 + ["val"] * 20 + ["test"] * 60)
    return table, images, pd.DataFrame({"image_id": table["image_id"], "patient_id": table["patient_id"], "part": parts, "fold": 0})


def test_a_shortcut_is_found_on_rows_that_were_not_learnt_from() -> None:
    table, images, split = cohort()
    found = predict_shortcuts(table, images, np.arange(len(table)), ["sick"], split=split, task="binary", seed=0)
    assert set(found["image_id"]) == set(split.loc[split["part"] != "train", "image_id"])
    assert roc_auc_score(table.set_index("image_id").loc[found["image_id"], "y_sick"], found["p_sick"]) > 0.9


def test_labels_of_val_and_test_rows_are_not_read() -> None:
    table, images, split = cohort()
    other = table.assign(y_sick=np.where(split["part"] == "train", table["y_sick"], 1 - table["y_sick"]))
    both = [predict_shortcuts(t, images, np.arange(len(t)), ["sick"], split=split, task="binary", seed=0) for t in (table, other)]
    pd.testing.assert_frame_equal(*both)


def test_missing_and_one_sided_labels_are_borne() -> None:
    table, images, split = cohort()
    table.loc[:20, "y_sick"] = np.nan
    table["y_never"] = 0.0
    found = predict_shortcuts(table, images, np.arange(len(table)), ["sick", "never"], split=split, task="multilabel", seed=0)
    assert found["p_never"].unique() == pytest.approx([1 / 162])
    assert found["p_sick"].notna().all()


def test_classes_add_up_to_one() -> None:
    table, images, split = cohort()
    thirds = np.arange(len(table)) % 3
    table = table.drop(columns="y_sick").assign(**{f"y_{k}": (thirds == k).astype(float) for k in range(3)})
    found = predict_shortcuts(table, images, np.arange(len(table)), ["0", "1", "2"], split=split, task="multiclass", seed=0)
    np.testing.assert_allclose(found[["p_0", "p_1", "p_2"]].sum(axis=1), 1)
