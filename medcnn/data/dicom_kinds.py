"""What a DICOM object is, by its header alone: a radiograph, a slice, a localizer, a picture of a screen; and whether it fits a cohort."""

import re
from collections.abc import Sequence
from typing import Literal

import pydicom

from medcnn.config_data import ObjectKind
from medcnn.data.dicom_elements import known_uid, text_of, words_of

PROJECTION_MODALITIES = frozenset(["CR", "DX", "DR", "RG", "MG", "IO", "PX", "XA", "RF"])
PROJECTION_CLASSES = re.compile(r"Computed Radiography|Digital (Mammography )?X-Ray|Intra-Oral|X-Ray (Angiographic|Radiofluoroscopic)")
VOLUME_CLASSES = re.compile(r"Tomosynthesis|X-Ray 3D|\b(CT|MR|PET|Positron)")
PHOTOGRAPHS = frozenset(["OP", "OPM", "OPT", "OCT", "XC", "ES", "DG", "DMS"])
# Words of ImageType. Captures: what a workstation drew (a dose report, a protocol page), not what a detector saw.
CAPTURED = re.compile(r"SCREEN|DOSE|\bPROT(OCOL)?\b|REPORT|SNAPSHOT|\bCAPTURE")
LOCALIZERS = re.compile(r"LOCALI[ZS]ER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM")
COMPUTED = re.compile(
    r"\b(MPR|MIP|MINIP|MINMIP|VRT|REFORMATTED|SUBTRACTION|ADC|FA|TRACEW?|PERFUSION|PROJECTION IMAGE|VOLUME RENDERING|MEAN|AVERAGE)\b"
)

# Kinds that can be of a config's modality. Others: every kind can.
FITTING: dict[str, tuple[ObjectKind, ...]] = {
    "chest_xray": ("projection",),
    "xray": ("projection",),
    "histology": ("microscopy", "photograph"),
    "fundus": ("photograph",),
    "dermoscopy": ("photograph",),
    "ultrasound": ("ultrasound",),
}
CHEST = frozenset(
    ["CHEST", "THORAX", "LUNG", "RIB", "RIBS", "HEART", "MEDIASTINUM", "CHESTABDOMEN", "CHESTABDPELVIS", "STERNUM", "TSPINE", "other"]
)
WORDS: dict[ObjectKind, str] = {
    "projection": "a projection radiograph",
    "raw_projection": "a detector's raw image (FOR PROCESSING), which nobody reads",
    "slice": "a slice (CT, MR, PET or tomosynthesis)",
    "localizer": "a localizer",
    "ultrasound": "an ultrasound image",
    "photograph": "a photograph",
    "microscopy": "a microscopic image",
    "nuclear": "a scintigram",
    "derived": "an image computed from slices (reformatted, projected, averaged, subtracted, a map)",
    "capture": "a secondary capture: a screen, a report, a scan of a film or another format",
    "unknown": "an object whose header does not say what it shows",
}


def object_kind(dataset: pydicom.Dataset) -> ObjectKind:
    """One of ObjectKind, from SOP class, Modality, ImageType, presentation intent and whether there is a slice's orientation."""
    modality, sop_class = text_of(dataset, "Modality").upper(), known_uid(dataset, "SOPClassUID") or ""
    words = words_of(dataset, "ImageType")
    said = " | ".join(words)
    is_capture = "Secondary Capture" in sop_class
    if CAPTURED.search(said):
        return "capture"
    if modality in {"US", "IVUS", "BDUS"} or "Ultrasound" in sop_class:
        return "ultrasound"
    if not VOLUME_CLASSES.search(sop_class) and (modality in PROJECTION_MODALITIES or PROJECTION_CLASSES.search(sop_class)):
        raw = "For Processing" in sop_class or text_of(dataset, "PresentationIntentType").upper() == "FOR PROCESSING"
        return "raw_projection" if raw else "projection"
    if modality in {"CT", "MR", "PT"} or VOLUME_CLASSES.search(sop_class):
        return _kind_of_slice(dataset, words, said, is_capture=is_capture)
    if modality == "NM" or "Nuclear" in sop_class:
        return "nuclear"
    if modality in {"SM", "GM"} or "Microscopic" in sop_class:
        return "microscopy"
    if modality in PHOTOGRAPHS or "Photograph" in sop_class or "VL Endoscopic" in sop_class:
        return "photograph"
    return "capture" if is_capture else "unknown"


def _kind_of_slice(
    dataset: pydicom.Dataset, words: Sequence[str], said: str, *, is_capture: bool
) -> Literal["localizer", "derived", "capture", "slice"]:
    if LOCALIZERS.search(said):
        return "localizer"
    if COMPUTED.search(said) or words[:2] == ["DERIVED", "SECONDARY"]:
        return "derived"
    return "capture" if is_capture and "ImageOrientationPatient" not in dataset else "slice"


def why_not(kind: ObjectKind, body_part: str | None, objects: str | tuple[ObjectKind, ...], modality: str) -> str | None:
    """Why an object does not belong to the cohort, as a sentence; None when it does.

    objects, modality: the config's data.objects and modality; body_part: as header_facts gives it.
    """
    if objects == "all":
        return None
    wanted = FITTING.get(modality) if objects == "fitting" else tuple(objects)
    if wanted is not None and kind not in wanted:
        said = f"modality: {modality}" if objects == "fitting" else f"data.objects: [{', '.join(wanted)}]"
        return f"{WORDS[kind]}, and the config says {said}; name {kind} in data.objects (or all) to take it"
    if objects == "fitting" and modality == "chest_xray" and body_part is not None and body_part not in CHEST:
        return f"shows {body_part}, and the config says modality: chest_xray; set data.objects to the kinds you want, or all, to take it"
    return None
