"""Each rule at both sides of where it turns; a config value beats every rule; every decision has its sentence."""

import dataclasses

import pytest
import torch

from medcnn.cohort import Fingerprint
from medcnn.config import Config
from medcnn.errors import InputError
from medcnn.model.rules import GIVEN, Machine, inspect_machine, make_plan
from medcnn.plan import plan_text, read_plan, write_plan

CPU = Machine(n_cores=2, memory_gb=16, wheel_weights=True)
GPU = Machine(n_cores=16, memory_gb=128, device="cuda", gpu_memory_gb=80, bfloat16=True, wheel_weights=True)


def quantiles(value):
    return (value,) * 5


def cohort(short=256, **facts):
    known = {
        "task": "binary",
        "labels": ("ill",),
        "n_images": 5000,
        "n_patients": 4000,
        "n_labelled": {"ill": 5000},
        "n_positive": {"ill": 1500},
        "n_positive_patients": {"ill": 1200},
        "prevalence": {"ill": 0.3},
        "images_per_patient": (1, 1, 1, 2, 4),
        "height_px": quantiles(short),
        "width_px": quantiles(short),
        "aspect_ratio": quantiles(1.0),
        "bit_depths": {"8": 5000},
        "channels": {"1": 5000},
        "sites": {},
        "parts": {},
    }
    return Fingerprint(**{**known, **facts})


def config(**sections):
    return Config.model_validate({"name": "trial", "data": {"source": "phantom"}, **sections})


def plan(found=None, machine=CPU, **sections):
    return make_plan(found or cohort(), config(**sections), machine)


# ---------------------------------------------------------------- always


def test_every_auto_is_decided_with_one_sentence():
    for machine in (CPU, GPU):
        decided = plan(machine=machine)
        text = plan_text(decided)
        assert "auto" not in decided.model_dump_json(
            exclude={"reasons": True, "training": {"device"}, "simple_cnn": {"training": {"device"}}}
        )
        autos = [
            f"{section}.{key}"
            for section, values in config().model_dump(include={"split", "image", "augment", "model", "training"}).items()
            for key, value in values.items()
            if value == "auto" and key != "device"
        ]
        assert sorted(decided.reasons) == sorted(autos)
        assert all(reason and GIVEN not in reason and reason in text for reason in decided.reasons.values())


def test_config_value_beats_every_rule():
    sections = {
        "split": {"scheme": "holdout"},
        "image": {"size_px": 96, "channels": 1, "fit": "stretch"},
        "augment": {"policy": "none"},
        "model": {"name": "resnet18", "pretrained": False, "dropout": 0.1},
        "training": {
            "epochs": 3,
            "batch_size": 7,
            "learning_rate": 0.5,
            "backbone_lr_factor": 0.25,
            "head_epochs": 2,
            "imbalance": "oversample",
            "precision": "bfloat16",
            "n_workers": 3,
        },
    }
    opposite = cohort(short=28, n_patients=100, channels={"3": 5000}, prevalence={"ill": 0.01})
    decided = plan(opposite, modality="chest_xray", **sections)
    for section, values in sections.items():
        for key, value in values.items():
            assert getattr(getattr(decided, section), key) == value
            assert decided.reasons[f"{section}.{key}"] == GIVEN


def test_what_is_not_decided_comes_through():
    decided = plan(
        seed=5, training={"weight_decay": 0.2, "patience": 4}, split={"n_folds": 3, "val_fraction": 0.1}, augment={"strength": 0.5}
    )
    assert (decided.seed, decided.task, decided.labels) == (5, "binary", ("ill",))
    assert (decided.training.weight_decay, decided.training.patience) == (0.2, 4)
    assert (decided.split.n_folds, decided.split.val_fraction, decided.augment.strength) == (3, 0.1, 0.5)


def test_plan_survives_its_file(tmp_path):
    decided = plan()
    write_plan(decided, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == decided


# ---------------------------------------------------------------- split


def scheme(found, **sections):
    decided = plan(found, **sections)
    return decided.split.scheme, decided.reasons["split.scheme"]


def test_few_patients_are_cross_validated():
    assert scheme(cohort(n_patients=1999))[0] == "kfold"
    assert scheme(cohort(n_patients=2000))[0] == "holdout"
    assert "1999 patients" in scheme(cohort(n_patients=1999))[1]


def test_given_split_is_used_when_it_is_whole():
    assert scheme(cohort(parts={"train": 4000, "test": 1000}))[0] == "given"
    assert scheme(cohort(extra={"n_given_fold": 5000}))[0] == "given"
    name, reason = scheme(cohort(parts={"train": 4000, "test": 900}))
    assert name == "holdout"
    assert "its own split covers 4900 of 5000 images" in reason


def test_given_split_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="the cohort brings no split; set data.part_column"):
        plan(split={"scheme": "given"})
    for partly in ({"parts": {"train": 10}}, {"extra": {"n_given_fold": 10}}):  # deal names the blank ones
        assert plan(cohort(**partly), split={"scheme": "given"}).split.scheme == "given"


# ---------------------------------------------------------------- model


@pytest.mark.parametrize(
    ("short", "machine", "name"),
    [
        (28, CPU, "simple_cnn"),
        (28, GPU, "simple_cnn"),
        (48, CPU, "simple_cnn"),
        (48, GPU, "simple_cnn"),
        (49, CPU, "tf_efficientnet_lite0"),
        (49, GPU, "resnet50"),
        (1024, CPU, "tf_efficientnet_lite0"),
        (1024, dataclasses.replace(CPU, wheel_weights=False), "simple_cnn"),
        (1024, dataclasses.replace(CPU, device="mps"), "resnet50"),
    ],
)
def test_backbone_follows_size_and_machine(short, machine, name):
    decided = plan(cohort(short), machine)
    assert decided.model.name == name
    assert decided.model.pretrained == (name != "simple_cnn")
    assert decided.model.dropout == (0.3 if name == "simple_cnn" else 0.2)


def test_own_networks_have_no_weights_to_start_from():
    assert not plan(model={"name": "fully_connected"}).model.pretrained
    assert plan(model={"name": "resnet18"}).model.pretrained


def test_asking_for_the_cpu_on_a_machine_with_a_gpu_plans_for_the_cpu():
    decided = plan(machine=GPU, training={"device": "cpu"})
    assert (decided.model.name, decided.image.size_px, decided.training.n_workers) == ("tf_efficientnet_lite0", 128, 0)
    second = plan(machine=GPU, training={"device": "cuda:1"})
    assert (second.model.name, second.training.precision, second.training.device) == ("resnet50", "bfloat16", "cuda:1")


# ---------------------------------------------------------------- image and augmentation


@pytest.mark.parametrize(
    ("short", "model", "machine", "size"),
    [
        (28, "simple_cnn", CPU, 28),
        (4, "simple_cnn", CPU, 8),
        (48, "simple_cnn", CPU, 48),
        (63, "simple_cnn", CPU, 32),
        (100, "simple_cnn", CPU, 96),
        (28, "resnet18", CPU, 64),
        (63, "resnet18", CPU, 64),
        (64, "resnet18", CPU, 64),
        (100, "resnet18", CPU, 96),
        (3000, "resnet18", CPU, 128),
        (3000, "simple_cnn", CPU, 128),
        (200, "resnet18", GPU, 192),
        (3000, "resnet18", GPU, 224),
    ],
)
def test_input_size_follows_the_images_the_backbone_and_the_machine(short, model, machine, size):
    decided = plan(cohort(short), machine, model={"name": model})
    assert decided.image.size_px == size
    assert f"{short} px" in decided.reasons["image.size_px"]


def test_the_short_side_is_the_one_that_counts():
    assert plan(cohort(height_px=quantiles(100), width_px=quantiles(900))).image.size_px == 96


@pytest.mark.parametrize(
    ("channels", "model", "expected"),
    [({"1": 9}, "simple_cnn", 1), ({"1": 9, "3": 1}, "simple_cnn", 3), ({"3": 9}, "simple_cnn", 3), ({"1": 9}, "resnet18", 3)],
)
def test_channels_follow_the_images_and_the_weights(channels, model, expected):
    assert plan(cohort(channels=channels), model={"name": model}).image.channels == expected


def test_rectangles_are_padded_and_the_reason_says_how_far_they_spread():
    decided = plan(cohort(aspect_ratio=(0.5, 0.8, 1.0, 1.2, 2.0)))
    assert decided.image.fit == "pad"
    assert "from 0.50 to 2.00" in decided.reasons["image.fit"]
    assert "square" in plan().reasons["image.fit"]


def test_policy_is_of_the_modality():
    assert plan(modality="histology").augment.policy == "histology"
    assert plan().augment.policy == "generic"
    assert "set modality" in plan().reasons["augment.policy"]


# ---------------------------------------------------------------- training


def training(found=None, machine=CPU, **sections):
    return plan(found, machine, **sections).training


@pytest.mark.parametrize(("n_images", "machine", "expected"), [(1499, CPU, 32), (1500, CPU, 64), (1499, GPU, 32), (1500, GPU, 128)])
def test_batch_size_follows_the_cohort_and_the_gpu(n_images, machine, expected):
    assert training(cohort(n_images=n_images), machine).batch_size == expected


def test_epochs_make_a_number_of_steps_with_the_batch_that_is_used():
    own = {"model": {"name": "simple_cnn"}}
    assert training(cohort(n_images=5000), **own).epochs == 2500 * 64 // 5000
    assert training(cohort(n_images=5000), training={"batch_size": 32}, **own).epochs == 2500 * 32 // 5000
    assert training(cohort(n_images=1250), **own).epochs == 60  # 64 with batches of 32, but 60 is the most
    assert training(cohort(n_images=10**6), **own).epochs == 8
    assert training(cohort(n_images=4000)).epochs == 1000 * 64 // 4000


def test_a_pretrained_backbone_learns_gently_and_after_its_head():
    own, backbone = training(model={"name": "simple_cnn"}), training()
    assert (own.head_epochs, own.backbone_lr_factor) == (0, 1.0)
    assert backbone.head_epochs >= 1
    assert backbone.backbone_lr_factor < 1
    assert 1e-3 <= own.learning_rate <= 3e-3
    assert training(model={"name": "vit_tiny_patch16_224"}).learning_rate < backbone.learning_rate
    assert training(model={"name": "resnet18", "pretrained": False}).head_epochs == 0


@pytest.mark.parametrize(
    ("task", "prevalence", "expected"),
    [
        ("binary", {"ill": 0.3}, "none"),
        ("binary", {"ill": 0.1}, "none"),
        ("binary", {"ill": 0.09}, "loss_weights"),
        ("binary", {"ill": 0.95}, "loss_weights"),
        ("multiclass", {"a": 0.5, "b": 0.45, "c": 0.05}, "loss_weights"),
        ("multilabel", {"a": 0.5, "b": 0.01}, "none"),
    ],
)
def test_rare_classes_weigh_more(task, prevalence, expected):
    found = cohort(task=task, prevalence=prevalence, labels=tuple(prevalence))
    assert training(found).imbalance == expected


@pytest.mark.parametrize(
    ("machine", "name", "expected"),
    [
        (CPU, "tf_efficientnet_lite0", "float32"),
        (CPU, "resnet18", "float32"),
        (GPU, "resnet18", "bfloat16"),
        (dataclasses.replace(GPU, bfloat16=False), "resnet18", "float32"),
        (dataclasses.replace(CPU, device="mps", bfloat16=True), "resnet18", "float32"),
    ],
)
def test_precision_is_what_the_device_does_well(machine, name, expected):
    decided = plan(machine=machine, model={"name": name})
    assert decided.training.precision == expected
    if name.startswith("tf_efficientnet"):
        assert "depthwise" in decided.reasons["training.precision"]


@pytest.mark.parametrize(
    ("n_cores", "device", "expected"), [(2, "cpu", 0), (64, "cpu", 0), (1, "cuda", 1), (4, "cuda", 3), (64, "cuda", 8)]
)
def test_workers_augment_while_a_gpu_trains(n_cores, device, expected):
    assert training(machine=dataclasses.replace(GPU, n_cores=n_cores, device=device)).n_workers == expected


def test_pneumoniamnist_is_planned_as_a_plain_loop_did_it():
    found = cohort(28, n_images=5856, n_patients=5856, parts={"train": 4708, "val": 524, "test": 624}, prevalence={"ill": 0.73})
    decided = plan(found, modality="chest_xray")
    assert (decided.model.name, decided.image.size_px, decided.image.channels) == ("simple_cnn", 28, 1)
    assert (decided.split.scheme, decided.augment.policy) == ("given", "chest_xray")
    assert 64 <= decided.training.batch_size <= 128
    assert 20 <= decided.training.epochs <= 40


# ---------------------------------------------------------------- the machine


def test_this_machine_is_seen_as_torch_sees_it():
    machine = inspect_machine()
    assert machine.n_cores >= 1
    assert machine.memory_gb > 0.1
    assert (machine.device == "cuda") == torch.cuda.is_available()
    assert (machine.gpu_memory_gb > 0) == torch.cuda.is_available()
