"""A tree of DICOM files: who is a patient, how labels join, what belongs and what does not."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from made_dicom import RAMP, save_dicom
from pydicom.uid import generate_uid

from medcnn.config_data import DataConfig
from medcnn.data.digests import pixel_digest
from medcnn.data.images import decode_row
from medcnn.data.ingest import image_root, ingest, row_reader
from medcnn.data.pseudonyms import find_file
from medcnn.errors import InputError


def tree(root: Path, n: int = 6) -> Path:
    for number in range(n):
        save_dicom(root / f"{number // 2}" / f"{number}.dcm", RAMP + np.uint16(number), PatientID=f"id{number // 2}x", PatientSex="F")
    return root


def config(root: Path, **values: object) -> DataConfig:
    return DataConfig.model_validate({"source": "dicom", "path": root, **values})


def test_a_tree_without_labels_comes_in_with_a_blank_label(tmp_path: Path) -> None:
    manifest, flow = ingest(config(tree(tmp_path)))
    assert manifest["y_finding"].isna().all()
    assert manifest["patient_id"].nunique() == 3
    assert manifest["patient_id"].str.fullmatch(r"patient-[0-9a-f]{16}").all()
    assert manifest["study_id"].nunique() == 6
    assert manifest["sex"].unique().tolist() == ["F"]
    assert (manifest["image_id"] == manifest["sha256"].str[:16]).all()
    assert flow.n_found == 6
    for row in manifest.itertuples():
        assert decode_row(row.path, row.frame, root=image_root(config(tmp_path))).shape == (16, 16)


@pytest.mark.parametrize(("frames", "numbers"), [("first", [0]), ("middle", [2]), ("all", [0, 1, 2, 3])])
def test_frames_of_an_object(tmp_path: Path, frames: str, numbers: list[int]) -> None:
    pixels = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    save_dicom(tmp_path / "a.dcm", pixels)
    manifest, flow = ingest(config(tmp_path, frames=frames))
    assert manifest["frame"].tolist() == numbers
    assert manifest["image_id"].str[-5:].tolist() == [f"-{number:04d}" for number in numbers]
    assert manifest["pixel_sha256"].nunique() == len(numbers)
    assert (flow.n_files, flow.n_images, flow.n_patients) == (1, len(numbers), 1)


@pytest.mark.parametrize("join", ["file", "study", "patient"])
def test_labels_are_joined(tmp_path: Path, join: str) -> None:
    tree(tmp_path / "tree")
    rows = []
    for path in sorted((tmp_path / "tree").rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        keys = {
            "file": path.relative_to(tmp_path / "tree").as_posix(),
            "study": str(dataset.StudyInstanceUID),
            "patient": dataset.PatientID,
        }
        rows.append({"key": keys[join], "dx": "ill" if dataset.PatientID == "id1x" else "well", "age": 50})
    table = pd.DataFrame(rows).drop_duplicates()
    pd.concat([table[table["key"] != keys[join]], table.head(1).assign(key="nobody")]).to_csv(tmp_path / "labels.csv", index=False)
    source = config(
        tmp_path / "tree",
        label_table=tmp_path / "labels.csv",
        join=join,
        image_column="key",
        label_column="dx",
        covariates=["age"],
        positive="ill",
    )
    manifest, flow = ingest(source)
    assert manifest.groupby("patient_id")["y_ill"].max().sum() == 1
    assert manifest["age"].eq(50).all()
    assert {item.kind for item in flow.excluded} == {"not_in_label_table"}
    assert len(manifest) + len(flow.excluded) == 6
    assert "1 rows of the label table fit no image" in flow.notes


def test_label_tables_that_do_not_fit_say_so_without_naming_anybody(tmp_path: Path) -> None:
    tree(tmp_path / "tree")
    table = tmp_path / "labels.csv"
    source = config(tmp_path / "tree", label_table=table, join="patient", image_column="key", label_column="dx")
    for content, message in [
        ("key,dx\nid0x,a\nid1x,b\nid0x,b\n", "rows 2 and 4 name the same patient"),
        ("kee,dx\nid0x,a\nid1x,b\n", "did you mean kee"),
    ]:
        table.write_text(content)
        with pytest.raises(InputError, match=message) as caught:
            ingest(source)
        assert "id0x" not in str(caught.value)
    with pytest.raises(InputError, match="label_table is not"):
        ingest(config(tmp_path / "tree", label_column="dx"))


def test_without_patient_id_the_study_is_the_patient_and_then_the_file(tmp_path: Path) -> None:
    study = generate_uid()
    for number in range(2):
        save_dicom(tmp_path / f"{number}.dcm", RAMP + np.uint16(number), PatientID="", StudyInstanceUID=study)
        save_dicom(tmp_path / f"x{number}.dcm", RAMP + np.uint16(9 + number), PatientID=None, StudyInstanceUID=None)
    manifest, flow = ingest(config(tmp_path))
    assert sorted(manifest["patient_id"].value_counts()) == [1, 1, 2]
    assert any(note.startswith("4 files have no PatientID") for note in flow.notes)


def test_one_bad_file_stops_nothing(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "readme.txt").write_text("hello, this is a text file and no image of anything")
    (tmp_path / "empty.dcm").touch()
    save_dicom(tmp_path / "short.dcm", RAMP, PixelData=bytes(10))
    manifest, flow = ingest(config(tmp_path))
    assert len(manifest) == 6
    assert all(re.fullmatch(r"~[0-9a-f]{16}\.(txt|dcm)", item.where) for item in flow.excluded)
    assert {find_file(tmp_path, item.where).name: item.kind for item in flow.excluded} == {
        "readme.txt": "not_dicom",
        "empty.dcm": "empty_file",
        "short.dcm": "truncated",
    }
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no files in this folder"):
        ingest(config(tmp_path / "none"))
    (tmp_path / "none" / "x.dcm").write_text("x")
    with pytest.raises(InputError, match="none of 1 files is a DICOM image"):
        ingest(config(tmp_path / "none"))


def test_equal_files_have_different_ids_and_one_patient(tmp_path: Path) -> None:
    data = save_dicom(tmp_path / "a.dcm", RAMP).read_bytes()
    (tmp_path / "b.dcm").write_bytes(data)
    manifest, _ = ingest(config(tmp_path))
    assert manifest["image_id"].str[16:].tolist() == ["", ".2"]
    assert manifest["patient_id"].nunique() == 1


# ---------------------------------------------------------------- what belongs, dates, names


CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def mixed_tree(root: Path) -> Path:
    for number, elements in enumerate(
        [
            {"Modality": "DX", "BodyPartExamined": "CHEST"},
            {"Modality": "CR"},
            {"Modality": "CR", "BodyPartExamined": "HIP"},
            {"Modality": "CT", "SOPClassUID": CT_IMAGE, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
            {"Modality": "CT", "SOPClassUID": CT_IMAGE, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            {"Modality": "DX", "PresentationIntentType": "FOR PROCESSING"},
        ]
    ):
        save_dicom(root / f"{number}.dcm", RAMP + np.uint16(number), **elements)
    return root


@pytest.mark.parametrize(
    ("modality", "objects", "kept"),
    [
        ("chest_xray", "fitting", {"0", "1"}),
        ("xray", "fitting", {"0", "1", "2"}),
        ("auto", "fitting", {"0", "1", "2", "3", "4", "5"}),
        ("chest_xray", "all", {"0", "1", "2", "3", "4", "5"}),
        ("chest_xray", ["projection", "slice"], {"0", "1", "2", "3"}),
        ("generic", ["slice"], {"3"}),
    ],
)
def test_only_what_belongs_comes_in(tmp_path: Path, modality: str, objects: object, kept: set[str]) -> None:
    source = config(mixed_tree(tmp_path), objects=objects)
    manifest, flow = ingest(source, modality=modality)
    assert {find_file(tmp_path, path).stem for path in manifest["path"]} == kept
    assert {item.kind for item in flow.excluded} <= {"does_not_belong"}
    assert len(flow.excluded) == 6 - len(kept)
    for item in flow.excluded:
        assert "the config says" in item.reason
        assert "data.objects" in item.reason


def test_a_tree_of_which_nothing_belongs_is_refused_with_the_reason(tmp_path: Path) -> None:
    save_dicom(tmp_path / "a.dcm", RAMP, Modality="CT", SOPClassUID=CT_IMAGE)
    with pytest.raises(InputError, match="none of 1 files is a DICOM image that belongs here.*a slice.*modality: chest_xray"):
        ingest(config(tmp_path), modality="chest_xray")


def test_dates_move_by_one_secret_shift_for_each_patient(tmp_path: Path) -> None:
    for patient in ("a", "b"):
        for day in ("20200101", "20200131"):
            save_dicom(
                tmp_path / f"{patient}{day}.dcm",
                RAMP,
                PatientID=f"patient {patient}",
                AcquisitionDate=day,
                AccessionNumber=f"{patient}{day}",
            )
    manifest, _ = ingest(config(tmp_path))
    dates = pd.to_datetime(manifest["acquisition_date"])
    spans = dates.groupby(manifest["patient_id"]).agg(["min", "max"])
    assert (spans["max"] - spans["min"]).dt.days.tolist() == [30, 30]
    back = (pd.Timestamp("20200101") - spans["min"]).dt.days
    assert back.between(1, 365).all()
    assert back.nunique() == 2  # a chance of 1 in 365 to fail, but for the key drawn anew: see test_pseudonyms for the rest
    assert set(ingest(config(tmp_path, dates="year"))[0]["acquisition_date"]) == {"2020"}
    assert "acquisition_date" not in ingest(config(tmp_path, dates="drop"))[0]


def test_file_names_may_be_shown(tmp_path: Path) -> None:
    save_dicom(tmp_path / "plain" / "a.dcm", RAMP)
    assert ingest(config(tmp_path, file_names="shown"))[0]["path"].tolist() == ["plain/a.dcm"]
    assert re.fullmatch(r"~[0-9a-f]{16}/~[0-9a-f]{16}\.dcm", ingest(config(tmp_path))[0]["path"].item())


def test_the_window_of_the_config_reaches_the_pixels_and_the_record(tmp_path: Path) -> None:
    save_dicom(tmp_path / "in" / "a.dcm", RAMP, WindowCenter=[1000, 2000], WindowWidth=[500, 4000])
    found = {}
    for window in ("first", "widest", "percentiles", (300.0, 100.0)):
        source = config(tmp_path / "in", window=window)
        manifest, _ = ingest(source, folder=tmp_path)
        record = pd.read_parquet(tmp_path / "pixels.parquet").iloc[0]
        found[window] = (record["voi_step"], record["window_width"], row_reader(source)(manifest["path"][0], 0).mean())
        assert manifest["pixel_sha256"][0] == pixel_digest(row_reader(source)(manifest["path"][0], 0))
    assert [step for step, _, _ in found.values()] == ["window", "window", "percentiles", "config_window"]
    assert [width for _, width, _ in found.values()] == [500, 4000, pytest.approx(4048, abs=32), 100]
    assert len({mean for _, _, mean in found.values()}) == 4
