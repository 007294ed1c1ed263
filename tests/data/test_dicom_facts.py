"""What may leave a DICOM header: known words, pseudonyms, numbers, shifted dates; and nothing else."""

import datetime
import re
from pathlib import Path

import pydicom
import pytest
from made_dicom import RAMP, make_dicom, save_dicom
from pydicom.sr._snomed_dict import mapping
from pydicom.sr.codedict import codes

from medcnn.data.dicom_facts import VIEW_CODES, acquisition_date, read_header
from medcnn.data.pseudonyms import pseudonym, shift_days


def test_the_header_gives_known_words_only(tmp_path: Path) -> None:
    path = save_dicom(
        tmp_path / "a.dcm", RAMP, ViewPosition="PA", ImageLaterality="L", Manufacturer="SIEMENS Healthineers", ManufacturerModelName="X",
        PatientSex="F", PatientAge="045Y", ImagerPixelSpacing=[0.14, 0.14], BurnedInAnnotation="NO", InstitutionName="Hospital",
    )  # fmt: skip
    facts = read_header(path)
    assert re.fullmatch(r"scanner-[0-9a-f]{16}", str(facts.pop("scanner")))
    assert facts.pop("site") == pseudonym("site", "Hospital")
    assert facts == {
        "modality": "CR", "view": "PA", "laterality": "L", "manufacturer": "siemens", "sop_class": "Computed Radiography Image Storage",
        "transfer_syntax": "Explicit VR Little Endian", "photometric": "MONOCHROME2", "sex": "F", "burned_in": "NO", "rows": 16,
        "columns": 16, "frames": 1, "spacing_mm": 0.14, "age_years": 45.0, "body_part": None, "intent": None, "object_kind": "projection",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("elements", "years"),
    [
        ({"PatientAge": "006M"}, 0.5),
        ({"PatientAge": "099Y"}, 90.0),
        ({"PatientBirthDate": "19700615", "StudyDate": "20200614"}, 49.0),
        ({"PatientBirthDate": "19700615", "StudyDate": "20200615"}, 50.0),
        ({"PatientBirthDate": "19000101", "StudyDate": "20200615"}, 90.0),
        ({"PatientAge": "old"}, None),
        ({"PatientBirthDate": "20210101", "StudyDate": "20200615"}, None),
    ],
)
def test_age(tmp_path: Path, elements: dict[str, str], years: float | None) -> None:
    assert read_header(save_dicom(tmp_path / "a.dcm", RAMP, **elements))["age_years"] == years


@pytest.mark.parametrize(
    ("elements", "column", "value"),
    [
        ({"BodyPartExamined": "T SPINE"}, "body_part", "TSPINE"),
        ({"BodyPartExamined": "Quirin"}, "body_part", "other"),
        ({"PresentationIntentType": "FOR PRESENTATION"}, "intent", "FOR PRESENTATION"),
        ({"ViewPosition": "Quirin"}, "view", "other"),
        ({"PatientSex": "Quirin"}, "sex", "other"),
        ({"Manufacturer": "Quirin"}, "manufacturer", "other"),
    ],
)
def test_a_word_that_is_not_known_is_not_repeated(tmp_path: Path, elements: dict[str, str], column: str, value: str) -> None:
    assert read_header(save_dicom(tmp_path / "a.dcm", RAMP, **elements))[column] == value


@pytest.mark.parametrize(
    ("code", "view"), [("399348003", "AP"), ("R-10206", "AP"), ("272479007", "PA"), ("399368009", "MLO"), ("4711", None)]
)
def test_a_view_may_be_coded(tmp_path: Path, code: str, view: str | None) -> None:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", "Quirin"
    assert read_header(save_dicom(tmp_path / "a.dcm", RAMP, ViewCodeSequence=[item]))["view"] == view
    assert read_header(save_dicom(tmp_path / "a.dcm", RAMP, ViewCodeSequence=[item], ViewPosition="LL"))["view"] == "LL"


def test_the_codes_of_views_are_those_that_pydicom_knows() -> None:
    known = {
        word: getattr(codes.cid4010, name).value
        for word, name in [("AP", "AnteroPosterior"), ("PA", "PosteroAnterior"), ("LL", "LeftLateral"), ("RL", "RightLateral")]
    }
    known |= {
        word: getattr(codes.cid4014, name).value
        for word, name in [
            ("CC", "CranioCaudal"),
            ("MLO", "MedioLateralObliqueProjection"),
            ("ML", "MedioLateralProjection"),
            ("LM", "LateroMedial"),
            ("FB", "CaudoCranial"),
        ]
    }
    for word, code in known.items():
        assert VIEW_CODES[code] == word
    for code, word in VIEW_CODES.items():
        if code.startswith("R-") and code in mapping["SRT"]:
            assert VIEW_CODES[mapping["SRT"][code]] == word


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"AcquisitionDate": "20200229"}, "2020-02-29"),
        ({"StudyDate": "20200229"}, "2020-02-29"),
        ({"AcquisitionDate": "20200230", "StudyDate": "20190101"}, "2019-01-01"),
        ({"AcquisitionDate": "Quirin"}, None),
        ({"AcquisitionDate": "00010101"}, None),
        ({}, None),
    ],
)
def test_the_date_is_the_most_exact_one_that_is_a_date(elements: dict[str, str], expected: str | None) -> None:
    dataset = make_dicom(RAMP, **elements)
    found = acquisition_date(dataset, "a", "shift")
    if expected is None:
        assert found is None
        return
    shifted = datetime.date.fromisoformat(expected) - datetime.timedelta(days=shift_days("a"))
    assert found == shifted.isoformat()
    assert acquisition_date(dataset, "a", "year") == expected[:4]
    assert acquisition_date(dataset, "a", "drop") is None
