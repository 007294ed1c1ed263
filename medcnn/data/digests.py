"""Fingerprints of pixels: one that finds equal images, one that finds an image saved again with other settings."""

import hashlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

HASH_BITS = 256
# Measured on chest X-rays, histology and 28 px MedMNIST images: an image saved again lies 0-4 bits away, resized or
# brightened up to 30, two different real images at least 38.
SAME_PICTURE_BITS, NEAR_BITS = 4, 12
# Spread (standard deviation) below which a picture has no structure to hash: 2 grey levels, in 16 bits those of a 10-bit image.
_FLAT = {np.dtype(np.uint8): 2.0, np.dtype(np.uint16): 8.0}


def pixel_digest(pixels: np.ndarray) -> str:
    """sha256 of shape, dtype and samples. Colour pixels without any colour count as grey, so a grey copy is found."""
    if pixels.ndim == 3 and np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2]):
        pixels = pixels[..., 0]
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.name} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def perceptual_hash(pixels: np.ndarray) -> str:
    """256 bits as 64 hex digits: signs, against their median, of the 16 x 16 lowest DCT frequencies at 64 x 64 pixels.

    pixels: uint8 or uint16, (H, W) or (H, W, 3). Blank for a picture that is almost one shade, whose bits would be noise.
    Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions, section 3.2.1.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLAT[pixels.dtype]:
        return ""
    low = cv2.dct(small)[:16, :16]
    return np.packbits(low > np.median(low)).tobytes().hex()


def near_pairs(hashes: Sequence[str], bits: int = NEAR_BITS) -> list[tuple[int, int, int]]:
    """Every pair (i, j, distance) of perceptual hashes at most `bits` apart, i < j, sorted; blank hashes have none.

    Exact, without comparing all with all: of bits + 1 bands, two such hashes agree in at least one. Costs as many
    comparisons as there are pairs that share a band.
    """
    known = [row for row, text in enumerate(hashes) if text]
    if len(known) < 2:
        return []
    packed = np.frombuffer(bytes.fromhex("".join(hashes[row] for row in known)), np.uint8).reshape(len(known), HASH_BITS // 8)
    unpacked = np.unpackbits(packed, axis=1)
    words = packed.view(np.uint64)
    found: dict[tuple[int, int], int] = {}
    for band in range(bits + 1):
        # Every (bits + 1)-th bit: neighbouring frequencies are alike, so that runs of them would share too often.
        keys = np.zeros((len(known), HASH_BITS // 8), np.uint8)
        chosen = np.packbits(unpacked[:, band :: bits + 1], axis=1)
        keys[:, : chosen.shape[1]] = chosen
        for left, right in _sharing(keys.view("S32").ravel()):
            distances = np.bitwise_count(words[left] ^ words[right]).sum(axis=1)
            for at in np.flatnonzero(distances <= bits):
                i, j = sorted((known[left[at]], known[right[at]]))
                found[i, j] = int(distances[at])
    return [(i, j, distance) for (i, j), distance in sorted(found.items())]


def _sharing(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Arrays of row numbers (left, right), together all pairs with equal values."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    start, step = np.arange(len(ordered)), 1
    while True:
        start = start[start + step < len(ordered)]
        start = start[ordered[start] == ordered[start + step]]
        if not len(start):
            return
        yield order[start], order[start + step]
        step += 1
