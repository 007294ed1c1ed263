"""The digest of pixels: equal for equal images, however they were stored."""

import hashlib

import numpy as np


def pixel_digest(pixels: np.ndarray) -> str:
    """sha256 of shape, dtype and samples. Colour pixels without any colour count as grey, so a grey copy is found."""
    if pixels.ndim == 3 and np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2]):
        pixels = pixels[..., 0]
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.name} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
