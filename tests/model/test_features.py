import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from model_cases import Arrays, blobs
from torch import nn

from medcnn.errors import InputError, RunError
from medcnn.model.features import CHUNK, FEATURES, JOURNAL, headless, last_linear, open_features, write_features
from medcnn.model.predict import predict, predict_from_features
from medcnn.model.signature import Signature
from medcnn.model.simple_cnn import SimpleCNN

CARD = Signature(task="binary", mean=(0.5,) * 3, std=(0.25,) * 3)
IMAGES = Arrays(blobs(20, size_px=32, channels=3)[0])


def network(name: str = "simple_cnn", n_outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = SimpleCNN(3, n_outputs) if name == "simple_cnn" else timm.create_model(name, num_classes=n_outputs, drop_rate=0.5)
    return model


def write(model: nn.Module, folder: Path, images: Any = IMAGES, n: int = 20, **settings: Any) -> np.ndarray:
    write_features(model, images, n, signature=CARD, folder=folder, **({"device": "cpu", "n_threads": 1} | settings))
    return open_features(folder)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto"])
def test_they_are_what_timm_puts_before_its_last_layer(name: str, tmp_path: Path) -> None:
    model = network(name)
    features = write(model, tmp_path)
    inputs = CARD.inputs(torch.from_numpy(IMAGES.images), torch.device("cpu"))
    with torch.no_grad():
        theirs = model.eval().forward_head(model.forward_features(inputs), pre_logits=True)  # type: ignore[operator]
    assert features.dtype == np.float32 and isinstance(features, np.memmap)
    np.testing.assert_allclose(features, theirs.numpy(), rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", ["simple_cnn", "resnet18"])
def test_the_last_layer_makes_of_them_what_the_model_predicts(name: str, tmp_path: Path) -> None:
    model, rows = network(name), np.array([7, 3, 19, 0])
    features = write(model, tmp_path)
    quick, quick_p = predict_from_features(model, features, rows, card=CARD)
    slow, slow_p = predict(model, IMAGES, rows, card=CARD, device="cpu")
    np.testing.assert_allclose(quick, slow, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(quick_p, slow_p, atol=1e-5)
    assert quick.dtype == np.float32 and predict_from_features(model, features, rows[:0], card=CARD)[0].shape == (0, 1)


class Killed(Exception):
    pass


class Watched(Arrays):
    """Counts the images it was asked for, and dies when asked for a certain row."""

    def __init__(self, images: np.ndarray, deadly: int = -1) -> None:
        super().__init__(images)
        self.deadly, self.n_asked = deadly, 0

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        assert epoch is None
        if self.deadly in rows:
            raise Killed
        self.n_asked += len(rows)
        return super().batch(rows, epoch, shows)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    n = 2 * CHUNK + 50
    pixels = blobs(n, size_px=8, channels=3)[0]
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    write(network(), tmp_path / "whole", Arrays(pixels), n)
    with pytest.raises(Killed):
        write(network(), tmp_path / "killed", Watched(pixels, deadly=2 * CHUNK - 1), n)
    with pytest.raises(RunError, match=f"features of {CHUNK} of {n} images"):
        open_features(tmp_path / "killed")
    again = Watched(pixels)
    write(network(), tmp_path / "killed", again, n)
    assert again.n_asked == n - CHUNK + 1  # and one to look at the last layer
    assert (tmp_path / "killed" / FEATURES).read_bytes() == (tmp_path / "whole" / FEATURES).read_bytes()
    done = Watched(pixels)
    write(network(), tmp_path / "killed", done, n)
    assert done.n_asked == 0


def test_another_backbone_starts_anew_but_another_head_does_not(tmp_path: Path) -> None:
    write(network(), tmp_path)
    other_head = network()
    with torch.no_grad():
        last_linear(other_head).weight.mul_(2)
    source = Watched(IMAGES.images)
    write(other_head, tmp_path, source)
    assert source.n_asked == 0
    other = network()
    with torch.no_grad():
        other.features[0][0].weight.mul_(2)  # type: ignore[index]
    source = Watched(IMAGES.images)
    assert not np.array_equal(np.array(write(network(), tmp_path)), write(other, tmp_path, source))
    assert source.n_asked == 21


def test_cut_files_are_written_anew_and_foreign_ones_refused(tmp_path: Path) -> None:
    whole = np.array(write(network(), tmp_path))
    (tmp_path / FEATURES).write_bytes((tmp_path / FEATURES).read_bytes()[:-100])
    assert np.array_equal(write(network(), tmp_path), whole)
    (tmp_path / JOURNAL).write_text(json.dumps({"key": "x", "n_done": 1}))
    with pytest.raises(RunError, match="no finished features"):
        open_features(tmp_path)


def test_openvino_makes_the_same(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    one = np.array(write(network("resnet18"), tmp_path))
    np.testing.assert_allclose(write(network("resnet18"), tmp_path, engine="openvino"), one, rtol=1e-3, atol=1e-4 * one.max())


def test_features_that_are_no_numbers_stop_it(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model.features[2][0].bias[0] = float("inf")  # type: ignore[index]
    with pytest.raises(RunError, match=r"a feature that is not a number for 20 of 20 images, first row 0"):
        write(model, tmp_path)


def test_the_model_is_left_as_it_was() -> None:
    model = network()
    trunk = headless(model)
    assert last_linear(model).out_features == 2
    assert trunk(torch.zeros(1, 3, 16, 16)).shape == (1, last_linear(model).in_features)


class Scaled(nn.Module):
    """Ends in a linear layer, but not with it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SimpleCNN(3, 2)

    def get_classifier(self) -> nn.Module:
        return self.inner.get_classifier()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = 3 * self.inner(images)
        return scores


def test_networks_without_one_last_layer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not end in one linear layer"):
        last_linear(timm.create_model("deit_tiny_distilled_patch16_224", num_classes=2))
    with pytest.raises(InputError, match="not its last step"):
        write(Scaled(), tmp_path)
