"""DICOM files made for tests: a small computed radiograph, whose elements a test replaces or deletes."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medcnn.data.dicom import decode_dicom, read_dicom
from medcnn.data.images import UnreadableImage
from medcnn.data.pixel_record import Cell

CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16  # 0..4080
SIGNED = (RAMP.astype(np.int32) - 2048).astype(np.int16)


def make_dicom(pixels: np.ndarray, **elements: object) -> pydicom.Dataset:
    """A data set around the pixels (H, W), (H, W, 3) or (frames, H, W); an element given as None is deleted."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CR_IMAGE, generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = CR_IMAGE, dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality, dataset.PatientID, dataset.PatientName = "CR", "4711", "Nobody^Known"
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.ndim == 3 and not colour:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def save_dicom(path: Path, pixels: np.ndarray, **elements: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    make_dicom(pixels, **elements).save_as(path, enforce_file_format=True)
    return path


def lookup_table(entries: list[int], first: int, bits: int) -> pydicom.Sequence:
    """An item of a modality or VOI LUT sequence."""
    item = pydicom.Dataset()
    item.add_new(0x00283002, "US" if first >= 0 else "SS", [len(entries), first, bits])
    item.add_new(0x00283006, "US", entries)
    return pydicom.Sequence([item])


def shown(folder: Path, pixels: np.ndarray, frame: int = 0, **elements: object) -> np.ndarray:
    return read_dicom(save_dicom(folder / "a.dcm", pixels, **elements), frame)


def recorded(folder: Path, pixels: np.ndarray, frame: int = 0, **elements: object) -> dict[str, Cell]:
    path = save_dicom(folder / "a.dcm", pixels, **elements)
    return dict(decode_dicom(path.read_bytes(), frame, where=path)[1].record)


def kind_of(path: Path, frame: int = 0) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_dicom(path, frame)
    return caught.value.kind


def levels(values: np.ndarray) -> np.ndarray:
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
