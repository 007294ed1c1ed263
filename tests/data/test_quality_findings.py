"""Planted flaws are named, clean images and flaws that all share are not; and what the real X-rays hold."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from medcnn.cohort import Finding
from medcnn.data.quality import quality_of
from medcnn.data.quality_findings import KINDS, quality_findings, robust_z
from medcnn.errors import InputError

SIDE = 160


def body(rng: np.random.Generator) -> np.ndarray:
    """A made-up radiograph: a bright head at the top, two dark fields with fine structure, a heart to the right."""
    image = np.full((SIDE, SIDE), 150, np.uint8)
    for centre, axes, shade in (
        ((80, 12), (26, 16), 220),
        ((44, 86), (26, 46), 60),
        ((116, 82), (26, 42), 60),
        ((100, 112), (20, 20), 215),
    ):
        place = tuple(int(c + rng.integers(-5, 6)) for c in centre)
        cv2.ellipse(image, place, axes, 0, 0, 360, shade, -1)
    for _ in range(60):
        start, end = rng.integers(0, SIDE, 2), rng.integers(0, SIDE, 2)
        cv2.line(image, tuple(map(int, start)), tuple(map(int, end)), int(rng.integers(60, 200)), 1, cv2.LINE_AA)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


FLAWS = {
    "blank_image": lambda x: np.full_like(x, 77),
    "saturated_image": lambda x: np.clip(x.astype(int) * 3, 0, 255).astype(np.uint8),
    "blurred_image": lambda x: cv2.GaussianBlur(x, (0, 0), 4),
    "inverted_image": lambda x: 255 - x,
    "turned_image": lambda x: np.ascontiguousarray(np.rot90(x)),
    "mirrored_image": lambda x: np.ascontiguousarray(x[:, ::-1]),
    "cropped_image": lambda x: cv2.resize(x[20:100, 30:110], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC),
}


def cohort(n: int = 200, flaw: str = "", n_flawed: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    images = [body(rng) for _ in range(n)]
    if flaw:
        images[:n_flawed] = [FLAWS[flaw](image) for image in images[:n_flawed]]
    names = [f"image{row:03d}" for row in range(n)]
    manifest = pd.DataFrame({"image_id": names, "patient_id": names, "height": SIDE, "width": SIDE})
    return manifest, pd.DataFrame([{"image_id": name, **quality_of(image)} for name, image in zip(names, images, strict=True)])


def by_kind(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.kind: finding for finding in findings}


@pytest.fixture(scope="module")
def clean() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Without lines that could be letters: the strokes of `body` are too long."""
    manifest, traits = cohort()
    return manifest, traits.assign(letters=0.0)


def test_a_clean_cohort_has_no_flaws(clean: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    assert set(by_kind(quality_findings(*clean))) <= {"cropped_image", "mirrored_image", "quality_not_judged"}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_planted_flaw_is_found_and_nothing_else(flaw: str) -> None:
    manifest, traits = cohort(flaw=flaw)
    found = by_kind(quality_findings(manifest, traits.assign(letters=0.0)))
    assert {"image000", "image001", "image002"} <= set(found[flaw].image_ids)
    assert len(found[flaw].image_ids) <= 6
    assert not set(found) & (set(KINDS) - {flaw, "cropped_image", "mirrored_image"})
    assert (found[flaw].severity == "error") == (flaw == "blank_image")


def test_text_is_named_with_the_longest_first(clean: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    manifest, traits = clean
    letters = traits["letters"].mask(traits.index == 5, 7.0).mask(traits.index == 9, 12.0).mask(traits.index == 11, 3.0)
    finding = by_kind(quality_findings(manifest, traits.assign(letters=letters)))["text_in_image"]
    assert finding.image_ids == ("image009", "image005")
    assert "2 of 200 images have printed text" in finding.text


def test_marks_in_most_images_are_texture_and_small_images_hold_no_letters(clean: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    manifest, traits = clean
    found = by_kind(quality_findings(manifest, traits.assign(letters=9.0)))
    assert "text_in_image" not in found
    assert "text: 100% of the images have marks in rows" in found["quality_not_judged"].text
    small = by_kind(quality_findings(manifest.assign(height=28, width=28), traits))["quality_not_judged"].text
    assert "blurred: images of 28 px" in small
    assert "text: images of 28 px" in small


def test_what_all_images_share_is_no_flaw(clean: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    manifest, traits = clean
    rng = np.random.default_rng(1)
    soft = traits.assign(sharpness=-2.6 + rng.normal(0, 0.1, len(traits)), white_share=0.4 + rng.normal(0, 0.01, len(traits)))
    assert not {"blurred_image", "saturated_image"} & set(by_kind(quality_findings(manifest, soft)))


def test_a_flaw_of_many_is_a_note(clean: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    manifest, traits = clean
    written = traits.assign(letters=np.where(np.arange(len(traits)) < 30, 8.0, 0.0))  # 15%
    finding = by_kind(quality_findings(manifest, written))["text_in_image"]
    assert finding.severity == "info"
    assert finding.todo.startswith("So many")


def test_colour_images_are_not_called_negatives() -> None:
    manifest, traits = cohort(flaw="inverted_image")
    found = by_kind(quality_findings(manifest, traits.assign(colour=40.0, letters=0.0)))
    assert "inverted_image" not in found
    assert "inverted: most images have colour" in found["quality_not_judged"].text


def test_robust_z_is_the_textbook_formula() -> None:
    values = pd.Series([1.0, 2, 3, 4, 100])
    z = robust_z(values, values < 100, least_mad=0.01)
    assert z.iloc[4] == pytest.approx((100 - 2.5) / (1.4826 * 1.0))
    assert robust_z(pd.Series([5.0, 5, 6]), pd.Series([True, True, False]), least_mad=0.5).tolist() == [0, 0, 2]


def test_an_image_without_traits_is_named(clean: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    manifest, traits = clean
    with pytest.raises(InputError, match="image007 has no row"):
        quality_findings(manifest, traits[traits["image_id"] != "image007"])
    with pytest.raises(InputError, match="column sharpness is missing"):
        quality_findings(manifest, traits.drop(columns="sharpness"))
    with pytest.raises(InputError, match="several rows"):
        quality_findings(manifest, pd.concat([traits, traits.iloc[:1]]))


def test_an_upside_down_radiograph_is_found_among_real_ones(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "covid_cxr" / "manifest.csv")
    images = [cv2.imread(str(shared_data / "covid_cxr" / "images" / name), cv2.IMREAD_GRAYSCALE) for name in table["image"]]
    manifest = pd.DataFrame({"image_id": table["image"], "patient_id": table["patient_id"], "height": 256, "width": 256})
    traits = pd.DataFrame([{"image_id": name, **quality_of(image)} for name, image in zip(table["image"], images, strict=True)])
    found = by_kind(quality_findings(manifest, traits))
    assert 1 <= len(found["turned_image"].image_ids) <= 6
    upside_down = table["image"].tolist().index(found["turned_image"].image_ids[0])
    below = images[upside_down][128:].mean() - images[upside_down][:128].mean()
    assert below < 0  # the bright belly is at the top
    assert not {"blank_image", "blurred_image", "inverted_image"} & set(found)
