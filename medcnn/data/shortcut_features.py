"""What the shortcut probes look at: file facts, border, grey levels, thumbnail, and what is known besides the image.

Each function gives features of shape (n, k) in the order of its rows; nothing here sees a label.
"""

import re
from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd

from medcnn.progress import Progress, silent
from medcnn.tables import MANIFEST_COLUMNS, label_names

THUMBNAIL_PX, COLOUR_PX = 16, 4
BORDER_SEGMENTS = 16  # along each side
BORDER_SHARE = 0.03  # of the image's side, at least one pixel
GREY_BINS = 32
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
CHUNK_BYTES = 32 << 20

MAX_LEVELS = 30  # of a text column, the most frequent ones; the others count as one
MIN_LEVEL_SHARE = 0.002
MAX_DISCRETE = 8  # a number with more values than this is a quantity
N_NUMBER_BINS = 5
NOT_METADATA = {*MANIFEST_COLUMNS, "study_id", "pixel_sha256", "copy_group", "given_part", "given_fold", "n_bytes"}
# Traits of the person, not of the acquisition: an uneven case mix, which is no fault of the camera.
PATIENT_TRAIT = re.compile(r"^(patient_?)?(age|sex|gender|race|ethnicity|bmi|weight|height_cm|smok\w*)(_\w+)?$", re.IGNORECASE)


# ---------------------------------------------------------------- the file


def file_features(manifest: pd.DataFrame) -> np.ndarray:
    """Facts of the files, float32 (n, k): size, aspect, frequent sizes, bit depth, channels, file ending, bytes when known.

    Uses height, width, bit_depth, channels, path and, where the manifest has it, `n_bytes` of the file.
    """
    height, width = manifest["height"].to_numpy(np.float64), manifest["width"].to_numpy(np.float64)
    aspect = np.log2(width / height)
    numbers = [np.log2(height), np.log2(width), np.log2(height * width), aspect, np.abs(aspect), height == width]
    if "n_bytes" in manifest:
        size = pd.to_numeric(manifest["n_bytes"], errors="coerce").to_numpy(np.float64)
        numbers += list(_number_columns(np.log2(np.maximum(size, 1))).T)
        numbers += list(_number_columns(np.log2(np.maximum(size, 1)) - np.log2(height * width)).T)
    sizes = manifest["height"].astype(str) + "x" + manifest["width"].astype(str)
    endings = manifest["path"].astype(str).str.extract(r"(\.[A-Za-z0-9]{1,5})$")[0].str.lower()
    levels = [_level_columns(values) for values in (sizes, manifest["bit_depth"], manifest["channels"], endings)]
    return np.column_stack([*numbers, *levels]).astype(np.float32)


# ---------------------------------------------------------------- the pixels


def pixel_features(images: np.ndarray, rows: np.ndarray, *, progress: Progress = silent) -> dict[str, np.ndarray]:
    """Features of images[rows], float32 (n, k) each: "border", "grey_levels" and "thumbnail".

    images: uint8 (N, H, W, C), C 1 or 3 (RGB), in memory or mapped from disk; read in order, some 32 MB at a time.
    border: mean of 16 segments along each side, 3% of the image deep, and the share of black pixels of each side.
    grey_levels: histogram in 32 bins and statistics of it; no place in the image. thumbnail: 16 x 16 means of
    brightness, and of colour (Cr, Cb) in 4 x 4.
    """
    per_chunk = max(1, CHUNK_BYTES // max(1, images[0].nbytes))
    order = np.argsort(rows, kind="stable")
    starts = range(0, len(rows), per_chunk)
    parts: dict[str, list[np.ndarray]] = {"border": [], "grey_levels": [], "thumbnail": []}
    for start in progress(starts, "Reading pixels for the shortcut probes", len(starts)):
        pixels = np.ascontiguousarray(images[rows[order[start : start + per_chunk]]])
        grey = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in pixels]) if pixels.shape[3] == 3 else pixels[..., 0]
        parts["border"].append(_border(grey))
        parts["grey_levels"].append(_grey_levels(grey, pixels))
        parts["thumbnail"].append(_thumbnails(grey, pixels))
    back = np.argsort(order, kind="stable")
    return {name: np.concatenate(chunks)[back].astype(np.float32) for name, chunks in parts.items()}


def _border(grey: np.ndarray) -> np.ndarray:
    """grey: uint8 (n, H, W). Float (n, 4 * 16 + 4)."""
    height, width = grey.shape[1:]
    deep_y, deep_x = max(1, round(BORDER_SHARE * height)), max(1, round(BORDER_SHARE * width))
    strips = (grey[:, :deep_y], grey[:, -deep_y:], grey[:, :, :deep_x].swapaxes(1, 2), grey[:, :, -deep_x:].swapaxes(1, 2))
    columns = []
    for strip in strips:
        means = strip.mean(axis=1, dtype=np.float32)  # (n, length of the side), as an image whose rows are images
        columns += [cv2.resize(means, (BORDER_SEGMENTS, len(means)), interpolation=cv2.INTER_AREA)]
        columns += [(strip == 0).mean(axis=(1, 2), dtype=np.float32)[:, None]]
    return np.concatenate(columns, axis=1)


def _thumbnails(grey: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Float (n, 256), or (n, 256 + 32) for colour."""
    side = (THUMBNAIL_PX, THUMBNAIL_PX)
    bright = np.stack([cv2.resize(image, side, interpolation=cv2.INTER_AREA) for image in grey]).reshape(len(grey), -1)
    if pixels.shape[3] == 1:
        return bright
    small = np.stack([cv2.resize(image, (COLOUR_PX, COLOUR_PX), interpolation=cv2.INTER_AREA) for image in pixels])
    colour = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., 1:] for image in small])
    return np.concatenate([bright, colour.reshape(len(grey), -1)], axis=1)


def _grey_levels(grey: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Histogram in 32 bins (square roots of shares) and statistics of the 256 levels; for colour also of each channel."""
    shares = _level_shares(grey)
    bins = np.sqrt(shares.reshape(len(grey), GREY_BINS, -1).sum(axis=2))
    columns = [bins, _statistics(shares)]
    if pixels.shape[3] == 3:
        columns += [_statistics(_level_shares(pixels[..., channel])) for channel in range(3)]
    return np.concatenate(columns, axis=1)


def _level_shares(grey: np.ndarray) -> np.ndarray:
    """Share of each of 256 levels, float64 (n, 256)."""
    counts = np.stack([np.bincount(image.ravel(), minlength=256) for image in grey])
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _statistics(shares: np.ndarray) -> np.ndarray:
    """Mean, SD, skewness, excess kurtosis, quantiles, entropy (bits), shares of black and white, share of levels in use."""
    levels = np.arange(256.0)
    mean = shares @ levels
    centred = levels - mean[:, None]
    variance = (shares * centred**2).sum(axis=1)
    spread = np.sqrt(np.maximum(variance, 1e-6))
    skew, kurtosis = ((shares * centred**power).sum(axis=1) / spread**power for power in (3, 4))
    cumulative = shares.cumsum(axis=1)
    quantiles = [(cumulative < q - 1e-12).sum(axis=1) for q in QUANTILES]
    entropy = -(shares * np.log2(np.maximum(shares, 1e-300))).sum(axis=1)
    used = (shares > 0).mean(axis=1)
    return np.column_stack([mean, spread, skew, kurtosis - 3, *quantiles, entropy, shares[:, 0], shares[:, 255], used])


# ---------------------------------------------------------------- what is known besides


def metadata_columns(manifest: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Columns of the acquisition (site, scanner, view, ...), and those that are traits of the patient (age, sex, ...).

    A column that says the same of every image, or nothing, is neither.
    """
    kept = {*NOT_METADATA, *(f"y_{label}" for label in label_names(manifest))}
    known = [str(column) for column in manifest.columns if str(column) not in kept]
    varied = [column for column in known if manifest[column].nunique(dropna=False) > 1]
    traits = [column for column in varied if PATIENT_TRAIT.match(column)]
    return [column for column in varied if column not in traits], traits


def metadata_features(manifest: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """The columns, float32 (n, k): levels one-hot, missing as a level of its own; quantities and ISO dates also as numbers."""
    encoded = []
    for column in columns:
        numbers = _as_quantity(manifest[column])
        encoded.append(_level_columns(manifest[column]) if numbers is None else _number_columns(numbers))
    return np.concatenate(encoded, axis=1).astype(np.float32)


def _as_quantity(values: pd.Series) -> np.ndarray | None:
    """Float64 (n,) with NaN for missing, or None for a column of levels. A date becomes days."""
    known = values.dropna()
    if known.nunique() <= MAX_DISCRETE:
        return None
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().sum() == len(known):
        return numbers.to_numpy(np.float64, na_value=np.nan)
    if not pd.api.types.is_datetime64_any_dtype(values) and not known.astype(str).str.match(r"^\d{4}-\d\d-\d\d").all():
        return None
    days = pd.to_datetime(values.astype(str).where(values.notna()), errors="coerce", format="ISO8601", utc=True)
    since = (days - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    return since.to_numpy(np.float64, na_value=np.nan) if days.notna().sum() == len(known) else None


def _number_columns(numbers: np.ndarray) -> np.ndarray:
    """A quantity (median where missing), whether it is missing, and in which fifth it lies, since risk need not be straight."""
    missing = ~np.isfinite(numbers)
    if missing.all():
        return np.zeros((len(numbers), 0))
    edges = np.unique(np.quantile(numbers[~missing], np.linspace(0, 1, N_NUMBER_BINS + 1)[1:-1]))
    fifth = np.searchsorted(edges, numbers, side="left")
    fifths = (fifth[:, None] == np.arange(len(edges) + 1)) & ~missing[:, None]
    filled = np.where(missing, np.median(numbers[~missing]), numbers)
    return np.column_stack([filled, missing, fifths])


def _level_columns(values: pd.Series) -> np.ndarray:
    """One column for each frequent level, one for all rare ones together, one for missing; in order of the levels' names."""
    text = values.astype(object).where(values.notna(), None)
    counts = text.dropna().astype(str).value_counts()
    least = max(2, MIN_LEVEL_SHARE * len(values))
    ranked = sorted(counts.index[counts >= least], key=lambda level: (-counts[level], level))
    frequent = sorted(ranked[:MAX_LEVELS])
    named = text.map(str, na_action="ignore")
    columns = [named == level for level in frequent]
    missing = named.isna()
    columns += [~named.isin(frequent) & ~missing, missing]
    return np.column_stack(columns).astype(np.float64)
