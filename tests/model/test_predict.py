import copy

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs
from torch import nn

from medcnn.errors import RunError
from medcnn.model import openvino_engine
from medcnn.model.predict import VIEW_EPOCHS, predict
from medcnn.model.signature import Signature
from medcnn.model.simple_cnn import SimpleCNN

CARD = Signature(task="binary", mean=(0.5,), std=(0.25,))
SOURCE = Arrays(blobs(20)[0])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return SimpleCNN(1, 2)


def test_it_is_the_models_own_scores_in_the_order_of_the_rows(model: nn.Module) -> None:
    rows = np.array([7, 3, 19, 0, 4])
    logits, probabilities = predict(model, SOURCE, rows, card=CARD, device="cpu", batch_size=2)
    images = torch.from_numpy(SOURCE.images[rows]).float().permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        scores = model.eval()((images - 0.5) / 0.25).numpy()
    np.testing.assert_allclose(logits[:, 0], scores[:, 1] - scores[:, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits.astype(float))))
    assert logits.dtype == np.float32 and logits.shape == probabilities.shape == (5, 1)


def test_dropout_and_batch_statistics_are_off(model: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    one, _ = predict(model, SOURCE, np.arange(20), card=CARD, device="cpu")
    other, _ = predict(model, SOURCE, np.arange(20), card=CARD, device="cpu")
    assert np.array_equal(one, other)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_bfloat16_is_near(model: nn.Module) -> None:
    one, _ = predict(model, SOURCE, np.arange(20), card=CARD, device="cpu")
    other, _ = predict(model, SOURCE, np.arange(20), card=CARD, device="cpu", precision="bfloat16")
    assert 0 < np.abs(one - other).max() < 0.02
    assert other.dtype == np.float32


def test_the_prior_is_undone(model: nn.Module) -> None:
    plain, _ = predict(model, SOURCE, np.arange(4), card=CARD, device="cpu")
    corrected, _ = predict(model, SOURCE, np.arange(4), card=CARD.model_copy(update={"prior_correction": (0.0, -2.0)}), device="cpu")
    np.testing.assert_allclose(corrected, plain - 2, rtol=1e-5)


def test_no_rows_give_no_rows(model: nn.Module) -> None:
    logits, probabilities = predict(model, SOURCE, np.arange(0), card=CARD, device="cpu")
    assert logits.shape == probabilities.shape == (0, 1)


def test_progress_sees_every_batch(model: nn.Module) -> None:
    seen = []

    def progress(items, title, total=None):  # type: ignore[no-untyped-def]
        for item in items:
            seen.append((title, total, len(item)))
            yield item

    predict(model, SOURCE, np.arange(20), card=CARD, device="cpu", batch_size=8, progress=progress)
    assert seen == [("predicting", 3, 7), ("predicting", 3, 7), ("predicting", 3, 6)]


def test_scores_that_are_no_numbers_stop_it(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_classifier()[-1].bias.fill_(float("inf"))  # type: ignore[operator]
    with pytest.raises(RunError, match=r"not a number for 3 of 3 images, first row 5"):
        predict(model, SOURCE, np.array([5, 6, 7]), card=CARD, device="cpu")


# ---------------------------------------------------------------- views


class Asked(Arrays):
    """Remembers the epochs it was asked for."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__(images)
        self.epochs: list[int | None] = []

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        self.epochs.append(epoch)
        return super().batch(rows, epoch, shows)


def test_the_logits_of_the_views_are_averaged(model: nn.Module) -> None:
    rows = np.array([7, 3, 19, 0, 4])
    logits, p = predict(model, SOURCE, rows, card=CARD, device="cpu", views=3)
    views = [SOURCE.batch(rows, epoch) for epoch in (None, VIEW_EPOCHS + 1, VIEW_EPOCHS + 2)]
    alone = [predict(model, Arrays(view), np.arange(5), card=CARD, device="cpu")[0] for view in views]
    assert np.abs(alone[0] - alone[1]).max() > 1e-4
    np.testing.assert_allclose(logits, np.mean(alone, axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-logits.astype(float))))
    assert logits.dtype == np.float32


def test_one_view_is_the_plain_image(model: nn.Module) -> None:
    source = Asked(SOURCE.images)
    one = predict(model, source, np.arange(20), card=CARD, device="cpu", views=1)
    assert set(source.epochs) == {None}
    for ours, plain in zip(one, predict(model, SOURCE, np.arange(20), card=CARD, device="cpu"), strict=True):
        assert np.array_equal(ours, plain)


def test_no_training_sees_the_views(model: nn.Module) -> None:
    source = Asked(SOURCE.images)
    predict(model, source, np.arange(4), card=CARD, device="cpu", views=3)
    assert source.epochs == [None, VIEW_EPOCHS + 1, VIEW_EPOCHS + 2]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_views_depend_on_neither_batch_nor_order(model: nn.Module, batch_size: int) -> None:
    logits, _ = predict(model, SOURCE, np.arange(20), card=CARD, device="cpu", views=4)
    order = np.random.default_rng(0).permutation(20)
    other, _ = predict(model, SOURCE, order, card=CARD, device="cpu", views=4, batch_size=batch_size)
    np.testing.assert_allclose(other, logits[order], rtol=1e-5, atol=1e-6)


def test_views_of_a_source_that_does_not_augment_are_the_image(model: nn.Module) -> None:
    class Plain(Arrays):
        def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
            return super().batch(rows, None, shows)

    one, _ = predict(model, SOURCE, np.arange(20), card=CARD, device="cpu")
    four, _ = predict(model, Plain(SOURCE.images), np.arange(20), card=CARD, device="cpu", views=4)
    assert np.array_equal(one, four)


def test_no_rows_give_no_rows_of_many_views(model: nn.Module) -> None:
    assert predict(model, SOURCE, np.arange(0), card=CARD, device="cpu", views=3)[0].shape == (0, 1)


# ---------------------------------------------------------------- what computes


def test_it_is_the_same_to_the_bit_again(model: nn.Module) -> None:
    one, _ = predict(model, SOURCE, np.arange(20), card=CARD, device="cpu", n_threads=1)
    other, _ = predict(copy.deepcopy(model), SOURCE, np.arange(20), card=CARD, device="cpu", n_threads=1)
    assert np.array_equal(one, other)


def test_threads_are_set_for_the_time_being(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    monkeypatch.setattr("medcnn.model.scoring.folded", lambda model, shape: model)
    predict(model, SOURCE, np.arange(4), card=CARD, device="cpu", n_threads=2)
    assert (seen, torch.get_num_threads()) == ([2], 1)


def test_openvino_gives_the_same_and_is_compiled_once(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    compiled = []
    make = openvino_engine._compiled
    monkeypatch.setattr(openvino_engine, "_compiled", lambda *args: compiled.append(args[-1]) or make(*args))
    plain, p = predict(model, SOURCE, np.arange(20), card=CARD, device="cpu", views=2, batch_size=7)
    settings = {"device": "cpu", "views": 2, "batch_size": 7, "n_threads": 1}
    for _ in range(2):
        other, other_p = predict(model, SOURCE, np.arange(20), card=CARD, engine="openvino", **settings)  # type: ignore[arg-type]
        np.testing.assert_allclose(other, plain, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(other_p, p, atol=1e-5)
    assert compiled == [1]
    assert predict(model, SOURCE, np.arange(0), card=CARD, engine="openvino", device="cpu")[0].shape == (0, 1)
