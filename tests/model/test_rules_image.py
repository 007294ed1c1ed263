"""Each rule on the image at both sides of where it turns."""

import pytest
from plan_cases import CPU, GPU, cohort, plan, quantiles

from medcnn.errors import InputError


@pytest.mark.parametrize(
    ("short", "model", "machine", "size"),
    [
        (28, "simple_cnn", CPU, 28),
        (4, "simple_cnn", CPU, 8),
        (48, "simple_cnn", CPU, 48),
        (63, "simple_cnn", CPU, 32),
        (100, "simple_cnn", CPU, 96),
        (28, "resnet18", CPU, 64),
        (63, "resnet18", CPU, 64),
        (64, "resnet18", CPU, 64),
        (100, "resnet18", CPU, 96),
        (3000, "resnet18", CPU, 128),
        (3000, "simple_cnn", CPU, 128),
        (200, "resnet18", GPU, 192),
        (3000, "resnet18", GPU, 224),
        (28, "vit_small_patch14_dinov2", CPU, 70),
        (100, "vit_small_patch14_dinov2", CPU, 98),
        (3000, "vit_small_patch14_dinov2", GPU, 224),
        (3000, "vit_tiny_patch16_224", CPU, 128),
        (200, "swin_tiny_patch4_window7_224", GPU, 192),
    ],
)
def test_input_size_follows_the_images_the_backbone_and_the_machine(short, model, machine, size):
    decided = plan(cohort(short), machine, model={"name": model})
    assert decided.image.size_px == size
    assert f"{short} px" in decided.reasons["image.size_px"]


def test_the_short_side_is_the_one_that_counts():
    assert plan(cohort(height_px=quantiles(100), width_px=quantiles(900))).image.size_px == 96


@pytest.mark.parametrize(
    ("channels", "model", "expected"),
    [({"1": 9}, "simple_cnn", 1), ({"1": 9, "3": 1}, "simple_cnn", 3), ({"3": 9}, "simple_cnn", 3), ({"1": 9}, "resnet18", 3)],
)
def test_channels_follow_the_images_and_the_weights(channels, model, expected):
    assert plan(cohort(channels=channels), model={"name": model}).image.channels == expected


def test_grey_images_that_are_stored_in_colour_are_grey():
    def seen(share, model="simple_cnn"):
        return plan(cohort(channels={"3": 9}, intensity={"grey_in_colour": share, "n_colour": 9.0}), model={"name": model})

    assert seen(1.0).image.channels == 1
    assert "all 9 that were looked at are grey" in seen(1.0).reasons["image.channels"]
    assert seen(0.99).image.channels == 3
    assert seen(1.0, "resnet18").image.channels == 3


def test_rectangles_are_padded_and_the_reason_says_how_far_they_spread():
    decided = plan(cohort(aspect_ratio=(0.5, 0.8, 1.0, 1.2, 2.0)))
    assert decided.image.fit == "pad"
    assert "from 0.50 to 2.00" in decided.reasons["image.fit"]
    assert "square" in plan().reasons["image.fit"]


def test_policy_is_of_the_modality():
    assert plan(modality="histology").augment.policy == "histology"
    assert plan().augment.policy == "generic"
    assert "set modality" in plan().reasons["augment.policy"]


def test_colours_are_left_as_they_are_and_the_reason_is_a_measurement():
    assert plan(modality="histology").image.stain == "none"
    assert "-.059 to .003" in plan(modality="histology").reasons["image.stain"]
    assert plan(modality="chest_xray").reasons["image.stain"] == "stains are of histology"
    assert plan(image={"stain": "macenko", "channels": 3}).image.stain == "macenko"
    with pytest.raises(InputError, match="grey has no stains"):
        plan(image={"stain": "macenko", "channels": 1}, model={"name": "simple_cnn"})
