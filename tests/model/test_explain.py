"""Oracles: a network whose Grad-CAM can be written down, and a place in the image that decides the class."""

import numpy as np
import pytest
import timm
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from torch import nn

from medcnn.errors import InputError
from medcnn.model.backbones import build_model
from medcnn.model.explain import grad_cam, target_layer
from medcnn.model.signature import Signature
from medcnn.model.simple_cnn import FullyConnected
from medcnn.model.training import train

CARD = Signature(task="binary", mean=(0.0,), std=(1.0,))


class TwoMaps(nn.Module):
    """One map is the image, the other its negative; each output is the mean of one map."""

    feature_info = ({"module": "maps", "reduction": 1, "num_chs": 2},)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.maps = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 2, 1, bias=False)
        with torch.no_grad():
            self.stem.weight.fill_(1)
            self.maps.weight[:] = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.maps(self.stem(images)).mean(dim=(2, 3))


def test_a_map_that_can_be_written_down() -> None:
    """d(z1 - z0)/d maps is -1/n and 1/n, so the map is the image twice over, scaled to its brightest pixel."""
    images = np.random.default_rng(0).integers(0, 200, (3, 8, 8, 1), dtype=np.uint8)
    heat = grad_cam(TwoMaps(), images, card=CARD)
    expected = images[..., 0] / images.max(axis=(1, 2, 3))[:, None, None]
    assert heat.dtype == np.float32
    np.testing.assert_allclose(heat, expected, atol=1e-5)


def test_nothing_that_speaks_for_it_is_all_zero() -> None:
    card = CARD.model_copy(update={"task": "multilabel"})
    heat = grad_cam(TwoMaps(), np.full((1, 8, 8, 1), 9, np.uint8), card=card, label=0)
    assert (heat == 0).all()


def test_it_points_at_what_makes_the_class() -> None:
    """The positive class has a bright square somewhere, the negative none."""
    rng = np.random.default_rng(0)
    images, y = rng.integers(0, 120, (200, 32, 32, 1)), (np.arange(200) % 2)[:, None].astype(float)
    corners = rng.integers(0, 22, (200, 2))
    inside = np.zeros((200, 32, 32), bool)
    for number, (top, left) in enumerate(corners):
        inside[number, top : top + 10, left : left + 10] = True
    images = np.where(inside[..., None] & (y == 1)[:, :, None, None], images + 100, images).astype(np.uint8)
    model = build_model(model_plan(), channels=1, n_outputs=2, size_px=32)
    result = train(
        model, Arrays(images), y, rows_train=np.arange(150), rows_val=np.arange(150, 200), task="binary",
        plan=training_plan(epochs=5), mean=(0.5,), std=(0.25,), seed=0,
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shown = np.arange(151, 200, 2)
    heat = grad_cam(model, images[shown], card=result.signature)
    assert heat.shape == (25, 32, 32)
    assert heat.min() >= 0 and heat.max() == 1
    assert heat[inside[shown]].mean() > 3 * heat[~inside[shown]].mean()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._backward_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "test_convnext", "densenet121"])
def test_convolutional_backbones(name: str) -> None:
    model = build_model(model_plan(name), channels=1, n_outputs=3, size_px=64)
    model.to(memory_format=torch.channels_last)
    card = Signature(task="multiclass", mean=(0.5,), std=(0.25,))
    heat = grad_cam(model, blobs(2, size_px=64)[0], card=card, label=2)
    assert heat.shape == (2, 64, 64) and heat.min() >= 0 and heat.max() <= 1


def test_the_deepest_map_that_still_has_a_place() -> None:
    model = timm.create_model("resnet18", num_classes=2)
    assert [target_layer(model, size_px=size) for size in (224, 127, 64, 32)] == ["layer4", "layer3", "layer3", "layer2"]


@pytest.mark.parametrize(
    ("model", "size_px", "message"),
    [
        (FullyConnected(1, 8, 2), 8, "has no feature maps"),
        (timm.create_model("test_vit", num_classes=2, img_size=64, in_chans=1), 64, "a transformer's tokens"),
        (timm.create_model("resnet18", num_classes=2), 4, "below 4 x 4"),
    ],
    ids=["fully connected", "vit", "tiny image"],
)
def test_networks_without_a_place_are_refused(model: nn.Module, size_px: int, message: str) -> None:
    with pytest.raises(InputError, match=f"Grad-CAM is not available .*{message}"):
        target_layer(model, size_px=size_px)


def test_channels_last_transformers_are_not_mistaken_for_maps() -> None:
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=2, img_size=224)
    with pytest.raises(InputError, match="instead of channels, height, width"):
        target_layer(model, size_px=224)
