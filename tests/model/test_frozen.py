from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from medcnn.errors import InputError
from medcnn.model import frozen
from medcnn.model.card import load_model, make_card, save_model
from medcnn.model.explain import grad_cam
from medcnn.model.features import last_linear, open_features, write_features
from medcnn.model.frozen import check_pretrained, train_frozen
from medcnn.model.predict import predict, predict_from_features
from medcnn.model.signature import Signature
from medcnn.plan import AugmentPlan, ImagePlan, Plan, SplitPlan
from medcnn.tables import Task

N, WIDTH = 300, 24
TRUTH = np.random.default_rng(1).normal(size=(WIDTH, 3))
FEATURES = (np.random.default_rng(0).gamma(2.0, size=(N, WIDTH)) * np.geomspace(0.01, 100, WIDTH)).astype(np.float32)
SCORES = (FEATURES / np.geomspace(0.01, 100, WIDTH) - 2) @ TRUTH / 2 + np.random.default_rng(2).gumbel(size=(N, 3))
PATIENTS = np.random.default_rng(3).integers(0, 100, N)
TRAIN, REST = np.arange(0, N, 2), np.arange(1, N, 2)
COLUMNS = {"binary": (SCORES[:, :1] > 0), "multiclass": np.eye(3)[SCORES.argmax(axis=1)], "multilabel": SCORES > 0.5}


def labels(task: Task) -> np.ndarray:
    y: np.ndarray = COLUMNS[task].astype(np.float32)
    if task == "multilabel":
        y[::5, 1] = np.nan
    return y


PLAN = Plan(
    task="binary", labels=("sick",), seed=0, split=SplitPlan(scheme="holdout"), image=ImagePlan(size_px=32, channels=3, fit="pad"),
    augment=AugmentPlan(policy="none"), model=model_plan("resnet18"), training=training_plan(), reasons={},
)  # fmt: skip


class Head(nn.Module):
    """A network whose features are its input."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, n_outputs)

    def get_classifier(self) -> nn.Module:
        return self.fc


def fit(task: Task = "binary", rows: np.ndarray = TRAIN, y: np.ndarray | None = None, **changes: Any) -> tuple[Any, nn.Module]:
    torch.manual_seed(0)
    model = Head(2 if task == "binary" else 3)
    values = {"patients": PATIENTS, "task": task, "signature": Signature(task=task, mean=(0.5,), std=(0.25,)), "seed": 0, "n_threads": 1}
    return train_frozen(model, FEATURES, labels(task) if y is None else y, rows_train=rows, **(values | changes)), model


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_network_gives_scikit_learns_scores(task: Task) -> None:
    result, model = fit(task)
    logits, _ = predict_from_features(model, FEATURES, REST, card=result.signature)
    y, row = labels(task), result.history.iloc[0]
    for column in range(3 if task == "multilabel" else 1):
        strength = row[f"strength_{column}" if task == "multilabel" else "strength"]
        known = TRAIN[~np.isnan(y[TRAIN, column])]
        classes = y[known].argmax(axis=1) if task == "multiclass" else y[known, column]
        theirs = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-6, max_iter=5000)).fit(
            FEATURES[known].astype(float), classes
        )
        expected = theirs.decision_function(FEATURES[REST].astype(float))
        ours = logits if task == "multiclass" else logits[:, column]
        np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert result.n_images == len(TRAIN) and len(result.history) == result.chosen_epoch == 1


def test_the_prior_is_the_cohorts() -> None:
    result, model = fit()
    _, p = predict_from_features(model, FEATURES, TRAIN, card=result.signature)
    assert p.mean() == pytest.approx(labels("binary")[TRAIN].mean(), abs=1e-5)
    assert result.signature.prior_correction == ()


def test_the_strength_is_the_best_of_the_whole_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    early, _ = fit()
    monkeypatch.setattr(frozen, "N_WORSE", 1000)
    whole, _ = fit()
    assert early.history["strength"][0] == whole.history["strength"][0]
    noise = np.random.default_rng(0).integers(0, 2, (N, 1)).astype(np.float32)
    strong, _ = fit(y=noise)
    assert strong.history["strength"][0] < early.history["strength"][0] / 10
    assert strong.history["cv_loss"][0] == pytest.approx(np.log(2), abs=0.02)


def test_no_patient_is_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each patient's images are alike and his label is a coin's: on images of known patients it looks learnable."""
    patients = np.arange(N) // 10
    of_patient = np.random.default_rng(5).normal(size=(N // 10, WIDTH))[patients]
    y = np.random.default_rng(6).integers(0, 2, N // 10)[patients][:, None].astype(np.float32)
    features = (of_patient + 0.01 * np.random.default_rng(7).normal(size=(N, WIDTH))).astype(np.float32)
    monkeypatch.setattr("test_frozen.FEATURES", features)
    apart, _ = fit(rows=np.arange(N), y=y, patients=patients)
    together, _ = fit(rows=np.arange(N), y=y, patients=np.arange(N))
    assert apart.history["cv_loss"][0] > 0.6
    assert together.history["cv_loss"][0] < 0.45


def test_row_order_and_other_rows_do_not_matter() -> None:
    one, _ = fit()
    other, _ = fit(rows=np.random.default_rng(0).permutation(TRAIN))
    assert torch.equal(one.state_dict["fc.weight"], other.state_dict["fc.weight"])
    changed = labels("binary")
    changed[REST] = 1 - changed[REST]
    again, _ = fit(y=changed)
    assert torch.equal(one.state_dict["fc.weight"], again.state_dict["fc.weight"])


def test_another_seed_deals_other_folds() -> None:
    assert fit(seed=0)[0].history["cv_loss"][0] != fit(seed=1)[0].history["cv_loss"][0]


def test_features_that_hardly_vary_get_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    features = FEATURES.copy()
    features[:, 0] = 5 * (1 + 1e-7 * (np.arange(N) % 2))
    features[:, 1] = 0
    monkeypatch.setattr("test_frozen.FEATURES", features)
    result, _ = fit()
    assert not result.state_dict["fc.weight"][:, :2].any() and result.state_dict["fc.weight"].isfinite().all()


def test_a_large_cohort_is_searched_on_some_of_its_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    full, _ = fit()
    monkeypatch.setattr(frozen, "N_SEARCHED", 90)
    rows = frozen._some_patients(PATIENTS[TRAIN], 0)
    assert 80 < len(rows) <= 90
    assert not set(PATIENTS[TRAIN][rows]) & set(np.delete(PATIENTS[TRAIN], rows))
    some, _ = fit()
    assert some.history["cv_loss"][0] != full.history["cv_loss"][0] and some.n_images == full.n_images


def test_the_validation_loss_is_noted() -> None:
    result, model = fit(rows_val=REST)
    _, p = predict_from_features(model, FEATURES, REST, card=result.signature)
    y = labels("binary")[REST]
    assert result.history["val_loss"][0] == pytest.approx(float(-np.log(np.where(y == 1, p, 1 - p)).mean()))


def test_what_cannot_be_learnt_from_is_refused() -> None:
    with pytest.raises(InputError, match="has no labelled image"):
        fit(y=np.full((N, 1), np.nan, np.float32))
    with pytest.raises(InputError, match="no positive image"):
        fit(y=np.zeros((N, 1), np.float32))
    rare = np.zeros((N, 1), np.float32)
    rare[PATIENTS[0] == PATIENTS] = 1
    with pytest.raises(InputError, match="a class has images of 1 of them only"):
        fit(y=rare)
    with pytest.raises(InputError, match=r"last layer has shape \(3, 24\), but features and classes make it \(2, 24\)"):
        train_frozen(
            Head(3), FEATURES, labels("binary"), rows_train=TRAIN, patients=PATIENTS, task="binary",
            signature=Signature(task="binary", mean=(0.5,), std=(0.25,)), seed=0,
        )  # fmt: skip


def test_rows_without_a_label_are_counted() -> None:
    y = labels("binary")
    y[TRAIN[:7]] = np.nan
    result, _ = fit(y=y)
    assert (result.n_images, result.n_unlabelled) == (len(TRAIN) - 7, 7)


@pytest.mark.parametrize(("name", "pretrained"), [("simple_cnn", False), ("resnet18", False)])
def test_random_features_are_refused(name: str, pretrained: bool) -> None:
    with pytest.raises(InputError, match=f"needs a pretrained backbone, but the model is {name}"):
        check_pretrained(model_plan(name, pretrained=pretrained))
    check_pretrained(model_plan("resnet18", pretrained=True))


def test_it_ends_as_an_ordinary_model_folder(tmp_path: Path) -> None:
    pixels, classes = blobs(80, size_px=32, channels=3)
    torch.manual_seed(0)
    model, signature = timm.create_model("resnet18", num_classes=2), Signature(task="binary", mean=(0.5,) * 3, std=(0.25,) * 3)
    write_features(model, Arrays(pixels), 80, signature=signature, folder=tmp_path, device="cpu", n_threads=1)
    features, trunk = open_features(tmp_path), model.conv1.weight.detach().clone()
    result = train_frozen(
        model, features, classes[:, None].astype(np.float32), rows_train=np.arange(60), patients=np.arange(80), task="binary",
        signature=signature, seed=0, n_threads=1,
    )  # fmt: skip
    assert torch.equal(model.conv1.weight, trunk)
    save_model(tmp_path, model, make_card(PLAN, result, model, fold=0, seed=0))
    again, card = load_model(tmp_path)
    logits, p = predict(again, Arrays(pixels), np.arange(60, 80), card=card, device="cpu")
    np.testing.assert_allclose(logits, predict_from_features(model, features, np.arange(60, 80), card=card)[0], rtol=1e-3, atol=1e-4)
    assert ((p[:, 0] > 0.5) == classes[60:]).mean() > 0.8
    assert grad_cam(again, pixels[:2], card=card).shape == (2, 32, 32)
    assert last_linear(again).out_features == 2
