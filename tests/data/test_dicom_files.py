"""The difficult real files: each is in or out with a reason, and what is in agrees with pydicom."""

import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from made_dicom import RAMP, lookup_table, save_dicom
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

from medcnn.config_file import read_config
from medcnn.data.dicom import read_dicom
from medcnn.data.ingest import image_root, ingest
from medcnn.data.pseudonyms import find_file

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_each_of_the_difficult_files_is_in_or_out_with_a_reason(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcnn.data.traits.MEASURES", ())  # copies and quality are not asked for here, and take most of the time
    source = read_config(CONFIGS / "dicom.yaml").data
    manifest, flow = ingest(source, folder=tmp_path)
    index = pd.read_csv(shared_data / "dicom" / "index.csv")
    names = set(index["file"]) | {"index.csv", "README.md"}
    root = image_root(source)
    came_in = {find_file(root, path).relative_to(root).as_posix() for path in manifest["path"]}
    left_out = {find_file(root, item.where.split(" frame ")[0]).relative_to(root).as_posix() for item in flow.excluded}
    assert came_in | left_out == names
    assert not came_in & left_out
    assert all(item.reason and item.kind for item in flow.excluded)
    # Everything that the index says pydicom decodes with free plugins, and that is a picture, came in.
    picture = ~index["sop_class"].fillna("").str.contains("Segmentation|RT Dose|Parametric|Microscopy")
    free = index["decodes_all_plugins"].eq("yes") & picture
    assert set(index.loc[free, "file"]) <= came_in
    # And what pydicom alone does not decode: 12 bits, progressive, XL.
    jpeg = index["ts_uid"].isin([f"1.2.840.10008.1.2.4.{number}" for number in (51, 53, 55, 111)])
    assert jpeg.sum() == 13
    assert set(index.loc[jpeg, "file"]) <= came_in
    assert len(came_in) == 209
    fields = ("PatientName", "PatientID", "StudyInstanceUID", "SOPInstanceUID", "AccessionNumber")
    written = "".join(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file())
    text = written + manifest.to_csv() + repr(flow)
    for name in sorted(came_in):
        dataset = pydicom.dcmread(root / name, force=True, stop_before_pixels=True, specific_tags=list(fields))
        for field in fields:
            value = str(dataset.get(field) or "")
            assert len(value) < 8 or value not in text, f"{field} of {name}"


def test_real_files_agree_with_pydicom(shared_data: Path) -> None:
    """Two windows, rescale, VOI LUT, MONOCHROME1 of 10 bits, signed CT: rendered by pydicom's own functions."""
    root = shared_data / "dicom"
    names = ["pydicom_wheel/CT_small.dcm", "wg04/RG3_RLE.dcm", "wg04/CT2_RLE.dcm", "cxr_torchxrayvision/Fake_MONOHR1.dcm"]
    names += [
        path.relative_to(root).as_posix()
        for path in sorted((root / "derived").glob("*"))
        if re.search("window|voi|rescale|mono", path.name)
    ]
    assert len(names) >= 7
    for name in names:
        dataset = pydicom.dcmread(root / name)
        stored = pixel_array(dataset, raw=True)
        values = np.asarray(apply_voi_lut(apply_modality_lut(stored, dataset), dataset), float)
        drawn = read_dicom(root / name).astype(float)
        inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
        # The order of grey levels is what the two must share, whatever range each spreads them over.
        correlation = np.corrcoef(values.ravel()[::17], drawn.ravel()[::17])[0, 1]
        assert (-correlation if inverted else correlation) > 0.97, name


# ---------------------------------------------------------------- by hand, and by DCMTK


def by_hand(name: str, stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """0..255 as the standard's formulas say, each written out here once more from PS3.3, without rounding."""
    x = stored.astype(float)
    if name == "two_windows_12bit.dcm":  # 2048, 4096: the whole 12 bits
        return np.clip((x - 2047.5) / 4095 + 0.5, 0, 1) * 255
    if name == "voi_function_sigmoid.dcm":
        return 255 / (1 + np.exp(-4 * (x - float(dataset.WindowCenter)) / float(dataset.WindowWidth)))
    if name == "voi_lut_sequence_12bit.dcm":
        item = dataset.VOILUTSequence[0]
        n, first, bits = item.LUTDescriptor
        table = np.asarray(item.LUTData) if not isinstance(item.LUTData, bytes) else np.frombuffer(item.LUTData, np.uint16)
        return table[np.clip(stored.astype(int) - first, 0, n - 1)] / (2**bits - 1) * 255
    if name == "ok_mono2_8bit.dcm":
        return x
    values = x * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    inner = values if "PixelPaddingValue" not in dataset else values[stored != dataset.PixelPaddingValue]
    low, high = np.percentile(inner, [0.5, 99.5], method="inverted_cdf")  # none of these has a window
    levels = np.clip((values - low) / (high - low), 0, 1) * 255
    if "PixelPaddingValue" in dataset:
        levels[stored == dataset.PixelPaddingValue] = 0
    return 255 - levels if dataset.PhotometricInterpretation == "MONOCHROME1" else levels


HAND_MADE = (
    "ok_mono2_8bit.dcm", "two_windows_12bit.dcm", "voi_function_sigmoid.dcm", "voi_lut_sequence_12bit.dcm", "mono1_12bit.dcm",
    "rescale_slope_intercept_12bit.dcm", "signed_16bit_padding_value.dcm",
)  # fmt: skip


@pytest.mark.parametrize("name", HAND_MADE)
def test_the_derived_files_by_hand(shared_data: Path, name: str) -> None:
    path = shared_data / "dicom" / "derived" / name
    dataset = pydicom.dcmread(path)
    expected = by_hand(name, pixel_array(dataset, raw=True), dataset)
    assert expected.max() - expected.min() > 100
    assert np.abs(read_dicom(path).astype(float) - expected).max() <= 0.5 + 1e-9


@pytest.mark.skipif(shutil.which("dcmj2pnm") is None, reason="needs DCMTK's dcmj2pnm (Debian: dcmtk)")
@pytest.mark.parametrize(
    ("elements", "options"),
    [
        ({"WindowCenter": 1500, "WindowWidth": 1200}, ["+Wi", "1"]),
        ({"WindowCenter": [1500, 300], "WindowWidth": [1200, 400]}, ["+Wi", "1"]),
        ({"WindowCenter": 1500, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"}, ["+Wi", "1", "+Wfs"]),
        ({"WindowCenter": 1500, "WindowWidth": 1200, "PhotometricInterpretation": "MONOCHROME1"}, ["+Wi", "1"]),
        ({"WindowCenter": 1500, "WindowWidth": 1200, "PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, ["+Wi", "1"]),
        ({"WindowCenter": -200, "WindowWidth": 900, "RescaleSlope": 0.5, "RescaleIntercept": -1000}, ["+Wi", "1"]),
        ({"VOILUTSequence": lookup_table(list(range(0, 4096, 3)), first=700, bits=12)}, ["+Wl", "1"]),
        ({"ModalityLUTSequence": lookup_table([4095 - 2 * n for n in range(2000)], first=500, bits=12), "WindowCenter": 2000, "WindowWidth": 3000}, ["+Wi", "1"]),
        ({"BitsStored": 12, "HighBit": 11, "WindowCenter": 1500, "WindowWidth": 1200}, ["+Wi", "1"]),
    ],
)  # fmt: skip
def test_grey_levels_agree_with_dcmtk(tmp_path: Path, elements: dict[str, object], options: list[str]) -> None:
    path = save_dicom(tmp_path / "a.dcm", RAMP, **elements)
    subprocess.run(["dcmj2pnm", "-q", "-O", *options, str(path), str(tmp_path / "a.pgm")], check=True)
    theirs = cv2.imread(str(tmp_path / "a.pgm"), cv2.IMREAD_UNCHANGED)
    assert np.ptp(theirs) > 100
    assert np.abs(read_dicom(path).astype(int) - theirs).max() <= 1
