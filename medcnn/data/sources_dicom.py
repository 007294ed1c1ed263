"""A tree of DICOM files, with labels joined from a table when there is one. No identity leaves it."""

import hashlib
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom

from medcnn.cohort import Exclusion
from medcnn.config_data import DataConfig
from medcnn.data.dicom import image_header, open_dataset
from medcnn.data.dicom_codecs import DICOM_ERRORS
from medcnn.data.dicom_elements import text_of
from medcnn.data.dicom_facts import Facts, acquisition_date, header_facts
from medcnn.data.dicom_kinds import object_kind, why_not
from medcnn.data.images import UnreadableImage, read_bytes
from medcnn.data.labels import UNLABELLED, is_blank
from medcnn.data.pseudonyms import MASK, hidden_path, masked_path, pseudonym, tokens_of
from medcnn.data.sources import Candidates, require_folder, walk_files
from medcnn.data.sources_table import described_columns, rows_by_key, table_labels
from medcnn.data.text_tables import read_text_table
from medcnn.errors import InputError
from medcnn.executors import n_cores
from medcnn.section import Auto
from medcnn.tables import Task

COVARIATES = (
    "modality",
    "object_kind",
    "view",
    "laterality",
    "body_part",
    "manufacturer",
    "scanner",
    "intent",
    "sex",
    "age_years",
    "burned_in",
    "photometric",
    "sop_class",
    "acquisition_date",
)

IDENTITIES = (
    "PatientID",
    "OtherPatientIDs",
    "PatientBirthDate",
    "AccessionNumber",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
)


@dataclass(frozen=True, kw_only=True)
class DicomFile:
    """One file of the tree: its identities, which stay in memory, and what may leave it."""

    name: str
    sha256: str = ""
    patient: str = ""
    study: str = ""
    identities: tuple[str, ...] = ()
    n_frames: int = 1
    facts: Facts | None = None
    date: str | None = None
    misfit: str | None = None
    problem: UnreadableImage | None = None


def dicom_candidates(config: DataConfig, task: Task | Auto, modality: str = "auto") -> Candidates:
    """Every frame (config.frames) of every file with pixels below config.path that belongs to the cohort (config.objects, modality).

    image_id: start of the file's sha256, and the frame of multi-frame objects; patient_id, study_id, site, scanner:
    pseudonyms; acquisition_date: as config.dates says; path: with masked names (config.file_names). Without PatientID the
    study counts as the patient, without study the file. Without label table the one label column, y_finding, is blank.
    Raises InputError: no such folder, no files, a label table that does not fit.
    """
    root = require_folder(Path(str(config.path)))
    names, excluded = walk_files(root)
    if not names:
        raise InputError(f"{root}: there are no files in this folder")
    with ThreadPoolExecutor(n_cores()) as pool:
        files = list(pool.map(lambda name: _look(root, name, config, modality), names))
    n_found = len(files) + len(excluded)
    shown, excluded = _shown(files, excluded, config)
    excluded += [Exclusion(where=shown[file.name], kind=file.problem.kind, reason=file.problem.reason) for file in files if file.problem]
    misfits = [file for file in files if file.misfit]
    excluded += [Exclusion(where=shown[file.name], kind="does_not_belong", reason=str(file.misfit)) for file in misfits]
    good = [file for file in files if not file.problem and not file.misfit]
    if not good:
        what = "a DICOM image that belongs here" if misfits else "a DICOM image"
        first = next((item for item in excluded if item.kind == "does_not_belong"), excluded[0])
        raise InputError(f"{root}: none of {len(files)} files is {what}; the first: {first.where}: {first.reason}")
    described, left_out, notes = _described(good, config, task)
    excluded += [Exclusion(where=shown[good[row].name], kind=kind, reason=reason) for row, (kind, reason) in sorted(left_out.items())]
    rows = _rows(good, described, shown, config)
    rows = rows[~rows["file_row"].isin(list(left_out))].drop(columns="file_row")
    return Candidates(rows=rows, n_found=n_found, excluded=excluded, notes=[*notes, *_notes(good, shown, config)])


# ---------------------------------------------------------------- files


def _shown(files: list[DicomFile], walked: list[Exclusion], config: DataConfig) -> tuple[dict[str, str], list[Exclusion]]:
    """Real name -> the one that outputs show; and what could not be walked, under such names."""
    if config.file_names == "masked":
        hidden = [Exclusion(where=hidden_path(item.where), kind=item.kind, reason=item.reason) for item in walked]
        return {file.name: hidden_path(file.name) for file in files}, hidden
    tree_words = frozenset(token for file in files for word in file.identities for token in tokens_of(word))
    # A file that could not be parsed tells no identity of its own, but its neighbours in the tree may.
    shown = {file.name: masked_path(file.name, file.identities, tree_words if file.problem else frozenset()) for file in files}
    return shown, [Exclusion(where=masked_path(item.where, (), tree_words), kind=item.kind, reason=item.reason) for item in walked]


def _look(root: Path, name: str, config: DataConfig, modality: str) -> DicomFile:
    """Parse one file; what is wrong with it is returned, not raised."""
    identities: tuple[str, ...] = ()
    try:
        data = read_bytes(root / name)
        dataset = open_dataset(data, name)
        identities = _identities(dataset)
        header = image_header(dataset, name)
        facts = header_facts(dataset)
    except UnreadableImage as error:
        return DicomFile(name=name, identities=identities, problem=error)
    except DICOM_ERRORS as error:
        if isinstance(error, InputError):  # the key for pseudonyms: no file's fault
            raise
        problem = UnreadableImage(name, "damaged", f"its elements cannot be read ({type(error).__name__})")
        return DicomFile(name=name, identities=identities, problem=problem)
    patient, study = text_of(dataset, "PatientID"), text_of(dataset, "StudyInstanceUID")
    sha256 = hashlib.sha256(data).hexdigest()
    body_part = facts["body_part"]
    return DicomFile(
        name=name,
        sha256=sha256,
        patient=patient,
        study=study,
        identities=identities,
        n_frames=header.n_frames,
        facts=facts,
        date=acquisition_date(dataset, patient or study or sha256, config.dates),
        misfit=why_not(object_kind(dataset), body_part if isinstance(body_part, str) else None, config.objects, modality),
    )


def _identities(dataset: pydicom.Dataset) -> tuple[str, ...]:
    words = {text_of(dataset, keyword) for keyword in IDENTITIES}
    words |= {word for keyword in ("PatientName", "OtherPatientNames") for word in tokens_of(text_of(dataset, keyword))}
    return tuple(sorted(words - {""}))


def _rows(files: list[DicomFile], described: pd.DataFrame, shown: dict[str, str], config: DataConfig) -> pd.DataFrame:
    """One row a frame that is wanted; `file_row` counts the files. What the label table says goes before what the header says."""
    rows: list[dict[str, Any]] = []
    n_taken: Counter[str] = Counter()
    for number, file in enumerate(files):
        n_taken[file.sha256] += 1
        copy = f".{n_taken[file.sha256]}" if n_taken[file.sha256] > 1 else ""
        facts = {**(file.facts or {}), "acquisition_date": file.date}
        of_file = {
            "file_row": number,
            "patient_id": _patient(file),
            "study_id": pseudonym("study", file.study) if file.study else None,
            "path": shown[file.name],
            **{key: facts[key] for key in (*COVARIATES, "site", "spacing_mm")},
            **{str(key): value for key, value in described.iloc[number].items() if str(key).startswith("y_") or not is_blank(value)},
        }
        for frame in _wanted_frames(file.n_frames, config):
            image_id = f"{file.sha256[:16]}{copy}{f'-{frame:04d}' if file.n_frames > 1 else ''}"
            rows += [{**of_file, "image_id": image_id, "frame": frame}]
    table = pd.DataFrame(rows)
    blank = [column for column in COVARIATES if table[column].isna().all()]
    return table.drop(columns=blank)


def _wanted_frames(n_frames: int, config: DataConfig) -> Iterable[int]:
    if config.frames == "all":
        return range(n_frames)
    return (0,) if config.frames == "first" else (n_frames // 2,)


def _patient(file: DicomFile) -> str:
    if file.patient:
        return pseudonym("patient", file.patient)
    return pseudonym("patient", f"of study {file.study}") if file.study else f"patient-of-file-{file.sha256[:16]}"


def _notes(files: list[DicomFile], shown: dict[str, str], config: DataConfig) -> list[str]:
    nameless = sum(not file.patient for file in files)
    masked = sum(file.name != shown[file.name] for file in files)
    burned_in = sum((file.facts or {}).get("burned_in") == "YES" for file in files)
    several = sum(file.n_frames > 1 for file in files)
    kinds = Counter(str((file.facts or {})["object_kind"]) for file in files)
    notes = [
        (nameless, "files have no PatientID: their study, or else the file itself, counts as a patient of its own"),
        (masked, f"files are shown under masked names ({MASK}...): medcnn.data.pseudonyms.find_file gives the real one"),
        (burned_in, "files say that text is burned into their pixels, which may hold names"),
        (several, f"files have several frames, of which {'all come' if config.frames == 'all' else f'the {config.frames} one comes'} in"),
    ]
    mixture = [f"The files are of {len(kinds)} kinds (data.objects): {', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}"]
    return [f"{n} {text}" for n, text in notes if n] + (mixture if len(kinds) > 1 else [])


# ---------------------------------------------------------------- labels


def _described(files: list[DicomFile], config: DataConfig, task: Task | Auto) -> tuple[pd.DataFrame, dict[int, tuple[str, str]], list[str]]:
    """For each file its y_LABEL columns and what else the label table says; rows left out; notes."""
    if config.label_table is None:
        if config.label_column or config.label_columns:
            raise InputError("data.label_column is set, but data.label_table is not; a DICOM tree has its labels in a table")
        blank = pd.DataFrame({f"y_{UNLABELLED}": [np.nan] * len(files)})
        return blank, {}, ["No label table is given (data.label_table): every label is blank"]
    source = config.label_table
    table = read_text_table(source)
    labels = table_labels(table, config, task, source=str(source))
    said = described_columns(table, config, source)
    for column, kind in (("patient_id", "patient"), ("study_id", "study")):
        if column in said:
            said[column] = [None if is_blank(value) else pseudonym(kind, str(value)) for value in said[column]]
    row_of = rows_by_key(table, config, _table_key(config), config.join)
    found = [row_of.get(_key(file, config)) for file in files]
    left_out = {}
    for number, row in enumerate(found):
        if row is None:
            left_out[number] = ("not_in_label_table", f"the label table has no row for this {config.join}")
        elif row in labels.left_out:
            left_out[number] = labels.left_out[row]
    described = pd.concat([said, labels.y], axis=1).reindex([-1 if row is None else row for row in found]).reset_index(drop=True)
    unused = len(table) - len({row for row in found if row is not None})
    return described, left_out, [f"{unused} rows of the label table fit no image"] if unused else []


def _key(file: DicomFile, config: DataConfig) -> str:
    return {"file": file.name, "study": file.study, "patient": file.patient}[config.join]


def _table_key(config: DataConfig) -> Callable[[str], str]:
    """How a cell of the label table is compared with _key."""
    return (lambda cell: posixpath.normpath(cell.replace("\\", "/"))) if config.join == "file" else str
