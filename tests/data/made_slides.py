"""Made-up slides: a disc of tissue with nuclei on glass, as a tiled pyramid that OpenSlide knows, or as a flat TIFF."""

from pathlib import Path

import cv2
import numpy as np
import tifffile

GLASS, EOSIN, NUCLEUS = (243, 243, 243), (222, 150, 190), (90, 50, 140)


def tissue_picture(height: int, width: int, *, seed: int = 0, radius: float = 0.35, nuclei: float = 0.002) -> np.ndarray:
    """uint8 (height, width, 3): a disc in the middle; nuclei: how many a pixel of tissue has."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), GLASS, np.uint8)
    centre, reach = (width // 2, height // 2), round(radius * min(height, width))
    cv2.circle(picture, centre, reach, EOSIN, -1)
    for x, y in rng.uniform(-1, 1, (round(nuclei * np.pi * reach**2), 2)) * reach * 0.97:
        if np.hypot(x, y) < reach * 0.97:
            cv2.circle(picture, (round(centre[0] + x), round(centre[1] + y)), 4, NUCLEUS, -1)
    noisy = picture + rng.normal(0, 2, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def write_slide(
    path: Path, picture: np.ndarray, *, mpp: float | None = 0.5, n_levels: int = 3, description: str = "", compression: str = "deflate"
) -> Path:
    """A tiled pyramid (generic TIFF; Aperio where the description says so). mpp: in the resolution tags; None: no tags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"photometric": "rgb", "tile": (128, 128), "compression": compression, "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for number in range(n_levels):
            size = (picture.shape[1] >> number, picture.shape[0] >> number)
            level = picture if not number else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            tags = {} if mpp is None else {"resolution": (1e4 / mpp / 2**number,) * 2, "resolutionunit": "CENTIMETER"}
            kind = {"subfiletype": 1} if number else {}
            file.write(level, description=description or None, software=False, **options, **tags, **kind)
    return path


def aperio(width: int, height: int, *, mpp: str = "0.5000", **planted: str) -> str:
    """An Aperio description, with whatever is planted in it."""
    words = {"AppMag": "20", "MPP": mpp, **planted}
    return f"Aperio Image Library v11.2.1 \r\n{width}x{height} [0,0 {width}x{height}] (128x128) J2K/KDU Q=70|" + "|".join(
        f"{key} = {value}" for key, value in words.items()
    )
