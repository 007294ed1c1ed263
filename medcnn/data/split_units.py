"""What is dealt: units that are never torn apart, the classes they stand for, and parts that each get their share of both.

A unit is a patient, or all patients of a site; those that share a picture are one unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from medcnn.data.stratification import deal_units
from medcnn.errors import InputError
from medcnn.tables import infer_task, label_matrix

Unit = Literal["patient", "site"]
LARGE_UNIT = {"patient": 0.1, "site": 0.4}  # a unit with more than this share of the images is worth a note
REMEDY = "set fewer folds (split.n_folds), a larger fraction, or leave the class out (data.classes, data.label_columns)"


@dataclass(frozen=True)
class Cohort:
    """table: the manifest, sorted by image_id. member: bool (n_images, n_classes), the classes an image stands for; names: of the classes.

    units: int64 (n_images,), number of each image's unit; kind: what a unit is.
    """

    table: pd.DataFrame
    member: np.ndarray
    names: list[str]
    units: np.ndarray
    kind: Unit

    def among(self, rows: np.ndarray) -> "Cohort":
        """The cohort of some of its images; bool (n_images,). Units stay as they are."""
        return Cohort(self.table[rows], self.member[rows], self.names, self.units[rows], self.kind)

    def alone(self, rows: np.ndarray) -> "Cohort":
        """Some of the images as if there were no others: only they join units, and a class that none of them has is left out."""
        table, member = self.table[rows], self.member[rows]
        present = np.flatnonzero(member.any(axis=0))
        return Cohort(table, member[:, present], [self.names[number] for number in present], _units(table, self.kind), self.kind)

    def absent(self, rows: np.ndarray) -> list[str]:
        """Classes that no image of these rows stands for."""
        return [self.names[number] for number in np.flatnonzero(~self.member[rows].any(axis=0))]

    def n_patients(self, rows: np.ndarray) -> int:
        """Patients with an image among these rows."""
        return int(self.table.loc[rows, "patient_id"].nunique())


def gather_cohort(table: pd.DataFrame, labels: Sequence[str], kind: Unit) -> Cohort:
    """The cohort of a manifest sorted by image_id. Raises InputError when an image lacks its patient, or its site where sites are dealt."""
    require_filled(table, "patient_id", "give each image its patient")
    if table["image_id"].duplicated().any():
        raise InputError(f"split: image_id {table.loc[table['image_id'].duplicated(), 'image_id'].iloc[0]} occurs twice")
    if kind == "site":
        require_sites(table, "split.unit: site")
    return Cohort(table, *_classes(table, labels), _units(table, kind), kind)


def require_sites(table: pd.DataFrame, wanted: str) -> None:
    """Raise InputError unless every image has a site. wanted: the setting that needs them."""
    if "site" not in table or table["site"].isna().all():
        raise InputError(f"{wanted} needs to know each image's site, and the images come with none; set data.site_column")
    require_filled(table, "site", f"{wanted} needs it: fill in data.site_column, or leave these images out")


def require_filled(table: pd.DataFrame, column: str, remedy: str) -> None:
    """Raise InputError with the count and the first image where the column is blank."""
    blank = table[column].isna()
    if blank.any():
        raise InputError(f"split: {int(blank.sum())} images have no {column}, first {table.loc[blank, 'image_id'].iloc[0]}; {remedy}")


def _classes(table: pd.DataFrame, labels: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Each label's ones, and its zeros too unless they are the other classes' ones. A missing label is neither."""
    y = label_matrix(table, labels)
    if len(table) and infer_task(y) == "multiclass":
        return y == 1, list(labels)
    return np.concatenate([y == 1, y == 0], axis=1), [*labels, *(f"no {label}" for label in labels)]


# ---------------------------------------------------------------- units


def _units(table: pd.DataFrame, kind: Unit) -> np.ndarray:
    """Number of each image's unit, int64 (n_images,): connected components of patients, images of one picture and, when asked, sites.

    They are numbered by their first image.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    patients = pd.factorize(table["patient_id"])[0]
    n_nodes = int(patients.max(initial=-1)) + 1
    ends = [(patients, patients)]
    for shared in [*_digests(table), *([table["site"]] if kind == "site" else [])]:
        codes = pd.factorize(shared)[0]  # -1: not known
        known = codes >= 0
        ends.append((patients[known], codes[known] + n_nodes))
        n_nodes += int(codes.max(initial=-1)) + 1
    rows, columns = np.concatenate([end[0] for end in ends]), np.concatenate([end[1] for end in ends])
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1][patients]
    units: np.ndarray = pd.factorize(component)[0].astype(np.int64)
    return units


def _digests(table: pd.DataFrame) -> list[pd.Series]:
    """What names images of one picture: the file's bytes with the frame within it, the decoded pixels, and the copies that the audit found."""
    digests = []
    if "sha256" in table:
        frame = table["frame"].astype(str) if "frame" in table else ""
        digests.append(table["sha256"].astype("string") + ":" + frame)  # missing stays missing
    if "pixel_sha256" in table:
        digests.append(table["pixel_sha256"])
    if "copy_group" in table:
        digests.append(table["copy_group"])
    return digests


def note_units(cohort: Cohort, notes: list[str]) -> None:
    """Say which patients or sites were joined, and that one unit is too large to be balanced."""
    table, units = cohort.table, cohort.units
    column = "site" if cohort.kind == "site" else "patient_id"
    n_in_unit = table.groupby(units)[column].nunique()
    joined = n_in_unit[n_in_unit > 1]
    if cohort.kind == "site":
        notes.append(f"All patients of a site stand in one part; there are {table['site'].nunique()} sites.")
    if len(joined):
        what = "sites share patients or" if cohort.kind == "site" else "patients share"
        notes.append(f"{int(joined.sum())} {what} pictures and were dealt as {len(joined)} units.")
    sizes = np.bincount(units, minlength=1)
    if sizes.max() > LARGE_UNIT[cohort.kind] * len(table):
        first = table[column].iloc[int(np.flatnonzero(units == sizes.argmax())[0])]
        notes.append(f"One unit ({cohort.kind} {first}) holds {sizes.max()} of {len(table)} images; the parts cannot be balanced well.")


# ---------------------------------------------------------------- parts


def deal_parts(cohort: Cohort, shares: dict[str, float], seed: list[int], *, at_random: bool = False) -> np.ndarray:
    """Name of each image's part, dealt by unit; shares: of the units, by part.

    at_random: as deal_units has it. Raises InputError with counts when a class cannot stand in every part.
    """
    numbers, compact = np.unique(cohort.units, return_inverse=True)
    sizes = np.bincount(compact, minlength=len(numbers))
    per_class = np.stack([np.bincount(compact[column], minlength=len(numbers)) for column in cohort.member.T], axis=1)
    _require_classes(per_class, cohort, list(shares))
    rng = np.random.default_rng(seed)
    of_unit = deal_units(per_class, sizes, list(shares.values()), rng, at_random=at_random or cohort.kind == "site")
    found = np.stack([(per_class[of_unit == part] > 0).any(axis=0) for part in range(len(shares))])
    if not found.all():
        part, name = np.argwhere(~found)[0]
        raise InputError(
            f"split: no way was found to give part {list(shares)[part]} a {cohort.kind} of class {cohort.names[name]}; "
            f"{_counted(per_class, cohort)}; {_remedy(cohort)}"
        )
    named: np.ndarray = np.array(list(shares), dtype=object)[of_unit[compact]]
    return named


def _require_classes(per_class: np.ndarray, cohort: Cohort, parts: list[str]) -> None:
    n_units = (per_class > 0).sum(axis=0)
    short = n_units < len(parts)
    if short.any():
        rarest = int(np.argmin(n_units))
        where = ", ".join(parts) if not parts[0].isdigit() else f"{len(parts)} folds"
        raise InputError(
            f"split: class {cohort.names[rarest]} has {n_units[rarest]} {cohort.kind}s, too few to stand in each of {where}; "
            f"{_counted(per_class, cohort)}; {_remedy(cohort)}"
        )


def _counted(per_class: np.ndarray, cohort: Cohort) -> str:
    n_units = (per_class > 0).sum(axis=0)
    return f"{cohort.kind}s per class: " + ", ".join(f"{name} {n}" for name, n in zip(cohort.names, n_units, strict=True))


def _remedy(cohort: Cohort) -> str:
    return REMEDY + (", or deal patients (split.unit: patient)" if cohort.kind == "site" else "")
