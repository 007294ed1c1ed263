"""Oracle: the formula W + 2 B A, and the plain network."""

import builtins
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from torch import nn

from medcnn.errors import InputError, MissingExtra
from medcnn.model.adapters import adapter_parameters, merge_adapters
from medcnn.model.backbones import build_model, split_head
from medcnn.model.checkpoint import CHECKPOINT
from medcnn.model.optimisation import make_optimiser, set_training_mode
from medcnn.model.training import TrainingResult, train

pytest.importorskip("peft", reason="needs the extra lora")

IMAGES, CLASSES = blobs(64, size_px=32)
Y = CLASSES[:, None].astype(float)
PLAN = training_plan(epochs=3, ema_decay=0.9, checkpoint_minutes=0, learning_rate=0.01)


def build(name: str = "test_vit", rank: int = 4, size_px: int = 32, **changes: Any) -> nn.Module:
    return build_model(model_plan(name, lora_rank=rank, dropout=0.0, **changes), channels=1, n_outputs=2, size_px=size_px, seed=3)


def train_small(model: nn.Module, source: Any = None, **changes: Any) -> TrainingResult:
    arguments: dict[str, Any] = {"plan": PLAN, "mean": (0.5,), "std": (0.25,), "seed": 0, "task": "binary"}
    arguments |= {"rows_train": np.arange(48), "rows_val": np.arange(48, 64)}
    return train(model, source or Arrays(IMAGES), Y, **(arguments | changes))


def test_adapters_sit_at_every_linear_layer_of_every_block_and_nowhere_else() -> None:
    model = build("vit_tiny_patch16_224", rank=8)
    names = {name.rpartition(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}
    assert names == {f"blocks.{block}.{layer}" for block in range(12) for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    width = 192
    assert sum(p.numel() for p in adapter_parameters(model)) == 12 * 8 * ((1 + 3) * width + 2 * width + 2 * (1 + 4) * width)


def test_training_starts_from_the_network_as_it_was() -> None:
    images = torch.randn(3, 1, 32, 32)
    plain = build(rank=0).eval()
    with torch.no_grad():
        torch.testing.assert_close(build().eval()(images), plain(images))


def test_only_adapters_and_head_learn() -> None:
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learning = {id(p) for group in make_optimiser(model, PLAN).param_groups for p in group["params"]}
    assert learning == {id(p) for p in [*adapter_parameters(model), *split_head(model)[1]]}
    set_training_mode(model, backbone_learns=True)
    assert {id(p) for p in model.parameters() if p.requires_grad} == learning
    set_training_mode(model, backbone_learns=False)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in split_head(model)[1]}
    result = train_small(model)
    after = result.state_dict
    assert after.keys() == build(rank=0).state_dict().keys(), "merged"
    for name, tensor in after.items():
        old = before.get(name, before.get(name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")))
        assert old is not None
        adapted = name.endswith("weight") and any(part in name for part in (".qkv.", ".proj.", ".fc1.", ".fc2.")) and "blocks" in name
        assert torch.equal(tensor, old) != (adapted or name.startswith("head"))


def test_it_learns_and_what_is_merged_computes_the_same() -> None:
    model = build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter_parameters(model):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    images = torch.randn(3, 1, 32, 32, generator=generator)
    layer: Any = model.get_submodule("blocks.0.attn.qkv")
    expected = layer.base_layer.weight + 2 * layer.lora_B.default.weight @ layer.lora_A.default.weight
    with torch.no_grad():
        scores = model.eval()(images)
        merge_adapters(model)
        torch.testing.assert_close(model(images), scores, rtol=1e-4, atol=1e-5)
    assert not adapter_parameters(model)
    torch.testing.assert_close(model.get_submodule("blocks.0.attn.qkv").weight, expected)
    history = train_small(build(), plan=training_plan(epochs=8, learning_rate=0.01)).history
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


def test_a_killed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = train_small(build())

    class Interrupted(Arrays):
        n = 0

        def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
            self.n += 1
            if self.n == 5:
                signal.raise_signal(signal.SIGTERM)
            return super().batch(rows, epoch, shows)

    with pytest.raises(KeyboardInterrupt):
        train_small(build(), Interrupted(IMAGES), checkpoint_dir=tmp_path)
    assert (tmp_path / CHECKPOINT).exists()
    again = train_small(build(), checkpoint_dir=tmp_path)
    assert whole.history.equals(again.history)
    assert all(torch.equal(tensor, again.state_dict[name]) for name, tensor in whole.state_dict.items())


def test_adapters_learn_at_the_whole_rate_and_layer_by_layer() -> None:
    model = build()
    groups = make_optimiser(model, training_plan(backbone_lr_factor=0.1)).param_groups
    assert {group["lr_scale"] for group in groups} == {1.0} and {group["part"] for group in groups} == {"head", "backbone"}
    groups = make_optimiser(model, training_plan(layer_decay=0.5)).param_groups
    assert sorted({group["lr_scale"] for group in groups if group["part"] == "backbone"}) == [0.5**k for k in range(6, 0, -1)]


@pytest.mark.parametrize(
    ("name", "size_px", "rank", "message"),
    [
        ("test_resnet", 32, 4, "ResNet has no linear attention layers to adapt"),
        ("test_convnext", 32, 4, "ConvNeXt has no linear attention layers to adapt"),
        ("simple_cnn", 32, 4, "SimpleCNN has no linear attention layers to adapt"),
        ("beit_base_patch16_224", 224, 4, "uses the weights of blocks.0.attn.qkv without calling the layer"),
        ("test_vit", 32, 65, "the narrowest layer of VisionTransformer is 64 wide"),
    ],
)
def test_networks_without_a_place_for_adapters_are_refused(name: str, size_px: int, rank: int, message: str) -> None:
    with pytest.raises(InputError, match=f"model.lora_rank is {rank}, but .*{message}"):
        build(name, rank=rank, size_px=size_px)


def test_adapters_in_a_frozen_backbone_are_refused() -> None:
    with pytest.raises(InputError, match="model.lora_rank trains adapters .* training.freeze_backbone is true"):
        make_optimiser(build(), training_plan(freeze_backbone=True))


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_peft(name: str, *arguments: Any, **settings: Any) -> Any:
        if name.startswith("peft"):
            raise ImportError(name)
        return real(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(MissingExtra, match=r"medcnn\[lora\]"):
        build()
