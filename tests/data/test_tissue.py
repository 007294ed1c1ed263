"""Masks: on pictures whose tissue is known, and on real slides against what can be said of them without a reader."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from medcnn.data.slides import open_slide
from medcnn.data.tiles import read_overview
from medcnn.data.tissue import MASK_MPP, is_ink, mask_mpp, shares, tissue_map
from tests.data.made_slides import EOSIN, GLASS, tissue_picture

MPP = (8.0, 8.0)


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def disc(height: int, width: int, radius: float = 0.35) -> np.ndarray:
    canvas = np.zeros((height, width), np.uint8)
    cv2.circle(canvas, (width // 2, height // 2), round(radius * min(height, width)), 1, -1)
    return canvas > 0


def test_the_disc_is_found() -> None:
    seen = tissue_map(tissue_picture(300, 400), MPP)
    assert seen.field == "bright"
    assert overlap(seen.tissue, disc(300, 400)) > 0.97
    assert not seen.ink.any()


@pytest.mark.parametrize("colour", [GLASS, (255, 255, 255), (0, 0, 0)])
def test_an_empty_slide_has_no_tissue(colour: tuple[int, int, int]) -> None:
    picture = np.full((200, 300, 3), colour, np.uint8)
    noisy = np.clip(picture + np.random.default_rng(0).normal(0, 1.5, picture.shape), 0, 255).astype(np.uint8)
    assert tissue_map(noisy, MPP).tissue.mean() < 0.01


def test_a_slide_full_of_tissue_is_not_split_in_two() -> None:
    picture = np.full((200, 300, 3), EOSIN, np.uint8)
    picture[:, 150:] = (150, 70, 130)
    assert tissue_map(picture, MPP).tissue.mean() > 0.99


def test_padding_beyond_the_scan_is_no_tissue() -> None:
    picture = tissue_picture(300, 400)
    picture[:60] = 0
    assert not tissue_map(picture, MPP).tissue[:58].any()


@pytest.mark.parametrize("ink", [(20, 150, 110), (30, 60, 190), (25, 25, 30), (40, 160, 60)])
def test_a_pen_stroke_is_ink_and_no_tissue(ink: tuple[int, int, int]) -> None:
    picture = tissue_picture(300, 400)
    stroke = np.zeros((300, 400), np.uint8)
    cv2.line(stroke, (20, 40), (380, 200), 1, 14)
    picture[stroke > 0] = ink
    seen = tissue_map(picture, MPP)
    assert (seen.ink & (stroke > 0)).sum() > 0.97 * stroke.sum()
    assert not (seen.tissue & (stroke > 0)).any()
    assert overlap(seen.tissue | seen.ink, disc(300, 400) | (stroke > 0)) > 0.93


def test_trichrome_keeps_its_blue_and_green() -> None:
    picture = tissue_picture(300, 400)
    picture[disc(300, 400, 0.2)] = (40, 110, 170)
    assert tissue_map(picture, MPP).ink.any()
    plain = tissue_map(picture, MPP, find_ink=False)
    assert not plain.ink.any()
    assert overlap(plain.tissue, disc(300, 400)) > 0.97


def test_stains_are_no_ink() -> None:
    stains = np.array([[EOSIN, (90, 50, 140), (60, 40, 120), (200, 60, 110), (120, 70, 30), (235, 180, 210)]], np.uint8)
    assert not is_ink(stains).any()


def test_a_double_layer_is_a_fold() -> None:
    picture = tissue_picture(300, 400, nuclei=0)
    band = np.zeros((300, 400), np.uint8)
    cv2.line(band, (160, 150), (240, 160), 1, 16)
    absorbed = (picture / 243.0) ** 3  # a fold is two or three sections thick: transmittances multiply
    picture[band > 0] = np.round(absorbed * 243)[band > 0]
    seen = tissue_map(picture, MPP)
    assert overlap(seen.fold, band > 0) > 0.6
    assert not tissue_map(tissue_picture(300, 400), MPP).fold.any()


def test_fluorescence_is_told_by_its_dark_field() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 3, (300, 400, 3), dtype=np.uint8)
    nuclei = disc(300, 400) & (rng.random((300, 400)) < 0.1)
    picture[nuclei] = (0, 0, 200)
    seen = tissue_map(picture, MPP)
    assert seen.field == "dark"
    assert overlap(seen.tissue, disc(300, 400)) > 0.85


def test_shares_are_those_of_a_plain_count() -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((40, 50)) < 0.3
    boxes = np.column_stack([rng.integers(-5, 48, 30), rng.integers(-5, 38, 30), rng.integers(1, 20, 30), rng.integers(1, 20, 30)])
    padded = np.pad(mask, 30)
    wanted = [padded[y + 30 : y + 30 + high, x + 30 : x + 30 + wide].mean() for x, y, wide, high in boxes]
    assert shares(mask, boxes.astype(float)) == pytest.approx(wanted)


def test_the_mask_is_finer_for_small_tiles_and_coarser_for_huge_slides() -> None:
    assert mask_mpp(128.0, 1e8) == MASK_MPP
    assert mask_mpp(16.0, 1e6) == 2.0
    assert mask_mpp(128.0, 1e10) == 20.0


@pytest.mark.parametrize(("name", "mpp"), [("CMU-1-Small-Region.svs", 0.499), ("TCGA-CR-7395-01A-01-TS1.svs", 0.5)])
def test_the_thumbnail_gives_the_mask_of_the_level(shared_data: Path, name: str, mpp: float) -> None:
    pytest.importorskip("openslide", reason="needs the extra wsi")
    slide = open_slide(shared_data / "wsi" / name)
    by_thumbnail, exact = read_overview(slide, mpp, 8.0)
    slide.thumbnail = lambda: None  # type: ignore[method-assign]
    by_level, _ = read_overview(slide, mpp, 8.0)
    assert by_thumbnail.shape == by_level.shape
    assert overlap(tissue_map(by_thumbnail, exact).tissue, tissue_map(by_level, exact).tissue) > 0.97


@pytest.mark.parametrize(
    ("name", "mpp", "field", "low", "high"),
    [
        ("CMU-1-Small-Region.svs", 0.499, "bright", 0.33, 0.40),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.5, "bright", 0.60, 0.66),
        ("slideio_test3_DAPI.ndpi", 0.228, "dark", 0.75, 0.90),
        ("slideio_test3_TRITC.ndpi", 0.228, "dark", 0.80, 0.95),
        ("kidney_48_5.tif", 8.0, "bright", 0.001, 0.005),
    ],
)
def test_real_slides_have_as_much_tissue_as_was_seen_on_them(
    shared_data: Path, name: str, mpp: float, field: str, low: float, high: float
) -> None:
    pytest.importorskip("openslide", reason="needs the extra wsi")
    seen = tissue_map(*read_overview(open_slide(shared_data / "wsi" / name), mpp, max(8.0, mpp)))
    assert (seen.field, low < seen.tissue.mean() < high, seen.ink.mean() < 0.001) == (field, True, True), seen.tissue.mean()
