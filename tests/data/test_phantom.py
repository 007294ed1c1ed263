"""Phantoms: the same each time, decodable from the manifest alone, and with a signal that is neither absent nor plain."""

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medcnn.data.images import UnreadableImage, decode_row
from medcnn.data.phantom import LABELS, draw_phantom, make_phantom, phantom_table


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_images_and_table_belong_together(kind: str) -> None:
    pixels, table = make_phantom(12, 3, kind, 48)
    assert pixels.shape == (12, 48, 48)
    assert pixels.dtype == np.uint8
    assert [f"y_{label}" for label in LABELS[kind]] == [column for column in table if column.startswith("y_")]
    for row in table.itertuples():
        np.testing.assert_array_equal(decode_row(row.path, row.frame), pixels[row.Index])


def test_the_seed_changes_images_and_labels_and_nothing_else_does() -> None:
    first, table = make_phantom(30, 0, "binary", 32)
    np.testing.assert_array_equal(first[7], draw_phantom("binary", 0, 7, 32))
    assert table.head(5).equals(phantom_table(5, 0, "binary", 32))
    other, other_table = make_phantom(30, 1, "binary", 32)
    assert (first != other).any(axis=(1, 2)).all()
    assert (table["y_nodule"] != other_table["y_nodule"]).any()


def test_patients_have_one_to_three_images_and_one_truth() -> None:
    table = phantom_table(60, 0, "binary")
    assert table["patient_id"].value_counts().value_counts().to_dict() == {1: 10, 2: 10, 3: 10}
    per_patient = table.groupby("patient_id")[["y_nodule", "sex", "age_years", "site"]].nunique()
    assert (per_patient == 1).all(axis=None)


def test_labels_are_of_the_kind_asked_for() -> None:
    multiclass = phantom_table(300, 0, "multiclass")[[f"y_{label}" for label in LABELS["multiclass"]]]
    assert (multiclass.sum(axis=1) == 1).all()
    multilabel = phantom_table(600, 0, "multilabel")[[f"y_{label}" for label in LABELS["multilabel"]]]
    assert 0.01 < multilabel.isna().mean(axis=None) < 0.12
    assert set(multilabel.sum(axis=1)) >= {0.0, 1.0, 2.0}
    binary = phantom_table(600, 0, "binary")["y_nodule"]
    assert 0.3 < binary.mean() < 0.5
    assert binary.notna().all()


def test_an_expert_observer_sees_the_nodule_but_not_always() -> None:
    """A filter matched to the nodule's size, inside the lungs and without the mean anatomy: neither guessing nor perfect."""
    pixels, table = make_phantom(300, 0, "binary")
    lungs = np.zeros((96, 96), bool)
    lungs[26:62, 19:37] = lungs[26:62, 59:77] = True
    anatomy = pixels.mean(axis=0)
    scores = [cv2.GaussianBlur(image - anatomy, (0, 0), 4)[lungs].max() for image in pixels.astype(np.float32)]
    assert 0.75 < roc_auc_score(table["y_nodule"], scores) < 0.97


def test_the_overall_brightness_does_not_give_the_label_away() -> None:
    pixels, table = make_phantom(240, 0, "binary", 32)
    assert 0.35 < roc_auc_score(table["y_nodule"], pixels.mean(axis=(1, 2))) < 0.7


@pytest.mark.parametrize("path", ["phantom:binary", "phantom:unknown:seed=0:size=8", "phantom:binary:seed=x:size=8"])
def test_a_path_of_no_phantom_is_refused(path: str) -> None:
    with pytest.raises(UnreadableImage, match="expected phantom"):
        decode_row(path)
