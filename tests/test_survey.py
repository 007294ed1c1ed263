"""`medcnn init`: the config it writes is valid, and its doubts are honest."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medcnn.config_file import read_config
from medcnn.errors import InputError
from medcnn.survey import survey, write_commented_config
from tests.data.made_slides import write_slide


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


def test_class_folders(tmp_path: Path) -> None:
    for name in ("train/sick/a.png", "train/well/b.png", "test/sick/c.png"):
        picture(tmp_path / "set" / name)
    path, seen = write_commented_config(tmp_path / "set", tmp_path / "set.yaml")
    config = read_config(path)
    assert (config.data.source, config.data.path) == ("folder", tmp_path / "set")
    assert "sick (2)" in " ".join(seen)
    assert "CHECK: patients" in path.read_text()


def test_a_table_beside_images_is_mapped(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    table = pd.DataFrame({"file": ["a.png"], "Diagnosis": ["x"], "PatientID": [1], "Sex": ["F"], "slide": [None]})
    table.to_csv(tmp_path / "labels.csv", index=False)
    data = survey(tmp_path).data
    assert (data["image_column"], data["label_column"], data["patient_column"]) == ("file", "Diagnosis", "PatientID")
    assert data["image_root"] == str(tmp_path / "images")
    assert data["covariates"] == ["Sex"]


def test_a_blank_patient_column_is_not_taken(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    pd.DataFrame({"image": ["a.png"], "label": ["x"], "patient_id": [None]}).to_csv(tmp_path / "labels.csv", index=False)
    found = survey(tmp_path)
    assert "patient_column" not in found.data
    assert any("patient" in doubt for doubt in found.doubts)


def test_finding_columns_are_found(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    pd.DataFrame({"path": ["a.png"] * 3, "edema": [0, 1, 1], "mass": [0, 1, -1], "n": [4, 5, 6]}).to_csv(
        tmp_path / "labels.csv", index=False
    )
    assert survey(tmp_path).data["label_columns"] == ["edema", "mass"]


def test_a_dicom_tree_and_an_npz(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").touch()
    assert survey(tmp_path).data["source"] == "dicom"
    (tmp_path / "b.npz").touch()
    assert survey(tmp_path / "b.npz").data["source"] == "npz"


@pytest.mark.parametrize(
    ("files", "words"),
    [([], "found no images"), (["notes.txt"], "found no images"), (["one/a.png"], "one folder per class")],
)
def test_nothing_recognised_is_said(tmp_path: Path, files: list[str], words: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=words):
        survey(tmp_path)


def test_an_existing_config_is_kept(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "a" / "1.png")
    picture(tmp_path / "set" / "b" / "1.png")
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_commented_config(tmp_path / "set", tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_slides_with_a_table_and_with_outlines(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "drawn").mkdir(parents=True)
    for name in ("a.svs", "b.ndpi"):
        (folder / name).touch()
    pd.DataFrame({"slide_name": ["a", "b"], "diagnosis": ["x", "y"], "patient_id": [1, 2]}).to_csv(folder / "labels.csv", index=False)
    path, _ = write_commented_config(folder, tmp_path / "set.yaml")
    config = read_config(path)
    assert (config.data.source, config.modality, config.data.label_table) == ("slides", "histology", folder / "labels.csv")
    assert (config.data.image_column, config.data.label_column, config.data.patient_column) == ("slide_name", "diagnosis", "patient_id")
    (folder / "drawn" / "a.geojson").touch()
    path, _ = write_commented_config(folder, tmp_path / "drawn.yaml")
    config = read_config(path)
    assert (config.data.label_column, config.data.slides.annotations) == (None, folder / "drawn")


def test_tiffs_are_slides_only_as_pyramids(tmp_path: Path) -> None:
    pytest.importorskip("openslide", reason="needs the extra wsi")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (700, 700, 3), dtype=np.uint8)
    for name in ("x", "y"):
        (tmp_path / "flat" / name).mkdir(parents=True)
        Image.fromarray(noise).save(tmp_path / "flat" / name / "a.tif")
    assert survey(tmp_path / "flat").data["source"] == "folder"
    write_slide(tmp_path / "pyramid" / "a.tif", noise)
    found = survey(tmp_path / "pyramid")
    assert found.data == {"source": "slides", "path": str(tmp_path / "pyramid")}
    assert any("label" in doubt for doubt in found.doubts)


def test_the_real_folder_of_slides(shared_data: Path) -> None:
    assert survey(shared_data / "wsi").data["source"] == "slides"
