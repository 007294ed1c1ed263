"""Whole plans: everything is decided with a sentence, a config value beats every rule, each rung has its own training."""

import dataclasses

import pytest
from plan_cases import CPU, GIVEN_PARTS, GPU, cohort, config, plan

from medcnn.model.machine import Measured
from medcnn.model.rules import GIVEN
from medcnn.plan import plan_text

SECTIONS = ("split", "image", "augment", "model", "training", "ladder", "prediction", "evaluation")


@pytest.mark.parametrize("machine", [CPU, GPU])
def test_every_auto_is_decided_with_one_sentence(machine):
    decided = plan(machine=machine)
    text = plan_text(decided)
    assert "auto" not in decided.model_dump_json(exclude={"reasons": True, "training": {"device"}, "simple_cnn": {"training": {"device"}}})
    autos = [
        f"{section}.{key}"
        for section, values in config().model_dump(include=set(SECTIONS)).items()
        for key, value in values.items()
        if value == "auto" and key != "device"
    ]
    of_baseline = [f"simple_cnn.{key}" for key in autos if key.startswith("training.")]
    assert sorted(decided.reasons) == sorted([*autos, *of_baseline, "simple_cnn", "simple_cnn.model.dropout"])
    assert all(len(reason) > 12 and GIVEN not in reason and reason in text for reason in decided.reasons.values())


def test_config_value_beats_every_rule():
    sections = {
        "split": {"scheme": "holdout", "val_fraction": 0.2},
        "image": {"size_px": 96, "channels": 1, "fit": "stretch"},
        "augment": {"policy": "none"},
        "model": {"name": "resnet18", "pretrained": False, "dropout": 0.1, "drop_path": 0.3},
        "training": {
            "epochs": 3,
            "batch_size": 7,
            "accumulate": 2,
            "learning_rate": 0.5,
            "backbone_lr_factor": 0.25,
            "layer_decay": 0.5,
            "head_epochs": 2,
            "loss": "focal",
            "label_smoothing": 0.2,
            "ema_decay": 0.5,
            "imbalance": "oversample",
            "select": "best",
            "precision": "bfloat16",
            "n_workers": 3,
            "augment_on": "device",
            "compile": True,
        },
        "ladder": {"rungs": ("main", "prevalence"), "headline": "main", "weights": "fitted"},
        "prediction": {"engine": "openvino"},
    }
    opposite = cohort(short=28, n_patients=100, channels={"3": 5000}, prevalence={"ill": 0.01})
    decided = plan(opposite, modality="chest_xray", **sections)
    for section, values in sections.items():
        for key, value in values.items():
            assert getattr(getattr(decided, section), key) == value
            assert decided.reasons[f"{section}.{key}"] == GIVEN


def test_what_is_not_decided_comes_through():
    decided = plan(
        seed=5,
        training={"weight_decay": 0.2, "patience": 4},
        split={"n_folds": 3, "val_fraction": 0.1},
        augment={"strength": 0.5},
        ladder={"n_seeds": 4, "combine": "logit"},
        prediction={"n_views": 3},
    )
    assert (decided.seed, decided.task, decided.labels) == (5, "binary", ("ill",))
    assert (decided.training.weight_decay, decided.training.patience) == (0.2, 4)
    assert (decided.split.n_folds, decided.split.val_fraction, decided.augment.strength) == (3, 0.1, 0.5)
    assert (decided.ladder.n_seeds, decided.ladder.combine, decided.prediction.n_views) == (4, "logit", 3)


def test_asking_for_the_cpu_on_a_machine_with_a_gpu_plans_for_the_cpu():
    decided = plan(machine=GPU, training={"device": "cpu"})
    assert (decided.model.name, decided.image.size_px, decided.training.n_workers) == ("tf_efficientnet_lite0", 128, 0)
    speeds = {"main": Measured(images_per_second={"float32": 10, "bfloat16": 30})}
    assert plan(machine=GPU, measured=speeds, training={"device": "cpu"}).training.precision == "float32"  # the GPU's, not the CPU's
    with_cpu = dataclasses.replace(GPU, cpu_bfloat16=True)
    assert plan(machine=with_cpu, measured=speeds, training={"device": "cpu"}).training.precision == "bfloat16"
    second = plan(machine=GPU, measured=speeds, training={"device": "cuda:1"})
    assert (second.model.name, second.training.precision, second.training.device) == ("resnet50", "bfloat16", "cuda:1")


# ---------------------------------------------------------------- the small network beside the main one


def test_the_baseline_is_there_only_when_its_rung_is():
    assert plan(ladder={"rungs": ["main"]}).simple_cnn is None
    assert plan(model={"name": "simple_cnn"}).simple_cnn is None
    assert plan().simple_cnn.model.name == "simple_cnn"


def test_the_baseline_is_trained_as_a_network_from_random_weights_whatever_main_was_given():
    given = {"epochs": 4, "learning_rate": 1e-5, "ema_decay": 0.5, "head_epochs": 3, "freeze_backbone": True}
    kept = {"batch_size": 16, "weight_decay": 0.3, "n_threads": 1, "imbalance": "oversample"}
    decided = plan(model={"name": "resnet18"}, training={**given, **kept})
    alone = plan(model={"name": "simple_cnn"}, training=kept)
    assert decided.training.epochs == 4
    assert decided.simple_cnn.training == alone.training
    assert decided.simple_cnn.model == alone.model
    assert decided.reasons["simple_cnn.training.epochs"] == alone.reasons["training.epochs"]


def test_each_rung_has_its_own_measurements():
    speeds = {
        "main": Measured(images_per_second={"float32": 10, "bfloat16": 9}),
        "simple_cnn": Measured(images_per_second={"float32": 10, "bfloat16": 30}),
    }
    decided = plan(machine=GPU, measured=speeds)
    assert (decided.training.precision, decided.simple_cnn.training.precision) == ("float32", "bfloat16")


# ---------------------------------------------------------------- a plan that was checked by hand


def test_pneumoniamnist_is_planned_as_it_was_measured_best():
    found = cohort(28, n_images=5848, n_patients=5848, parts={"train": 4708, "val": 516, "test": 624}, prevalence={"ill": 0.73})
    decided = plan(found, modality="chest_xray")
    assert (decided.model.name, decided.image.size_px, decided.image.channels) == ("small_vgg", 28, 1)
    assert (decided.split.scheme, decided.augment.policy) == ("given", "chest_xray")
    training = decided.training
    assert (training.batch_size, training.epochs, training.label_smoothing, training.ema_decay) == (64, 20, 0.05, 0.998)
    assert (training.select, training.head_epochs, training.imbalance, training.loss) == ("last", 0, "none", "cross_entropy")
    assert decided.ladder.rungs == ("prevalence", "shortcuts", "simple_cnn", "main", "ensemble")


def test_few_patients_are_planned_so_that_none_is_lost():
    found = cohort(128, n_patients=400, n_images=1200)
    decided = plan(found)
    assert (decided.split.scheme, decided.split.val_fraction, decided.training.select) == ("kfold", 0.0, "last")
    assert plan(cohort(parts=GIVEN_PARTS)).training.select == "best"
