"""The same picture more than once: under two labels, in two parts, or simply twice."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medcnn.cohort import Finding
from medcnn.data.digests import HASH_BITS, NEAR_BITS, SAME_PICTURE_BITS, near_pairs
from medcnn.tables import label_matrix, label_names

# Where copies stand in several parts, the test part keeps its own, so that published test sets stay comparable.
KEPT_FIRST = ("test", "train", "val")
N_NAMED = 3


def copy_findings(manifest: pd.DataFrame, split: pd.DataFrame | None) -> list[Finding]:
    """Findings on images of the same picture.

    manifest: sorted by image_id, rows numbered from 0. split: image_id, part, fold; without it the given parts count.
    """
    equal = _equal_pairs(manifest)
    near = near_pairs(manifest["perceptual_hash"].fillna("").tolist()) if "perceptual_hash" in manifest else []
    patients = manifest["patient_id"].to_numpy()
    # Within a patient, pictures that are almost equal are common and right: the next slice, the next frame.
    same = [(i, j) for i, j, bits in near if bits <= SAME_PICTURE_BITS and patients[i] != patients[j]]
    groups = _groups(manifest, equal + same)
    conflicts = [group for group in groups if _labels_conflict(group)]
    known = set(equal) | {pair for group in conflicts for pair in _all_pairs(group)}
    resaved = _groups(manifest, [(i, j) for i, j, _ in near if (i, j) not in known])
    agreeing = [group for group in _groups(manifest, equal) if not _labels_conflict(group)]
    return [*_label_conflicts(conflicts), *_duplicates(agreeing), *_near_duplicates(resaved), *_across_parts(groups, manifest, split)]


def _equal_pairs(manifest: pd.DataFrame) -> list[tuple[int, int]]:
    """Rows with equal pixels, each with the next of its kind."""
    digests = manifest["pixel_sha256"] if "pixel_sha256" in manifest else manifest["sha256"] + ":" + manifest["frame"].astype(str)
    rows = pd.Series(np.arange(len(manifest))).groupby(digests.to_numpy()).agg(list)
    return [pair for group in rows if len(group) > 1 for pair in combinations(group, 2)]


def _all_pairs(group: pd.DataFrame) -> list[tuple[int, int]]:
    return list(combinations(sorted(int(row) for row in group.index), 2))


def _groups(manifest: pd.DataFrame, pairs: Sequence[tuple[int, int]]) -> list[pd.DataFrame]:
    """Rows that pairs join, directly or through others, in the order of their first rows."""
    if not pairs:
        return []
    left, right = np.array(pairs).T
    graph = coo_array((np.ones(len(pairs)), (left, right)), shape=(len(manifest), len(manifest)))
    component = connected_components(graph, directed=False)[1]
    joined = manifest[pd.Series(component, index=manifest.index).duplicated(keep=False)]
    return [group for _, group in joined.groupby(component[joined.index], sort=False)]


def _labels_conflict(group: pd.DataFrame) -> bool:
    y = label_matrix(group, label_names(group))
    return bool(((y == 0).any(axis=0) & (y == 1).any(axis=0)).any())


def _label_conflicts(groups: list[pd.DataFrame]) -> list[Finding]:
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
        )
    ]


def _duplicates(groups: list[pd.DataFrame]) -> list[Finding]:
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
        )
    ]


def _near_duplicates(groups: list[pd.DataFrame]) -> list[Finding]:
    if not groups:
        return []
    images = [image for group in groups for image in group["image_id"]]
    return [
        Finding(
            severity="warning",
            kind="near_duplicate",
            text=f"{_pictures(groups)} again almost unchanged ({len(images)} images whose perceptual hashes differ by at most {NEAR_BITS} of {HASH_BITS} bits, {_n_torn(groups)} of the pictures under more than one patient): {_first_groups(groups)}.",
            todo="Look at them. Under two patients they can fall into two parts. Set audit.exclude.near_duplicate to a reason to keep the first of each.",
            image_ids=tuple(sorted(images)),
            exclude_ids=tuple(sorted(image for group in groups for image in group["image_id"].iloc[1:])),
        )
    ]


def _across_parts(groups: list[pd.DataFrame], manifest: pd.DataFrame, split: pd.DataFrame | None) -> list[Finding]:
    places = _places(manifest, split)
    if places is None:
        return []
    torn: list[pd.DataFrame] = []
    leaving: set[str] = set()
    words: set[str] = set()
    for group in groups:
        for _, fold in places[places["image_id"].isin(group["image_id"])].groupby("fold"):
            parts = sorted(set(fold["part"]), key=KEPT_FIRST.index)
            if len(parts) > 1:
                torn.append(group)
                words.add("/".join(parts))
                leaving |= set(fold.loc[fold["part"] != parts[0], "image_id"])
                break
    if not torn:
        return []
    images = tuple(sorted(image for group in torn for image in group["image_id"]))
    return [
        Finding(
            severity="error",
            kind="duplicate_across_parts",
            text=f"{len(torn)} {'picture stands' if len(torn) == 1 else 'pictures stand'} in two parts ({', '.join(sorted(words))}; {len(images)} images, {_how_alike(torn)}): {_first_groups(torn)}.",
            todo="What is tested or selected on was trained on. Set audit.exclude.duplicate_across_parts to a reason: the copy in test stays, else the one in train.",
            image_ids=images,
            exclude_ids=tuple(sorted(leaving)),
        )
    ]


def _places(manifest: pd.DataFrame, split: pd.DataFrame | None) -> pd.DataFrame | None:
    """image_id, part, fold of every image that has a part."""
    if split is not None:
        return split[["image_id", "part", "fold"]]
    if "given_part" not in manifest:
        return None
    return manifest[["image_id", "given_part"]].dropna().rename(columns={"given_part": "part"}).assign(fold=0)


def first_of(names: Sequence[str]) -> str:
    return ", ".join(names[:N_NAMED]) + (" ..." if len(names) > N_NAMED else "")


def _n_torn(groups: Sequence[pd.DataFrame]) -> int:
    return sum(group["patient_id"].nunique() > 1 for group in groups)


def _how_alike(groups: Sequence[pd.DataFrame]) -> str:
    equal = sum(int(group["pixel_sha256" if "pixel_sha256" in group else "sha256"].duplicated().any()) for group in groups)
    return (
        "identical pixels" if equal == len(groups) else f"{equal} of the pictures with identical pixels, {len(groups) - equal} saved anew"
    )


def _pictures(groups: Sequence[pd.DataFrame]) -> str:
    return "1 picture occurs" if len(groups) == 1 else f"{len(groups)} pictures occur"


def _first_groups(groups: Sequence[pd.DataFrame]) -> str:
    return first_of([" = ".join(group["image_id"].iloc[:N_NAMED]) for group in groups])
