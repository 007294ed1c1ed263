import numpy as np
import pandas as pd
import pytest

from medcnn.errors import InputError
from medcnn.evaluation.levels import at_level
from medcnn.tables import check_predictions


def table(**columns: list) -> pd.DataFrame:
    return check_predictions(pd.DataFrame(columns), source="made up")


@pytest.fixture
def images() -> pd.DataFrame:
    return table(
        patient_id=["b", "a", "b", "a", "c"],
        study_id=["1", "1", "2", "1", "1"],
        y_x=[1, 0, 0, 0, np.nan],
        p_x=[0.9, 0.2, 0.4, 0.6, 0.7],
    )


@pytest.mark.parametrize(
    ("aggregation", "p"), [("mean", [0.4, 0.65, 0.7]), ("max", [0.6, 0.9, 0.7]), ("noisy_or", [1 - 0.8 * 0.4, 1 - 0.1 * 0.6, 0.7])]
)
def test_patients_in_the_order_of_their_names(images: pd.DataFrame, aggregation: str, p: list[float]) -> None:
    units = at_level(images, "patient", aggregation, "binary")
    np.testing.assert_allclose(units.p[:, 0], p)
    np.testing.assert_array_equal(units.y[:, 0], [0, 1, np.nan])
    np.testing.assert_array_equal(units.unit_of_row, [1, 0, 1, 0, 2])
    assert aggregation in units.note


def test_image_level_is_the_table_itself(images: pd.DataFrame) -> None:
    units = at_level(images, "image", "mean", "binary")
    np.testing.assert_array_equal(units.p[:, 0], images["p_x"])
    np.testing.assert_array_equal(units.patient, [1, 0, 1, 0, 2])
    assert units.note == ""


def test_a_study_lies_within_a_patient(images: pd.DataFrame) -> None:
    units = at_level(images, "study", "mean", "binary")
    np.testing.assert_array_equal(units.patient, [0, 1, 1, 2])
    np.testing.assert_allclose(units.p[:, 0], [0.4, 0.9, 0.4, 0.7])


def test_study_level_needs_a_study(images: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="needs a column study_id"):
        at_level(images.drop(columns="study_id"), "study", "mean", "binary")
    images.loc[2, "study_id"] = None
    with pytest.raises(InputError, match="blank in row 2"):
        at_level(images, "study", "mean", "binary")


def test_only_images_with_a_known_label_count_for_it() -> None:
    units = at_level(
        table(patient_id=["a", "a"], y_x=[0, np.nan], p_x=[0.2, 0.9], y_z=[np.nan, 1], p_z=[0.1, 0.8]), "patient", "mean", "multilabel"
    )
    np.testing.assert_allclose(units.p, [[0.2, 0.8]])
    np.testing.assert_array_equal(units.y, [[0, 1]])


def test_each_fold_has_its_own_units() -> None:
    rows = table(image_id=["1", "1"], fold=[0, 1], patient_id=["a", "a"], y_x=[1, 1], p_x=[0.2, 0.6])
    units = at_level(rows, "patient", "mean", "binary")
    np.testing.assert_allclose(units.p[:, 0], [0.2, 0.6])
    np.testing.assert_array_equal(units.fold, [0, 1])
    np.testing.assert_array_equal(units.patient, [0, 0])


def test_patients_of_several_classes_are_left_out_and_counted() -> None:
    rows = table(patient_id=["a", "a", "b", "b"], y_x=[1, 0, 1, 1], y_z=[0, 1, 0, 0], p_x=[0.5, 0.2, 0.9, 0.6], p_z=[0.5, 0.8, 0.1, 0.4])
    units = at_level(rows, "patient", "max", "multiclass")
    assert units.n_left_out == 1
    assert "1 units left out" in units.note
    np.testing.assert_allclose(units.p, [[0.9 / 1.3, 0.4 / 1.3]])
    np.testing.assert_array_equal(units.unit_of_row, [-1, -1, 0, 0])


def test_noisy_or_of_certainty_is_certain() -> None:
    units = at_level(table(patient_id=["a", "a"], y_x=[1, 0], p_x=[1.0, 0.2]), "patient", "noisy_or", "binary")
    assert units.p[0, 0] == 1


def test_patients_with_equal_means_tie_whatever_the_order_of_their_rows() -> None:
    values = [0.1, 0.2, 0.3, 0.7, 0.8, 0.9]
    for first in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        p = [values[k] for k in first] + [0.2, 0.2, 0.2]
        units = at_level(table(patient_id=list("aaabbb"), y_x=[0] * 6, p_x=p), "patient", "mean", "binary")
        assert units.p[0, 0] == units.p[1, 0] == 0.2
