"""Images that lie otherwise than their cohort are found; a cohort without an orientation is told by its skill."""

import cv2
import numpy as np
import pytest

from medcnn.data.orientation import LEAST_IMAGES, QUESTIONS, judge_orientation
from medcnn.errors import InputError


def bodies(n: int = 240, seed: int = 0) -> np.ndarray:
    """Thumbnails with a bright head at the top, two dark fields, and a heart to the right."""
    rng = np.random.default_rng(seed)
    images = np.full((n, 32, 32), 150, np.uint8)
    for image in images:
        for centre, axes, shade in (((16, 3), (5, 3), 230), ((9, 17), (5, 9), 60), ((23, 16), (5, 8), 60), ((20, 22), (4, 4), 220)):
            place = tuple(int(c + rng.integers(-1, 2)) for c in centre)
            cv2.ellipse(image, place, axes, 0, 0, 360, shade, -1)
    return np.clip(images + rng.normal(0, 15, images.shape), 0, 255).astype(np.uint8)


FLAWS = {
    "turned": lambda x: np.rot90(x, 1),
    "mirrored": lambda x: x[:, ::-1],
    "inverted": lambda x: 255 - x,
    "cropped": lambda x: cv2.resize(x[4:22, 10:28], (32, 32), interpolation=cv2.INTER_LINEAR),
}


@pytest.mark.parametrize("question", FLAWS)
def test_planted_flaws_are_told_from_the_others(question: str) -> None:
    images = bodies()
    for row in range(6):
        images[row] = FLAWS[question](images[row])
    answer = judge_orientation(images, np.arange(len(images)), seed=0)[question]
    assert answer.skill > 0.9
    assert answer.p[:6].min() > 0.7
    assert (answer.p[6:] > 0.9).mean() < 0.01


def test_noise_has_no_orientation() -> None:
    images = np.random.default_rng(0).integers(0, 256, (400, 32, 32), dtype=np.uint8)
    found = judge_orientation(images, np.arange(400), seed=0)
    for question, moves in QUESTIONS.items():
        assert abs(found[question].skill - 1 / (len(moves) + 1)) < 0.1


def test_a_patient_is_judged_by_a_score_that_learnt_from_others() -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32), dtype=np.uint8)
    copies = np.repeat(images, 6, axis=0)  # each patient's images are alike: learnt by heart they would seem certain
    found = judge_orientation(copies, np.repeat(np.arange(60), 6), seed=0)
    assert found["mirrored"].skill < 0.7
    assert judge_orientation(copies, np.arange(360), seed=0)["mirrored"].skill > 0.95


def test_pictures_of_one_shade_are_not_judged() -> None:
    images = bodies()
    images[3] = 90
    assert all(answer.p[3] == 0 for answer in judge_orientation(images, np.arange(len(images)), seed=0).values())


def test_too_few_images_or_patients_teach_nothing() -> None:
    assert judge_orientation(bodies(LEAST_IMAGES - 1), np.arange(LEAST_IMAGES - 1), seed=0) == {}
    assert judge_orientation(bodies(80), np.zeros(80), seed=0) == {}


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="expected uint8 \\(5, 32, 32\\)"):
        judge_orientation(bodies(6), np.arange(5), seed=0)
