"""Are grey values shown alike throughout a cohort? Mixed polarity, or windowing that follows the source, stops the run.

A model would learn from it which scanner, hospital or class an image is of. Tags are judged by what was done (pixels.parquet),
polarity by what came out: a file that says the wrong thing of itself is found by its picture alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from scipy.special import chdtrc

from medcnn.cohort import Finding
from medcnn.data.quality import THUMBNAIL_PX

KINDS = ("mixed_polarity", "mixed_windowing", "polarity_not_judged")
EXCLUDABLE = ("mixed_polarity",)
SOURCES = ("site", "source", "scanner", "manufacturer", "device", "given_part")
LEAST_IMAGES, LEAST_OF_A_SOURCE = 20, 5
SAME_SHARE = 0.4  # of the thumbnails' variance along one picture: then all images show the same thing, and a negative stands out
NEGATIVE = -0.2  # cosine with that picture; radiographs as they should be lie at .5 to .9
MIXED_SHARE, MIXED_IMAGES = 0.02, 3  # fewer negatives are single images, which quality_findings.py names
SIDE_PX, AT_ONCE = 16, 20_000  # thumbnails are shrunk to this, and looked at so many at a time: bounds the memory
STRONG, SURE = 0.5, 1e-3  # Cramer's V and the p value from which a source is said to have a way of its own
SAME_WINDOW = 1.1  # Hounsfield windows that differ by less, in centre (against the width) and width, are one
WAYS = {
    "window": "the file's window or table",
    "voi_lut": "the file's window or table",
    "config_window": "the config's window",
    "percentiles": "the image's own percentiles",
    "declared_range": "the stored levels as they are",
}


def display_findings(manifest: pd.DataFrame, pixels: pd.DataFrame, traits: pd.DataFrame | None = None) -> list[Finding]:
    """Errors and warnings of KINDS.

    manifest: image_id, y_LABEL, and those of SOURCES that it knows. pixels: `pixels.parquet`, a row for each image.
    traits: `traits.parquet`, of which the thumbnails are looked at; None: polarity is judged by the tags alone.
    """
    table = manifest.merge(pixels, on="image_id", how="left", suffixes=("", "_of_file"), validate="one_to_one")
    thumbnails = None
    if traits is not None and "thumbnail" in traits:
        kept = traits.set_index("image_id").loc[manifest["image_id"], "thumbnail"]
        thumbnails = np.stack([np.frombuffer(picture, np.uint8).reshape(THUMBNAIL_PX, THUMBNAIL_PX) for picture in kept])
    return [*polarity_findings(table, thumbnails), *windowing_findings(table)]


# ---------------------------------------------------------------- polarity


def polarity_findings(table: pd.DataFrame, thumbnails: np.ndarray | None) -> list[Finding]:
    """table: the manifest with the columns of pixels.parquet beside it; thumbnails in its order."""
    negative = find_negatives(thumbnails) if thumbnails is not None else None
    if negative is None:
        return _unverified(table)
    n_negative = int(negative.sum())
    if n_negative < max(MIXED_IMAGES, MIXED_SHARE * len(table)):
        return []
    tie = strongest_tie(table, pd.Series(np.where(negative, "negative", "positive"), index=table.index))
    where = f" It follows {tie.words}." if tie is not None else " It follows no source that the manifest knows."
    images = tuple(table.loc[negative, "image_id"])
    return [
        Finding(
            severity="error",
            kind="mixed_polarity",
            text=f"{n_negative} of {len(table)} images are negatives of the others: what is bright there is dark here.{where}",
            todo="Mend the polarity at the source (MONOCHROME1, presentation LUT shape, or a conversion that forgot it), or leave these images out: audit.exclude.mixed_polarity with a reason.",
            image_ids=images,
            exclude_ids=images,
        )
    ]


def find_negatives(thumbnails: np.ndarray) -> np.ndarray | None:
    """True for images whose bright and dark are exchanged against the majority: bool (n,); None when this cannot be told.

    thumbnails: uint8 (n, side, side). Each is shrunk to 16 x 16, centred and scaled to length 1; the picture along which they vary most about
    zero (first right singular vector) is what the cohort shows, with either sign, and an image's sign is its polarity. It
    can be told of images that all show the same thing in the same place, as radiographs of one view do.
    """
    if len(thumbnails) < LEAST_IMAGES:
        return None
    gram = np.zeros((SIDE_PX**2, SIDE_PX**2))
    for start in range(0, len(thumbnails), AT_ONCE):
        unit = _unit(thumbnails[start : start + AT_ONCE])
        gram += unit.T @ unit
    variance, pictures = np.linalg.eigh(gram)
    if variance[-1] <= SAME_SHARE * variance.sum():
        return None
    pieces = [_unit(thumbnails[start : start + AT_ONCE]) @ pictures[:, -1] for start in range(0, len(thumbnails), AT_ONCE)]
    cosine = np.concatenate(pieces)
    majority = 1.0 if (cosine > 0).sum() >= (cosine < 0).sum() else -1.0
    return np.asarray(majority * cosine < NEGATIVE)


def _unit(thumbnails: np.ndarray) -> np.ndarray:
    """float32 (n, 256): shrunk to 16 x 16, centred, of length 1; one of a single shade stays 0."""
    small = [cv2.resize(thumbnail, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for thumbnail in thumbnails]
    flat = np.stack(small).reshape(len(small), -1).astype(np.float32)
    centred = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1.0))


def _unverified(table: pd.DataFrame) -> list[Finding]:
    """By the tags alone: a warning when some sources had their images turned round and others did not."""
    if "inverted" not in table or table["inverted"].dropna().nunique() < 2:
        return []
    said = table["inverted"].map({True: "turned round", False: "as stored"})
    tie = strongest_tie(table, said)
    if tie is None:
        return []
    return [
        Finding(
            severity="warning",
            kind="polarity_not_judged",
            text=f"{int((said == 'turned round').sum())} of {len(table)} images say that high values are dark and were turned round; it follows {tie.words}. Whether they say so rightly cannot be told from these pictures.",
            todo="Look at a few images of each source side by side.",
            image_ids=tuple(table.loc[said == "turned round", "image_id"]),
        )
    ]


# ---------------------------------------------------------------- windowing


def windowing_findings(table: pd.DataFrame) -> list[Finding]:
    """table: the manifest with the columns of pixels.parquet beside it."""
    ways = table["voi_step"].map(WAYS)
    known = table.assign(way=ways).dropna(subset="way")
    found = _ways(known) if known["way"].nunique() > 1 else []
    return [*found, *_hounsfield_windows(table)]


def _ways(table: pd.DataFrame) -> list[Finding]:
    counts = table["way"].value_counts()
    few = int(counts.iloc[1:].sum())
    if len(table) < LEAST_IMAGES or few < max(MIXED_IMAGES, MIXED_SHARE * len(table)):
        return []
    listed = ", ".join(f"{n} by {way}" for way, n in counts.items())
    tie = strongest_tie(table, table["way"])
    return [_mixed(table, table["way"], tie, f"Grey values are shown in {len(counts)} ways: {listed}.")]


def _hounsfield_windows(table: pd.DataFrame) -> list[Finding]:
    """CT: the same tissue has another grey under another window. Radiographs have a window of their own each, and are not compared."""
    if "unit" not in table:
        return []
    ct = table[(table["unit"] == "HU") & (table["voi_step"] == "window")].dropna(subset=["window_center", "window_width"])
    if len(ct) < LEAST_IMAGES:
        return []
    windows = _grouped_windows(ct)
    counts = windows.value_counts()
    if len(counts) < 2 or int(counts.iloc[1:].sum()) < max(MIXED_IMAGES, MIXED_SHARE * len(ct)):
        return []
    listed = ", ".join(f"{n} under {window}" for window, n in counts.head(5).items())
    tie = strongest_tie(ct, windows)
    return [_mixed(ct, windows, tie, f"Hounsfield units are shown under {len(counts)} windows (centre, width): {listed}.")]


def _grouped_windows(table: pd.DataFrame) -> pd.Series:
    """The name of the most frequent window that each window is the same as."""
    pairs = table[["window_center", "window_width"]].apply(tuple, axis=1)
    leaders: list[tuple[float, float]] = []
    name = {}
    for centre, width in pairs.value_counts().index:
        same = (
            lead
            for lead in leaders
            if abs(lead[0] - centre) <= (SAME_WINDOW - 1) * lead[1] and max(lead[1], width) <= SAME_WINDOW * min(lead[1], width)
        )
        leader = next(same, None)
        if leader is None:
            leaders.append((centre, width))
        name[(centre, width)] = "{:g}, {:g}".format(*(leader or (centre, width)))
    return pairs.map(name)


def _mixed(table: pd.DataFrame, ways: pd.Series, tie: "Tie | None", text: str) -> Finding:
    minority = table.loc[ways != ways.value_counts().index[0], "image_id"]
    said = (
        f" It follows {tie.words}: the display alone tells them apart."
        if tie is not None
        else " It follows no source that the manifest knows."
    )
    return Finding(
        severity="error" if tie is not None else "warning",
        kind="mixed_windowing",
        text=text + said,
        todo="Show all images alike: data.window: percentiles, or for CT data.window: [centre, width]; or accept it with a reason.",
        image_ids=tuple(minority),
    )


# ---------------------------------------------------------------- what follows what


@dataclass(frozen=True)
class Tie:
    """The column of the manifest with which a way of display goes most closely together. strength: Cramer's V, 0 to 1."""

    column: str
    strength: float
    words: str


def strongest_tie(table: pd.DataFrame, ways: pd.Series) -> Tie | None:
    """Among SOURCES and the labels; None when none reaches STRONG and SURE. Groups with under LEAST_OF_A_SOURCE images are not asked."""
    ties = [
        Tie(column, strength, _words(column, counts))
        for column, counts in _tables(table, ways)
        for strength in [_strength(counts)]
        if strength
    ]
    return max(ties, key=lambda tie: tie.strength, default=None)


def _tables(table: pd.DataFrame, ways: pd.Series) -> Iterator[tuple[str, pd.DataFrame]]:
    for column in [*(name for name in SOURCES if name in table), *(name for name in table if str(name).startswith("y_"))]:
        counts = pd.crosstab(table[column], ways)
        counts = counts[counts.sum(axis=1) >= LEAST_OF_A_SOURCE]
        counts = counts.loc[:, counts.sum() > 0]
        if min(counts.shape) > 1:
            yield str(column), counts


def _strength(counts: pd.DataFrame) -> float:
    """Cramer's V without its upward bias (Bergsma 2013, doi:10.1016/j.jkss.2012.10.002); 0 when it is weak or may be chance."""
    observed = counts.to_numpy(dtype=float)
    n = observed.sum()
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / n
    chi2 = float(((observed - expected) ** 2 / expected).sum())
    rows, columns = observed.shape
    if chdtrc((rows - 1) * (columns - 1), chi2) > SURE:
        return 0.0
    phi2 = max(0.0, chi2 / n - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    strength = float(np.sqrt(phi2 / smaller)) if smaller > 0 else 0.0
    return strength if strength >= STRONG else 0.0


def _words(column: str, counts: pd.DataFrame) -> str:
    """The groups in which the rarer ways are most frequent, and the largest of the others."""
    common = counts.sum().idxmax()
    share = 1 - counts[common] / counts.sum(axis=1)
    order = pd.DataFrame({"share": share, "n": counts.sum(axis=1)}).sort_values(["share", "n"], ascending=False).index
    shown = list(order) if len(order) <= 4 else [*order[:2], *order[-2:]]
    rows = [f"{group}: {', '.join(f'{int(n)} {way}' for way, n in counts.loc[group].items() if n)}" for group in shown]
    name = f"the label {column.removeprefix('y_')}" if column.startswith("y_") else column
    more = f"; and {len(counts) - 4} more" if len(counts) > 4 else ""
    return f"{name} ({'; '.join(rows)}{more})"
