"""Were these models tested on the same images, with the same truth? Only then does a paired comparison mean anything."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from medcnn.errors import InputError
from medcnn.tables import label_names


def align_tables(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables with rows in one order. Raises InputError unless they hold the same test."""
    if len(tables) < 2:
        raise InputError(f"comparison: needs two models or more, got {len(tables)}")
    names = list(tables)
    keys = ["image_id"] if all(table["image_id"].is_unique for table in tables.values()) else ["image_id", "fold"]
    ordered = {name: table.sort_values(keys, kind="stable").reset_index(drop=True) for name, table in tables.items()}
    reference = ordered[names[0]]
    for name in names[1:]:
        _require_same(names[0], reference, name, ordered[name], keys)
        ordered[name] = ordered[name].reindex(columns=[*reference.columns, *ordered[name].columns.difference(reference.columns)])
    return ordered


def _require_same(one: str, first: pd.DataFrame, other: str, second: pd.DataFrame, keys: list[str]) -> None:
    where = f"comparison: {one} and {other} were not tested on the same"
    labels = set(label_names(first)) ^ set(label_names(second))
    if labels:
        raise InputError(f"{where} labels: {', '.join(sorted(labels))} only in one of them; compare models of the same labels")
    if len(first) != len(second) or not (first[keys].to_numpy() == second[keys].to_numpy()).all():
        raise InputError(f"{where} images: {_counts(one, first, other, second, keys)}; compare models of one split")
    for column in ["part", "patient_id", *(f"y_{label}" for label in label_names(first))]:
        differ = (first[column] != second[column]) & ~(first[column].isna() & second[column].isna())
        if differ.any():
            row = int(np.argmax(differ))
            came = f"{first['image_id'].iloc[row]} has {first[column].iloc[row]!r} in {one} and {second[column].iloc[row]!r} in {other}"
            raise InputError(f"{where} rows: {column} differs in {int(differ.sum())} of {len(first)}, first {came}")


def _counts(one: str, first: pd.DataFrame, other: str, second: pd.DataFrame, keys: list[str]) -> str:
    """How many images both tables have, how many only one of them, and an example of those."""
    rows: list[set[tuple[object, ...]]] = [{tuple(row) for row in table[keys].to_numpy().tolist()} for table in (first, second)]
    parts = [f"{len(rows[0] & rows[1])} in common"]
    for name, missing in ((one, rows[0] - rows[1]), (other, rows[1] - rows[0])):
        example = f" (such as {min(str(row[0]) for row in missing)})" if missing else ""
        parts.append(f"{len(missing)} only in {name}{example}")
    return ", ".join(parts)
