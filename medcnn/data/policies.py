"""Augmentation policies: for each kind of image, the changes that leave its label true, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Largest magnitudes at strength 1; each image draws its own, evenly between none and these, in both directions.

    symmetries: 1 none, 2 left-right mirror, 8 all of the square. rotation, hue: degrees. scale, contrast, gamma: 0.15
    means a factor from 1/1.15 to 1.15. shift, blur: share of the side (blur: standard deviation). brightness, noise: share
    of full white. saturation: as scale. stain: factor on haematoxylin, eosin and residue, and a third of it as their
    offset. reflect: mirror the image beyond its border instead of black. rare: (albumentations transform, its
    arguments, probability).
    """

    symmetries: int = 1
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    stain: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    reflect: bool = False
    rare: tuple[tuple[str, Mapping[str, Any], float], ...] = ()


# No flips where left and right differ: the heart's side is a finding.
# Mirrored beyond the border: black corners that no real image has moved the network's statistics, and its probabilities with them.
_XRAY = Policy(rotation=12, scale=0.15, shift=0.08, brightness=0.1, contrast=0.25, gamma=0.25, noise=0.03, reflect=True)
POLICIES: dict[str, Policy] = {
    "chest_xray": _XRAY,
    "xray": _XRAY,
    "histology": Policy(
        symmetries=8,
        rotation=20,
        scale=0.15,
        shift=0.05,
        brightness=0.06,
        contrast=0.1,
        stain=0.2,
        blur=0.006,
        noise=0.015,
        reflect=True,
        rare=(("ImageCompression", {"quality_range": (50, 95)}, 0.15),),  # scanners differ in how hard they compress
    ),
    "fundus": Policy(
        symmetries=2,  # the other eye
        rotation=15,
        scale=0.1,
        shift=0.04,
        brightness=0.08,
        contrast=0.2,
        gamma=0.15,
        hue=5,
        saturation=0.2,
        blur=0.004,
        noise=0.02,
        rare=(("Illumination", {"mode": "gaussian", "intensity_range": (0.05, 0.2)}, 0.25), ("CLAHE", {"clip_limit": (1, 3)}, 0.15)),
    ),
    "dermoscopy": Policy(
        symmetries=8,
        rotation=20,
        scale=0.2,
        shift=0.08,
        brightness=0.08,
        contrast=0.2,
        gamma=0.1,
        hue=6,
        saturation=0.25,
        blur=0.004,
        noise=0.02,
        reflect=True,
        rare=(("Illumination", {"mode": "linear", "intensity_range": (0.05, 0.2)}, 0.25),),
    ),
    "ultrasound": Policy(
        rotation=8,
        scale=0.12,
        shift=0.06,
        brightness=0.08,
        contrast=0.25,
        gamma=0.25,
        noise=0.02,
        rare=(("MultiplicativeNoise", {"multiplier": (0.8, 1.25), "elementwise": True}, 0.4),),  # speckle
    ),
    "generic": Policy(
        rotation=10,
        scale=0.15,
        shift=0.06,
        brightness=0.1,
        contrast=0.2,
        gamma=0.1,
        hue=4,
        saturation=0.15,
        noise=0.02,
        reflect=True,
        rare=(("ImageCompression", {"quality_range": (50, 95)}, 0.1),),
    ),
}
