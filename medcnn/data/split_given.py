"""A split that the cohort brings: honoured as it is, and completed by a val part where it has none."""

import numpy as np
import pandas as pd

from medcnn.data.split_units import Cohort, deal_parts
from medcnn.errors import InputError
from medcnn.plan import SplitPlan
from medcnn.tables import PARTS

SAME_PART = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}


def given_column(table: pd.DataFrame) -> str:
    """Name of the column that holds the given split. Raises InputError when there is none, or two."""
    columns = given_columns(table)
    if not columns:
        raise InputError("split.scheme is given, but the images come with no split; set data.part_column or data.fold_column")
    if len(columns) == 2:
        raise InputError("the images come with a part and a fold; give one of data.part_column and data.fold_column")
    _require_complete(table, columns[0])
    return columns[0]


def given_columns(table: pd.DataFrame) -> list[str]:
    """Columns with a given split, of some images at least."""
    return [column for column in ("given_part", "given_fold") if column in table and table[column].notna().any()]


def read_parts(table: pd.DataFrame) -> np.ndarray:
    """Given part of each image (train, val or test), object (n_images,). Raises InputError when one is blank or unknown."""
    _require_complete(table, "given_part")
    parts = table["given_part"].astype(str).str.strip().str.lower().replace(SAME_PART).to_numpy(object)
    strange = sorted(set(parts) - set(PARTS))
    if strange:
        raise InputError(f"given_part {strange[0]!r} is unknown; expected one of {', '.join(PARTS)}")
    return parts


def read_folds(table: pd.DataFrame) -> np.ndarray:
    """Given fold of each image, int64 (n_images,). Raises InputError unless they count from 0."""
    column = table["given_fold"]
    numbers = pd.to_numeric(column, errors="coerce")
    wanted = np.arange(int(numbers.max()) + 1) if numbers.notna().all() else np.array([])
    if not np.array_equal(np.unique(numbers), wanted) or len(wanted) < 2:
        raise InputError(f"given_fold holds {sorted(set(column.astype(str)))[:12]}; expected every whole number from 0 to the last fold")
    return numbers.to_numpy(np.int64)


def complete_parts(cohort: Cohort, plan: SplitPlan, seed: int, notes: list[str]) -> np.ndarray:
    """The given parts; a val part that is not there is dealt from the units of train."""
    parts = read_parts(cohort.table)
    train = parts == "train"
    if train.any() and not (parts == "val").any() and plan.val_fraction:
        parts[train] = deal_parts(cohort.alone(train), {"train": 1 - plan.val_fraction, "val": plan.val_fraction}, [seed])
        n_val, n_train = cohort.n_patients(parts == "val"), cohort.n_patients(train)
        notes.append(f"The given split has no val part: {n_val} of the {n_train} patients of train became val, stratified by label.")
    notes += [f"The given split has no {part} part." for part in PARTS if not (parts == part).any()]
    note_absent(cohort, [("part", part, parts == part) for part in PARTS if (parts == part).any()], notes)
    return parts


def note_absent(cohort: Cohort, places: list[tuple[str, str, np.ndarray]], notes: list[str]) -> None:
    """Say which class is missing where; places: what, its name, its images."""
    for kind, place, rows in places:
        if absent := cohort.absent(rows):
            notes.append(f"The given {kind} {place} has no image of class {', '.join(absent)}.")


def _require_complete(table: pd.DataFrame, column: str) -> None:
    blank = table[column].isna()
    if blank.any():
        first = table.loc[blank, "image_id"].iloc[0]
        raise InputError(f"{column} is blank for {int(blank.sum())} images, first {first}; give every image a part or set split.scheme")
