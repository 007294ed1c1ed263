"""Which images of a cohort are blank, saturated, blurred, turned, mirrored, inverted, cut or written on: suggestions, with limits said.

Blank is judged by absolute limits alone; the others must also stand out from their own cohort, by the median and the
median absolute deviation (Leys et al. 2013, doi:10.1016/j.jesp.2013.03.013): what all images of a cohort share is how it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medcnn.cohort import Finding, Severity
from medcnn.data.copies import first_of
from medcnn.data.orientation import Lie, judge_orientation
from medcnn.data.quality import LEAST_TEXT_PX, MEASURES, SHARPNESS_PX, THUMBNAIL_PX
from medcnn.errors import InputError

BLANK_SD, BLANK_MODE_SHARE = 3.0, 0.98  # grey levels; share of pixels within 2 levels of the most frequent one
SATURATED_SHARE, SATURATED_Z = 0.25, 5.0  # of pixels at one end of the scale
DARK_P99, BRIGHT_P1 = 64, 192  # an image that leaves three quarters of the scale unused at one end
LEVELS_LOST_Z = -6.0  # of the entropy of the grey levels
BLURRED_Z, BLURRED_LIMIT = -3.5, -1.9  # of sharpness, a log10 ratio
LETTERS, LETTERS_SHARE = 4, 0.2  # marks in rows; when more of the cohort has them, it is not text
COLOURED = 4.0  # mean difference of the channels: inversion is a matter of grey images
GREY_SHARE = 0.9
COMMON_SHARE = 0.1  # a flaw in more of the cohort than this is how the cohort is


@dataclass(frozen=True)
class Question:
    """How an answer of orientation.py is spoken of. least_p, least_skill: what makes an image, and a cohort, worth naming."""

    kind: str
    words: str
    todo: str
    severity: Severity
    least_p: float
    least_skill: float


QUESTIONS = {
    "inverted": Question(
        "inverted_image",
        "with black and white exchanged",
        "Look at them: a negative teaches the opposite. Mend the file's polarity (MONOCHROME1) at the source.",
        "warning",
        0.9,
        0.85,
    ),
    "turned": Question(
        "turned_image",
        "turned by a quarter or half, against the cohort's other images",
        "Look at them, and turn them back at the source. Other views or body parts look like this too.",
        "warning",
        0.9,
        0.8,
    ),
    "mirrored": Question(
        "mirrored_image",
        "mirrored left to right, against the cohort's other images",
        "Look for the side marker: the heart may be on the right (situs inversus), the view from the other side, or the file flipped.",
        "info",
        0.95,
        0.85,
    ),
    "cropped": Question(
        "cropped_image",
        "cut to a part of what the cohort's other images show",
        "Look at them: close-ups, other body parts and unusual framing look like this too.",
        "info",
        0.85,
        0.9,
    ),
}  # in the order in which they explain an image: a negative is not called cut as well
KINDS = ("blank_image", "saturated_image", "blurred_image", "text_in_image", *(question.kind for question in QUESTIONS.values()))


def quality_findings(manifest: pd.DataFrame, traits: pd.DataFrame, *, seed: int = 0) -> list[Finding]:
    """A finding for each of KINDS that occurs, its images the most striking first; and what could not be judged here.

    manifest: image_id, patient_id, height, width. traits: image_id and the columns of quality_of, a row for each image of the manifest.
    Blank images are errors, since nothing can be learnt from them; all else is to be looked at. An image that is blank is
    not judged further. Raises InputError when an image has no traits.
    """
    table = _joined(manifest, traits)
    flagged = flaws_of(table, seed=seed)
    found = [_finding(kind, flagged.scores[kind], table) for kind in KINDS if flagged.scores[kind].gt(0).any()]
    return [*found, *([_not_judged(flagged.not_judged)] if flagged.not_judged else [])]


@dataclass(frozen=True)
class Flaws:
    """scores: a column for each of KINDS, 0 where an image lacks the flaw, else larger the more striking it is; rows as the
    table's. not_judged: for each kind that this cohort cannot tell, why."""

    scores: pd.DataFrame
    not_judged: dict[str, str]


def flaws_of(table: pd.DataFrame, *, seed: int = 0) -> Flaws:
    """Every flaw of every image; table: image_id, patient_id, height and width in pixels, and the columns of quality_of."""
    blank = (table["grey_sd"] < BLANK_SD) | (table["mode_share"] > BLANK_MODE_SHARE)
    seen = ~blank
    scores = pd.DataFrame(0.0, index=table.index, columns=list(KINDS))
    scores["blank_image"] = blank * (1 + table["mode_share"])
    not_judged = {}
    scores["saturated_image"] = _saturated(table, seen)
    side = float(table[["height", "width"]].max(axis=1).median())
    written = seen & (table["letters"] >= LETTERS)
    if written.mean() > LETTERS_SHARE:
        not_judged["text_in_image"] = f"{100 * written.mean():.0f}% of the images have marks in rows, which may be texture as well as text"
    elif side < LEAST_TEXT_PX:
        not_judged["text_in_image"] = f"images of {side:.0f} px are too small to tell letters"
    else:
        scores["text_in_image"] = table["letters"].where(written, 0.0)
    if side < SHARPNESS_PX / 4:
        not_judged["blurred_image"] = f"images of {side:.0f} px are too small to tell blur"
    else:
        scores["blurred_image"] = _blurred(table, seen)
    lies, reason = _lies(table, seen, seed)
    explained = (scores[["saturated_image"]] > 0).any(axis=1)
    for name, question in QUESTIONS.items():
        lie = lies.get(name)
        if lie is None or lie.skill < question.least_skill:
            not_judged[question.kind] = reason or f"the cohort teaches it to {100 * lie.skill:.0f}% only" if lie else reason
            continue
        flagged = seen & ~explained & (lie.p > question.least_p)
        scores[question.kind] = np.where(flagged, lie.p, 0.0)
        explained |= flagged
    grey = seen & (table["colour"] < COLOURED)
    if grey.sum() < GREY_SHARE * max(int(seen.sum()), 1):
        scores["inverted_image"] = 0.0
        not_judged["inverted_image"] = "most images have colour"
    return Flaws(scores, not_judged)


def _joined(manifest: pd.DataFrame, traits: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in (*MEASURES, "thumbnail", "image_id") if name not in traits]
    if missing:
        raise InputError(f"traits: column {missing[0]} is missing; run ingest again")
    table = manifest[["image_id", "patient_id", "height", "width"]].merge(
        traits[["image_id", *MEASURES, "thumbnail"]], on="image_id", how="left"
    )
    without = table.loc[table["grey_sd"].isna() | table["thumbnail"].isna(), "image_id"]
    if len(without) or len(table) != len(manifest):
        named = f"{without.iloc[0]} has no row" if len(without) else "an image has several rows"
        raise InputError(f"traits: {named}; expected one row for each image of the manifest, run ingest again")
    return table


# ---------------------------------------------------------------- judging


def robust_z(values: pd.Series, among: pd.Series, *, least_mad: float) -> pd.Series:
    """Distance from the median of `among` in median absolute deviations, scaled to a normal distribution's SD (1.4826)."""
    middle = values[among].median()
    spread = 1.4826 * (values[among] - middle).abs().median()
    return (values - middle) / max(float(spread), least_mad)


def _saturated(table: pd.DataFrame, seen: pd.Series) -> pd.Series:
    score = pd.Series(0.0, index=table.index)
    for column in ("white_share", "black_share"):
        z = robust_z(table[column], seen, least_mad=0.01)
        score = score.mask(seen & (table[column] >= SATURATED_SHARE) & (z > SATURATED_Z), 1 + table[column])
    lost = robust_z(table["entropy_bits"], seen, least_mad=0.1)
    score = score.mask(seen & (score == 0) & (lost < LEVELS_LOST_Z), -lost / 100)
    unused = seen & ((table["grey_p99"] < DARK_P99) | (table["grey_p1"] > BRIGHT_P1))
    return score.mask(unused & (score == 0), 0.01)


def _blurred(table: pd.DataFrame, seen: pd.Series) -> pd.Series:
    z = robust_z(table["sharpness"], seen, least_mad=0.05)
    return (-z).where(seen & (z < BLURRED_Z) & (table["sharpness"] < BLURRED_LIMIT), 0.0)


def _lies(table: pd.DataFrame, seen: pd.Series, seed: int) -> tuple[dict[str, Lie], str]:
    """The answers of orientation.py, p = 0 for unseen images; and why there are none."""
    rows = np.flatnonzero(seen)
    thumbnails = (
        np.stack([np.frombuffer(table["thumbnail"].iloc[row], np.uint8) for row in rows]) if len(rows) else np.zeros((0, 1), np.uint8)
    )
    thumbnails = thumbnails.reshape(len(rows), *(THUMBNAIL_PX, THUMBNAIL_PX) if len(rows) else (0, 0))
    found = judge_orientation(thumbnails, table["patient_id"].iloc[rows].astype(str).to_numpy(), seed=seed) if len(rows) else {}
    lies = {}
    for question, lie in found.items():
        p = np.zeros(len(table))
        p[rows] = lie.p
        lies[question] = Lie(p, lie.skill)
    return lies, "" if found else "there are too few images to learn from how they lie"


# ---------------------------------------------------------------- words

SAID: dict[str, tuple[Severity, str, str]] = {
    "blank_image": (
        "error",
        "{n} {are} blank or almost one shade: {first}.",
        "Nothing can be learnt from them. Set audit.exclude.blank_image to a reason, and look whether they lack in one class more than in another.",
    ),
    "saturated_image": (
        "warning",
        "{n} {have} a quarter or more of {their} pixels at one end of the scale, or few grey levels left, unlike the rest of the cohort: {first}.",
        "Look at them: over-exposed, clipped by a wrong window, or mostly background.",
    ),
    "blurred_image": (
        "warning",
        "{n} {are} much less sharp than the rest of the cohort: {first}.",
        "Look at them: movement, defocus, or enlarged from a small picture. A blur that is even in the whole cohort is not seen here.",
    ),
    "text_in_image": (
        "warning",
        "{n} {have} printed text in the pixels: {first}.",
        "Read it: it may hold names, and a network can learn from it which hospital, ward or position it is. Handwriting and single letters are not seen.",
    ),
}  # fmt: skip


def _finding(kind: str, scores: pd.Series, table: pd.DataFrame) -> Finding:
    images = table["image_id"][scores[scores > 0].sort_values(ascending=False, kind="stable").index].astype(str).tolist()
    severity, text, todo = SAID[kind] if kind in SAID else _question(kind)
    share = len(images) / len(table)
    number = f"{len(images)} of {len(table)} images"
    one = len(images) == 1
    words = {"are": "is" if one else "are", "have": "has" if one else "have", "their": "its" if one else "their"}
    text = text.format(n=number, first=first_of(images), **words)
    if share > COMMON_SHARE and severity == "warning":
        severity, todo = "info", f"So many that this is how the cohort is, rather than a flaw of some images. {todo}"
    leaving = tuple(sorted(images)) if kind in EXCLUDABLE else ()
    return Finding(severity=severity, kind=kind, text=text, todo=todo, image_ids=tuple(images), exclude_ids=leaving)


EXCLUDABLE = ("blank_image", "saturated_image", "blurred_image", "text_in_image", "inverted_image", "turned_image")


def _question(kind: str) -> tuple[Severity, str, str]:
    asked = next(question for question in QUESTIONS.values() if question.kind == kind)
    return asked.severity, "{n} {are} probably " + asked.words + ": {first}.", asked.todo


def _not_judged(reasons: dict[str, str]) -> Finding:
    grouped: dict[str, list[str]] = {}
    for kind, reason in reasons.items():
        grouped.setdefault(reason, []).append(kind.removesuffix("_image").replace("_in", ""))
    text = "; ".join(f"{_listed(kinds)}: {reason}" for reason, kinds in grouped.items())
    todo = "Look through some of the pictures by eye for these flaws."
    return Finding(severity="info", kind="quality_not_judged", text=f"Not judged in this cohort: {text}.", todo=todo)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
