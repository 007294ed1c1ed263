"""Labels as they were written to the 0/1/blank columns of a manifest.

One column of class names becomes one column y_POSITIVE (two classes) or one-hot columns (more); several columns, one per
finding, stay as many. Blank is missing; -1 is uncertain and goes by the config's policy.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medcnn.config_data import DataConfig
from medcnn.errors import InputError
from medcnn.section import Auto
from medcnn.tables import Task

BLANKS = frozenset({"", "na", "n/a", "nan", "null", "<na>"})
UNCERTAIN = "-1"
UNLABELLED = "finding"  # the one, blank, label column of a cohort that came without labels


@dataclass(frozen=True)
class Labels:
    """y: float columns y_LABEL, a row for each row that came. left_out: row number -> (kind, reason) for rows without a usable label."""

    y: pd.DataFrame
    left_out: dict[int, tuple[str, str]]


def is_blank(value: object) -> bool:
    """True for None, NaN, empty text and the usual ways to write a missing value."""
    return value is None or (isinstance(value, float) and np.isnan(value)) or str(value).strip().lower() in BLANKS


def class_labels(values: Sequence[str | None], config: DataConfig, task: Task | Auto, *, source: str) -> Labels:
    """Columns for one class name per row.

    Two classes: one column y_POSITIVE (config.positive, else the last class). More: one-hot columns, or one column when
    the task is binary and config.positive is given (that class against all others). Rows whose class is blank, uncertain
    (policy ignore) or not among config.classes are left out.
    Raises InputError: one class only, a configured class that occurs nowhere, a task that does not fit.
    """
    names = [None if value is None or (is_blank(value) and value not in config.classes) else str(value).strip() for value in values]
    unsure = [name == UNCERTAIN and UNCERTAIN not in config.classes for name in names]
    classes = _classes(names, config, source)
    positive = _positive(classes, config, task, source)
    left_out: dict[int, tuple[str, str]] = {}
    for row, (name, uncertain) in enumerate(zip(names, unsure, strict=True)):
        if name is None:
            left_out[row] = ("unlabelled", "the label is blank")
        elif uncertain and config.uncertain == "ignore":
            left_out[row] = ("uncertain", "the label is uncertain (-1) and the policy is to ignore it")
        elif not uncertain and name not in classes:
            left_out[row] = ("class_not_kept", f"class {name!r} is not among the classes of the config")
    if positive is None:
        if any(unsure) and config.uncertain != "ignore":
            raise InputError(
                f"{source}: an uncertain label (-1) cannot become {config.uncertain} with {len(classes)} classes; use uncertain: ignore"
            )
        y = {f"y_{label}": [float(name == label) for name in names] for label in classes}
    else:
        stands_for = {"ignore": np.nan, "ones": 1.0, "zeros": 0.0}[config.uncertain]
        y = {f"y_{positive}": [stands_for if sure else float(name == positive) for name, sure in zip(names, unsure, strict=True)]}
    return Labels(pd.DataFrame(y, dtype=np.float64), left_out)


def _classes(names: Sequence[str | None], config: DataConfig, source: str) -> list[str]:
    found = sorted({name for name in names if name is not None and (name != UNCERTAIN or name in config.classes)})
    for label in config.classes:
        if label not in found:
            raise InputError(f"{source}: class {label!r} of data.classes occurs nowhere; {suggest(label, found)}")
    classes = list(config.classes) or found
    if len(classes) < 2:
        raise InputError(
            f"{source}: only one class, {classes}; at least two are needed to tell apart" if classes else f"{source}: no row has a label"
        )
    return classes


def _positive(classes: Sequence[str], config: DataConfig, task: Task | Auto, source: str) -> str | None:
    """The class of the single column, or None for one-hot columns."""
    if config.positive is not None and config.positive not in classes:
        raise InputError(f"{source}: data.positive is {config.positive!r}; {suggest(config.positive, classes)}")
    if task == "multilabel":
        raise InputError(f"{source}: task multilabel needs label_columns, one 0/1 column per finding; one column of class names came")
    if task == "binary" and len(classes) > 2 and config.positive is None:
        raise InputError(
            f"{source}: task binary, but there are {len(classes)} classes {list(classes)}; name data.positive, or two data.classes"
        )
    if len(classes) == 2 and task != "multiclass":
        return config.positive or classes[-1]
    return config.positive if task == "binary" else None


def finding_labels(table: pd.DataFrame, columns: Sequence[str], config: DataConfig, *, source: str) -> Labels:
    """Columns for findings written as 1, 0, -1 (uncertain) or blank, one y_COLUMN each. Rows with every label blank are left out.

    Raises InputError naming row and column of a value that is none of these.
    """
    stands_for = {"ignore": np.nan, "ones": 1.0, "zeros": 0.0}[config.uncertain]
    y = pd.DataFrame({f"y_{column}": _finding(table[column], column, stands_for, source) for column in columns}, index=range(len(table)))
    unsure = (table[list(columns)].map(_number) == -1).any(axis=1).to_numpy()
    left_out = {}
    for row in np.flatnonzero(y.isna().all(axis=1).to_numpy()):
        left_out[int(row)] = (
            ("uncertain", "every label is uncertain (-1) or blank, and the policy is to ignore these")
            if unsure[row]
            else ("unlabelled", "every label is blank")
        )
    return Labels(y, left_out)


def _finding(values: pd.Series, column: str, uncertain: float, source: str) -> list[float]:
    numbers = []
    for row, value in enumerate(values):
        number = _number(value)
        if number not in {0.0, 1.0, -1.0} and not (number is not None and np.isnan(number)):
            raise InputError(f"{source}: {column} is {value!r} in row {row + 2}; expected 1, 0, blank (missing) or -1 (uncertain)")
        numbers.append(uncertain if number == -1 else float(number))
    return numbers


def _number(value: object) -> float | None:
    """NaN for blank, None for what is no number."""
    if is_blank(value):
        return float("nan")
    try:
        return float(str(value))
    except ValueError:
        return None


def suggest(name: str, known: Sequence[str]) -> str:
    """`did you mean X?`, or what there is."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    listed = ", ".join(list(known)[:12]) + (" ..." if len(known) > 12 else "")
    return f"did you mean {near[0]}? (there is: {listed})" if near else f"there is: {listed}"
