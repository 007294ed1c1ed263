"""Microns per pixel of a slide: what the file says when that can be true, what a person says, or a refusal with the reason."""

from dataclasses import dataclass

from medcnn.config_data import SlidesConfig
from medcnn.data.slides import SlideFacts

FINEST_MPP, COARSEST_MPP = 0.05, 10.0  # a 100x objective with a fine camera; a 1x overview
MOST_STRETCH = 1.02  # pixels further from square than this are no scanner's
INCH_MICRONS = 25_400.0
PRINT_DPI = (72, 96, 100, 120, 144, 150, 200, 220, 240, 300, 350, 360, 400, 600, 720, 1200, 2400)
POWER_TIMES_MPP = 10.0  # 40x is .25 um/px and 20x is .5: true of the usual scanners within about a tenth, not of all


@dataclass(frozen=True)
class Resolution:
    """mpp: microns per pixel of level 0. source: file, objective, table or config."""

    mpp: float
    source: str


@dataclass(frozen=True)
class NoResolution:
    """Why a slide has none. kind: no_resolution or implausible_resolution; reason: a sentence that says what to do."""

    kind: str
    reason: str


def resolution_of(facts: SlideFacts, config: SlidesConfig, said: float | None = None) -> Resolution | NoResolution:
    """The resolution to read a slide at.

    In this order: said, which the label table states for this slide; the file's own where plausible (FINEST_MPP to
    COARSEST_MPP, square pixels); config.assume_mpp; 10 / objective power where config.by_power. An implausible one is never
    used, and the objective does not stand in for it: a file that was resaved may have been resized as well.
    """
    if said is not None:
        if not FINEST_MPP <= said <= COARSEST_MPP:
            return NoResolution("implausible_resolution", f"the table says {said:g} um/px; expected {FINEST_MPP:g} to {COARSEST_MPP:g}")
        return Resolution(said, "table")
    problem = "" if facts.mpp is None else implausible(*facts.mpp)
    if facts.mpp is not None and not problem:
        return Resolution((facts.mpp[0] * facts.mpp[1]) ** 0.5, "file")
    if config.assume_mpp is not None:
        return Resolution(config.assume_mpp, "config")
    if facts.mpp is None and facts.power and config.by_power:
        return Resolution(POWER_TIMES_MPP / facts.power, "objective")
    todo = "give it by data.slides.mpp_column, or for all such slides by data.slides.assume_mpp with assume_reason"
    if problem:
        return NoResolution("implausible_resolution", f"{problem}; {todo}")
    return NoResolution("no_resolution", f"the file names neither microns per pixel nor an objective; {todo}")


def implausible(x: float, y: float) -> str:
    """Why x, y microns per pixel are no microscope's; blank when they may be."""
    if max(x, y) / min(x, y) > MOST_STRETCH:
        return f"{x:g} x {y:g} um/px are not square pixels"
    if FINEST_MPP <= x <= COARSEST_MPP:
        return ""
    dots = INCH_MICRONS / x
    near = min(PRINT_DPI, key=lambda dpi: abs(dpi - dots))
    origin = f": {near} dots per inch, a screen's or printer's setting and no microscope's" if abs(near - dots) < 0.005 * dots else ""
    return f"{x:.6g} um/px cannot be{origin} (expected {FINEST_MPP:g} to {COARSEST_MPP:g})"
