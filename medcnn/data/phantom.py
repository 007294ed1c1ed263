"""Made-up chest-like images, for the quick start and for tests only: nothing here looks like a real patient's disease.

An image is a function of (kind, seed, size, index) alone, so it needs no file: the manifest names it
`phantom:KIND:seed=S:size=P` with the index as frame, and it is drawn anew each time it is decoded.
"""

import re
from typing import Literal, get_args

import numpy as np
import pandas as pd

from medcnn.data.images import UnreadableImage

PhantomKind = Literal["binary", "multiclass", "multilabel"]
LABELS: dict[str, tuple[str, ...]] = {
    "binary": ("nodule",),
    "multiclass": ("clear", "nodule", "effusion"),
    "multilabel": ("nodule", "effusion", "cardiomegaly"),
}
SIZE_PX = 96
IMAGES_OF_PATIENTS = (1, 2, 3)  # patients have one, two, three images, and so on in turn
SHARE_OF_FAINT_NODULES = 0.2
SHARE_OF_MISSING_LABELS = 0.05  # multilabel only
_PATH = re.compile(r"phantom:(?P<kind>[a-z]+):seed=(?P<seed>\d+):size=(?P<size>\d+)")


def make_phantom(n: int, seed: int, labels: PhantomKind, size: int = SIZE_PX) -> tuple[np.ndarray, pd.DataFrame]:
    """`n` images, uint8 (n, size, size), and their table as phantom_table gives it."""
    return np.stack([draw_phantom(labels, seed, index, size) for index in range(n)]), phantom_table(n, seed, labels, size)


def phantom_table(n: int, seed: int, labels: PhantomKind, size: int = SIZE_PX) -> pd.DataFrame:
    """One row an image: image_id, patient_id, path, frame, study_id, site, sex, age_years, and a y_LABEL for each label."""
    rows = []
    for index in range(n):
        patient = _patient_of(index)
        person = _person(seed, patient)
        rows.append(
            {
                "image_id": f"phantom/{index:06d}",
                "patient_id": f"phantom-{patient:05d}",
                "path": f"phantom:{labels}:seed={seed}:size={size}",
                "frame": index,
                "study_id": f"phantom-{patient:05d}-1",
                **person,
                **{f"y_{label}": value for label, value in zip(LABELS[labels], _labels(labels, seed, patient), strict=True)},
            }
        )
    return pd.DataFrame(rows)


def phantom_pixels(path: str, index: int) -> np.ndarray:
    """The image that a manifest's path and frame name: uint8 (size, size). Raises UnreadableImage for a path not of this kind."""
    match = _PATH.fullmatch(path)
    if match is None or match["kind"] not in get_args(PhantomKind):
        raise UnreadableImage(path, "not_an_image", "expected phantom:KIND:seed=S:size=P with KIND binary, multiclass or multilabel")
    kind: PhantomKind = match["kind"]  # type: ignore[assignment]  # checked above
    return draw_phantom(kind, int(match["seed"]), index, int(match["size"]))


def draw_phantom(kind: PhantomKind, seed: int, index: int, size: int) -> np.ndarray:
    """One image, uint8 (size, size): a bright chest with two dark lungs, ribs and noise, and the patient's findings, some of them faint."""
    patient = _patient_of(index)
    rng = np.random.default_rng([seed, 2, index])
    findings = dict(zip(LABELS[kind], _true_findings(kind, seed, patient), strict=True))
    y, x = np.mgrid[0:size, 0:size] / size  # 0..1, from the top left
    shift = rng.normal(0, 0.02, 2)
    y, x = y - shift[0], x - shift[1]
    heart = 0.17 if findings.get("cardiomegaly") else rng.normal(0.12, 0.012)
    image = _chest(x, y, heart, gain=1.0 if _person(seed, patient)["site"] == "north" else 0.9)
    image += 0.05 * np.sin(2 * np.pi * (rng.uniform(8, 10) * y + rng.uniform(-0.5, 0.5)) + 3 * np.abs(x - 0.5))  # ribs
    for _ in range(rng.integers(3, 7)):  # vessels seen end on, smaller than a nodule: these the model must tell apart
        image += rng.uniform(0.08, 0.16) * _blob(x, y, *_in_a_lung(rng), rng.uniform(0.012, 0.02))
    if findings.get("nodule"):
        # Most are plain, so that a small network learns them in a minute; some are all but invisible, so that none is perfect.
        strength = rng.uniform(0, 0.06) if rng.random() < SHARE_OF_FAINT_NODULES else rng.uniform(0.2, 0.5)
        image += strength * _blob(x, y, *_in_a_lung(rng), rng.uniform(0.05, 0.08))
    if findings.get("effusion"):
        image += _effusion(x, y, left=bool(rng.random() < 0.5), level=rng.uniform(0.7, 0.8), opacity=rng.uniform(0.08, 0.4))
    image += rng.normal(0, 0.04, image.shape)
    return np.asarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8))


def _chest(x: np.ndarray, y: np.ndarray, heart: float, *, gain: float) -> np.ndarray:
    body = 0.75 - 0.5 * np.clip(np.abs(x - 0.5) - 0.42, 0, None) / 0.08
    lungs = sum(_disc(x, y, centre, 0.48, 0.15, 0.32) for centre in (0.29, 0.71))
    return np.asarray(gain * (body - 0.45 * lungs + 0.35 * _disc(x, y, 0.55, 0.64, heart, 0.14)))


def _disc(x: np.ndarray, y: np.ndarray, centre_x: float, centre_y: float, half_width: float, half_height: float) -> np.ndarray:
    """An ellipse with a soft edge, 0..1."""
    radius = np.hypot((x - centre_x) / half_width, (y - centre_y) / half_height)
    return np.clip((1.1 - radius) / 0.2, 0, 1)


def _blob(x: np.ndarray, y: np.ndarray, centre_x: float, centre_y: float, radius: float) -> np.ndarray:
    return np.asarray(np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / (2 * radius**2)))


def _effusion(x: np.ndarray, y: np.ndarray, *, left: bool, level: float, opacity: float) -> np.ndarray:
    side = (x < 0.45) if left else (x > 0.55)
    return np.asarray(opacity * side * np.clip((y - level) / 0.05, 0, 1) * (y < 0.82))


def _in_a_lung(rng: np.random.Generator) -> tuple[float, float]:
    return float(rng.choice([0.29, 0.71]) + rng.uniform(-0.08, 0.08)), float(rng.uniform(0.3, 0.62))


def _patient_of(index: int) -> int:
    cycle, place = divmod(index, sum(IMAGES_OF_PATIENTS))
    return cycle * len(IMAGES_OF_PATIENTS) + int(np.searchsorted(np.cumsum(IMAGES_OF_PATIENTS), place, side="right"))


def _person(seed: int, patient: int) -> dict[str, str | int]:
    rng = np.random.default_rng([seed, 1, patient])
    return {
        "site": str(rng.choice(["north", "south"], p=[0.6, 0.4])),
        "sex": str(rng.choice(["F", "M"])),
        "age_years": int(np.clip(rng.normal(55, 16), 18, 95)),
    }


def _true_findings(kind: PhantomKind, seed: int, patient: int) -> tuple[float, ...]:
    rng = np.random.default_rng([seed, 3, patient])
    if kind == "multiclass":
        chosen = rng.choice(3, p=[0.45, 0.3, 0.25])
        return tuple(float(chosen == place) for place in range(3))
    return tuple(float(rng.random() < 0.4) for _ in LABELS[kind])


def _labels(kind: PhantomKind, seed: int, patient: int) -> tuple[float, ...]:
    """The findings as a reader would have recorded them: in multilabel a few are blank."""
    truth = _true_findings(kind, seed, patient)
    if kind != "multilabel":
        return truth
    unread = np.random.default_rng([seed, 4, patient]).random(len(truth)) < SHARE_OF_MISSING_LABELS
    return tuple(float("nan") if blank else value for value, blank in zip(truth, unread, strict=True))
