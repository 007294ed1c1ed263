"""A CSV or Parquet table with a row per image, its columns named in the config."""

import posixpath
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn.cohort import Exclusion
from medcnn.config_data import DataConfig
from medcnn.data.labels import Labels, class_labels, finding_labels, is_blank, suggest
from medcnn.data.sources import Candidates, part_of
from medcnn.data.text_tables import read_text_table, require_one_line
from medcnn.errors import InputError
from medcnn.section import Auto
from medcnn.tables import MANIFEST_COLUMNS, Task

_ADDRESS = re.compile(r"[A-Za-z]:[\\/]|[A-Za-z][A-Za-z0-9+.-]*://|(file|phantom):", re.IGNORECASE)
RESERVED = {*MANIFEST_COLUMNS, "pixel_sha256", "study_id", "site", "given_part", "given_fold", "spacing_mm", "part", "fold"}


def table_root(config: DataConfig) -> Path:
    """Folder that the image column is relative to."""
    return config.image_root or Path(str(config.path)).parent


def table_candidates(config: DataConfig, task: Task | Auto) -> Candidates:
    """Every row of the table whose path stays below the image root.

    Equal rows come in once. Rows that name the same file but differ in anything else all come in, with the row number
    in their image_id, so that the audit can judge them. Raises InputError for a missing column (naming the nearest), a
    value that is no label, no part word or no fold number (naming row and column).
    """
    path = Path(str(config.path))
    if config.image_root is not None and not config.image_root.is_dir():
        raise InputError(
            f"{config.image_root}: no such folder; data.image_root is the folder that column {config.image_column} is relative to"
        )
    table = read_text_table(path)
    images = _column(table, config.image_column, path).rename("path")
    labels = table_labels(table, config, task, source=str(path))
    rows = pd.concat([images, described_columns(table, config, path), labels.y], axis=1)
    rows["frame"] = 0
    root = table_root(config).absolute().as_posix()
    places = [_inside(value, root) for value in rows["path"]]
    rows["path"] = [place for place, _ in places]
    left_out = {**labels.left_out, **{row: problem for row, (_, problem) in enumerate(places) if problem}}
    repeated = rows.duplicated()
    again = [int(row) for row in np.flatnonzero(repeated)]
    left_out = {**dict.fromkeys(again, ("repeated_row", "repeats an earlier row in every column used")), **left_out}
    paths = rows["path"].tolist()
    excluded = [Exclusion(where=f"row {row + 2}: {paths[row]}", kind=left_out[row][0], reason=left_out[row][1]) for row in sorted(left_out)]
    rows = rows.drop(index=list(left_out))
    named_before = rows.duplicated("path")
    rows.insert(0, "image_id", rows["path"].where(~named_before, rows["path"] + [f" (row {row + 2})" for row in rows.index]))
    rows["patient_id"], notes = _patients(rows, config)
    return Candidates(rows=rows, n_found=len(table), excluded=excluded, notes=notes)


def table_labels(table: pd.DataFrame, config: DataConfig, task: Task | Auto, *, source: str) -> Labels:
    """The label columns that the config names. Raises InputError."""
    if config.label_column is not None:
        return class_labels(_column(table, config.label_column, source).tolist(), config, task, source=source)
    for column in config.label_columns:
        _column(table, column, source)
    return finding_labels(table, config.label_columns, config, source=source)


def described_columns(table: pd.DataFrame, config: DataConfig, source: object) -> pd.DataFrame:
    """patient_id, study_id, site, given_part, given_fold and covariates, those that the config names; blank is None."""
    described: dict[str, Any] = {}
    for name, column in {"patient_id": config.patient_column, "study_id": config.study_column, "site": config.site_column}.items():
        if column is not None:
            described[name] = _blanked(_column(table, column, source))
    if config.part_column is not None:
        described["given_part"] = _given_parts(_column(table, config.part_column, source), source)
    if config.fold_column is not None:
        described["given_fold"] = _given_folds(_column(table, config.fold_column, source), source)
    for covariate in config.covariates:
        if covariate in RESERVED or covariate.startswith("y_"):
            raise InputError(f"{source}: covariate {covariate!r} has a name that the manifest keeps for itself; rename the column")
        described[covariate] = _numbers_if_all(_blanked(_column(table, covariate, source)))
    return pd.DataFrame(described, index=table.index)


def _column(table: pd.DataFrame, name: str, source: object) -> pd.Series:
    if name not in table.columns:
        raise InputError(f"{source}: there is no column {name!r}; {suggest(name, [str(column) for column in table.columns])}")
    return require_one_line(table[name], source)


def _blanked(values: pd.Series) -> pd.Series:
    return pd.Series([None if is_blank(value) else str(value).strip() for value in values], index=values.index)


def _numbers_if_all(values: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers.astype(np.float64) if bool((numbers.notna() == values.notna()).all()) else values


def _given_parts(words: pd.Series, source: object) -> list[str | None]:
    parts = [None if is_blank(word) else part_of(str(word)) for word in words]
    for row, (word, part) in enumerate(zip(words, parts, strict=True)):
        if part is None and not is_blank(word):
            raise InputError(f"{source}: {words.name} is {word!r} in row {row + 2}; expected train, val (valid, validation, dev) or test")
    return parts


def _given_folds(words: pd.Series, source: object) -> list[int]:
    folds = []
    for row, word in enumerate(words):
        text = "" if is_blank(word) else str(word).strip().removesuffix(".0")
        if not text.isdecimal():
            raise InputError(f"{source}: {words.name} is {word!r} in row {row + 2}; expected a fold number 0, 1, 2, ...")
        folds.append(int(text))
    return folds


def _inside(value: object, root: str) -> tuple[str, tuple[str, str] | None]:
    """Path relative to the root (absolute, with /), and why it may not come in.

    A table names files below the image root and nothing else: relative, or absolute and below it, with / or a backslash. Links that lie
    there are followed wherever they lead, as those who keep the folder made them.
    """
    if is_blank(value):
        return "", ("no_path", "the path is blank")
    text = str(value).strip()
    if _ADDRESS.match(text):
        return text, ("outside_root", "is an address or a drive, not a path below the image root")
    if "\0" in text:
        return text.replace("\0", "?"), ("outside_root", "holds a NUL byte, which no path does")
    path = posixpath.normpath(text.replace("\\", "/"))
    if posixpath.isabs(path):
        path = posixpath.relpath(path, root)
    if path == ".." or path.startswith("../"):
        return text, ("outside_root", f"lies outside the image root {root}")
    return path, None


def _patients(rows: pd.DataFrame, config: DataConfig) -> tuple[Sequence[str], list[str]]:
    if config.patient_column is None:
        return rows["image_id"].tolist(), ["No patient column is named (data.patient_column): every image counts as its own patient"]
    blank = rows["patient_id"].isna()
    notes = [f"{int(blank.sum())} rows have a blank {config.patient_column}: each counts as its own patient"] if blank.any() else []
    return rows["patient_id"].where(~blank, rows["image_id"]).tolist(), notes


def rows_by_key(table: pd.DataFrame, config: DataConfig, key_of: Callable[[str], str], what: str) -> dict[str, int]:
    """Row of the label table for each key in data.image_column; blank cells name nothing. what: the noun for messages.

    Messages name rows and never keys: these may be identities. Raises InputError without the column, or where two rows have one key.
    """
    if config.image_column not in table.columns:
        raise InputError(
            f"{config.label_table}: there is no column {config.image_column!r}; {suggest(config.image_column, list(table.columns))}"
        )
    rows: dict[str, int] = {}
    for row, value in enumerate(table[config.image_column]):
        if is_blank(value):
            continue
        key = key_of(str(value).strip())
        if key in rows:
            raise InputError(f"{config.label_table}: rows {rows[key] + 2} and {row + 2} name the same {what}; one row for each is expected")
        rows[key] = row
    return rows
