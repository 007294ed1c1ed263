"""The cut, the grid, names that lead back to the pixels, and the overview."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from medcnn.config_data import SlidesConfig
from medcnn.data.formats import UnreadableImage
from medcnn.data.slides import Level, SlideFacts, open_slide
from medcnn.data.tile_places import TilePlace, tile_place
from medcnn.data.tile_quality import sharpness
from medcnn.data.tiles import Cut, cut_of, grid_of, read_overview, read_place
from tests.data.made_slides import tissue_picture, write_slide

openslide = pytest.importorskip("openslide", reason="needs the extra wsi")


def facts(*downsamples: float, width: int = 4000, height: int = 3000, **known: object) -> SlideFacts:
    levels = tuple(Level(int(width / step), int(height / step), step) for step in downsamples)
    return SlideFacts(reader="", vendor="", levels=levels, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "mpp", "level", "side", "exact"),
    [
        (0.5, 0.5, 0, 256, 0.5),
        (0.5, 0.499, 0, 256, 0.499),  # within a hundredth: taken as it is, and stated exactly
        (0.5, 0.25, 0, 512, 0.5),  # level 1 is four times coarser than level 0: too coarse
        (1.0, 0.25, 1, 256, 1.0),
        (2.0, 0.25, 1, 512, 2.0),
        (0.5, 0.2282, 0, 561, 0.2282 * 561 / 256),
        (0.5, 0.54, 0, 237, 0.54 * 237 / 256),  # enlarged by less than a tenth
    ],
)
def test_level_and_side(wanted: float, mpp: float, level: int, side: int, exact: float) -> None:
    cut = cut_of(facts(1.0, 4.0, 16.0), mpp, SlidesConfig(mpp=wanted))
    assert isinstance(cut, Cut)
    assert (cut.level, cut.side) == (level, side)
    assert cut.mpp == pytest.approx(exact)
    assert cut.mpp == pytest.approx(wanted, rel=0.011)


@pytest.mark.parametrize(("mpp", "size", "words"), [(1.0, 4000, "too coarse for tiles of 0.5"), (0.5, 200, "smaller than one tile")])
def test_what_cannot_be_cut(mpp: float, size: int, words: str) -> None:
    found = cut_of(facts(1.0, width=size, height=size), mpp, SlidesConfig())
    assert isinstance(found, str)
    assert words in found


def test_the_grid_lies_inside_the_bounds_and_overlaps_as_asked() -> None:
    slide = facts(1.0, bounds=(100, 50, 1000, 700))
    cut = cut_of(slide, 0.5, SlidesConfig(overlap=0.5))
    assert isinstance(cut, Cut)
    corners = grid_of(slide, cut)
    assert sorted(set(corners[:, 0])) == list(range(100, 1100 - 255, 128))
    assert sorted(set(corners[:, 1])) == list(range(50, 750 - 255, 128))
    assert len(corners) == len(np.unique(corners, axis=0)) == 6 * 4


def test_a_place_is_read_back_and_nothing_else_is_one() -> None:
    place = TilePlace("a#b/c.svs", 12, 3, 1, 506, 256)
    assert tile_place(str(place)) == place
    for text in (
        "a.svs",
        "a.svs#x=1,y=2,level=0,side=3",
        "a.svs#x=-1,y=2,level=0,side=3,px=4",
        "a#x=1,y=2,level=0,side=3,px=4;b",
        "#x=1,y=2,level=0,side=3,px=4",
        "a#x=1e3,y=2,level=0,side=3,px=4",
    ):
        assert tile_place(text) is None


def test_a_tile_is_the_part_of_the_picture_that_its_place_names(tmp_path: Path) -> None:
    picture = tissue_picture(600, 500)
    write_slide(tmp_path / "a.tif", picture)
    assert np.array_equal(read_place("a.tif#x=120,y=70,level=0,side=64,px=64", tmp_path), picture[70:134, 120:184])
    halved = picture[70:134, 120:184].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(read_place("a.tif#x=120,y=70,level=0,side=64,px=32", tmp_path) - halved).max() <= 0.75
    coarse = cv2.resize(picture, (250, 300), interpolation=cv2.INTER_AREA)
    assert np.array_equal(read_place("a.tif#x=120,y=70,level=1,side=32,px=32", tmp_path), coarse[35:67, 60:92])


@pytest.mark.parametrize(
    "path",
    [
        "a.tif#x=0,y=0,level=9,side=8,px=8",
        "a.tif#x=0,y=0,level=0,side=0,px=8",
        "b.tif#x=0,y=0,level=0,side=8,px=8",
        "a.tif",
        "a.tif#x=0,y=0,level=0,side=99999,px=8",
    ],
)
def test_a_place_that_is_not_there_is_refused(tmp_path: Path, path: str) -> None:
    write_slide(tmp_path / "a.tif", tissue_picture(600, 500))
    with pytest.raises(UnreadableImage):
        read_place(path, tmp_path)


@pytest.mark.parametrize("strip", [16_000_000, 20_000])
def test_the_overview_is_the_area_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strip: int) -> None:
    monkeypatch.setattr("medcnn.data.tiles.STRIP_PIXELS", strip)
    picture = tissue_picture(600, 500)
    slide = open_slide(write_slide(tmp_path / "a.tif", picture, n_levels=1))
    overview, exact = read_overview(slide, 0.5, 2.0)
    assert (overview.shape, exact) == ((150, 125, 3), (2.0, 2.0))
    wanted = picture.reshape(150, 4, 125, 4, 3).mean(axis=(1, 3))
    assert np.abs(overview - wanted).max() <= 1


def test_blur_lowers_sharpness_and_resolution_hardly_does() -> None:
    rng = np.random.default_rng(0)
    fine = cv2.GaussianBlur(rng.normal(0, 1, (512, 512)).astype(np.float32), (0, 0), 6)
    fine = np.repeat(np.clip(128 + fine * 900, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    coarse = cv2.resize(fine, (256, 256), interpolation=cv2.INTER_AREA)
    assert sharpness(fine, 0.25) == pytest.approx(sharpness(coarse, 0.5), rel=0.02)
    assert sharpness(cv2.GaussianBlur(fine, (0, 0), 8), 0.25) < 0.3 * sharpness(fine, 0.25)
    assert sharpness(np.full((9, 9, 3), 200, np.uint8), 0.5) == 0
