"""The same picture more than once: under two labels, two patients, in two parts, or simply twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medcnn.cohort import Finding
from medcnn.data.lookalikes import look_alikes
from medcnn.data.resemblance import SAME_PICTURE
from medcnn.errors import InputError
from medcnn.tables import label_matrix, label_names

# Where copies stand in several parts, the test part keeps its own, so that published test sets stay comparable.
KEPT_FIRST = ("test", "train", "val")
KINDS = ("label_conflict", "duplicate", "near_duplicate", "duplicate_across_parts", "patient_under_two_ids")
# Score (resemblance.score_pairs) that no two films of one patient in one pose reached; beyond it, alike pictures of one patient count
# as copies, and a copy under two patients stops the run where labels or parts differ.
SURE = 2.7
_DOUBT = SURE - SAME_PICTURE
N_NAMED = 3
Group = pd.DataFrame  # the rows of the manifest that show one picture


@dataclass(frozen=True)
class _Copies:
    """Pairs of rows, int64 (n, 2). equal: identical pixels; changed: look-alikes; sure: those of them of two patients and beyond doubt."""

    equal: np.ndarray
    changed: np.ndarray
    sure: np.ndarray


def copy_findings(manifest: pd.DataFrame, split: pd.DataFrame | None, traits: pd.DataFrame | None = None) -> list[Finding]:
    """Findings on images of the same picture; each has in `groups` the images that show one.

    manifest: sorted by image_id, rows numbered from 0. split: image_id, part, fold; without it the given parts count. traits: image_id and
    `likeness` (resemblance.py) of each image; None: only identical pixels are found. Raises InputError when traits lack an image.
    """
    copies = _find_copies(manifest, traits)
    groups = _groups(manifest, np.concatenate([copies.equal, copies.sure]))
    places = _places(manifest, split)
    conflicts = [group for group in groups if _labels_conflict(group)]
    agreeing = [group for group in _groups(manifest, copies.equal) if not _labels_conflict(group)]
    known = {int(row): number for number, group in enumerate(conflicts) for row in group.index}
    told = np.array([known.get(int(i), -1) == known.get(int(j), -2) for i, j in copies.changed], bool)
    changed = _groups(manifest, copies.changed[~told]) if len(copies.changed) else []
    return [
        *_label_conflicts(conflicts),
        *_duplicates(agreeing),
        *_near_duplicates(changed, places),
        *_across_parts(groups, places),
        *_two_ids(manifest, _groups(manifest, np.concatenate([copies.equal, copies.changed]))),
    ]


def join_copies(manifest: pd.DataFrame, findings: Sequence[Finding], *, merge_patients: bool) -> pd.DataFrame:
    """The manifest with `copy_group` (the first image_id of those that show one picture; blank for the others), which the split keeps together.

    findings: of copy_findings. merge_patients: patients who share a picture get the patient_id of the first of them (sorted as text).
    Without copies the manifest comes back as it is.
    """
    groups = [group for finding in findings if finding.kind in KINDS for group in finding.groups]
    row = pd.Series(np.arange(len(manifest)), index=manifest["image_id"].to_numpy())
    present = [row[[image for image in group if image in row.index]].to_numpy() for group in groups]
    pairs = [np.stack([rows[:-1], rows[1:]], axis=1) for rows in present if len(rows) > 1]
    if not pairs:
        return manifest
    component = _components(len(manifest), np.concatenate(pairs))
    images = manifest["image_id"].astype(str).groupby(component).transform("min")
    shared = pd.Series(component, index=manifest.index).duplicated(keep=False)
    joined = manifest.assign(copy_group=images.where(shared, None))
    if merge_patients:
        joined["patient_id"] = _merged_patients(manifest["patient_id"], joined["copy_group"])
    return joined


def _merged_patients(patients: pd.Series, copy_group: pd.Series) -> pd.Series:
    codes, names = pd.factorize(patients.astype(str), sort=True)
    groups = pd.factorize(copy_group)[0]
    known = groups >= 0
    component = _components(len(names) + int(groups.max()) + 1, np.stack([codes[known], groups[known] + len(names)], axis=1))[: len(names)]
    first = pd.Series(names).groupby(component).transform("first")  # names are sorted
    return pd.Series(first.to_numpy()[codes], index=patients.index)


# ---------------------------------------------------------------- which images


def _find_copies(manifest: pd.DataFrame, traits: pd.DataFrame | None) -> _Copies:
    digests = manifest["pixel_sha256"] if "pixel_sha256" in manifest else manifest["sha256"] + ":" + manifest["frame"].astype(str)
    codes = pd.factorize(digests)[0]
    order = np.argsort(codes, kind="stable")
    same = codes[order[1:]] == codes[order[:-1]]
    equal = np.stack([order[:-1][same], order[1:][same]], axis=1)  # each with the next of its kind
    if traits is None:
        return _Copies(equal, np.empty((0, 2), np.int64), np.empty((0, 2), np.int64))
    first = np.sort(np.unique(codes, return_index=True)[1])  # of identical images one is looked at
    found = look_alikes([value if isinstance(value, bytes) else None for value in _likenesses(manifest, traits).iloc[first]])
    pairs = first[found.pairs]
    patients = manifest["patient_id"].to_numpy()
    apart, sure = patients[pairs[:, 0]] != patients[pairs[:, 1]], found.scores >= found.least + _DOUBT
    # Within a patient, pictures that are almost equal are common and right: the next slice, the same pose a day later.
    return _Copies(equal, pairs[apart | sure], pairs[apart & sure])


def _likenesses(manifest: pd.DataFrame, traits: pd.DataFrame) -> pd.Series:
    known = traits.set_index("image_id")["likeness"]
    lacking = ~manifest["image_id"].isin(known.index)
    if lacking.any():
        raise InputError(
            f"traits: {int(lacking.sum())} of {len(manifest)} images are not there, first {manifest.loc[lacking, 'image_id'].iloc[0]}; expected those that ingest wrote beside this manifest"
        )
    return known.reindex(manifest["image_id"])


def _components(n: int, pairs: np.ndarray) -> np.ndarray:
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    component: np.ndarray = connected_components(graph, directed=False)[1]
    return component


def _groups(manifest: pd.DataFrame, pairs: np.ndarray) -> list[Group]:
    """Rows that pairs join, directly or through others, in the order of their first rows."""
    if not len(pairs):
        return []
    rows = np.unique(pairs)
    component = _components(len(rows), np.searchsorted(rows, pairs))
    return [group for _, group in manifest.iloc[rows].groupby(component, sort=False)]


# ---------------------------------------------------------------- findings


def _labels_conflict(group: Group) -> bool:
    y = label_matrix(group, label_names(group))
    return bool(((y == 0).any(axis=0) & (y == 1).any(axis=0)).any())


def _label_conflicts(groups: list[Group]) -> list[Finding]:
    if not groups:
        return []
    images = tuple(sorted(image for group in groups for image in group["image_id"]))
    return [
        Finding(
            severity="error",
            kind="label_conflict",
            text=f"{len(groups)} {'picture stands' if len(groups) == 1 else 'pictures stand'} in the cohort with different labels ({len(images)} images, {_how_alike(groups)}): {_first_groups(groups)}.",
            todo="Find out which label is right and mend the source, or set audit.exclude.label_conflict to a reason: all of them then leave.",
            image_ids=images,
            exclude_ids=images,
            groups=_named(groups),
        )
    ]


def _duplicates(groups: list[Group]) -> list[Finding]:
    """Copies with the same labels, within one given part (or in a cohort without parts)."""
    in_one_part = []
    for group in groups:
        parts = group["given_part"].fillna("") if "given_part" in group else pd.Series("", index=group.index)
        in_one_part += [part for _, part in group.groupby(parts) if len(part) > 1]
    if not in_one_part:
        return []
    images = [image for group in in_one_part for image in group["image_id"]]
    return [
        Finding(
            severity="warning",
            kind="duplicate",
            text=f"{_pictures(in_one_part)} more than once with the same label ({len(images)} images with identical pixels, {_n_torn(in_one_part)} of the pictures under more than one patient): {_first_groups(in_one_part)}.",
            todo="Copies count twice in every number and, under two patients, can fall into two parts. Set audit.exclude.duplicate to a reason to keep the first of each.",
            image_ids=tuple(sorted(images)),
            exclude_ids=tuple(sorted(image for group in in_one_part for image in group["image_id"].iloc[1:])),
            groups=_named(in_one_part),
        )
    ]


def _near_duplicates(groups: list[Group], places: pd.DataFrame | None) -> list[Finding]:
    if not groups:
        return []
    images = [image for group in groups for image in group["image_id"]]
    facts = [f"{len(images)} images", f"{_n_torn(groups)} of the pictures under more than one patient"]
    if n_conflicts := sum(map(_labels_conflict, groups)):
        facts.append(f"{n_conflicts} with different labels")
    if n_apart := len(_torn_by_parts(groups, places)):
        facts.append(f"{n_apart} in two parts")
    return [
        Finding(
            severity="warning",
            kind="near_duplicate",
            text=f"{_pictures(groups)} again changed: cropped, turned, mirrored, resized, brightened, compressed, or a field of view that overlaps ({', '.join(facts)}): {_first_groups(groups)}.",
            todo="Look at them. The split deals them together; given parts stay as they are. Set audit.exclude.near_duplicate to a reason to keep the first of each.",
            image_ids=tuple(sorted(images)),
            exclude_ids=tuple(sorted(image for group in groups for image in group["image_id"].iloc[1:])),
            groups=_named(groups),
        )
    ]


def _across_parts(groups: list[Group], places: pd.DataFrame | None) -> list[Finding]:
    torn = _torn_by_parts(groups, places)
    if not torn:
        return []
    images = tuple(sorted(image for group, _, _ in torn for image in group["image_id"]))
    words = sorted({word for _, word, _ in torn})
    return [
        Finding(
            severity="error",
            kind="duplicate_across_parts",
            text=f"{len(torn)} {'picture stands' if len(torn) == 1 else 'pictures stand'} in two parts ({', '.join(words)}; {len(images)} images, {_how_alike([group for group, _, _ in torn])}): {_first_groups([group for group, _, _ in torn])}.",
            todo="What is tested or selected on was trained on. Set audit.exclude.duplicate_across_parts to a reason: the copy in test stays, else the one in train.",
            image_ids=images,
            exclude_ids=tuple(sorted({image for _, _, leaving in torn for image in leaving})),
            groups=_named([group for group, _, _ in torn]),
        )
    ]


def _torn_by_parts(groups: list[Group], places: pd.DataFrame | None) -> list[tuple[Group, str, list[str]]]:
    """Groups that stand in several parts of a fold: which parts, and which images leave so that one keeps them."""
    if places is None or not groups:
        return []
    number = pd.Series({image: number for number, group in enumerate(groups) for image in group["image_id"]})
    placed = places[places["image_id"].isin(number.index)]
    placed = placed.assign(group=placed["image_id"].map(number))
    torn: dict[int, tuple[Group, str, list[str]]] = {}
    for _, fold in placed.groupby(["group", "fold"]):
        group = int(fold["group"].iloc[0])
        parts = sorted(set(fold["part"]), key=KEPT_FIRST.index)
        if len(parts) > 1 and group not in torn:
            torn[group] = (groups[group], "/".join(parts), fold.loc[fold["part"] != parts[0], "image_id"].tolist())
    return list(torn.values())


def _places(manifest: pd.DataFrame, split: pd.DataFrame | None) -> pd.DataFrame | None:
    """image_id, part, fold of every image that has a part."""
    if split is not None:
        return split[["image_id", "part", "fold"]]
    if "given_part" not in manifest:
        return None
    return manifest[["image_id", "given_part"]].dropna().rename(columns={"given_part": "part"}).assign(fold=0)


def _two_ids(manifest: pd.DataFrame, groups: list[Group]) -> list[Finding]:
    """One picture under several patients, where patients are known at all."""
    torn = [group for group in groups if group["patient_id"].nunique() > 1]
    if not torn or manifest["patient_id"].nunique() == len(manifest):
        return []
    images = tuple(sorted(image for group in torn for image in group["image_id"]))
    patients = {patient for group in torn for patient in group["patient_id"]}
    pairs = [" and ".join(dict.fromkeys(group["patient_id"].astype(str))) for group in torn]
    return [
        Finding(
            severity="warning",
            kind="patient_under_two_ids",
            text=f"{len(torn)} {'picture stands' if len(torn) == 1 else 'pictures stand'} under more than one patient ({len(images)} images of {len(patients)} patients, {_how_alike(torn)}): {first_of(pairs)}.",
            todo="Look at them. If they are one person, set audit.merge_patients to the reason: patients who share a picture then count as one. The split deals them together in any case.",
            image_ids=images,
            groups=_named(torn),
        )
    ]


# ---------------------------------------------------------------- words


def first_of(names: Sequence[str]) -> str:
    return ", ".join(names[:N_NAMED]) + (" ..." if len(names) > N_NAMED else "")


def _named(groups: Sequence[Group]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(group["image_id"].astype(str)) for group in groups)


def _n_torn(groups: Sequence[Group]) -> int:
    return sum(group["patient_id"].nunique() > 1 for group in groups)


def _how_alike(groups: Sequence[Group]) -> str:
    equal = sum(int(group["pixel_sha256" if "pixel_sha256" in group else "sha256"].duplicated().any()) for group in groups)
    if equal == len(groups):
        return "identical pixels"
    return f"{equal} of the pictures with identical pixels, {len(groups) - equal} changed"


def _pictures(groups: Sequence[Group]) -> str:
    return "1 picture occurs" if len(groups) == 1 else f"{len(groups)} pictures occur"


def _first_groups(groups: Sequence[Group]) -> str:
    return first_of([" = ".join(group["image_id"].iloc[:N_NAMED]) for group in groups])
