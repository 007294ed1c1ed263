"""The difficult real files: each is in or out with a reason, and what is in agrees with pydicom."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

from medcnn.config_file import read_config
from medcnn.data.dicom import read_dicom
from medcnn.data.ingest import image_root, ingest
from medcnn.data.pseudonyms import find_file

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_each_of_the_difficult_files_is_in_or_out_with_a_reason(shared_data: Path, tmp_path: Path) -> None:
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
