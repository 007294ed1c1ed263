"""The tables that flow between the stages: Manifest, Split, Predictions, Records. Columns, checks, read, write.

A table is a plain pandas DataFrame; these functions are the only place that knows which columns it has.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from medcnn.errors import InputError

Task = Literal["binary", "multiclass", "multilabel"]
Part = Literal["train", "val", "test"]
Level = Literal["image", "study", "patient"]
PARTS: tuple[str, ...] = get_args(Part)

MANIFEST_COLUMNS = ("image_id", "patient_id", "path", "frame", "height", "width", "bit_depth", "channels", "sha256")
SPLIT_COLUMNS = ("image_id", "patient_id", "part", "fold")
PREDICTION_COLUMNS = ("image_id", "patient_id", "part", "fold")


# ---------------------------------------------------------------- labels


def label_names(frame: pd.DataFrame) -> list[str]:
    """Names of the labels of a manifest or predictions table, in column order: what follows `y_`."""
    return [str(column)[2:] for column in frame.columns if str(column).startswith("y_")]


def label_matrix(frame: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Labels as float64 (n, n_labels): 0, 1 or NaN where the label is missing."""
    return frame[[f"y_{label}" for label in labels]].to_numpy(dtype=np.float64)


def probability_matrix(frame: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Probabilities as float64 (n, n_labels)."""
    return frame[[f"p_{label}" for label in labels]].to_numpy(dtype=np.float64)


def logit_matrix(frame: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Logits as float64 (n, n_labels)."""
    return frame[[f"logit_{label}" for label in labels]].to_numpy(dtype=np.float64)


def infer_task(y: np.ndarray) -> Task:
    """One label: binary. Several with exactly one 1 in every row and none missing: multiclass. Else multilabel.

    y: float (n, n_labels), 0/1/NaN.
    """
    if y.shape[1] == 1:
        return "binary"
    return "multiclass" if bool(np.all(np.nansum(y, axis=1) == 1) and not np.isnan(y).any()) else "multilabel"


def split_hash(split: pd.DataFrame) -> str:
    """sha256 (hex) of which image stands in which part of which fold, whatever the order of the rows."""
    rows = split["image_id"].astype(str) + "\t" + split["part"].astype(str) + "\t" + split["fold"].astype(int).astype(str)
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


# ---------------------------------------------------------------- checks


def check_manifest(frame: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """Return the manifest sorted by image_id, or raise InputError naming the first thing that is wrong with it."""
    _require_columns(frame, MANIFEST_COLUMNS, source)
    if frame.empty:
        raise InputError(f"{source}: no image came in; flow.json lists each file that was left out and why")
    if not label_names(frame):
        raise InputError(f"{source}: there is no label column (y_LABEL)")
    _require_unique(frame, ["image_id"], source)
    _require_labels(frame, source)
    return frame.sort_values("image_id", kind="stable").reset_index(drop=True)


def check_split(frame: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """Return the split, or raise InputError: every (image, fold) once, parts known, no patient in two parts of a fold."""
    _require_columns(frame, SPLIT_COLUMNS, source)
    _require_unique(frame, ["image_id", "fold"], source)
    _require_parts(frame, source)
    parts_of = frame.groupby(["fold", "patient_id"], observed=True)["part"].nunique()
    torn = parts_of[parts_of > 1]
    if len(torn):
        fold, patient = torn.index[0]
        raise InputError(
            f"{source}: {len(torn)} patients stand in two parts, first {patient} (fold {fold}); each patient belongs to one part"
        )
    return frame


def check_predictions(frame: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """Return the predictions with every standard column, or raise InputError.

    Anybody's table is taken: `y_LABEL` (0, 1, blank) and `p_LABEL` are required; `image_id` (default: the row
    number), `patient_id` (default: each row is its own patient), `part` (default: test) and `fold` (default: 0)
    are filled in. Every other column is kept as a covariate.
    """
    labels = label_names(frame)
    if not labels:
        raise InputError(f"{source}: no y_LABEL column among {list(frame.columns)[:12]}; expected y_LABEL (0, 1, blank) and p_LABEL")
    _require_columns(frame, [f"p_{label}" for label in labels], source)
    frame = frame.copy()
    if "image_id" not in frame:
        frame["image_id"] = [f"row{number}" for number in range(len(frame))]
    if "patient_id" not in frame:
        frame["patient_id"] = frame["image_id"]
    if frame["patient_id"].isna().any():
        row = int(np.flatnonzero(frame["patient_id"].isna())[0])
        raise InputError(f"{source}: patient_id is blank in row {row}; give every image a patient, or leave the column out")
    frame["image_id"], frame["patient_id"] = frame["image_id"].astype(str), frame["patient_id"].astype(str)
    frame["part"] = frame["part"].astype(str) if "part" in frame else "test"
    frame["fold"] = frame["fold"].astype(int) if "fold" in frame else 0
    if frame.empty:
        raise InputError(f"{source}: the table has no rows")
    _require_parts(frame, source)
    _require_unique(frame, ["image_id", "part", "fold"], source)
    _require_labels(frame, source)
    _require_probabilities(frame, labels, source)
    return frame


def _require_columns(frame: pd.DataFrame, columns: Iterable[str], source: str) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InputError(f"{source}: column {missing[0]} is missing; the table has {list(frame.columns)[:12]}")
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise InputError(f"{source}: two columns are called {repeated[0]}; give each its own name")


def _require_unique(frame: pd.DataFrame, columns: list[str], source: str) -> None:
    repeated = frame.duplicated(columns)
    if repeated.any():
        first = frame.loc[repeated, columns].iloc[0].tolist()
        raise InputError(f"{source}: {int(repeated.sum())} rows repeat {columns} of an earlier row, first {first}")


def _require_parts(frame: pd.DataFrame, source: str) -> None:
    strange = sorted(set(frame["part"].astype(str).unique()) - set(PARTS))
    if strange:
        raise InputError(f"{source}: part {strange[0]!r} is unknown; expected one of {', '.join(PARTS)}")


def _require_labels(frame: pd.DataFrame, source: str) -> None:
    for label in label_names(frame):
        column = pd.to_numeric(frame[f"y_{label}"], errors="coerce")
        strange = frame[f"y_{label}"].notna() & ~column.isin([0, 1])
        if strange.any():
            row = int(np.flatnonzero(strange.to_numpy())[0])
            came = frame[[f"y_{label}"]].iloc[row].tolist()[0]
            raise InputError(f"{source}: y_{label} is {came!r} in row {row}; expected 0, 1 or blank ({int(strange.sum())} such rows)")
        frame[f"y_{label}"] = column.astype(np.float64)


def _require_probabilities(frame: pd.DataFrame, labels: Sequence[str], source: str) -> None:
    for label in labels:
        column = pd.to_numeric(frame[f"p_{label}"], errors="coerce").astype(np.float64)
        bad = ~column.between(0, 1)
        if bad.any():
            rows = np.flatnonzero(bad.to_numpy())
            named = ", ".join(str(row) for row in rows[:5])
            came = frame[[f"p_{label}"]].iloc[int(rows[0])].tolist()[0]  # a plain number, not numpy's
            raise InputError(
                f"{source}: p_{label} is {came!r} in row {rows[0]}; expected a probability from 0 to 1 ({len(rows)} such rows: {named}{' ...' if len(rows) > 5 else ''})"
            )
        frame[f"p_{label}"] = column


# ---------------------------------------------------------------- records


@dataclass(frozen=True, kw_only=True)
class Record:
    """One number of `metrics.json`, the only schema in which the project states a result.

    value, low, high are None where not estimable; `note` then says why. `low`, `high`: 95% limits unless `method`
    says otherwise. `method` names the interval ("delong", "obuchowski", "wilson", ...). `recalibration` names what
    the probabilities went through before the number was taken ("none", "temperature", ...).
    """

    metric: str
    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""
    part: str = "test"
    level: str = "image"
    subset: str = "all"
    threshold: float | None = None
    recalibration: str = "none"
    n: int = 0
    n_positive: int | None = None
    n_patients: int = 0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One paired difference a - b of `comparison.json`."""

    metric: str
    label: str
    a: str
    b: str
    difference: float | None
    low: float | None = None
    high: float | None = None
    statistic: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    method: str = ""
    threshold: float | None = None
    n: int = 0
    n_patients: int = 0
    note: str = ""


def records_frame(records: Iterable[Record | Comparison]) -> pd.DataFrame:
    """Records as a table, one row each, columns in the order of the schema."""
    rows = [asdict(record) for record in records]
    return pd.DataFrame(rows)


def write_records(records: Sequence[Record | Comparison], path: Path) -> None:
    """Write records as a JSON list; a number that is not finite is written as null."""
    rows = [{key: _finite(value) for key, value in asdict(record).items()} for record in records]
    path.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_records(path: Path) -> list[Record]:
    """Read `metrics.json`; raises InputError when it is not a list of records."""
    return [Record(**row) for row in _read_rows(path, Record)]


def read_comparisons(path: Path) -> list[Comparison]:
    """Read `comparison.json`; raises InputError when it is not a list of comparisons."""
    return [Comparison(**row) for row in _read_rows(path, Comparison)]


def _read_rows(path: Path, kind: type) -> list[dict[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    known = {field.name for field in fields(kind)}
    if not isinstance(rows, list) or any(set(row) - known for row in rows):
        raise InputError(f"{path}: expected a list of records with the keys {sorted(known)}")
    return rows


def _finite(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------- files


def read_table(path: Path) -> pd.DataFrame:
    """Read .csv, .tsv or .parquet; ids stay text. Raises InputError when it cannot be read."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a .csv, .tsv or .parquet table")
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".tsv", ".parquet"}:
        raise InputError(f"{path}: cannot tell what table {suffix or 'a file without ending'} is; expected .csv, .tsv or .parquet")
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        text_columns = dict.fromkeys(("image_id", "patient_id", "study_id"), str)
        return pd.read_csv(path, sep="\t" if suffix == ".tsv" else ",", dtype=text_columns)
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from error


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write .parquet or .csv by the ending."""
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
