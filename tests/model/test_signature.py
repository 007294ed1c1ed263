"""Oracles: torchvision for the pixels, scipy for sigmoid and softmax."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from torchvision.transforms import functional as tv

from medcnn.errors import InputError
from medcnn.model.signature import Signature, count_outputs

CPU = torch.device("cpu")


def signature(task: str = "binary", **changes: object) -> Signature:
    return Signature(**({"task": task, "mean": (0.5,), "std": (0.25,)} | changes))


def test_inputs_are_what_torchvision_makes() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    inputs = signature(mean=mean, std=std).inputs(torch.from_numpy(images), CPU)
    expected = torch.stack([tv.normalize(tv.to_tensor(image), mean, std) for image in images])
    torch.testing.assert_close(inputs, expected, rtol=1e-5, atol=1e-6)
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_the_images_themselves_are_left_alone() -> None:
    images = torch.full((1, 2, 2, 1), 200, dtype=torch.uint8)
    signature().inputs(images, CPU)
    assert (images == 200).all()


def test_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(InputError, match="have 3 channels, the model takes 1"):
        signature().inputs(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), CPU)


def test_binary_logit_is_the_difference_of_two_outputs() -> None:
    outputs = torch.tensor([[1.0, 3.0], [0.5, -2.0]])
    logits = signature().logits(outputs).numpy()
    np.testing.assert_allclose(logits, [[2.0], [-2.5]])
    np.testing.assert_allclose(signature().probabilities(logits)[:, 0], softmax(outputs.numpy(), axis=1)[:, 1], rtol=1e-6)


def test_multiclass_and_multilabel_probabilities() -> None:
    outputs = torch.tensor([[1.0, 3.0, -1.0], [80.0, -2.0, 0.0]])
    many, several = signature("multiclass"), signature("multilabel")
    np.testing.assert_allclose(many.probabilities(many.logits(outputs).numpy()), softmax(outputs.numpy().astype(float), axis=1), rtol=1e-6)
    np.testing.assert_allclose(several.probabilities(several.logits(outputs).numpy()), expit(outputs.numpy().astype(float)), rtol=1e-6)


def test_huge_logits_stay_probabilities() -> None:
    p = signature().probabilities(np.array([[-1e4], [1e4]], np.float32))
    assert p.tolist() == [[0.0], [1.0]]


def test_prior_correction_is_added_to_the_outputs() -> None:
    corrected = signature(prior_correction=(0.0, -1.5))
    assert corrected.logits(torch.tensor([[1.0, 3.0]])).item() == pytest.approx(0.5)


def test_outputs() -> None:
    assert [count_outputs("binary", 1), count_outputs("multiclass", 4), count_outputs("multilabel", 14)] == [2, 4, 14]
    assert [count_outputs("binary", 1, "focal"), count_outputs("multiclass", 4, "ordinal")] == [2, 3]


def test_ordinal_logits_are_log_probabilities_of_the_chain_rule() -> None:
    card = signature("multiclass", loss="ordinal")
    outputs = torch.tensor([[0.5, -1.0, 2.0], [-30.0, 0.0, 4.0]])
    sigma = expit(outputs.numpy().astype(np.float64))
    above = np.column_stack([np.ones(2), sigma.cumprod(axis=1), np.zeros(2)])  # P(class >= k)
    logits = card.logits(outputs).numpy()
    assert card.ordinal and logits.shape == (2, 4)
    np.testing.assert_allclose(np.exp(logits.astype(np.float64)), above[:, :-1] - above[:, 1:], rtol=1e-5, atol=1e-12)
    probabilities = card.probabilities(logits)
    np.testing.assert_allclose(probabilities, np.exp(logits.astype(np.float64)), rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)


def test_the_prior_of_ordinal_classes_is_corrected_by_bayes_rule() -> None:
    correction = (-1.0, 0.5, 0.0, 2.0)
    outputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    plain, corrected = signature("multiclass", loss="ordinal"), signature("multiclass", loss="ordinal", prior_correction=correction)
    expected = plain.probabilities(plain.logits(outputs).numpy()) * np.exp(correction)
    expected /= expected.sum(axis=1, keepdims=True)
    logits = corrected.logits(outputs).numpy()
    np.testing.assert_allclose(corrected.probabilities(logits), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(logits), expected, rtol=1e-5)


def test_the_prior_is_corrected_after_the_loss_was_undone() -> None:
    outputs = torch.tensor([[0.3, 1.2]])
    plain, corrected = signature(loss="focal"), signature(loss="focal", prior_correction=(0.0, -1.5))
    assert corrected.logits(outputs).item() == pytest.approx(plain.logits(outputs).item() - 1.5)
    assert plain.logits(outputs).item() > 1.2 - 0.3, "focal loss leaves outputs too small"
    assert signature(loss="focal", focal_gamma=4.0).logits(outputs).item() > plain.logits(outputs).item(), "the more so, the higher gamma"


def test_a_card_from_before_there_were_losses_reads_as_cross_entropy() -> None:
    old = {"task": "binary", "mean": [0.5], "std": [0.25], "prior_correction": [0.0, -1.5]}
    assert Signature.model_validate(old) == signature(prior_correction=(0.0, -1.5)) and not Signature.model_validate(old).ordinal


@pytest.mark.parametrize("loss", ["focal", "asymmetric", "ordinal"])
def test_logits_can_be_explained(loss: str) -> None:
    """Every logit has a gradient at every output that it depends on: Grad-CAM needs them."""
    card = signature("multilabel" if loss == "asymmetric" else "multiclass", loss=loss, prior_correction=(0.1, -0.2, 0.3))
    outputs = torch.randn(4, 2 if loss == "ordinal" else 3, requires_grad=True)
    card.logits(outputs)[:, 1].sum().backward()
    assert outputs.grad is not None and outputs.grad.isfinite().all() and outputs.grad[:, 1].ne(0).all()
