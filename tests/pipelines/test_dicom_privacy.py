"""No identity reaches any output: names planted in every element, in folders and in files, and a whole run looked through byte by byte."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medcnn.data.dicom import read_dicom
from medcnn.data.images import UnreadableImage

NAME, FIRST_NAME, BORN, ROOT_UID = "Quxworth", "Zebulon", "19531129", "1.2.826.0.1.3680043.8.498"
SECRETS = (NAME, FIRST_NAME, BORN, "1953-11-29", "3680043")
TEXT_VRS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
BINARY_VRS = {"OB", "OW", "UN"}
NEEDED = {"PhotometricInterpretation", "SOPClassUID", "NumberOfFrames", "PixelData"}  # without these there is no image to read
N_PATIENTS = 40


def plant(dataset: pydicom.Dataset) -> None:
    """Write the name into every element that takes text or bytes, and into every sequence, two deep, private elements included."""
    for tag, (vr, _, _, _, keyword) in pydicom.datadict.DicomDictionary.items():
        if not keyword or keyword in NEEDED or not 0x0008 <= tag >> 16 < 0x7FE0:
            continue
        value = f"{NAME}^{FIRST_NAME}^{keyword}"[:60]
        if vr in TEXT_VRS:  # numbers, dates and UIDs are written as LO, since no library writes a name into them
            dataset.add(pydicom.DataElement(tag, "LO" if vr in {"IS", "DS", "UI", "DA", "DT", "TM", "AS"} else vr, value))
        elif vr in BINARY_VRS and tag >> 16 != 0x0028:
            dataset.add(pydicom.DataElement(tag, vr, value.ljust(60).encode()))
        elif vr == "SQ" and "LUT" not in keyword:  # a lookup table that is a name shows no picture
            inner, outer = pydicom.Dataset(), pydicom.Dataset()
            inner.PatientName, inner.CodeMeaning = value, value
            outer.PatientName, outer.CodeValue, outer.CodeMeaning = value, NAME, value
            outer.ConceptNameCodeSequence = [inner]
            dataset.add(pydicom.DataElement(tag, "SQ", [outer]))
    block = dataset.private_block(0x0011, f"{NAME} private", create=True)
    for number, vr in enumerate(("LO", "PN", "UN", "OB", "UT")):
        block.add_new(number, vr, NAME.encode() if vr in BINARY_VRS else NAME)


def planted(pixels: np.ndarray) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    plant(dataset)
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        dataset.pop(keyword, None)
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", f"{ROOT_UID}.1000"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{ROOT_UID}.2000", f"{ROOT_UID}.3000"
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = f"{NAME}-000", f"{NAME}^{FIRST_NAME}", BORN
    dataset.AcquisitionDate, dataset.StudyDate, dataset.Modality = BORN, BORN, "CR"  # a date that would be known again
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.NumberOfFrames = 1, "MONOCHROME2", 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.file_meta.SourceApplicationEntityTitle = NAME
    dataset.file_meta.ImplementationVersionName = NAME
    return dataset


def renumbered(template: bytes, number: int, pixels: np.ndarray) -> bytes:
    """The template as another patient's file: writing thousands of elements anew takes a second."""
    for old in (f"{ROOT_UID}.1000", f"{ROOT_UID}.2000", f"{ROOT_UID}.3000", f"{NAME}-000"):
        assert old.encode() in template
        template = template.replace(old.encode(), f"{old[:-3]}{number:03d}".encode())
    assert template[-pixels.size :] == bytes(pixels.size)
    return template[: -pixels.size] + pixels.tobytes()


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tree of planted files, broken ones among them, and a table of labels by PatientID."""
    root = tmp_path_factory.mktemp("clinic")
    tree, rng = root / "tree", np.random.default_rng(0)
    pydicom.dcmwrite(
        root / "template", planted(np.zeros((32, 32), np.uint8)), implicit_vr=False, little_endian=True, enforce_file_format=True
    )
    template = (root / "template").read_bytes()
    assert template.count(NAME.encode()) > 3000
    rows = []
    for number in range(N_PATIENTS):
        ill = number % 2
        pixels = rng.normal(90, 25, (32, 32))
        pixels[10:20, 10:20] += 90 * ill
        name = f"{ROOT_UID}.{number}.dcm" if number % 3 else f"{NAME} {number}.{FIRST_NAME[:4]}"
        path = tree / f"{NAME}_{FIRST_NAME}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(renumbered(template, number, np.clip(pixels, 0, 255).astype(np.uint8)))
        rows.append({"id": f"{NAME}-{number:03d}", "dx": "ill" if ill else "well"})
    whole = path.read_bytes()
    broken = tree / f"broken {NAME}"
    broken.mkdir()
    (broken / f"cut {NAME}.dcm").write_bytes(whole[:-300])
    (broken / f"head {NAME}.dcm").write_bytes(whole[:9000])
    (broken / f"notes of {NAME}.txt").write_text(f"{NAME} was here")
    (broken / f"{NAME} loop").symlink_to(tree)
    (broken / f".{NAME}").touch()
    pd.DataFrame([*rows, {"id": f"{NAME}-999", "dx": "ill"}]).to_csv(root / "labels.csv", index=False)
    return root


def config(clinic: Path, name: str, **data: object) -> Path:
    tree = {
        "name": name, "modality": "chest_xray",
        "data": {"source": "dicom", "path": str(clinic / "tree"), "label_table": str(clinic / "labels.csv"), "join": "patient",
                 "image_column": "id", "label_column": "dx", "positive": "ill", "objects": "all", **data},
        "split": {"scheme": "holdout", "test_fraction": 0.3, "val_fraction": 0.25}, "image": {"size_px": 32, "channels": 1},
        "model": {"name": "simple_cnn"}, "ladder": {"rungs": ["main"]}, "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.003, "n_threads": 1},
        "evaluation": {"n_bootstrap": 20}, "report": {"n_errors": 2},
        "audit": {"accept": {"near_duplicate": "noise", "duplicate": "noise"}},
    }  # fmt: skip
    path = clinic / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def medcnn(clinic: Path, *commands: list[str]) -> tuple[list[int], str]:
    """Exit codes of the commands, run by one process after another, and everything that was said."""
    program = (
        "import json, sys\nfrom medcnn.cli import main\nfor words in json.loads(sys.argv[1]):\n    sys.argv = ['medcnn', *words]\n"
        "    try:\n        main()\n        code = 0\n    except SystemExit as end:\n        code = end.code or 0\n    print('\\nexit', code)\n"
    )
    environment = {**os.environ, "MEDCNN_PSEUDONYM_KEY": str(clinic / "key" / "pseudonym.key"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", program, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=clinic, check=False)
    said = done.stdout + done.stderr
    return [int(code) for code in re.findall(r"^exit (\d+)$", done.stdout, re.MULTILINE)], said


def bytes_of(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file's name and raw bytes as text, in two encodings; tables decoded as well, whose pages may be compressed."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        yield path, path.name + data.decode("latin-1") + data.decode("utf-16-le", errors="ignore")
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            yield path, " ".join(map(str, table.columns)) + " ".join(str(value) for column in table for value in table[column].unique())


def require_silence(folder: Path, said: str) -> int:
    """Fail when a secret stands anywhere; how many files were looked through."""
    looked_at = list(bytes_of(folder))
    for secret in SECRETS:
        assert secret.lower() not in said.lower()
        for path, text in looked_at:
            assert secret.lower() not in text.lower(), f"{secret} in {path.relative_to(folder)}"
    return len({path for path, _ in looked_at})


CHANGES = (
    ({"file_names": "masked"}, 0),
    ({"image_column": "nothing"}, 2),
    ({"label_column": "nothing"}, 2),
    ({"join": "study"}, 2),
    ({"objects": ["slice"]}, 2),
)


@pytest.mark.timeout(600)
def test_neither_an_audit_nor_a_refusal_names_anybody(clinic: Path) -> None:
    commands = [
        ["audit", str(config(clinic, f"audit{number}", **change)), "--out", str(clinic / f"audit{number}")]
        for number, (change, _) in enumerate(CHANGES)
    ]
    codes, said = medcnn(clinic, *commands)
    assert codes == [code for _, code in CHANGES], said[-3000:]
    for folder in clinic.glob("audit?"):
        require_silence(folder, said)
    manifest = pd.read_parquet(next((clinic / "audit0").rglob("manifest.parquet")))
    assert len(manifest) == N_PATIENTS
    assert manifest["patient_id"].str.fullmatch("patient-[0-9a-f]{16}").all()
    assert manifest["path"].str.fullmatch(r"~[0-9a-f]{16}/~[0-9a-f]{16}(\.[A-Za-z]{1,5})?").all()
    assert set(manifest["view"]) == set(manifest["manufacturer"]) == {"other"}
    shifted = pd.to_datetime(manifest["acquisition_date"])
    assert shifted.between("1952-11-29", "1953-11-28").all()
    assert shifted.nunique() > N_PATIENTS / 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_whole_run_names_nobody(clinic: Path) -> None:
    shown = config(clinic, "shown", file_names="shown")
    codes, said = medcnn(
        clinic, ["run", str(config(clinic, "whole")), "--out", str(clinic / "out")], ["audit", str(shown), "--out", str(clinic / "shown")]
    )
    assert codes == [0, 0], said[-3000:]
    assert (clinic / "out" / "report.html").is_file()
    assert require_silence(clinic / "out", said) > 30
    require_silence(clinic / "shown", said)


def test_the_net_catches(tmp_path: Path) -> None:
    """A name that is there is found: in plain bytes, in a file's name, and in a compressed table."""
    for number, write in enumerate(
        [
            lambda folder: (folder / "a.json").write_text(f'"{NAME.upper()}"'),
            lambda folder: (folder / f"{FIRST_NAME}.txt").touch(),
            lambda folder: pd.DataFrame({"x": [f"{NAME}^1"] * 100}).to_parquet(folder / "a.parquet", compression="gzip"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder)
        with pytest.raises(AssertionError):
            require_silence(folder, "")


def test_no_refusal_of_a_single_file_quotes_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    for keyword, value in {
        "PixelData": bytes(10),
        "Rows": None,
        "BitsStored": 99,
        "PhotometricInterpretation": NAME,
        "SOPClassUID": NAME,
    }.items():
        dataset = planted(np.zeros((32, 32), np.uint8))
        path = tmp_path / "a.dcm"
        delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)
        if keyword == "SOPClassUID":
            del dataset.PixelData
        dataset.file_meta.MediaStorageSOPClassUID = "1.2.3"
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
        with pytest.raises(UnreadableImage) as caught:
            read_dicom(path)
        assert NAME not in str(caught.value)
        assert NAME not in caught.value.reason
    assert NAME not in caplog.text
