"""Oracle: the OpenCV way with the same draws. Exact where nothing is interpolated, else within a few grey levels."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from scipy import ndimage
from test_training import die, in_a_process_that_is_killed, same, train_small

from medcnn.data.augment import Augmentation, AugmentedImages, build_augmentation, sample_seeds
from medcnn.data.policies import POLICIES, Policy
from medcnn.errors import InputError
from medcnn.model.backbones import build_model
from medcnn.model.batches import Deal, stream
from medcnn.model.checkpoint import CHECKPOINT
from medcnn.model.device_augment import augmented
from medcnn.plan import AugmentPlan

SIZE = 48
ROWS = np.arange(24)


def smooth(n: int = len(ROWS), channels: int = 3, size_px: int = SIZE) -> np.ndarray:
    """Random images with soft edges, uint8 (n, S, S, C)."""
    rough = ndimage.gaussian_filter(np.random.default_rng(0).random((n, size_px, size_px, channels)), (0, 3, 3, 0), mode="nearest")
    low, high = rough.min(axis=(1, 2), keepdims=True), rough.max(axis=(1, 2), keepdims=True)
    return (20 + (rough - low) / (high - low) * 200).astype(np.uint8)


def source(policy: Policy, channels: int = 3, strength: float = 1.0, images: np.ndarray | None = None) -> AugmentedImages:
    images = smooth(channels=channels) if images is None else images
    return AugmentedImages(images, Augmentation(policy, strength, images.shape[1], channels), seed=3)


def on_device(images: AugmentedImages, rows: np.ndarray = ROWS, epoch: int = 1) -> np.ndarray:
    (batch,) = stream(images, [Deal(epoch, rows)], n_workers=0, augment_on="device")
    return augmented(batch.pixels, batch.draws).numpy()


def differences(images: AugmentedImages) -> np.ndarray:
    """Mean absolute difference of each image, in grey levels."""
    host, device = images.batch(ROWS, 1), on_device(images)
    assert device.dtype == np.uint8 and device.shape == host.shape
    assert (host != images.images[ROWS]).mean() > 0.3, "nothing was changed"
    distance: np.ndarray = np.abs(host.astype(float) - device).mean(axis=(1, 2, 3))
    return distance


# ---------------------------------------------------------------- as OpenCV does it


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_gives_the_pixels_of_the_host(name: str, channels: int) -> None:
    """Without the noise, whose grain is another, and the rare transforms, which the host does."""
    policy = dataclasses.replace(POLICIES[name], noise=0, rare=())
    assert differences(source(policy, channels)).max() < 1.0
    assert differences(source(policy, channels, strength=2)).max() < 1.5


@pytest.mark.parametrize(
    ("magnitudes", "limit"),
    [
        ({"rotation": 30}, 0.6),
        ({"rotation": 30, "reflect": True}, 0.6),
        ({"scale": 0.5}, 0.6),
        ({"shift": 0.3}, 0.6),
        ({"shift": 0.3, "reflect": True}, 0.6),
        ({"symmetries": 8}, 0.0),
        ({"brightness": 0.2, "contrast": 0.4, "gamma": 0.4}, 0.0),
        ({"hue": 30, "saturation": 0.4}, 0.1),
        ({"stain": 0.4}, 0.05),
        ({"blur": 0.05}, 0.5),
    ],
    ids=str,
)
def test_each_transform_alone(magnitudes: dict[str, Any], limit: float) -> None:
    assert differences(source(Policy(**magnitudes))).max() <= limit


def test_an_image_does_not_depend_on_its_batch_and_the_cohort_is_untouched() -> None:
    images = source(POLICIES["histology"])
    before = images.images.copy()
    whole = on_device(images)
    np.testing.assert_array_equal(on_device(images, ROWS[[7, 2]]), whole[[7, 2]])
    np.testing.assert_array_equal(images.images, before)
    assert (on_device(images, epoch=2) != whole).any(axis=(1, 2, 3)).all()


def test_a_run_of_blurs_of_which_some_are_too_narrow_to_matter() -> None:
    blurs = torch.tensor([0.0, 0.24, 0.4, 2.0])
    pixels = torch.from_numpy(smooth(4))
    blurred = augmented(pixels, {"blurs": blurs})
    assert torch.equal(blurred[:2], pixels[:2])
    assert not torch.equal(blurred[2], pixels[2])
    alone = augmented(pixels[2:3], {"blurs": blurs[2:3]})
    assert torch.equal(alone[0], blurred[2])


def test_nothing_to_do_is_no_copy() -> None:
    images = AugmentedImages(smooth(), None, 0)
    pixels, draws = images.prepare(ROWS, 0)
    given = torch.from_numpy(pixels)
    assert not draws
    assert augmented(given, {}) is given


# ---------------------------------------------------------------- noise


def test_noise_has_the_width_that_was_drawn_and_is_the_same_each_time() -> None:
    flat = np.full((len(ROWS), SIZE, SIZE, 3), 128, np.uint8)
    images = source(Policy(noise=0.05), images=flat)
    made = on_device(images).astype(float)
    _, draws = images.prepare(ROWS, 1)
    wide = draws["noises"] > 2  # grey levels; below, rounding counts
    assert wide.sum() > 12
    np.testing.assert_allclose(made[wide].std(axis=(1, 2, 3)), draws["noises"][wide], rtol=0.05)
    host = images.batch(ROWS, 1).astype(float)
    np.testing.assert_allclose(made[wide].std(axis=(1, 2, 3)), host[wide].std(axis=(1, 2, 3)), rtol=0.05)
    np.testing.assert_allclose(made.mean(axis=(1, 2, 3)), 128, atol=0.5)
    np.testing.assert_array_equal(made, on_device(images))
    grain = (made[wide] - 128).reshape(wide.sum(), -1)
    assert np.abs(np.corrcoef(grain) - np.eye(wide.sum())).max() < 0.1


# ---------------------------------------------------------------- what stays on the host


@pytest.mark.parametrize("name", [name for name, policy in POLICIES.items() if policy.rare])
def test_rare_transforms_are_done_by_the_host(name: str) -> None:
    built = build_augmentation(AugmentPlan(policy=name), size_px=SIZE, channels=3)
    assert built is not None
    rare = dataclasses.replace(built, policy=Policy(rare=POLICIES[name].rare), strength=2.0)
    images = AugmentedImages(smooth(), rare, 3)
    pixels, draws = images.prepare(ROWS, 1)
    assert draws.keys() <= {"offsets", "reflect"}
    np.testing.assert_array_equal(pixels, images.batch(ROWS, 1))
    np.testing.assert_array_equal(on_device(images), pixels)
    changed = (pixels != images.images).any(axis=(1, 2, 3))
    assert 0 < changed.sum() < len(ROWS)


def test_the_draws_are_those_of_the_host() -> None:
    augmentation = source(POLICIES["histology"]).augmentation
    assert augmentation is not None
    seeds = sample_seeds(3, 1, ROWS)
    _, draws = augmentation.prepare(smooth(), seeds)
    host = augmentation._draw(seeds)
    assert draws.keys() == {"matrices", "stains", "tables", "blurs", "noises", "offsets", "reflect"}
    for name in draws.keys() - {"reflect"}:
        np.testing.assert_allclose(draws[name], getattr(host, name), rtol=1e-6)
        assert draws[name].dtype in {np.dtype(kind) for kind in (np.float32, np.uint8, np.int64)}


# ---------------------------------------------------------------- in training

IMAGES, CLASSES = blobs(96)
PLAN = training_plan(epochs=2, batch_size=16, ema_decay=0.9, checkpoint_minutes=0, augment_on="device")


def trained(**changes: Any) -> Any:
    policy = Policy(rotation=12, shift=0.08, brightness=0.1, noise=0.03)
    images = AugmentedImages(IMAGES, Augmentation(policy, 1.0, 16, 1), seed=3)
    return train_small(images, **{"plan": PLAN, **changes})


def test_training_learns_and_workers_change_nothing() -> None:
    here = trained()
    assert same(here, trained(plan=PLAN.model_copy(update={"n_workers": 2})))
    host = trained(plan=PLAN.model_copy(update={"augment_on": "host"}))
    assert not same(here, host)
    np.testing.assert_allclose(here.history["train_loss"], host.history["train_loss"], atol=0.05)
    plain = train_small(AugmentedImages(IMAGES, None, 3), plan=PLAN)
    assert not np.allclose(here.history["train_loss"], plain.history["train_loss"], atol=0.05)


def test_a_killed_training_ends_with_the_same_bits(tmp_path: Path) -> None:

    passes: list[int] = []
    model = build_model(model_plan(), channels=1, n_outputs=2, size_px=16, seed=3)
    model.register_forward_hook(lambda *_: passes.append(1) if len(passes) < 8 else die())
    oversampled = PLAN.model_copy(update={"imbalance": "oversample"})
    in_a_process_that_is_killed(lambda: trained(model=model, plan=oversampled, checkpoint_dir=tmp_path))
    assert (tmp_path / CHECKPOINT).exists()
    assert same(trained(plan=oversampled, checkpoint_dir=tmp_path), trained(plan=oversampled))


def test_where_images_are_augmented_is_part_of_what_a_checkpoint_continues(tmp_path: Path) -> None:
    trained(checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="other data, settings"):
        trained(checkpoint_dir=tmp_path, plan=PLAN.model_copy(update={"augment_on": "host"}))


def test_a_source_that_cannot_leave_its_augmentation_is_refused() -> None:
    with pytest.raises(InputError, match=r"training.augment_on is device.*Arrays.*training.augment_on=host"):
        train_small(Arrays(IMAGES), plan=PLAN)
