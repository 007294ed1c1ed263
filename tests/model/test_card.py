import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs, model_plan, training_plan

from medcnn.artifact import COST_FILE
from medcnn.config import AugmentConfig
from medcnn.errors import InputError
from medcnn.model.backbones import build_model
from medcnn.model.card import CARD, WEIGHTS, ModelCard, describe_start, is_saved, load_model, make_card, save_cost, save_model
from medcnn.model.predict import predict
from medcnn.model.simple_cnn import SimpleCNN
from medcnn.model.training import TrainingResult, train
from medcnn.plan import AugmentPlan, ImagePlan, ModelPlan, Plan, SplitPlan

IMAGES, CLASSES = blobs(60)


def plan_for(model: ModelPlan) -> Plan:
    return Plan(
        task="binary",
        labels=("sick",),
        seed=0,
        split=SplitPlan(scheme="holdout"),
        image=ImagePlan(size_px=16, channels=1, fit="pad"),
        augment=AugmentPlan(**{**AugmentConfig().model_dump(), "policy": "none"}),
        model=model,
        training=training_plan(epochs=2, imbalance="loss_weights"),
        reasons={},
    )


@pytest.fixture(scope="module")
def trained() -> tuple[torch.nn.Module, ModelCard, TrainingResult]:
    plan = plan_for(model_plan(dropout=0.2))
    model = build_model(plan.model, channels=1, n_outputs=2, size_px=16, seed=1)
    result = train(
        model, Arrays(IMAGES), CLASSES[:, None].astype(float), rows_train=np.arange(40), rows_val=np.arange(40, 60), task="binary",
        plan=plan.training, mean=(0.5,), std=(0.25,), seed=1,
    )  # fmt: skip
    return model, make_card(plan, result, model, fold=2, seed=1), result


def test_the_card_says_what_the_model_is(trained: tuple[torch.nn.Module, ModelCard, TrainingResult]) -> None:
    _, card, result = trained
    assert (card.name, card.labels, card.n_outputs, card.channels, card.fold, card.seed) == ("simple_cnn", ("sick",), 2, 1, 2, 1)
    assert card.prior_correction == result.signature.prior_correction != ()
    assert card.n_parameters == 102_082 - 2 * 9 * 32
    assert card.n_multiply_adds == 9 * (32 * 256 + 32 * 64 * 64 + 64 * 128 * 16) + 128 * 64 + 64 * 2
    assert card.epochs == 2 and card.chosen_epoch == result.chosen_epoch and card.initial_weights == "random"
    assert set(card.versions) == {"medcnn", "torch", "timm", "python"}


def test_a_saved_model_predicts_the_same(trained: tuple[torch.nn.Module, ModelCard, TrainingResult], tmp_path: Path) -> None:
    model, card, _ = trained
    save_model(tmp_path, model, card)
    again, its_card = load_model(tmp_path)
    assert its_card == card and not again.training
    assert [module.p for module in again.modules() if isinstance(module, torch.nn.Dropout)] == [0.2]
    one = predict(model, Arrays(IMAGES), np.arange(60), card=card, device="cpu")
    other = predict(again, Arrays(IMAGES), np.arange(60), card=its_card, device="cpu")
    assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])


def test_the_same_model_gives_the_same_bytes(trained: tuple[torch.nn.Module, ModelCard, TrainingResult], tmp_path: Path) -> None:
    model, card, _ = trained
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_model(tmp_path / name, model, card)
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_what_it_cost_stands_apart_from_what_it_is(trained: tuple[torch.nn.Module, ModelCard, TrainingResult], tmp_path: Path) -> None:
    """The digest of a stage's folder leaves COST_FILE out, so equal trainings have equal folders."""
    model, _, result = trained
    again = dataclasses.replace(result, seconds=result.seconds + 9, cpu_seconds=1.5, loading_seconds=3.0)
    for name, some in (("a", result), ("b", again)):
        (tmp_path / name).mkdir()
        assert not is_saved(tmp_path / name)
        save_cost(tmp_path / name, some, device="cpu", watt_hours=None if name == "a" else 1.25)
        save_model(tmp_path / name, model, make_card(plan_for(model_plan(dropout=0.2)), some, model, fold=2, seed=1))
        assert is_saved(tmp_path / name)
    assert (tmp_path / "a" / CARD).read_bytes() == (tmp_path / "b" / CARD).read_bytes()
    cost = json.loads((tmp_path / "b" / COST_FILE).read_text())
    assert cost["training_seconds"] == pytest.approx(again.seconds, abs=1e-3) and cost["cpu_seconds"] == 1.5
    assert cost["images_per_second"] == pytest.approx(again.images_per_second, abs=1e-3)
    assert cost["loading_share"] == pytest.approx(3 / again.seconds, abs=1e-4)
    assert (cost["watt_hours"], cost["gpu_seconds"]) == (1.25, 0.0)
    assert "watt_hours" not in json.loads((tmp_path / "a" / COST_FILE).read_text())


def test_weights_of_another_model_are_refused(trained: tuple[torch.nn.Module, ModelCard, TrainingResult], tmp_path: Path) -> None:
    _, card, _ = trained
    save_model(tmp_path, SimpleCNN(3, 2), card)
    with pytest.raises(InputError, match=r"weights.safetensors: does not fit the simple_cnn .*size mismatch"):
        load_model(tmp_path)


@pytest.mark.parametrize("damage", ["no card", "no weights", "not json", "unknown key", "missing key", "unknown network"])
def test_a_damaged_folder_is_refused(trained: tuple[torch.nn.Module, ModelCard, TrainingResult], tmp_path: Path, damage: str) -> None:
    model, card, _ = trained
    save_model(tmp_path, model, card)
    tree = json.loads((tmp_path / CARD).read_text())
    expected = {
        "no card": "model.json: no such file",
        "no weights": "weights.safetensors: no such weights file",
        "not json": "model.json: is not valid JSON",
        "unknown key": "meann is not a known key; did you mean mean",
        "missing key": "mean is required and missing",
        "unknown network": "model.name is 'simple_cnm'",
    }
    if damage == "no card":
        (tmp_path / CARD).unlink()
    elif damage == "no weights":
        (tmp_path / WEIGHTS).unlink()
    else:
        changed = {"unknown key": tree | {"meann": [0.5]}, "missing key": {k: v for k, v in tree.items() if k != "mean"}}
        (tmp_path / CARD).write_text("{" if damage == "not json" else json.dumps(changed.get(damage, tree | {"name": "simple_cnm"})))
    with pytest.raises(InputError, match=expected[damage]):
        load_model(tmp_path)


def test_what_training_started_from() -> None:
    assert describe_start(model_plan("resnet18")) == "random"
    assert describe_start(model_plan("resnet18", pretrained=True)).startswith("hub timm/resnet18")
    assert describe_start(model_plan("resnet18", pretrained=True, weights="/some/where/mine.pth")) == "file mine.pth"
