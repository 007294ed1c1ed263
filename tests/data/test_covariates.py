"""What cannot be true is named with its images; what can be is left alone."""

import numpy as np
import pandas as pd
import pytest

from medcnn.cohort import Finding
from medcnn.data.covariates import KINDS, age_years, covariate_findings
from medcnn.data.dates import as_days, date_columns

TODAY = float((pd.Timestamp("2024-03-01") - pd.Timestamp(0)).days)


def cohort(**columns: list[object]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    names = [f"image{row}" for row in range(n)]
    return pd.DataFrame({"image_id": names, "patient_id": names, **columns})


def found(manifest: pd.DataFrame) -> dict[str, Finding]:
    findings = covariate_findings(manifest, today=TODAY)
    assert {finding.kind for finding in findings} <= set(KINDS)
    return {finding.kind: finding for finding in findings}


@pytest.mark.parametrize(
    "columns",
    [
        {"age": [0.0, 120.0, 33.5, np.nan], "sex": ["F", "M", None, "O"], "study_date": ["1896-01-01", "2024-03-01", "", "20200131"]},
        {"patient_age": ["", "nan", "7", "80"], "gender": ["female", "male", "unknown", "male"]},
        {"stage": ["400", "-3", "x", "y"], "average": [-5.0, 400.0, 1.0, 2.0]},  # called like an age, but not an age
    ],
)
def test_what_can_be_true_is_left_alone(columns: dict[str, list[object]]) -> None:
    assert found(cohort(**columns)) == {}


def test_impossible_ages_are_named() -> None:
    finding = found(cohort(age=[412.0, 40.0, -1.0, np.nan, 120.1]))["impossible_age"]
    assert finding.image_ids == ("image0", "image2", "image4")
    assert "-1.0, 120.1, 412.0" in finding.text
    assert found(cohort(Age=["about 40", "40"]))["impossible_age"].image_ids == ("image0",)


def test_ages_with_units_are_words() -> None:
    finding = found(cohort(age=["045Y", "45", "18m", None]))["age_units"]
    assert finding.image_ids == ("image0", "image2")
    assert "2 of 3 images that have it" in finding.text
    assert found(cohort(age=["130Y", "45"]))["impossible_age"].image_ids == ("image0",)


@pytest.mark.parametrize(
    ("value", "years"),
    [("045Y", 45), ("18M", 1.5), ("052W", 0.9966), ("003D", 0.0082), (7, 7), ("7.5", 7.5), ("inf", np.inf), ("45 y", np.inf)],
)
def test_age_strings_follow_the_standard(value: object, years: float) -> None:
    assert age_years(value) == pytest.approx(years, abs=1e-4)
    assert np.isnan(age_years(" "))


def test_sexes_outside_of_the_usual_words() -> None:
    finding = found(cohort(sex=[1.0, 0.0, 1.0, np.nan]))["unknown_sex"]
    assert finding.image_ids == ("image0", "image1", "image2")
    assert "0.0, 1.0" in finding.text
    spelt = found(cohort(sex=["F", "female", "M", "M"]))
    assert set(spelt) == {"sex_spelling"}
    assert "F and female" in spelt["sex_spelling"].text


def test_a_patient_has_one_sex() -> None:
    manifest = cohort(sex=["F", "M", "F", "U"]).assign(patient_id=["a", "a", "b", "b"])
    finding = found(manifest)["sex_changes"]
    assert finding.image_ids == ("image0", "image1")
    assert "1 of 2 patients, first a" in finding.text


@pytest.mark.parametrize("value", ["2024-03-02", "20991231", "1895-11-07", "2020-13-01", "yesterday"])
def test_impossible_dates_are_named(value: str) -> None:
    finding = found(cohort(acquisition_date=["2020-01-01", value, "2021-01-01", None]))["impossible_date"]
    assert finding.image_ids == ("image1",)
    assert value in finding.text


def test_age_follows_the_date() -> None:
    dates, patients = ["2010-01-01", "2015-06-01", "2010-01-01", "2015-01-01"], ["a", "a", "b", "b"]
    fine = cohort(age=[40.0, 46.0, 70.0, 74.0], date=dates).assign(patient_id=patients)
    assert found(fine) == {}
    falling = found(fine.assign(age=[40.0, 39.0, 70.0, 74.0]))["age_against_date"]
    assert falling.image_ids == ("image0", "image1")
    assert found(fine.assign(age=[40.0, 60.0, 70.0, 74.0]))["age_against_date"].text.startswith(
        "age and date contradict each other in 1 of 2"
    )


def test_days_agree_with_pandas() -> None:
    values = pd.Series(["2020-02-29", "20200229", "2020-02-29T23:59:00Z", 20200229.0, None, "29.02.2020"])
    expected = (pd.Timestamp("2020-02-29") - pd.Timestamp(0)).days
    assert as_days(values).tolist()[:4] == [expected] * 4
    assert as_days(values).isna().tolist()[4:] == [True, True]
    assert as_days(pd.Series(pd.to_datetime(["2020-02-29 10:00"]))).tolist() == [expected]


def test_a_year_alone_is_its_first_day() -> None:
    assert as_days(pd.Series(["2020", 2020.0, "1720"])).tolist()[:2] == [(pd.Timestamp("2020-01-01") - pd.Timestamp(0)).days] * 2
    assert np.isnan(as_days(pd.Series(["1720"]))[0])


def test_date_columns_go_by_name_and_content() -> None:
    manifest = cohort(
        study_date=["2020-01-01", "?"],
        update=["2020-01-01"] * 2,
        date=["soon", "later"],
        birth_date=["1960-01-01"] * 2,
        day=[20200101, 20200102],
    )
    assert date_columns(manifest) == ["day"]
    assert date_columns(manifest.assign(study_date=["2020-01-01", None])) == ["study_date", "day"]
