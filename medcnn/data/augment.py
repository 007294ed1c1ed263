"""Training transforms: one policy for each kind of image, the same pixels whatever process makes them.

A policy (see policies.py) is a row of largest magnitudes. The common transforms (symmetry, affine, tone, colour, stain, blur, noise) are
drawn for a whole batch at once and applied with OpenCV, one pass each; what is rarer and richer comes from
albumentations. Nothing has a random state: every number follows from (seed, epoch, image number), so a batch does
not depend on workers, their number, or what was drawn before it.
"""

import hashlib
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import cv2
import numpy as np

from medcnn.data.mapped import by_place, from_place
from medcnn.data.policies import POLICIES, Policy
from medcnn.errors import InputError
from medcnn.plan import AugmentPlan

cv2.setNumThreads(1)  # images are small: threads inside one cost more than they bring, and workers are processes already


N_UNIFORMS = 16  # random numbers that one image may use, besides those of the rare transforms
BANK_OFFSETS = 1 << 20
MIN_BLUR_PX = 0.25  # a narrower Gaussian changes nothing
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Ruifrok & Johnston 2001 (Anal Quant Cytol Histol 23:291), rows haematoxylin, eosin, residue; columns R, G, B; as in scikit-image.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


# ---------------------------------------------------------------- random numbers


def sample_seeds(seed: int, epoch: int, rows: np.ndarray, shows: np.ndarray | None = None) -> np.ndarray:
    """One seed for each image, uint64 (B,), from (seed, epoch, image number) alone.

    shows: how often the image was shown before in this epoch (when classes are oversampled); default never.
    """
    key = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    repeats = np.zeros(len(rows), np.uint64) if shows is None else np.asarray(shows).astype(np.uint64)
    return _mixed(_mixed(key + _GOLDEN * np.asarray(rows).astype(np.uint64)) ^ repeats)


def random_words(seeds: np.ndarray, n: int) -> np.ndarray:
    """The first n outputs of SplitMix64 for each seed, uint64 (B, n). doi:10.1145/2660193.2660195"""
    return _mixed(seeds[:, None] + _GOLDEN * np.arange(1, n + 1, dtype=np.uint64))


def _mixed(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = state ^ (state >> np.uint64(31))
    return mixed


@cache
def _noise_bank(n: int) -> np.ndarray:
    """Standard normal numbers, float32 (n,): an image takes a run of them, 25 times cheaper than drawing its own."""
    return np.random.default_rng(0).standard_normal(n, dtype=np.float32)


# ---------------------------------------------------------------- one augmentation


@dataclass(frozen=True)
class _Draws:
    """What a batch of B images was dealt. Arrays start with B; None: the policy has no such transform."""

    matrices: np.ndarray | None  # float64 (B, 2, 3): place in the new image -> place in the old one, pixels
    tables: np.ndarray | None  # uint8 (B, 256)
    colours: np.ndarray | None  # float32 (B, 3, 3), on RGB
    stains: np.ndarray | None  # float32 (B, 3, 4), on optical density
    blurs: np.ndarray | None  # float64 (B,), standard deviation in pixels
    noises: np.ndarray | None  # float64 (B,), standard deviation in grey levels
    offsets: np.ndarray  # int64 (B,), where the noise bank is entered
    rare: np.ndarray  # uint64 (B, n_rare): which rare transforms happen, and their seeds


@dataclass(frozen=True)
class Augmentation:
    """A policy at one strength, for images of one size. Call it with an image and a seed, or hand it whole batches."""

    policy: Policy
    strength: float
    size_px: int
    channels: int
    _rare: list[Any] = field(default_factory=list, repr=False, compare=False)

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """One image, uint8 (S, S, C), augmented as the seed says; the image itself is untouched."""
        augmented: np.ndarray = self.batch(image[None], np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))[0]
        return augmented

    def batch(self, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """uint8 (B, S, S, C) and their seeds uint64 (B,) to uint8 (B, S, S, C)."""
        shape = (self.size_px, self.size_px, self.channels)
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise InputError(f"augmentation was made for uint8 images of shape {shape}, got {images.dtype} {images.shape[1:]}")
        draws = self._draw(seeds)
        augmented = np.empty_like(images)
        for number, image in enumerate(images if self.channels == 3 else images[..., 0]):
            augmented[number] = self._apply(image, draws, number).reshape(shape)
        return augmented

    def prepare(self, images: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What `batch` would do, begun here and left for another device: images with their rare transforms, and the draws.

        images: uint8 (B, S, S, C), changed in place. The draws, as `medcnn/model/device_augment.py` takes them: those of
        matrices, stains, colours, tables, blurs, noises and offsets that the policy has (see _Draws; floats as float32),
        and reflect, bool (). The rare transforms come first here, where `batch` puts them between blur and noise.
        """
        draws = self._draw(seeds)
        for number in range(len(images) if self._rare else 0):
            image = images[number] if self.channels == 3 else images[number, ..., 0]
            images[number] = self._apply_rare(image, draws, number).reshape(images[number].shape)
        left = {name: array for name, array in vars(draws).items() if array is not None and name != "rare"}
        arrays = {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in left.items()}
        return images, {**arrays, "reflect": np.array(self.policy.reflect)}

    def _draw(self, seeds: np.ndarray) -> _Draws:
        policy, side = self.policy, self.size_px
        words = random_words(seeds, N_UNIFORMS + len(policy.rare))
        u = (words[:, :N_UNIFORMS] >> np.uint64(11)) * 2.0**-53  # evenly from 0 to 1
        signed = (2 * u - 1) * self.strength
        in_colour = self.channels == 3
        return _Draws(
            matrices=self._matrices(signed, u[:, 0]),
            tables=_tone_tables(policy, signed[:, 5:8]),
            colours=_colour_matrices(policy, signed[:, 8:10]) if in_colour and (policy.hue or policy.saturation) else None,
            stains=_stain_matrices(policy.stain, signed[:, 8:14]) if in_colour and policy.stain else None,
            blurs=u[:, 14] * policy.blur * side * self.strength if policy.blur else None,
            noises=u[:, 15] * policy.noise * 255 * self.strength if policy.noise else None,
            offsets=(words[:, 0] % np.uint64(BANK_OFFSETS)).astype(np.int64),
            rare=words[:, N_UNIFORMS:],
        )

    def _matrices(self, signed: np.ndarray, u: np.ndarray) -> np.ndarray | None:
        """Symmetry, then rotation, scale and shift about the centre, as one map so that pixels are resampled once."""
        policy = self.policy
        if policy.symmetries == 1 and not (self.strength and (policy.rotation or policy.scale or policy.shift)):
            return None
        angle, zoom = np.deg2rad(policy.rotation) * signed[:, 1], (1 + policy.scale) ** signed[:, 2]
        cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
        turned = np.stack([np.stack([cosine, -sine], axis=1), np.stack([sine, cosine], axis=1)], axis=1)
        linear = _SYMMETRIES[(u * policy.symmetries).astype(np.int64)] @ turned
        centre = np.full(2, (self.size_px - 1) / 2)
        moved = centre - linear @ centre + policy.shift * self.size_px * signed[:, 3:5]
        matrices: np.ndarray = np.concatenate([linear, moved[:, :, None]], axis=2)
        return matrices

    def _apply(self, image: np.ndarray, draws: _Draws, number: int) -> np.ndarray:
        if draws.matrices is not None:
            border = cv2.BORDER_REFLECT_101 if self.policy.reflect else cv2.BORDER_CONSTANT
            size = (self.size_px, self.size_px)
            image = cv2.warpAffine(image, draws.matrices[number], size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border)
        if draws.stains is not None:
            density = cv2.transform(cv2.LUT(image, _DENSITIES), draws.stains[number])
            image = cv2.convertScaleAbs(cv2.exp(-density), alpha=255)
        if draws.colours is not None:
            image = cv2.transform(image, draws.colours[number])
        if draws.tables is not None:
            image = cv2.LUT(image, draws.tables[number])
        if draws.blurs is not None and draws.blurs[number] >= MIN_BLUR_PX:
            image = cv2.GaussianBlur(image, (0, 0), float(draws.blurs[number]))
        image = self._apply_rare(image, draws, number)
        if draws.noises is not None and draws.noises[number]:
            start = int(draws.offsets[number])
            grain = _noise_bank(BANK_OFFSETS + image.size)[start : start + image.size].reshape(image.shape)
            image = cv2.addWeighted(image, 1.0, grain, float(draws.noises[number]), 0.0, dtype=cv2.CV_8U)
        return image

    def _apply_rare(self, image: np.ndarray, draws: _Draws, number: int) -> np.ndarray:
        for chance, transform, word in zip(self._chances(), self._rare, draws.rare[number].tolist(), strict=True):
            if word * 2.0**-64 < chance:
                image = _transformed(transform, image, word)
        return image

    def _chances(self) -> list[float]:
        return [chance * self.strength for _, _, chance in self.policy.rare]


def build_augmentation(plan: AugmentPlan, *, size_px: int, channels: int) -> Augmentation | None:
    """The plan's policy as a function (image uint8 (S, S, C), seed) -> image; None for policy none.

    Colour-only transforms are left out of grey images. albumentations is imported only by policies that use it.
    """
    if plan.policy == "none":
        return None
    policy = POLICIES[plan.policy]
    rare = _rare_transforms(plan.policy) if policy.rare else []
    return Augmentation(policy, plan.strength, size_px, channels, rare)


def _rare_transforms(name: str) -> list[Any]:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import: it would ask a package index for news
    import albumentations

    return [getattr(albumentations, kind)(**arguments, p=1) for kind, arguments, _ in POLICIES[name].rare]


def _transformed(transform: Any, image: np.ndarray, seed: int) -> np.ndarray:
    # Left to itself, albumentations 2.0.8 repeats its numbers in every loader worker and every epoch.
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    transformed: np.ndarray = transform(image=np.ascontiguousarray(image))["image"]
    return transformed


# ---------------------------------------------------------------- magnitudes to tables and matrices

_MIRROR, _QUARTER = np.diag([-1.0, 1.0]), np.array([[0.0, -1.0], [1.0, 0.0]])
# Identity, mirror, then the rest of the square's group: a policy takes the first 1, 2 or 8.
_SYMMETRIES = np.stack(
    [np.linalg.matrix_power(_QUARTER, turns) @ np.linalg.matrix_power(_MIRROR, flip) for turns in range(4) for flip in range(2)]
)
_DENSITIES = -np.log(np.maximum(np.arange(256), 0.5) / 255).astype(np.float32)  # half a grey level: black comes back as black
_GREY = np.linspace(1e-6, 1, 256, dtype=np.float32)


def _tone_tables(policy: Policy, signed: np.ndarray) -> np.ndarray | None:
    """Gamma, then contrast about mid-grey, then brightness, as one table: uint8 (B, 256)."""
    if not (policy.brightness or policy.contrast or policy.gamma):
        return None
    x = np.exp(np.log(_GREY) * ((1 + policy.gamma) ** signed[:, 0:1]).astype(np.float32))
    x = (x - 0.5) * ((1 + policy.contrast) ** signed[:, 1:2]).astype(np.float32) + 0.5
    x = x + (policy.brightness * signed[:, 2:3]).astype(np.float32)
    tables: np.ndarray = (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
    return tables


def _colour_matrices(policy: Policy, signed: np.ndarray) -> np.ndarray:
    """Hue turned and saturation scaled in YIQ, where both are linear and leave grey alone: float32 (B, 3, 3)."""
    angle, factor = np.deg2rad(policy.hue) * signed[:, 0], (1 + policy.saturation) ** signed[:, 1]
    inner = np.zeros((len(signed), 3, 3))
    inner[:, 0, 0] = 1
    inner[:, 1, 1] = inner[:, 2, 2] = factor * np.cos(angle)
    inner[:, 1, 2], inner[:, 2, 1] = -factor * np.sin(angle), factor * np.sin(angle)
    matrices: np.ndarray = (np.linalg.inv(_YIQ) @ inner @ _YIQ).astype(np.float32)
    return matrices


def _stain_matrices(magnitude: float, signed: np.ndarray) -> np.ndarray:
    """Amounts of haematoxylin, eosin and residue scaled and offset (doi:10.1016/j.media.2019.101544): float32 (B, 3, 4)."""
    vectors = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
    factors, offsets = (1 + magnitude) ** signed[:, 0:3], magnitude / 3 * signed[:, 3:6]
    linear = vectors.T @ (factors[:, :, None] * np.linalg.inv(vectors.T))
    return np.concatenate([linear, (offsets @ vectors)[:, :, None]], axis=2).astype(np.float32)


# ---------------------------------------------------------------- a cohort's images


@dataclass(frozen=True)
class AugmentedImages:
    """Batches of a cohort's images, augmented or plain. images: uint8 (N, S, S, C), in memory or mapped from disk."""

    images: np.ndarray
    augmentation: Augmentation | None
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        """Images of these rows, uint8 (B, S, S, C). epoch None: not augmented. shows: see sample_seeds."""
        images: np.ndarray = self.images[rows]
        if epoch is None or self.augmentation is None:
            return images
        return self.augmentation.batch(images, sample_seeds(self.seed, epoch, rows, shows))

    def prepare(self, rows: np.ndarray, epoch: int, shows: np.ndarray | None = None) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """As `batch`, but what another device can do is left to it: pixels, and the draws that say what (see Augmentation.prepare)."""
        images: np.ndarray = self.images[rows]  # a copy, as rows is an array
        if self.augmentation is None:
            return images, {}
        return self.augmentation.prepare(images, sample_seeds(self.seed, epoch, rows, shows))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "images": by_place(self.images)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "images": from_place(state["images"])})


@dataclass(frozen=True)
class ViewedImages:
    """Batches for prediction: plain, or views that follow from an image's own pixels, so that it is seen alike in a cohort and alone.

    images: uint8 (N, S, S, C), in memory or mapped from disk.
    """

    images: np.ndarray
    augmentation: Augmentation | None
    seed: int

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        """Images of these rows, uint8 (B, S, S, C). epoch None: plain."""
        images: np.ndarray = self.images[rows]
        if epoch is None or self.augmentation is None:
            return images
        names = [hashlib.sha256(image.tobytes()).digest()[:8] for image in images]
        return self.augmentation.batch(images, sample_seeds(self.seed, epoch, np.frombuffer(b"".join(names), np.uint64), shows))
