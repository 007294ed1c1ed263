"""Short vectors of thumbnails: close together for copies of a picture, whichever way it was turned, and apart for different ones."""

from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn
from scipy.linalg import eigh

from medcnn.data.resemblance import N_TURNS, framed

N_FREQUENCIES = 12
N_NUMBERS = 48
_CHUNK = 4096
_N_FITTED, _N_COPIES = 2000, 4  # pictures, and copies made of each, from which the numbers are learnt
_UNSURE = 3.0  # copies differ by 1 along each number (standard deviation): below this its sign is not trusted
_CUT, _GAIN, _OFFSET = 0.055, 0.2, 51.0  # most that a made copy loses at each border, and is brightened by
_WITHIN_REACH = 0.995
# What mirroring left-right, mirroring top-bottom and transposing do to the sign of a number; the two "sided" kinds change places instead.
_SIGNS = {
    "even": (1, 1, 1),
    "stretched": (1, 1, -1),
    "across": (-1, 1, 0),
    "along": (1, -1, 0),
    "crossed": (-1, -1, 1),
    "whirled": (-1, -1, -1),
}
Parts = dict[str, np.ndarray]


@dataclass(frozen=True)
class Basis:
    """What is measured on a cohort's thumbnails. weights: for each kind of symmetry (frequencies, numbers).

    reach: 995 of 1,000 made copies lie within this distance of their picture; one number of two copies differs by about 1.
    """

    weights: Parts
    reach: float


@dataclass(frozen=True)
class Signatures:
    """vectors: float32 (m, d). images: int64 (m,), whose vector it is; turns: int64 (m,), the orientation in which it was taken.

    A picture whose standard orientation is unsure has several rows.
    """

    vectors: np.ndarray
    images: np.ndarray
    turns: np.ndarray


def learn_basis(thumbnails: np.ndarray, seed: int = 0) -> Basis:
    """The numbers along which pictures of this cohort differ most, measured by how much copies of one picture differ.

    thumbnails: uint8 (n, 32, 32). Copies are made of up to 2,000 of them: cropped, brightened, clipped. Linear discriminants (Fisher 1936,
    doi:10.1111/j.1469-1809.1936.tb02137.x) with a class for each picture, for each symmetry apart, so that turning a picture turns signs
    and swaps numbers and does nothing else.
    """
    rng = np.random.default_rng(seed)
    chosen = thumbnails[np.sort(rng.permutation(len(thumbnails))[:_N_FITTED])]
    plain = _parts(chosen)
    copies = [_parts(_copied(chosen, rng)) for _ in range(_N_COPIES)]
    found = {kind: _discriminants(*_fitted_on(kind, plain, copies)) for kind in _SIGNS if kind != "along"}
    found["along"] = found["across"]
    strengths = np.sort(np.concatenate([ratio for ratio, _ in found.values()]))[::-1]
    weights = {kind: vectors[:, ratio >= strengths[N_NUMBERS - 1]] for kind, (ratio, vectors) in found.items()}
    apart = [np.linalg.norm(_numbers(plain, weights) - _numbers(copy, weights), axis=1) for copy in copies]
    return Basis(weights, float(np.quantile(np.concatenate(apart), _WITHIN_REACH)))


def sign_thumbnails(thumbnails: np.ndarray, basis: Basis) -> Signatures:
    """The vectors of thumbnails, uint8 (n, 32, 32), each in its standard orientation; in both where a sign is unsure."""
    chunks = [_signed(thumbnails[start : start + _CHUNK], basis, start) for start in range(0, len(thumbnails), _CHUNK)]
    return Signatures(
        np.concatenate([chunk.vectors for chunk in chunks]),
        np.concatenate([chunk.images for chunk in chunks]),
        np.concatenate([chunk.turns for chunk in chunks]),
    )


def _signed(thumbnails: np.ndarray, basis: Basis, start: int) -> Signatures:
    parts = _parts(thumbnails)
    # The strongest number of each kind says how a picture stands: wide or high, then which half is brighter.
    stance, sideways, upright = (parts[kind] @ basis.weights[kind][:, 0] for kind in ("stretched", "across", "along"))
    vectors, images, turns = [], [], []
    for number in range(N_TURNS):
        transposed, mirrored, flipped = number & 1, number & 2, number & 4
        left, top = (upright, sideways) if transposed else (sideways, upright)
        agrees = [value if not changed else -value for value, changed in ((stance, transposed), (left, mirrored), (top, flipped))]
        rows = np.flatnonzero(np.all([value > -_UNSURE for value in agrees], axis=0))
        vectors.append(_numbers({kind: part[rows] for kind, part in parts.items()}, basis.weights, number))
        images.append(rows + start)
        turns.append(np.full(len(rows), number))
    return Signatures(np.concatenate(vectors), np.concatenate(images), np.concatenate(turns))


# ---------------------------------------------------------------- symmetry


def _parts(thumbnails: np.ndarray) -> Parts:
    """The lowest frequencies (DCT, mean and contrast taken out), float32 (n, k) for each kind of symmetry; a kind of several signs is summed or subtracted."""
    pictures = thumbnails.astype(np.float32)
    pictures -= pictures.mean((1, 2), keepdims=True)
    pictures /= np.maximum(pictures.std((1, 2), keepdims=True), 1e-3)
    waves = dctn(pictures, axes=(1, 2), norm="ortho")[:, :N_FREQUENCIES, :N_FREQUENCIES]
    even, odd = waves[:, ::2, ::2], waves[:, 1::2, 1::2]
    n, half = len(waves), N_FREQUENCIES // 2
    row, column = np.triu_indices(half, 1)
    diagonal = np.arange(half)

    def alike(block: np.ndarray) -> np.ndarray:
        return np.concatenate([block[:, diagonal, diagonal], (block[:, row, column] + block[:, column, row]) / np.sqrt(2)], axis=1)

    def unlike(block: np.ndarray) -> np.ndarray:
        return np.asarray((block[:, row, column] - block[:, column, row]) / np.sqrt(2))

    return {
        "even": alike(even)[:, 1:],  # without the mean
        "stretched": unlike(even),
        "across": waves[:, ::2, 1::2].reshape(n, -1),
        "along": waves[:, 1::2, ::2].swapaxes(1, 2).reshape(n, -1),
        "crossed": alike(odd),
        "whirled": unlike(odd),
    }


def _numbers(parts: Parts, weights: Parts, number: int = 0) -> np.ndarray:
    """The vectors, float32 (n, d), of pictures turned to orientation `number` (see resemblance.turn)."""
    vectors = []
    for kind, (mirrored, flipped, transposed) in _SIGNS.items():
        source = {"across": "along", "along": "across"}.get(kind, kind) if number & 1 else kind
        sign = (mirrored if number & 2 else 1) * (flipped if number & 4 else 1) * ((transposed or 1) if number & 1 else 1)
        vectors.append(parts[source] @ weights[kind] * sign)
    return np.concatenate(vectors, axis=1).astype(np.float32)


# ---------------------------------------------------------------- learning


def _fitted_on(kind: str, plain: Parts, copies: list[Parts]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Frequencies of the pictures and of their copies. The two sided kinds are one another's transposes and are learnt together."""
    if kind != "across":
        return plain[kind], [copy[kind] for copy in copies]
    both = [np.concatenate([parts["across"], parts["along"]]) for parts in (plain, *copies)]
    return both[0], both[1:]


def _discriminants(plain: np.ndarray, copies: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Variance among pictures in units of that among copies, largest first (k,); and the directions (k, k), along which copies differ by 1."""
    apart = np.concatenate([plain - copy for copy in copies])
    noise = apart.T @ apart / len(apart)
    # A few pictures cannot say what all copies do: a share of it is the same along all frequencies.
    noise += np.eye(len(noise)) * (0.02 * np.trace(noise) / len(noise) + 1e-6)
    ratio, directions = eigh(np.cov(plain, rowvar=False, bias=True), noise)
    return ratio[::-1], directions[:, ::-1].astype(np.float32)


def _copied(thumbnails: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Made copies, float32 (n, 32, 32): up to 5.5% cut off at each border, made brighter or darker, clipped."""
    n = len(thumbnails)
    cuts = rng.uniform(0, _CUT, (4, n)) * (rng.random((4, n)) < 0.75)
    frame = np.stack([cuts[0] - cuts[1], 2 - 2 * (cuts[0] + cuts[1]), cuts[2] - cuts[3], 2 - 2 * (cuts[2] + cuts[3])], axis=1) / 2
    what = rng.integers(3, size=n)
    gain = np.where(what == 1, rng.uniform(1 - _GAIN, 1 + _GAIN, n), 1).astype(np.float32)
    offset = np.where(what == 2, rng.uniform(-_OFFSET, _OFFSET, n), 0).astype(np.float32)
    copied: np.ndarray = np.clip(framed(thumbnails, frame) * gain[:, None, None] + offset[:, None, None], 0, 255)
    return copied
