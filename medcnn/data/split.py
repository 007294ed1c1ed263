"""Deal patients to parts: train, val and test, or k folds; every label in its share everywhere.

The unit is the patient, and patients who share an identical image are one unit, so that neither a person nor a copy
of an image ever stands in two parts. A given split is honoured as it is.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medcnn.data.stratification import deal_units
from medcnn.errors import InputError
from medcnn.plan import SplitPlan
from medcnn.tables import PARTS, SPLIT_COLUMNS, check_split, infer_task, label_matrix

SAME_PART = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}
LARGE_UNIT = 0.1  # a unit with more than this share of the images is worth a note


def deal(manifest: pd.DataFrame, plan: SplitPlan, *, labels: Sequence[str], seed: int) -> pd.DataFrame:
    """One row per (image, fold): image_id, patient_id, part, fold; sorted by fold, then image_id.

    holdout: fold 0 has train, val and test. kfold: fold f tests the f-th of k shares, so every image is tested once;
    val is dealt from the other patients. given: `given_part` (or `given_fold`) as it is; a val part it lacks is dealt
    from the patients of train. Fractions are of patients. Row order never changes the result, the seed does.
    `.attrs["notes"]` holds sentences on what a reader must know (val dealt from train, patients joined by a copy, ...);
    they survive Parquet. Raises InputError with the counts per class when a class cannot stand in every part.
    """
    table = manifest.sort_values("image_id", kind="stable").reset_index(drop=True)
    _require_patients(table)
    cohort = _Cohort(table, *_classes(table, labels))
    notes: list[str] = []
    folds = _given(cohort, plan, seed, notes) if plan.scheme == "given" else _dealt(cohort, plan, seed, notes)
    split = pd.concat(
        [table[["image_id", "patient_id"]].assign(part=parts, fold=fold) for fold, parts in enumerate(folds)], ignore_index=True
    )
    split = check_split(split[list(SPLIT_COLUMNS)], source="split")
    split.attrs["notes"] = notes
    return split


def count_parts(manifest: pd.DataFrame, split: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """For each fold and part: n_images, n_patients, and for each label n_labelled_, n_positive_ and n_positive_patients_LABEL."""
    joined = split.merge(manifest[["image_id", *(f"y_{label}" for label in labels)]], on="image_id", validate="many_to_one")
    groups = joined.groupby(["fold", "part"], observed=True, sort=False)
    counts = pd.DataFrame({"n_images": groups.size(), "n_patients": groups["patient_id"].nunique()})
    for label in labels:
        y = f"y_{label}"
        counts[f"n_labelled_{label}"] = groups[y].count()
        counts[f"n_positive_{label}"] = groups[y].sum().astype(np.int64)
        positive = joined[joined[y] == 1].groupby(["fold", "part"], observed=True)["patient_id"].nunique()
        counts[f"n_positive_patients_{label}"] = positive.reindex(counts.index, fill_value=0)
    counts = counts.reset_index()
    order = counts["part"].map({part: number for number, part in enumerate(PARTS)})
    return counts.assign(_order=order).sort_values(["fold", "_order"]).drop(columns="_order").reset_index(drop=True)


def split_hash(split: pd.DataFrame) -> str:
    """sha256 (hex) of which image stands in which part of which fold, whatever the order of the rows."""
    rows = split["image_id"].astype(str) + "\t" + split["part"].astype(str) + "\t" + split["fold"].astype(int).astype(str)
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


# ---------------------------------------------------------------- what is dealt


@dataclass(frozen=True)
class _Cohort:
    """table: the manifest, sorted. member: bool (n_images, n_classes), the classes an image stands for; names: of the classes."""

    table: pd.DataFrame
    member: np.ndarray
    names: list[str]


def _classes(table: pd.DataFrame, labels: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Each label's ones, and its zeros too unless they are the other classes' ones. A missing label is neither."""
    y = label_matrix(table, labels)
    if len(table) and infer_task(y) == "multiclass":
        return y == 1, list(labels)
    return np.concatenate([y == 1, y == 0], axis=1), [*labels, *(f"no {label}" for label in labels)]


def _require_patients(table: pd.DataFrame) -> None:
    blank = table["patient_id"].isna()
    if blank.any():
        first = table.loc[blank, "image_id"].iloc[0]
        raise InputError(f"split: {int(blank.sum())} images have no patient_id, first {first}; give each image its patient")
    if table["image_id"].duplicated().any():
        raise InputError(f"split: image_id {table.loc[table['image_id'].duplicated(), 'image_id'].iloc[0]} occurs twice")


def _units(table: pd.DataFrame) -> np.ndarray:
    """Number of each image's unit, int64 (n_images,): connected components of patients and identical images, by first image."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    patients = pd.factorize(table["patient_id"])[0]
    n_nodes = int(patients.max(initial=-1)) + 1
    ends = [(patients, patients)]
    for digests in _digests(table):
        codes = pd.factorize(digests)[0]  # -1: not known
        known = codes >= 0
        ends.append((patients[known], codes[known] + n_nodes))
        n_nodes += int(codes.max(initial=-1)) + 1
    rows, columns = np.concatenate([end[0] for end in ends]), np.concatenate([end[1] for end in ends])
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1][patients]
    units: np.ndarray = pd.factorize(component)[0].astype(np.int64)
    return units


def _digests(table: pd.DataFrame) -> list[pd.Series]:
    """What names identical images: the file's bytes with the frame within it, and the decoded pixels."""
    digests = []
    if "sha256" in table:
        frame = table["frame"].astype(str) if "frame" in table else ""
        digests.append(table["sha256"].astype("string") + ":" + frame)  # missing stays missing
    if "pixel_sha256" in table:
        digests.append(table["pixel_sha256"])
    return digests


# ---------------------------------------------------------------- dealt splits


def _dealt(cohort: _Cohort, plan: SplitPlan, seed: int, notes: list[str]) -> list[np.ndarray]:
    units = _units(cohort.table)
    _note_units(cohort.table, units, notes)
    if plan.scheme == "holdout":
        shares = {"train": 1 - plan.val_fraction - plan.test_fraction, "val": plan.val_fraction, "test": plan.test_fraction}
        shares = {part: share for part, share in shares.items() if share > 0}
        notes += [f"There is no {part} part: its fraction is 0." for part in PARTS if part not in shares]
        return [_parts(cohort, units, shares, [seed])]
    tested = _parts(cohort, units, {str(fold): 1 / plan.n_folds for fold in range(plan.n_folds)}, [seed])
    return _with_val(cohort, units, tested.astype(int), plan, seed, share=plan.val_fraction / (1 - 1 / plan.n_folds))


def _with_val(cohort: _Cohort, units: np.ndarray, tested: np.ndarray, plan: SplitPlan, seed: int, *, share: float) -> list[np.ndarray]:
    """For each fold: the images it tests, and train and val dealt from all others (share: of the others, to val)."""
    if share >= 1:
        raise InputError(f"split.val_fraction {plan.val_fraction} leaves nothing to train on beside a test fold; set it lower")
    folds = []
    for fold in range(int(tested.max()) + 1):
        parts = np.full(len(units), "test", dtype=object)
        rest = tested != fold
        shares = {"train": 1 - share, "val": share} if share else {"train": 1.0}
        parts[rest] = _parts(_part_of(cohort, rest), units[rest], shares, [seed, fold + 1])
        folds.append(parts)
    return folds


def _part_of(cohort: _Cohort, rows: np.ndarray) -> _Cohort:
    return _Cohort(cohort.table[rows], cohort.member[rows], cohort.names)


def _parts(cohort: _Cohort, units: np.ndarray, shares: dict[str, float], seed: list[int]) -> np.ndarray:
    """Name of each image's part, dealt by unit. Raises InputError when a class cannot stand in every part."""
    numbers, compact = np.unique(units, return_inverse=True)
    sizes = np.bincount(compact, minlength=len(numbers))
    per_class = np.stack([np.bincount(compact[column], minlength=len(numbers)) for column in cohort.member.T], axis=1)
    _require_classes(per_class, cohort.names, list(shares))
    of_unit = deal_units(per_class, sizes, list(shares.values()), np.random.default_rng(seed))
    found = np.stack([(per_class[of_unit == part] > 0).any(axis=0) for part in range(len(shares))])
    if not found.all():
        part, name = np.argwhere(~found)[0]
        raise InputError(
            f"split: no way was found to give part {list(shares)[part]} a patient of class {cohort.names[name]}; "
            f"{_counted(per_class, cohort.names)}; {REMEDY}"
        )
    named: np.ndarray = np.array(list(shares), dtype=object)[of_unit[compact]]
    return named


REMEDY = "set fewer folds (split.n_folds), a larger fraction, or leave the class out (data.classes, data.label_columns)"


def _require_classes(per_class: np.ndarray, names: list[str], parts: list[str]) -> None:
    n_units = (per_class > 0).sum(axis=0)
    short = n_units < len(parts)
    if short.any():
        rarest = int(np.argmin(n_units))
        where = ", ".join(parts) if not parts[0].isdigit() else f"{len(parts)} folds"
        raise InputError(
            f"split: class {names[rarest]} has {n_units[rarest]} patients, too few to stand in each of {where}; "
            f"{_counted(per_class, names)}; {REMEDY}"
        )


def _counted(per_class: np.ndarray, names: list[str]) -> str:
    n_units = (per_class > 0).sum(axis=0)
    return "patients per class: " + ", ".join(f"{name} {n}" for name, n in zip(names, n_units, strict=True))


def _note_units(table: pd.DataFrame, units: np.ndarray, notes: list[str]) -> None:
    patients = table.groupby(units)["patient_id"].nunique()
    joined = patients[patients > 1]
    if len(joined):
        notes.append(f"{int(joined.sum())} patients share identical images and were dealt as {len(joined)} units.")
    largest = np.bincount(units).max(initial=0)
    if largest > LARGE_UNIT * len(table):
        first = table["patient_id"].iloc[int(np.flatnonzero(units == np.bincount(units).argmax())[0])]
        notes.append(f"One unit (patient {first}) holds {largest} of {len(table)} images; the parts cannot be balanced well.")


# ---------------------------------------------------------------- given splits


def _given(cohort: _Cohort, plan: SplitPlan, seed: int, notes: list[str]) -> list[np.ndarray]:
    columns = [column for column in ("given_part", "given_fold") if column in cohort.table and cohort.table[column].notna().any()]
    if not columns:
        raise InputError("split.scheme is given, but the images come with no split; set data.part_column or data.fold_column")
    if len(columns) == 2:
        raise InputError("the images come with a part and a fold; give one of data.part_column and data.fold_column")
    blank = cohort.table[columns[0]].isna()
    if blank.any():
        first = cohort.table.loc[blank, "image_id"].iloc[0]
        raise InputError(f"{columns[0]} is blank for {int(blank.sum())} images, first {first}; give every image a part or set split.scheme")
    if columns == ["given_part"]:
        return [_given_parts(cohort, plan, seed, notes)]
    tested = _given_folds(cohort.table["given_fold"])
    _note_absent(cohort, [("fold", str(fold), tested == fold) for fold in range(int(tested.max()) + 1)], notes)
    notes.append(f"The {int(tested.max()) + 1} folds are given; val was dealt from the patients outside each fold, stratified by label.")
    return _with_val(cohort, _units(cohort.table), tested, plan, seed, share=plan.val_fraction)


def _given_folds(column: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce")
    wanted = np.arange(int(numbers.max()) + 1) if numbers.notna().all() else np.array([])
    if not np.array_equal(np.unique(numbers), wanted) or len(wanted) < 2:
        raise InputError(f"given_fold holds {sorted(set(column.astype(str)))[:12]}; expected every whole number from 0 to the last fold")
    return numbers.to_numpy(np.int64)


def _given_parts(cohort: _Cohort, plan: SplitPlan, seed: int, notes: list[str]) -> np.ndarray:
    named = cohort.table["given_part"].astype(str).str.strip().str.lower()
    parts = named.replace(SAME_PART).to_numpy(object)
    strange = sorted(set(parts) - set(PARTS))
    if strange:
        raise InputError(f"given_part {strange[0]!r} is unknown; expected one of {', '.join(PARTS)}")
    train = parts == "train"
    if train.any() and not (parts == "val").any() and plan.val_fraction:
        among = _with_present(_part_of(cohort, train))
        parts[train] = _parts(among, _units(among.table), {"train": 1 - plan.val_fraction, "val": plan.val_fraction}, [seed])
        n_val, n_train = (cohort.table.loc[rows, "patient_id"].nunique() for rows in (parts == "val", train))
        notes.append(f"The given split has no val part: {n_val} of the {n_train} patients of train became val, stratified by label.")
    notes += [f"The given split has no {part} part." for part in PARTS if not (parts == part).any()]
    _note_absent(cohort, [("part", part, parts == part) for part in PARTS if (parts == part).any()], notes)
    return parts


def _with_present(cohort: _Cohort) -> _Cohort:
    """The cohort without the classes that none of its images stands for."""
    present = np.flatnonzero(cohort.member.any(axis=0))
    return _Cohort(cohort.table, cohort.member[:, present], [cohort.names[number] for number in present])


def _note_absent(cohort: _Cohort, places: list[tuple[str, str, np.ndarray]], notes: list[str]) -> None:
    for kind, place, rows in places:
        absent = [cohort.names[number] for number in np.flatnonzero(~cohort.member[rows].any(axis=0))]
        if absent:
            notes.append(f"The given {kind} {place} has no image of class {', '.join(absent)}.")
