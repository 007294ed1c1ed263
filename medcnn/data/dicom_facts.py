"""The few facts of a DICOM header that may leave it: known words, pseudonyms, numbers, a shifted date. Everything else stays inside."""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path

import pydicom

from medcnn.data.dicom import COLOUR, GREY, open_dataset
from medcnn.data.dicom_elements import known_uid, one_of, text_of, whole_of
from medcnn.data.dicom_geometry import spacing_mm
from medcnn.data.dicom_kinds import object_kind
from medcnn.data.images import read_bytes
from medcnn.data.pseudonyms import pseudonym, shift_days

# The words that may leave a data set; anything else in these elements is not repeated.
MODALITIES = frozenset(["AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CR", "CT", "DG", "DX", "ECG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LS", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OT", "PLAN", "PR", "PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTRECORD", "RTSTRUCT", "RWV", "SC", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TG", "US", "VA", "XA", "XC"])  # fmt: skip
VIEWS = frozenset(["AP", "PA", "LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAT", "LATERAL", "CC", "MLO", "ML", "LM", "LMO", "FB", "SIO", "XCC", "XCCL", "XCCM", "ISO"])  # fmt: skip
VIEW_CODES = {  # ViewCodeSequence, PS3.16 CID 4010 and 4014, in SNOMED CT and in the older SRT
    "399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-10214": "PA", "399173006": "LL", "R-10236": "LL", "399198007": "RL",
    "R-10232": "RL", "399067008": "LATERAL", "R-10228": "LM", "399352003": "LM", "399162004": "CC", "R-10242": "CC", "399368009": "MLO",
    "R-10226": "MLO", "399260004": "ML", "R-10224": "ML", "399099002": "LMO", "399196006": "FB", "R-10244": "FB", "399188001": "SIO",
    "R-102D0": "SIO", "399192008": "XCCL", "399101009": "XCCM", "441555000": "ISO",
}  # fmt: skip
BODY_PARTS = frozenset(["ABDOMEN", "ABDOMENPELVIS", "ADRENAL", "ANKLE", "AORTA", "ARM", "BLADDER", "BRAIN", "BREAST", "CALCANEUS", "CAROTID", "CEREBELLUM", "CERVIX", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "CLAVICLE", "COCCYX", "COLON", "CORNEA", "CSPINE", "CTSPINE", "ELBOW", "ESOPHAGUS", "EXTREMITY", "EYE", "FEMUR", "FINGER", "FOOT", "GALLBLADDER", "HAND", "HEAD", "HEADNECK", "HEART", "HIP", "HUMERUS", "ILEUM", "JAW", "KIDNEY", "KNEE", "LARYNX", "LEG", "LIVER", "LSPINE", "LUNG", "MAXILLA", "MEDIASTINUM", "NECK", "NOSE", "ORBIT", "OVARY", "PANCREAS", "PAROTID", "PATELLA", "PELVIS", "PENIS", "PHARYNX", "PROSTATE", "RECTUM", "RETINA", "RIB", "RIBS", "SCAPULA", "SELLA", "SHOULDER", "SKULL", "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "TESTIS", "THIGH", "THORAX", "THYMUS", "THYROID", "TIBIA", "TMJ", "TOE", "TRACHEA", "TSPINE", "UPRURINARYTRACT", "UTERUS", "WHOLEBODY", "WRIST", "ZYGOMA"])  # fmt: skip
VENDORS = ("agfa", "canon", "carestream", "esaote", "fuji", "ge", "general electric", "heidelberg", "hitachi", "hologic", "kodak", "konica", "mindray", "nidek", "optos", "philips", "samsung", "shimadzu", "siemens", "swissray", "topcon", "toshiba", "zeiss")  # fmt: skip
INTENTS = frozenset(["FOR PRESENTATION", "FOR PROCESSING"])

Facts = Mapping[str, str | int | float | None]


def header_facts(dataset: pydicom.Dataset) -> Facts:
    """What may leave the header, None for blank, `other` for a word not known.

    modality, view, laterality, body_part, manufacturer, intent, sop_class, transfer_syntax, photometric, sex, burned_in:
    known words only. object_kind: see dicom_kinds. scanner (maker and model together), site: pseudonyms. rows, columns, frames;
    spacing_mm of the pixels as they come out; age_years (90 and over is 90).
    """
    maker, model = text_of(dataset, "Manufacturer"), text_of(dataset, "ManufacturerModelName")
    institution = text_of(dataset, "InstitutionName")
    return {
        "modality": one_of(text_of(dataset, "Modality"), MODALITIES),
        "object_kind": object_kind(dataset),
        "view": _view(dataset),
        "laterality": one_of(text_of(dataset, "ImageLaterality") or text_of(dataset, "Laterality"), {"L", "R", "B", "U"}),
        "body_part": one_of(re.sub(r"[\s_-]", "", text_of(dataset, "BodyPartExamined")), BODY_PARTS),
        "manufacturer": next((vendor for vendor in VENDORS if re.search(rf"\b{vendor}", maker.lower())), "other") if maker else None,
        "scanner": pseudonym("scanner", f"{maker} {model}") if maker or model else None,
        "site": pseudonym("site", institution) if institution else None,
        "intent": one_of(text_of(dataset, "PresentationIntentType"), INTENTS),
        "sop_class": known_uid(dataset, "SOPClassUID"),
        "transfer_syntax": known_uid(getattr(dataset, "file_meta", None), "TransferSyntaxUID"),
        "photometric": one_of(text_of(dataset, "PhotometricInterpretation"), GREY | COLOUR),
        "sex": one_of(text_of(dataset, "PatientSex"), {"F", "M", "O"}),
        "burned_in": one_of(text_of(dataset, "BurnedInAnnotation"), {"YES", "NO"}),
        "rows": whole_of(dataset, "Rows"),
        "columns": whole_of(dataset, "Columns"),
        "frames": max(1, whole_of(dataset, "NumberOfFrames") or 1),
        "spacing_mm": spacing_mm(dataset),
        "age_years": _age_years(dataset),
    }


def read_header(path: Path) -> Facts:
    """The facts that may leave a file. Raises UnreadableImage when it is no DICOM."""
    return header_facts(open_dataset(read_bytes(path), path))


def acquisition_date(dataset: pydicom.Dataset, patient: str, dates: str) -> str | None:
    """When the image was taken, else the series or the study, as `2019-05-03`; None when unknown or dropped.

    patient: the identity whose secret shift moves the date; dates: shift, year (then `2019`), drop.
    """
    if dates == "drop":
        return None
    keywords = ("AcquisitionDate", "ContentDate", "SeriesDate", "StudyDate")
    taken = next(filter(None, (_date(text_of(dataset, keyword)) for keyword in keywords)), None)
    if taken is None:
        return None
    return str(taken.year) if dates == "year" else (taken - datetime.timedelta(days=shift_days(patient))).isoformat()


def _date(text: str) -> datetime.date | None:
    """YYYYMMDD; None for anything else, and for years in which nobody took such images."""
    try:
        found = datetime.datetime.strptime(text, "%Y%m%d").date() if re.fullmatch(r"\d{8}", text) else None
    except ValueError:
        return None
    return found if found is not None and found.year >= 1895 else None


def _view(dataset: pydicom.Dataset) -> str | None:
    position = text_of(dataset, "ViewPosition")
    items = dataset.get("ViewCodeSequence") or () if not position else ()
    coded = next((VIEW_CODES[code] for code in (text_of(item, "CodeValue") for item in items) if code in VIEW_CODES), None)
    return coded if not position else one_of(position, VIEWS)


def _age_years(dataset: pydicom.Dataset) -> float | None:
    """From PatientAge (`045Y`, `006M`, ...), else from the dates of birth and study, in whole years."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text_of(dataset, "PatientAge"))
    if match:
        years = int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]
        return min(90.0, round(years, 2))
    born, seen = _date(text_of(dataset, "PatientBirthDate")), _date(text_of(dataset, "StudyDate"))
    if born is None or seen is None or born >= seen:
        return None
    return min(90.0, float(seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))))
