"""The tables that flow: each check has a case that it refuses."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medcnn.errors import InputError
from medcnn.tables import (
    Record,
    check_manifest,
    check_predictions,
    check_split,
    infer_task,
    label_names,
    read_records,
    read_table,
    write_records,
    write_table,
)


def manifest() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": ["b", "a"], "patient_id": ["p", "q"], "path": ["b.png", "a.png"], "frame": 0, "height": 8, "width": 8,
            "bit_depth": 8, "channels": 1, "sha256": ["x", "y"], "y_disease": [1, np.nan],
        }
    )  # fmt: skip


def predictions() -> pd.DataFrame:
    return pd.DataFrame({"y_disease": [0, 1, None], "p_disease": [0.1, 0.9, 0.5]})


def split() -> pd.DataFrame:
    return pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "q"], "part": ["train", "test"], "fold": 0})


def test_manifest_is_sorted_and_labels_become_floats() -> None:
    checked = check_manifest(manifest(), source="m")
    assert checked["image_id"].tolist() == ["a", "b"]
    assert checked["y_disease"].dtype == np.float64
    assert label_names(checked) == ["disease"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.drop(columns="sha256"), "column sha256 is missing"),
        (lambda t: t.iloc[:0], "no image came in"),
        (lambda t: t.drop(columns="y_disease"), "no label column"),
        (lambda t: t.assign(image_id="a"), "repeat"),
        (lambda t: t.assign(y_disease=[2, 0]), "y_disease is .*2.* expected 0, 1 or blank"),
        (lambda t: t.assign(y_disease=["yes", 0]), "'yes'"),
    ],
)
def test_a_wrong_manifest_is_refused(spoil, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_manifest(spoil(manifest()), source="m")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.assign(part="valid"), "part 'valid' is unknown"),
        (lambda t: t.assign(patient_id="p"), "stand in two parts"),
        (lambda t: t.assign(image_id="a"), "repeat"),
        (lambda t: t.drop(columns="fold"), "column fold is missing"),
    ],
)
def test_a_wrong_split_is_refused(spoil, words: str) -> None:
    assert len(check_split(split(), source="s")) == 2
    with pytest.raises(InputError, match=words):
        check_split(spoil(split()), source="s")


def test_anybodys_predictions_get_the_standard_columns() -> None:
    checked = check_predictions(predictions(), source="p.csv")
    assert checked["image_id"].tolist() == checked["patient_id"].tolist() == ["row0", "row1", "row2"]
    assert set(checked["part"]) == {"test"}
    assert np.isnan(checked["y_disease"].iloc[2])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.drop(columns="y_disease"), "no y_LABEL column"),
        (lambda t: t.drop(columns="p_disease"), "column p_disease is missing"),
        (lambda t: t.assign(p_disease=[0.1, np.nan, 0.5]), r"p_disease is .*nan.* in row 1; expected a probability"),
        (lambda t: t.assign(p_disease=[0.1, 1.2, 0.5]), "in row 1"),
        (lambda t: t.assign(p_disease=["a", 0.2, 0.5]), "'a' in row 0"),
        (lambda t: t.assign(y_disease=[0, 3, 1]), "expected 0, 1 or blank"),
        (lambda t: t.assign(part="nowhere"), "part 'nowhere'"),
        (lambda t: t.assign(patient_id=["a", None, "b"]), "patient_id is blank in row 1"),
        (lambda t: t.assign(image_id="same"), "repeat"),
        (lambda t: t.iloc[:0], "no rows"),
        (lambda t: pd.concat([t, t[["p_disease"]]], axis=1), "two columns are called p_disease"),
    ],
)
def test_wrong_predictions_are_refused(spoil, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_predictions(spoil(predictions()), source="p.csv")


def test_the_input_is_left_alone() -> None:
    table = predictions()
    check_predictions(table, source="p.csv")
    assert list(table.columns) == ["y_disease", "p_disease"]


@pytest.mark.parametrize(
    ("y", "task"),
    [
        ([[0], [1]], "binary"),
        ([[1, 0], [0, 1]], "multiclass"),
        ([[1, 1], [0, 1]], "multilabel"),
        ([[1, 0], [0, 0]], "multilabel"),
        ([[1, np.nan], [0, 1]], "multilabel"),
    ],
)
def test_task_is_read_off_the_labels(y: list[list[float]], task: str) -> None:
    assert infer_task(np.array(y, dtype=float)) == task


def test_records_survive_a_round_trip_and_nan_becomes_null(tmp_path: Path) -> None:
    record = Record(metric="auroc", label="disease", value=0.9, low=float("nan"), n=np.int64(3), n_patients=3)
    write_records([record], tmp_path / "metrics.json")
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    assert read_records(tmp_path / "metrics.json") == [Record(metric="auroc", label="disease", value=0.9, n=3, n_patients=3)]


def test_strange_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('[{"metrik": 1}]')
    with pytest.raises(InputError, match="expected a list of records"):
        read_records(tmp_path / "metrics.json")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_ids_stay_text(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"image_id": ["007"], "patient_id": ["010"], "p_a": [0.5]})
    write_table(table, tmp_path / name)
    assert read_table(tmp_path / name)["image_id"].tolist() == ["007"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "no such file"),
        ("t.xlsx", b"x", "cannot tell what table .xlsx is"),
        ("t.csv", b"", "cannot be read"),
        ("t.parquet", b"no parquet", "cannot be read"),
        ("t.csv", b"a,b\n\xff\xfe\x00,1\n", "cannot be read"),
    ],
)
def test_an_unreadable_table_is_refused(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_table(tmp_path / name)
