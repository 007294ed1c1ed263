"""One folder per class, or train/val/test folders over one folder per class."""

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from medcnn.cohort import Exclusion
from medcnn.config_data import DataConfig
from medcnn.data.labels import class_labels
from medcnn.data.sources import Candidates, part_of, require_folder, walk_files
from medcnn.errors import InputError
from medcnn.section import Auto
from medcnn.tables import Task


def folder_candidates(config: DataConfig, task: Task | Auto) -> Candidates:
    """Every file below a class folder. When all top folders are words for parts, they give the split and the class folders are below.

    The patient is what config.patient_pattern finds in the relative path, else every image is its own.
    Raises InputError: no such folder, no class folders, one class only, a pattern that does not fit.
    """
    root = require_folder(Path(str(config.path)))
    files, excluded = walk_files(root)
    n_found = len(files) + len(excluded)
    tops = {PurePosixPath(file).parts[0] for file in files if "/" in file}
    if not tops:
        what = f"{len(files)} files, but no class folders with files" if files else "no files"
        raise InputError(f"{root}: {what}; expected one folder per class, or a table that lists the images (data.source: table)")
    has_parts = all(part_of(top) for top in tops)
    depth = 2 if has_parts else 1
    rows = []
    for file in files:
        above = PurePosixPath(file).parts[:-1]
        if len(above) < depth:
            excluded.append(Exclusion(where=file, kind="outside_class_folders", reason="lies beside the class folders, not in one"))
        else:
            rows.append({"path": file, "class": above[depth - 1], "given_part": part_of(above[0]) if has_parts else None})
    table = pd.DataFrame(rows, columns=["path", "class", "given_part"])
    labels = class_labels(table["class"].tolist(), config, task, source=str(root))
    table["patient_id"], notes, nameless = _patients(table["path"].tolist(), config, root)
    left_out = {**nameless, **labels.left_out}
    excluded += [Exclusion(where=table["path"][row], kind=kind, reason=reason) for row, (kind, reason) in left_out.items()]
    manifest = pd.concat([table[["path", "patient_id"]], table[["given_part"]] if has_parts else None, labels.y], axis=1)
    manifest.insert(0, "image_id", manifest["path"])
    manifest["frame"] = 0
    return Candidates(rows=manifest.drop(index=list(left_out)), n_found=n_found, excluded=excluded, notes=notes)


def _patients(files: list[str], config: DataConfig, root: Path) -> tuple[list[str], list[str], dict[int, tuple[str, str]]]:
    """Patient of each file, notes, and the rows in which the pattern finds none."""
    if config.patient_pattern is None:
        return (
            list(files),
            ["No patient is named: every image counts as its own patient (data.patient_pattern would find them in the path)"],
            {},
        )
    try:
        pattern = re.compile(config.patient_pattern)
    except re.error as error:
        raise InputError(f"data.patient_pattern {config.patient_pattern!r} is no regular expression: {error}") from None
    if "patient" not in pattern.groupindex:
        raise InputError(f"data.patient_pattern {config.patient_pattern!r} has no group (?P<patient>...)")
    found = [match["patient"] if (match := pattern.search(file)) and match["patient"] else None for file in files]
    if not any(found):
        raise InputError(f"{root}: data.patient_pattern {config.patient_pattern!r} fits no path, for instance {files[0]!r}")
    reason = ("no_patient", "data.patient_pattern finds no patient in the path")
    return [name or "" for name in found], [], {row: reason for row, name in enumerate(found) if name is None}
