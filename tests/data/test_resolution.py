"""Microns per pixel: taken where they can be true, refused where they cannot, replaced only with a reason."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from medcnn.config_data import SlidesConfig
from medcnn.data.resolution import NoResolution, Resolution, implausible, resolution_of
from medcnn.data.slides import Level, SlideFacts, open_slide


def facts(mpp: tuple[float, float] | None = None, power: float | None = None) -> SlideFacts:
    return SlideFacts(reader="", vendor="", levels=(Level(100, 100, 1.0),), mpp=mpp, power=power)


ASSUMED = SlidesConfig(assume_mpp=0.46, assume_reason="as the scanner's manual says")


@pytest.mark.parametrize(
    ("facts", "config", "said", "wanted"),
    [
        (facts((0.25, 0.25)), SlidesConfig(), None, Resolution(0.25, "file")),
        (facts((0.25, 0.25)), ASSUMED, None, Resolution(0.25, "file")),
        (facts((0.25, 0.25)), ASSUMED, 0.5, Resolution(0.5, "table")),
        (facts((264.58, 264.58)), ASSUMED, None, Resolution(0.46, "config")),
        (facts(None), ASSUMED, None, Resolution(0.46, "config")),
        (facts(None, 40.0), SlidesConfig(), None, Resolution(0.25, "objective")),
        (facts(None, 20.0), SlidesConfig(), None, Resolution(0.5, "objective")),
    ],
)
def test_the_order_of_what_is_believed(facts: SlideFacts, config: SlidesConfig, said: float | None, wanted: Resolution) -> None:
    assert resolution_of(facts, config, said) == wanted


@pytest.mark.parametrize(
    ("facts", "said", "kind", "words"),
    [
        (facts((25400 / 96,) * 2), None, "implausible_resolution", ["264.583 um/px", "96 dots per inch", "assume_mpp"]),
        (facts((25400 / 72,) * 2, 40.0), None, "implausible_resolution", ["352.778 um/px", "72 dots per inch"]),
        (facts((0.25, 0.35)), None, "implausible_resolution", ["not square"]),
        (facts((0.001, 0.001)), None, "implausible_resolution", ["0.001 um/px"]),
        (facts((0.25, 0.25)), 250.0, "implausible_resolution", ["the table says 250"]),
        (facts(None), None, "no_resolution", ["neither", "mpp_column"]),
    ],
)
def test_what_is_refused(facts: SlideFacts, said: float | None, kind: str, words: list[str]) -> None:
    found = resolution_of(facts, SlidesConfig(), said)
    assert isinstance(found, NoResolution)
    assert found.kind == kind
    assert [word for word in words if word not in found.reason] == []


def test_the_objective_is_not_believed_when_the_config_says_so() -> None:
    assert isinstance(resolution_of(facts(None, 40.0), SlidesConfig(by_power=False)), NoResolution)


def test_an_assumed_resolution_needs_a_reason() -> None:
    with pytest.raises(ValidationError, match="assume_reason"):
        SlidesConfig(assume_mpp=0.5)


def test_one_pixel_in_a_hundred_off_square_is_measurement() -> None:
    assert implausible(0.2500, 0.2505) == ""


REAL = {
    "CMU-1-Small-Region.svs": 0.499,
    "slideio_test3_DAPI.ndpi": 0.228175,
    "highdicom_sm_image_jpegls.dcm": 0.499,
    "openslide_boxes_dicom/boxes_1.dcm": 0.499,
    "TCGA-CR-7395-01A-01-TS1.svs": "no_resolution",
    "kidney_48_5.tif": "no_resolution",
    "pyslide_CropBreastSlide.tiff": "implausible_resolution",
    "pyslide_CropBreastSlide_region.tif": "implausible_resolution",
    "openslide_boxes.tiff": "implausible_resolution",
    "largeimage_yb10kx5k.zstd.tiff": "implausible_resolution",
    "largeimage_grey10kx5k.tif": "implausible_resolution",
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared_data: Path, name: str) -> None:
    pytest.importorskip("openslide", reason="needs the extra wsi")
    found = resolution_of(open_slide(shared_data / "wsi" / name).facts, SlidesConfig())
    seen = found.kind if isinstance(found, NoResolution) else pytest.approx(found.mpp, abs=1e-6)
    assert REAL[name] == seen
