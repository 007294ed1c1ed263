"""What one decoded image is like: grey levels, sharpness, noise, frame, marks like letters, and a thumbnail. A few ms, no label.

Nothing is judged here: quality_findings.py compares the images of a cohort with each other, drift.py whole cohorts.
"""

import cv2
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from medcnn.errors import InputError

LOOKED_AT_PX = 512  # longer side that is looked at; a larger image is averaged down to it
SHARPNESS_PX, FRAME_PX = 256, 128
THUMBNAIL_PX = 32
MEASURES = (
    "grey_mean", "grey_sd", "grey_p1", "grey_p50", "grey_p99", "entropy_bits", "mode_share", "black_share", "white_share", "stored_sd",
    "sharpness", "fine_sharpness", "noise", "frame_share", "colour", "red_share", "blue_share", "letters",
)  # fmt: skip
COLUMNS = (*MEASURES, "thumbnail")
WINDOW = (0.005, 0.995)  # of 16-bit samples, as images.to_uint8 does
FLAT_LINE_SD = 2.0  # grey levels: a row or column at the edge that varies less belongs to a frame
LEAST_TEXT_PX = 128  # a smaller picture has no room for letters that could be told
STROKE_PX, STROKE_CONTRASTS = 9, (30, 60)  # letters: thinner than this at 512 px, and as many grey levels off what is around them
LETTER_HEIGHT_PX = (5, 40)
LETTERS_IN_A_ROW = 3
MOST_GAP = 1.5  # between letters, in letter heights
# Beyond either, an image is texture all over (histology: 15 to 70% thin strokes, X-rays with text: under 6%), or a page of text.
MOST_MARKS, TEXTURE_SHARE = 150, 0.1


def quality_of(pixels: np.ndarray, bit_depth: int = 16) -> dict[str, float | bytes]:
    """The COLUMNS of one image: MEASURES as float, `thumbnail` as 1,024 bytes (32 x 32 grey, uint8, row by row, aspect ignored).

    pixels: uint8 or uint16, (H, W), (H, W, 1) or (H, W, 3) RGB, of any size. Grey values are on 0..255: of uint16, a depth
    below 16 is taken at its word, else a window from the 0.5th to the 99.5th percentile, as images.to_uint8 does;
    stored_sd is in stored levels. Shares lie in [0, 1].
    mode_share: pixels within 2 levels of the most frequent one. sharpness, fine_sharpness: log10 of the variance of the
    Laplacian over that of the grey values, at a longer side of 256 and 512 px (Pech-Pacheco 2000,
    doi:10.1109/ICPR.2000.903548). noise: standard deviation by Immerkaer 1996 (doi:10.1006/cviu.1996.0060). frame_share:
    area of even rows and columns at the edges. colour: mean difference of the largest and smallest channel. letters:
    how many marks stand in rows of at least three like letters of one size; 0 below 128 px, 150 for texture.
    Raises InputError for any other dtype or shape.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in {2, 3} or pixels.size == 0:
        raise InputError(f"pixels: expected uint8 or uint16 of shape (H, W) or (H, W, 3), got {pixels.dtype} {pixels.shape}")
    if pixels.ndim == 3 and pixels.shape[2] not in {1, 3}:
        raise InputError(f"pixels: expected 1 or 3 channels, got shape {pixels.shape}")
    thinned = _thinned(pixels)
    stored_sd = _sd(thinned.reshape(-1, 1))  # all channels together
    window = _window(thinned, bit_depth)
    shades, small = _eight_bit(thinned, window), _eight_bit(_shrunk(pixels, LOOKED_AT_PX), window)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small
    coarse = _shrunk(grey, SHARPNESS_PX)
    values = {
        **_levels(shades if shades.ndim == 2 else cv2.cvtColor(shades, cv2.COLOR_RGB2GRAY)),
        "stored_sd": stored_sd,
        "sharpness": _sharpness(coarse),
        "fine_sharpness": _sharpness(grey),
        "noise": _noise(grey),
        "frame_share": _frame_share(_shrunk(coarse, FRAME_PX)),
        **_colour(small),
        "letters": float(count_letters(grey)),
    }
    thumbnail = cv2.resize(grey, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return {**{name: round(float(values[name]), 5) for name in MEASURES}, "thumbnail": thumbnail.tobytes()}


# ---------------------------------------------------------------- sizes and depth


def _thinned(pixels: np.ndarray) -> np.ndarray:
    """Some of the pixels as they are stored: averaging would hide those at the ends of the scale."""
    rows, columns = (max(1, side // (LOOKED_AT_PX // 2)) for side in pixels.shape[:2])
    thinned = pixels[::rows, ::columns]
    return np.ascontiguousarray(thinned[..., 0] if thinned.ndim == 3 and thinned.shape[2] == 1 else thinned)


def _shrunk(pixels: np.ndarray, size_px: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    if max(height, width) > size_px:
        scale = size_px / max(height, width)
        pixels = cv2.resize(pixels, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def _window(pixels: np.ndarray, bit_depth: int) -> tuple[float, float]:
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    if bit_depth < 16:
        return 0.0, float(2**bit_depth - 1)
    low, high = np.quantile(pixels, WINDOW)
    return float(low), float(high)


def _eight_bit(pixels: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    scale = 255 / max(window[1] - window[0], 1.0)
    scaled = (pixels.astype(np.float32) - window[0]) * scale
    return np.asarray(np.clip(np.round(scaled), 0, 255), dtype=np.uint8)


# ---------------------------------------------------------------- measures


def _levels(grey: np.ndarray) -> dict[str, float]:
    shares = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel().astype(np.float64) / grey.size
    levels, cumulative = np.arange(256), shares.cumsum()
    mean = float(shares @ levels)
    mode = int(shares.argmax())
    present = shares[shares > 0]
    p1, p50, p99 = (float(np.searchsorted(cumulative, q - 1e-12)) for q in (0.01, 0.5, 0.99))
    return {
        "grey_mean": mean,
        "grey_sd": float(np.sqrt(max(float(shares @ (levels - mean) ** 2), 0.0))),
        "grey_p1": p1,
        "grey_p50": p50,
        "grey_p99": p99,
        "entropy_bits": float(-(present * np.log2(present)).sum()),
        "mode_share": float(shares[max(mode - 2, 0) : mode + 3].sum()),
        "black_share": float(shares[0]),
        "white_share": float(shares[255]),
    }


def _sharpness(grey: np.ndarray) -> float:
    """A picture without any structure counts as having no edges: -6."""
    spread = _sd(grey)
    if spread < 1e-3 or min(grey.shape) < 3:
        return -6.0
    edges = _sd(cv2.Laplacian(grey, cv2.CV_16S)[1:-1, 1:-1])
    return float(2 * np.log10(max(edges / spread, 1e-3)))


def _sd(values: np.ndarray) -> float:
    return float(cv2.meanStdDev(values)[1][0, 0])


def _noise(grey: np.ndarray) -> float:
    if min(grey.shape) < 3:
        return 0.0
    residue = cv2.Sobel(grey, cv2.CV_16S, 2, 2, ksize=3)[1:-1, 1:-1]  # the mask of the paper
    return float(np.sqrt(np.pi / 2) / 6 * cv2.norm(residue, cv2.NORM_L1) / residue.size)


def _frame_share(grey: np.ndarray) -> float:
    rows, columns = grey.std(axis=1) > FLAT_LINE_SD, grey.std(axis=0) > FLAT_LINE_SD
    if not rows.any() or not columns.any():
        return 1.0
    height, width = (int(lines.nonzero()[0][-1] - lines.nonzero()[0][0] + 1) for lines in (rows, columns))
    return 1 - height * width / grey.size


def _colour(small: np.ndarray) -> dict[str, float]:
    if small.ndim == 2:
        return {"colour": 0.0, "red_share": 1 / 3, "blue_share": 1 / 3}
    red, green, blue = cv2.split(small)
    spread = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
    means = [cv2.mean(channel)[0] for channel in (red, green, blue)]
    total = max(sum(means), 1e-6)
    return {"colour": cv2.mean(spread)[0], "red_share": means[0] / total, "blue_share": means[2] / total}


# ---------------------------------------------------------------- letters


def count_letters(grey: np.ndarray) -> int:
    """Marks that stand in rows of three or more like letters: thin, much brighter or darker than around them, of one height.

    grey: uint8 (H, W), at most 512 px. A side marker ("L", "R") is no row. Printed, upright text only; handwriting, text at
    an angle or along the columns is not seen, and teeth, sutures, clips or nuclei in a row can look like it.
    """
    if max(grey.shape) < LEAST_TEXT_PX:
        return 0
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (STROKE_PX, STROKE_PX))
    best = 0
    for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        standing_out = cv2.morphologyEx(grey, operation, kernel)
        for contrast in STROKE_CONTRASTS:
            strokes = cv2.threshold(standing_out, contrast, 1, cv2.THRESH_BINARY)[1]
            n_strokes = cv2.countNonZero(strokes)
            if n_strokes > TEXTURE_SHARE * grey.size:
                return MOST_MARKS
            if n_strokes < LETTERS_IN_A_ROW * LETTER_HEIGHT_PX[0]:
                continue
            outlines = cv2.findContours(strokes, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
            best = max(best, _in_rows(np.array([cv2.boundingRect(outline) for outline in outlines])))
    return best


def _in_rows(boxes: np.ndarray) -> int:
    """How many of the boxes stand in rows; int (n, 4): x, y, width, height. A neighbour is near, on the base line, of one height."""
    width, height = boxes[:, 2], boxes[:, 3]
    boxes = boxes[(height >= LETTER_HEIGHT_PX[0]) & (height <= LETTER_HEIGHT_PX[1]) & (width <= 1.5 * height)]
    if not LETTERS_IN_A_ROW <= len(boxes) <= MOST_MARKS:
        return MOST_MARKS if len(boxes) > MOST_MARKS else 0
    left, top, width, height = boxes.T
    gap = left[None, :] - (left + width)[:, None]
    off_line = np.abs((top + height)[None, :] - (top + height)[:, None])
    ratio = height[None, :] / height[:, None]
    tall = height[:, None]
    follows = (gap >= -1) & (gap <= MOST_GAP * tall) & (off_line <= np.maximum(2, tall // 5)) & (ratio >= 0.7) & (ratio <= 1 / 0.7)
    row = connected_components(csr_array(follows), directed=False)[1]
    sizes = np.bincount(row)
    return int(sizes[sizes >= LETTERS_IN_A_ROW].sum())
