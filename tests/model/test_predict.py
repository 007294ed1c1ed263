import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs
from torch import nn

from medcnn.errors import RunError
from medcnn.model.predict import predict
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
