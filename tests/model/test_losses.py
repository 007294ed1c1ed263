"""Oracles: the losses of torch, torchvision, MONAI and timm, sklearn's log_loss, and the sums of the CORN paper written out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from monai.losses import FocalLoss
from sklearn import metrics
from timm.loss import AsymmetricLossMultiLabel
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from medcnn.config import AugmentConfig, Imbalance, Loss
from medcnn.errors import InputError
from medcnn.model.backbones import build_model
from medcnn.model.card import load_model, make_card, save_model
from medcnn.model.imbalance import balance
from medcnn.model.losses import Objective, check_classes, is_labelled, log_loss, make_objective
from medcnn.model.predict import predict
from medcnn.model.signature import count_outputs
from medcnn.model.training import TrainingResult, train
from medcnn.plan import AugmentPlan, ImagePlan, Plan, SplitPlan, TrainingPlan
from medcnn.tables import Task

RNG = np.random.default_rng(0)
NAN = np.nan


def training_loss(
    outputs: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, *, task: Task, label_smoothing: float = 0.0
) -> torch.Tensor:
    return Objective(task=task, weights=weights, smoothing=label_smoothing)(outputs, y)


def one_hot(classes: np.ndarray, n: int) -> np.ndarray:
    return np.eye(n)[classes]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_loss_is_torchs_cross_entropy(smoothing: float) -> None:
    outputs, classes = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    y = torch.from_numpy(one_hot(classes.numpy(), 3)).float()
    ours = training_loss(outputs, y, torch.ones(3), task="multiclass", label_smoothing=smoothing)
    torch.testing.assert_close(ours, functional.cross_entropy(outputs, classes, label_smoothing=smoothing))


def test_binary_loss_takes_one_column() -> None:
    outputs, classes = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    ours = training_loss(outputs, classes[:, None].float(), torch.ones(2), task="binary")
    torch.testing.assert_close(ours, functional.cross_entropy(outputs, classes))


def test_weights_multiply_each_image() -> None:
    outputs, classes, weights = torch.randn(20, 3), torch.arange(20) % 3, torch.tensor([0.5, 1.0, 4.0])
    y = torch.from_numpy(one_hot(classes.numpy(), 3)).float()
    each = functional.cross_entropy(outputs, classes, reduction="none")
    torch.testing.assert_close(training_loss(outputs, y, weights, task="multiclass"), (each * weights[classes]).mean())


def test_missing_labels_neither_count_nor_teach() -> None:
    outputs = torch.randn(4, 2, requires_grad=True)
    y = torch.tensor([[1.0, NAN], [0.0, NAN], [NAN, 1.0], [1.0, NAN]])
    loss = training_loss(outputs, y, torch.ones(2), task="multilabel")
    known = ~torch.isnan(y)
    torch.testing.assert_close(loss, functional.binary_cross_entropy_with_logits(outputs[known], y[known]))
    loss.backward()
    assert outputs.grad is not None and outputs.grad[~known].eq(0).all() and outputs.grad[known].ne(0).all()


def test_smoothing_several_labels_is_smoothing_two_classes_each() -> None:
    outputs, y = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([[1.0, 0.0]] * 6)
    ours = training_loss(outputs, y, torch.ones(2), task="multilabel", label_smoothing=0.2)
    pairs = torch.stack([torch.zeros(12), outputs.flatten()], dim=1)
    torch.testing.assert_close(ours, functional.cross_entropy(pairs, y.flatten().long(), label_smoothing=0.2))


def test_a_batch_without_any_known_label_costs_nothing() -> None:
    assert training_loss(torch.randn(2, 2), torch.full((2, 2), NAN), torch.ones(2), task="multilabel") == 0


# ---------------------------------------------------------------- focal, asymmetric, ordinal


def draw(n: int, k: int, *, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_of_findings_is_torchvisions(gamma: float) -> None:
    outputs, y = draw(40, 3), (draw(40, 3, seed=1) > 0).float()
    ours = Objective(task="multilabel", weights=torch.ones(3), loss="focal", gamma=gamma)(outputs, y)
    torch.testing.assert_close(ours, sigmoid_focal_loss(outputs, y, alpha=-1, gamma=gamma, reduction="mean"))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_classes_is_monais(gamma: float) -> None:
    outputs, y = draw(40, 4), torch.eye(4)[torch.arange(40) % 4]
    ours = Objective(task="multiclass", weights=torch.ones(4), loss="focal", gamma=gamma)(outputs, y)
    expected = FocalLoss(use_softmax=True, gamma=gamma, reduction="sum")(outputs[:, :, None], y[:, :, None]) / 40
    torch.testing.assert_close(ours, expected)


def test_focal_loss_of_two_classes_is_torchvisions_of_their_difference() -> None:
    outputs, y = draw(40, 2), (torch.arange(40) % 3 == 0).float()[:, None]
    ours = Objective(task="binary", weights=torch.ones(2), loss="focal")(outputs, y)
    expected = sigmoid_focal_loss(outputs[:, 1:] - outputs[:, :1], y, alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 4.0])
def test_asymmetric_loss_is_timms(gamma: float) -> None:
    outputs, y, weights = draw(40, 3), (draw(40, 3, seed=1) > 1).float(), torch.tensor([1.0, 3.0, 0.5])
    ours = Objective(task="multilabel", weights=weights, loss="asymmetric", gamma=gamma)(outputs, y)
    timms = AsymmetricLossMultiLabel(gamma_neg=gamma, gamma_pos=0, clip=0.05, reduction="mean", pos_weight=weights)
    torch.testing.assert_close(ours, timms(outputs, y))


def test_ordinal_loss_is_the_sum_over_conditional_subsets() -> None:
    """Equation 5 of arXiv:2111.08851: binary losses, each over the images that are at least at its step."""
    outputs, classes = draw(50, 3), torch.arange(50) % 4
    total, n = torch.zeros(()), 0
    for step in range(3):
        for output, k in zip(outputs[:, step], classes, strict=True):
            if k >= step:
                total, n = total - torch.log(torch.sigmoid(output if k > step else -output)), n + 1
    ours = Objective(task="multiclass", weights=torch.ones(4), loss="ordinal")(outputs, torch.eye(4)[classes])
    torch.testing.assert_close(ours, total / n)


def test_ordinal_loss_teaches_only_the_conditional_subsets() -> None:
    outputs = draw(4, 3).requires_grad_()
    Objective(task="multiclass", weights=torch.ones(4), loss="ordinal")(outputs, torch.eye(4)).backward()
    assert outputs.grad is not None
    taught = torch.tensor([[True, False, False], [True, True, False], [True, True, True], [True, True, True]])
    assert torch.equal(outputs.grad != 0, taught)


ALL = [
    ("binary", "cross_entropy"), ("binary", "focal"), ("multiclass", "cross_entropy"), ("multiclass", "focal"), ("multiclass", "ordinal"),
    ("multilabel", "cross_entropy"), ("multilabel", "focal"), ("multilabel", "asymmetric"),
]  # fmt: skip


def example(task: Task, loss: Loss, *, n: int = 12) -> tuple[torch.Tensor, torch.Tensor, Objective]:
    """Outputs, targets and the loss with uneven weights."""
    width = {"binary": 2, "multiclass": 3, "multilabel": 3}[task]
    classes = torch.arange(n) % width
    y = {"binary": classes[:, None].float(), "multiclass": torch.eye(width)[classes], "multilabel": (draw(n, width, seed=2) > 0).float()}
    return draw(n, width - (loss == "ordinal")), y[task], Objective(task=task, weights=torch.linspace(0.5, 2, width), loss=loss, gamma=1.5)


@pytest.mark.parametrize(("task", "loss"), ALL)
def test_gradients_are_those_of_finite_differences(task: Task, loss: Loss) -> None:
    outputs, y, objective = example(task, loss)
    scores = outputs.double().requires_grad_()
    objective.total(scores, y).backward()
    assert scores.grad is not None
    numeric = torch.zeros_like(outputs)
    for index in np.ndindex(*outputs.shape):
        for sign in (1, -1):
            moved = outputs.clone()
            moved[index] += sign * 0.02
            numeric[index] += sign * objective.total(moved, y) / 0.04
    torch.testing.assert_close(scores.grad.float(), numeric, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize(("task", "loss"), ALL)
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_huge_outputs_have_finite_losses_and_gradients(task: Task, loss: Loss, gamma: float) -> None:
    outputs, y, objective = example(task, loss)
    objective = Objective(task=task, weights=objective.weights, loss=loss, gamma=gamma)
    extreme = (outputs.sign() * torch.tensor([1e-30, 20.0, 500.0])[torch.arange(12) % 3][:, None]).requires_grad_()
    value = objective(extreme, y)
    value.backward()
    assert extreme.grad is not None and value.isfinite() and extreme.grad.isfinite().all()


@pytest.mark.parametrize(("task", "loss"), ALL)
def test_a_batch_in_pieces_has_the_same_loss(task: Task, loss: Loss) -> None:
    outputs, y, objective = example(task, loss)
    pieces = [slice(0, 5), slice(5, 6), slice(6, 12)]
    total = sum((objective.total(outputs[piece], y[piece]) for piece in pieces), torch.zeros(()))
    torch.testing.assert_close(objective(outputs, y), total / sum(objective.n_terms(y[piece]) for piece in pieces))


def test_the_plan_is_followed() -> None:
    outputs, y, _ = example("multiclass", "focal")
    balanced = balance(y.double().numpy(), "multiclass", "none")
    planned = make_objective(training_plan(loss="focal", focal_gamma=0.7, label_smoothing=0.1), "multiclass", balanced, torch.device("cpu"))
    expected = Objective(task="multiclass", weights=torch.ones(3), loss="focal", gamma=0.7, smoothing=0.1)
    assert torch.equal(planned(outputs, y), expected(outputs, y))


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_shares_of_one_class_cost_what_the_class_costs_bit_for_bit(task: Task) -> None:
    """The hard path, as a classifier's loss is usually written: the log-probability of the class, picked out."""
    outputs, y, objective = example(task, "cross_entropy")
    classes = y[:, 0].long() if task == "binary" else y.argmax(dim=1)
    both = [outputs.clone().requires_grad_() for _ in range(2)]
    picked = functional.log_softmax(both[0], dim=1).gather(1, classes[:, None]).squeeze(1)
    hard, soft = (-picked * objective.weights[classes]).mean(), objective(both[1], y)
    hard.backward()
    soft.backward()
    assert torch.equal(hard, soft) and both[0].grad is not None and both[1].grad is not None
    assert torch.equal(both[0].grad, both[1].grad)


@pytest.mark.parametrize(("task", "loss"), [pair for pair in ALL if pair[1] != "ordinal"])
def test_a_blend_of_two_targets_costs_the_blend_of_their_costs(task: Task, loss: Loss) -> None:
    outputs, y, objective = example(task, loss)
    blended = objective(outputs, 0.3 * y + 0.7 * y.roll(1, 0))
    torch.testing.assert_close(blended, 0.3 * objective(outputs, y) + 0.7 * objective(outputs, y.roll(1, 0)))


@pytest.mark.parametrize(("task", "loss"), [pair for pair in ALL if pair[1] not in {"ordinal", "asymmetric"}])
def test_smoothing_is_a_blend_with_the_uniform_target(task: Task, loss: Loss) -> None:
    outputs, y, _ = example(task, loss)
    width = outputs.shape[1]
    plain, smooth = (Objective(task=task, weights=torch.ones(width), loss=loss, smoothing=smoothing) for smoothing in (0.0, 0.1))
    uniform = torch.full_like(y, 1 / width if task == "multiclass" else 0.5)
    torch.testing.assert_close(smooth(outputs, y), plain(outputs, 0.9 * y + 0.1 * uniform))


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "asymmetric"])
@pytest.mark.parametrize("imbalance", ["none", "loss_weights", "class_balanced", "logit_adjusted"])
def test_missing_labels_have_no_gradient_whatever_the_recipe(loss: Loss, imbalance: Imbalance) -> None:
    if loss != "cross_entropy" and imbalance == "logit_adjusted":
        return  # refused, see below
    y = (draw(30, 3, seed=1) > 0).float()
    y[draw(30, 3, seed=2) > 2] = NAN
    known = ~torch.isnan(y)
    assert 0 < known.sum() < 90
    balanced = balance(y.double().numpy(), "multilabel", imbalance)
    objective = make_objective(training_plan(loss=loss), "multilabel", balanced, torch.device("cpu"))
    outputs = draw(30, 3).requires_grad_()
    loss_of_known = objective(outputs, y)
    loss_of_known.backward()
    assert outputs.grad is not None and outputs.grad[~known].eq(0).all() and outputs.grad[known & (outputs > -2)].ne(0).all()
    moved = torch.where(known, outputs.detach(), 1e4)
    assert torch.equal(objective(moved, y), loss_of_known.detach())


# ---------------------------------------------------------------- in training


def trained(images: np.ndarray, y: np.ndarray, task: Task, plan: TrainingPlan) -> tuple[torch.nn.Module, TrainingResult]:
    n_outputs = count_outputs(task, y.shape[1], plan.loss)
    model = build_model(model_plan(), channels=1, n_outputs=n_outputs, size_px=images.shape[1], seed=3)
    n = len(y) * 3 // 4
    parts = {"rows_train": np.arange(n), "rows_val": np.arange(n, len(y))}
    return model, train(model, Arrays(images), y, **parts, task=task, plan=plan, mean=(0.5,), std=(0.25,), seed=3)


@pytest.mark.parametrize("imbalance", ["none", "class_balanced"])
def test_ordinal_classes_are_learnt_saved_and_predicted(imbalance: Imbalance, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grades = rng.choice(4, 240, p=[0.5, 0.2, 0.2, 0.1])
    images = np.clip(rng.integers(0, 100, (240, 16, 16, 1)) + 30 * grades[:, None, None, None], 0, 255).astype(np.uint8)
    plan = training_plan(loss="ordinal", epochs=6, imbalance=imbalance)
    model, result = trained(images, one_hot(grades, 4), "multiclass", plan)
    assert result.signature.ordinal and result.history["val_auroc"].iloc[-1] > 0.9
    whole = Plan(
        task="multiclass", labels=("0", "1", "2", "3"), seed=0, split=SplitPlan(scheme="holdout"), model=model_plan(), training=plan, reasons={},
        image=ImagePlan(size_px=16, channels=1, fit="pad"), augment=AugmentPlan(**{**AugmentConfig().model_dump(), "policy": "none"}),
    )  # fmt: skip
    save_model(tmp_path, model, make_card(whole, result, model, fold=0, seed=0))
    again, card = load_model(tmp_path)
    assert card.n_outputs == 3 and len(card.labels) == 4
    logits, p = predict(again, Arrays(images), np.arange(180, 240), card=card, device="cpu")
    assert logits.shape == p.shape == (60, 4)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.log(p), logits, atol=1e-5)
    expected = -np.log(p[np.arange(60), grades[180:]]).mean()
    assert result.history["val_loss"].min() == pytest.approx(expected, rel=1e-5)
    assert np.abs(p @ np.arange(4) - grades[180:]).mean() < 0.4


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "asymmetric"])
def test_a_missing_label_teaches_nothing_in_training(loss: Loss) -> None:
    """Exactly: what stands in a blank's place, were it known, would change the weights; a label that is always blank, no bit of them."""
    images, classes = blobs(80)
    y = np.column_stack([classes, 1 - classes]).astype(np.float64)
    y[::3, 1] = np.nan
    plan = training_plan(epochs=1, loss=loss, select="last")
    _, blank = trained(images, y, "multilabel", plan)
    _, filled = trained(images, np.nan_to_num(y), "multilabel", plan)
    assert not torch.equal(blank.state_dict["classifier.4.bias"], filled.state_dict["classifier.4.bias"])
    objective = Objective(task="multilabel", weights=torch.ones(2), loss=loss)
    model = build_model(model_plan(dropout=0.0), channels=1, n_outputs=2, size_px=16, seed=3).eval()
    inputs, targets = torch.rand(6, 1, 16, 16), torch.tensor([[1.0, NAN], [0.0, NAN]] * 3)
    objective(model(inputs), targets).backward()
    head = model.get_submodule("classifier.4")
    assert head.weight.grad[1].eq(0).all() and head.bias.grad[1] == 0 and head.weight.grad[0].ne(0).any()


@pytest.mark.parametrize(
    ("task", "loss", "imbalance"),
    [
        ("binary", "focal", "class_balanced"), ("binary", "cross_entropy", "logit_adjusted"), ("multilabel", "asymmetric", "none"),
        ("multilabel", "focal", "loss_weights"), ("multiclass", "ordinal", "loss_weights"), ("multiclass", "focal", "oversample"),
    ],
)  # fmt: skip
def test_predicted_prevalence_is_the_cohorts_whatever_the_recipe(task: Task, loss: Loss, imbalance: Imbalance) -> None:
    """Noise: there is nothing to learn but the prevalence, 0.2 (of several classes: 0.6, 0.2, 0.2)."""
    images = np.random.default_rng(0).integers(0, 255, (400, 8, 8, 1)).astype(np.uint8)
    fifths = np.arange(400) % 5
    y = {"binary": (fifths == 0)[:, None], "multilabel": np.column_stack([fifths == 0, fifths < 3])}.get(
        task, one_hot((fifths - 2).clip(0), 3)
    )
    plan = training_plan(
        epochs=8, learning_rate=0.001, loss=loss, focal_gamma=1.5, imbalance=imbalance, select="last", freeze_backbone=True
    )
    model, result = trained(images, y.astype(np.float64), task, plan)
    assert (result.signature.loss, result.signature.focal_gamma) == (loss, 1.5)
    _, p = predict(model, Arrays(images), np.arange(400), card=result.signature, device="cpu")
    np.testing.assert_allclose(p.mean(axis=0), y.mean(axis=0), atol=0.05)


def test_a_recipe_that_makes_no_sense_is_refused_before_training() -> None:
    images, classes = blobs(40)
    with pytest.raises(InputError, match="training.loss is ordinal, which is for classes in their order"):
        trained(images, np.column_stack([classes, 1 - classes]).astype(float), "multilabel", training_plan(loss="ordinal"))


# ---------------------------------------------------------------- log-loss and labels


def test_log_loss_is_sklearns() -> None:
    y, logits = RNG.integers(0, 2, (50, 1)).astype(float), RNG.normal(size=(50, 1)) * 3
    assert log_loss(logits, y, "binary") == pytest.approx(metrics.log_loss(y[:, 0], 1 / (1 + np.exp(-logits[:, 0]))))
    classes, scores = RNG.integers(0, 4, 50), RNG.normal(size=(50, 4)) * 3
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert log_loss(scores, one_hot(classes, 4), "multiclass") == pytest.approx(metrics.log_loss(classes, p))


def test_log_loss_leaves_out_what_is_not_known() -> None:
    y, logits = np.array([[1.0, NAN], [0.0, 1.0]]), np.array([[2.0, 99.0], [-1.0, 0.5]])
    expected = np.mean([np.log1p(np.exp(-2)), np.log1p(np.exp(-1)), np.log1p(np.exp(-0.5))])
    assert log_loss(logits, y, "multilabel") == pytest.approx(expected)
    rows = np.array([[1.0, 0.0], [NAN, NAN]])
    assert log_loss(np.array([[1.0, 0.0], [50.0, 0.0]]), rows, "multiclass") == pytest.approx(np.log1p(np.exp(-1)))
    assert np.isnan(log_loss(logits, np.full((2, 2), NAN), "multilabel"))


def test_what_counts_as_labelled() -> None:
    y = np.array([[1.0, NAN], [NAN, NAN], [0.0, 1.0]])
    assert is_labelled(y, "multilabel").tolist() == [True, False, True]
    assert is_labelled(y, "multiclass").tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        ([[1.0], [1.0]], "binary", "no negative image for label 0"),
        ([[0.0], [0.0]], "binary", "no positive image"),
        ([[1.0, 0, 0], [0, 1, 0]], "multiclass", "no positive image for label 2"),
        ([[1.0, NAN], [0, 1]], "multilabel", "no negative image for label 1"),
        ([[1.0, 1, 0], [0, 0, 1], [0, 1, 0]], "multiclass", "has 2 classes"),
    ],
)
def test_classes_that_cannot_be_learnt_are_named(y: list[list[float]], task: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_classes(np.array(y), task)
