"""Grey values of a cohort, from a fixed sample of its decoded images: brightness, contrast, colour that is none, polarity."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from medcnn.executors import n_cores
from medcnn.progress import Progress, silent

N_SAMPLED = 200
LOOKED_AT_PX = 256  # of each side; a larger image is thinned out, which leaves its grey values what they are
COLOURED = 8  # grey levels between the channels of a pixel that has colour; saving as JPEG leaves less
COLOURED_SHARE = 0.001  # of the pixels of an image that has colour
CORNER = 0.1  # of each side
BRIGHT = 128
WEIGHTS = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in the cache

Reader = Callable[[str, int], np.ndarray]


def intensity_statistics(
    manifest: pd.DataFrame, read: Reader, *, n_sampled: int = N_SAMPLED, progress: Progress = silent
) -> dict[str, float]:
    """What the pixels of a sample of images are like, on the scale from 0 (black) to 255 (white).

    read(path, frame) returns uint8 (H, W) or (H, W, 3), polarity mended. The sample follows from the image_ids alone.
    n_images: how many were looked at. mean, sd, p1, p50, p99: of an image's grey values, averaged over the images;
    mean_p5, mean_p95: quantiles of the images' means; black, white: share of pixels at the ends of the scale.
    n_colour: images of three channels; grey_in_colour: share of them that have no colour. n_grey: images without
    colour; inverted_looking: share of them whose corners are bright and brighter than the image, which in radiographs
    means that black and white are exchanged. Shares are left out where there is nothing to take them of.
    Raises what `read` raises.
    """
    chosen = sample_images(manifest["image_id"].astype(str), n_sampled)
    jobs = [(str(path), int(frame)) for path, frame in manifest.iloc[chosen][["path", "frame"]].itertuples(index=False, name=None)]
    with ThreadPoolExecutor(n_cores()) as pool:
        done = pool.map(lambda job: _look(_thinned(read(*job))), jobs)
        seen = pd.DataFrame(list(progress(done, "Looking at grey values", len(jobs))))
    of_images = ["mean", "sd", "p1", "p50", "p99", "black", "white"]
    found = {"n_images": float(len(seen)), **{name: float(seen[name].mean()) for name in of_images}}
    found |= {f"mean_p{q}": float(np.quantile(seen["mean"], q / 100)) for q in (5, 95)}
    stored, grey = seen[seen["channels"] == 3], seen[~seen["coloured"]]
    found |= {"n_colour": float(len(stored)), "n_grey": float(len(grey))}
    if len(stored):
        found["grey_in_colour"] = float(1 - stored["coloured"].mean())
    if len(grey):
        found["inverted_looking"] = float(grey["inverted"].mean())
    return {name: round(value, 4) for name, value in found.items()}


def sample_images(image_ids: Sequence[str] | pd.Series, n: int) -> np.ndarray:
    """Positions of at most n images, int64: those whose name has the lowest digest, so that row order is of no account."""
    digests = [hashlib.sha256(str(image_id).encode()).hexdigest() for image_id in image_ids]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__)[:n], dtype=np.int64)


def _thinned(pixels: np.ndarray) -> np.ndarray:
    rows, columns = (max(1, side // LOOKED_AT_PX) for side in pixels.shape[:2])
    return pixels[::rows, ::columns]


def _look(pixels: np.ndarray) -> dict[str, float | bool]:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    grey = pixels @ WEIGHTS if channels == 3 else pixels.reshape(pixels.shape[:2]).astype(np.float64)
    spread = np.ptp(pixels.astype(np.int16), axis=2) if channels == 3 else np.zeros(grey.shape)
    p1, p50, p99 = np.percentile(grey, [1, 50, 99])
    ends = np.round(grey)
    return {
        "channels": channels,
        "coloured": bool((spread > COLOURED).mean() > COLOURED_SHARE),
        "inverted": _inverted(grey, float(p50)),
        **{"mean": grey.mean(), "sd": grey.std(), "p1": p1, "p50": p50, "p99": p99},
        **{"black": (ends == 0).mean(), "white": (ends == 255).mean()},
    }


def _inverted(grey: np.ndarray, middle: float) -> bool:
    """True when the corners together are bright, and brighter than the image's median."""
    rows, columns = (max(1, round(CORNER * side)) for side in grey.shape)
    corners = [part[:, side] for part in (grey[:rows], grey[-rows:]) for side in (slice(None, columns), slice(-columns, None))]
    corner = float(np.median(np.concatenate([part.ravel() for part in corners])))
    return corner > BRIGHT and corner > middle
