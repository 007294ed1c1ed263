import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medcnn.model.folding import foldable_pairs, folded
from medcnn.model.simple_cnn import SimpleCNN

SHAPE = (3, 32, 32)


def lived(model: nn.Module) -> nn.Module:
    """Batch norms as a training leaves them: not the identity."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2.0)):
                tensor.uniform_(low, high, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.2, 0.2, generator=generator)
    return model.eval()


def images(n: int = 2) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_it_is_torchs_own_fusion() -> None:
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
    model = lived(nn.Sequential(conv, norm))
    theirs = fuse_conv_bn_eval(conv, norm)
    ours = folded(model, SHAPE)[0]  # type: ignore[index]
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


@pytest.mark.parametrize("name", ["simple_cnn", "tf_efficientnet_lite0", "resnet18", "densenet121"])
def test_the_scores_stay(name: str) -> None:
    torch.manual_seed(0)
    model = lived(SimpleCNN(3, 2) if name == "simple_cnn" else timm.create_model(name, num_classes=2))
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected, scores = model(images()), folded(model, SHAPE)(images())
    assert float((scores - expected).abs().max() / expected.abs().max()) < 1e-5
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(("name", "n_pairs"), [("tf_efficientnet_lite0", 49), ("resnet18", 20), ("vit_tiny_patch16_224", 0)])
def test_every_norm_after_a_convolution_is_found(name: str, n_pairs: int) -> None:
    size_px = 224 if name.startswith("vit") else 32
    assert len(foldable_pairs(timm.create_model(name, num_classes=2), (3, size_px, size_px))) == n_pairs


class Branching(nn.Module):
    """The convolution's output is read by the norm, and by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = self.conv(images)
        return self.norm(seen) + seen


class Shared(nn.Module):
    """One convolution before two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.other = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.one(self.conv(images)) + self.other(self.conv(images))


@pytest.mark.parametrize("kind", [Branching, Shared])
def test_what_others_read_too_is_left_alone(kind: type[nn.Module]) -> None:
    model = lived(kind())
    assert foldable_pairs(model, SHAPE) == ()
    assert folded(model, SHAPE) is model


def test_a_weight_that_is_computed_is_left_alone() -> None:
    model = lived(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4)))
    assert foldable_pairs(model, SHAPE) == ()
    assert foldable_pairs(lived(timm.create_model("resnetv2_50x1_bit", num_classes=2)), SHAPE) == ()


def test_new_weights_are_folded_anew() -> None:
    model = lived(SimpleCNN(3, 2))
    folded(model, SHAPE)
    with torch.no_grad():
        model.features[0][0].weight.mul_(3)  # type: ignore[index]
        torch.testing.assert_close(folded(model, SHAPE)(images()), model(images()))
