"""Each rule on training at both sides of where it turns; epochs in a budget, pieces of a step and precision against sums by hand."""

import dataclasses

import pytest
from plan_cases import CPU, FAST_CPU, GIVEN_PARTS, GPU, cohort, plan

from medcnn.errors import InputError
from medcnn.model.machine import Measured

OWN = {"model": {"name": "simple_cnn"}}
HOLDOUT = {"scheme": "holdout", "val_fraction": 0.1, "test_fraction": 0.1}


def training(found=None, machine=CPU, measured=None, **sections):
    sections = {"ladder": {"rungs": ["main"]}, **sections}
    return plan(found, machine, {"main": measured} if measured else None, **sections).training


def reason(key, found=None, machine=CPU, measured=None, **sections):
    sections = {"ladder": {"rungs": ["main"]}, **sections}
    return plan(found, machine, {"main": measured} if measured else None, **sections).reasons[f"training.{key}"]


# ---------------------------------------------------------------- the step


@pytest.mark.parametrize(("n_images", "machine", "expected"), [(1499, CPU, 32), (1500, CPU, 64), (1499, GPU, 32), (1500, GPU, 128)])
def test_batch_size_follows_the_cohort_and_the_gpu(n_images, machine, expected):
    assert training(cohort(n_images=n_images), machine).batch_size == expected


@pytest.mark.parametrize(
    ("machine", "speeds", "expected", "words"),
    [
        (CPU, {"float32": 1, "bfloat16": 9}, "float32", "no fast way to compute in bfloat16"),
        (dataclasses.replace(GPU, device="mps"), {"float32": 1, "bfloat16": 9}, "float32", "no fast way"),
        (GPU, {}, "float32", "was not measured"),
        (GPU, {"float32": 100}, "float32", "the training is short (100 images a second here)"),
        (GPU, {"float32": 100, "bfloat16": 110}, "float32", "not faster by more than 10%"),
        (GPU, {"float32": 100, "bfloat16": 111}, "bfloat16", "measured here: 111 images a second in bfloat16, 100 in float32: faster"),
        (FAST_CPU, {"float32": 100, "bfloat16": 111}, "bfloat16", "faster"),
    ],
)
def test_precision_is_the_one_that_was_seen_to_be_faster(machine, speeds, expected, words):
    sections = {"machine": machine, "measured": Measured(images_per_second=speeds), "model": {"name": "resnet18"}}
    assert training(**sections).precision == expected
    assert words in reason("precision", **sections)


@pytest.mark.parametrize(
    ("free_gb", "pieces"),
    [(100, 1), (17.3, 1), (17.2, 2), (9.3, 2), (9.2, 3), (2.0, 22)],  # (0.8 free - 1) / 0.2 images fit; a batch has 64
)
def test_a_step_that_does_not_fit_is_computed_in_pieces(free_gb, pieces):
    measured = Measured(fixed_gb=1.0, image_gb=0.2, free_gb=free_gb)
    decided = training(measured=measured)
    assert decided.accumulate == pieces
    assert decided.batch_size == 64
    assert -(-64 // pieces) <= measured.n_fitting
    assert "14 GB (measured)" in reason("accumulate", measured=measured)


def test_a_step_of_which_not_even_two_images_fit_is_refused():
    for measured in (Measured(fixed_gb=1.0, image_gb=0.2, free_gb=1.7), Measured(image_gb=float("inf"), free_gb=9)):
        with pytest.raises(InputError, match=r"not even 2 images of this size fit.*set image.size_px lower"):
            training(measured=measured)


def test_memory_that_is_not_known_is_said_to_be():
    assert training().accumulate == 1
    assert "not looked at" in reason("accumulate")
    assert "(estimated)" in reason("accumulate", measured=Measured(fixed_gb=1, image_gb=0.1, free_gb=99, estimated=True))


def test_a_given_number_of_pieces_beats_the_memory():
    assert training(measured=Measured(fixed_gb=1, image_gb=0.2, free_gb=9), training={"accumulate": 4}).accumulate == 4


# ---------------------------------------------------------------- how long


def test_epochs_make_a_number_of_steps_with_the_batch_and_the_training_images():
    def epochs(n_images, **sections):
        return training(cohort(n_images=n_images), split=HOLDOUT, **sections).epochs

    assert epochs(5000, **OWN) == 2500 * 64 // 4000
    assert epochs(5000, training={"batch_size": 32}, **OWN) == 2500 * 32 // 4000
    assert epochs(1250, **OWN) == 60  # 80 with batches of 32 over 1,000 images, but 60 is the most
    assert epochs(10**6, **OWN) == 8
    assert epochs(5000) == 1000 * 64 // 4000
    assert epochs(5000, model={"name": "small_vgg"}) == 1500 * 64 // 4000


def test_a_budget_of_minutes_becomes_epochs():
    # 4,000 training images and 500 to validate, a third as costly: 4,167 images an epoch. 10 a second: 417 s.
    def epochs(minutes, n_seeds=1, **speeds):
        return training(
            measured=Measured(images_per_second=speeds),
            split=HOLDOUT,
            training={"minutes": minutes},
            ladder={"rungs": ["main"], "n_seeds": n_seeds},
        ).epochs

    assert epochs(60, float32=10) == 7  # 0.9 x 3,600 s / 417 s
    assert epochs(60, n_seeds=2, float32=10) == 3
    assert epochs(60, float32=1000) == 16  # the rule's: more is not better
    with pytest.raises(InputError, match=r"training.minutes is 5, but 10 images a second were measured here.*raise training.minutes to 8"):
        epochs(5, float32=10)
    words = reason("epochs", measured=Measured(images_per_second={"float32": 10}), split=HOLDOUT, training={"minutes": 60})
    assert "10 images a second were measured here" in words
    assert "where 16 would be usual" in words


def test_a_budget_counts_every_fold_and_uses_the_speed_of_the_chosen_precision():
    # 5 folds x 2 repeats of 4,000 images: 40,000 an epoch; 100 a second: 400 s.
    measured = Measured(images_per_second={"float32": 50, "bfloat16": 100})
    decided = training(machine=GPU, measured=measured, split={"scheme": "kfold", "n_repeats": 2}, training={"minutes": 60})
    assert (decided.precision, decided.epochs) == ("bfloat16", 8)


def test_a_budget_without_a_measurement_is_named():
    assert "was not measured" in reason("epochs", training={"minutes": 5})


def test_the_head_goes_first_only_when_there_is_time_and_something_to_keep():
    assert training(training={"epochs": 4}).head_epochs == 1
    assert training(training={"epochs": 3}).head_epochs == 0
    assert training(**OWN).head_epochs == 0


# ---------------------------------------------------------------- how fast


def test_a_pretrained_backbone_learns_gently_and_after_its_head():
    own, backbone = training(**OWN), training()
    assert (own.head_epochs, own.backbone_lr_factor, own.layer_decay) == (0, 1.0, 1.0)
    assert (backbone.head_epochs, backbone.layer_decay) == (1, 1.0)
    assert backbone.backbone_lr_factor < 1
    assert 1e-3 <= own.learning_rate <= 3e-3


def test_layers_of_a_pretrained_transformer_slow_down_once_and_not_twice():
    vit = {"name": "vit_tiny_patch16_224"}
    decided = training(model=vit)
    assert (decided.layer_decay, decided.backbone_lr_factor) == (0.75, 1.0)
    assert decided.learning_rate < training().learning_rate
    assert training(model=vit, training={"layer_decay": 1.0}).backbone_lr_factor < 1
    assert training(model={**vit, "pretrained": False}).layer_decay == 1
    assert training(model=vit, training={"freeze_backbone": True}).layer_decay == 1
    adapted = training(model={**vit, "lora_rank": 8})
    assert (adapted.layer_decay, adapted.backbone_lr_factor) == (1, 1)


# ---------------------------------------------------------------- against learning by heart


@pytest.mark.parametrize(
    ("sections", "task", "expected"),
    [
        (OWN, "binary", 0.05),
        (OWN, "multiclass", 0.05),
        (OWN, "multilabel", 0),
        ({"model": {"name": "resnet18"}}, "binary", 0),
        ({**OWN, "training": {"loss": "focal"}}, "binary", 0),
        ({**OWN, "training": {"loss": "ordinal"}}, "multiclass", 0),
        ({**OWN, "training": {"loss": "asymmetric"}}, "multilabel", 0),
        ({**OWN, "training": {"mixup": 0.2}}, "binary", 0),
        ({**OWN, "training": {"cutmix": 0.2}}, "binary", 0),
    ],
)
def test_targets_are_smoothed_for_networks_from_random_weights(sections, task, expected):
    assert training(cohort(task=task), **sections).label_smoothing == expected


@pytest.mark.parametrize(
    ("model", "epochs", "decay"),  # 4,000 images in batches of 40: 100 steps an epoch
    [
        ("simple_cnn", 2, 0),
        ("simple_cnn", 3, 0.99),
        ("simple_cnn", 9, 0.99),
        ("simple_cnn", 10, 0.998),
        ("simple_cnn", 25, 0.998),
        ("simple_cnn", 50, 0.999),
        ("resnet18", 2, 0),
        ("resnet18", 10, 0.99),
        ("resnet18", 50, 0.998),
    ],
)
def test_the_average_of_weights_is_shorter_than_the_training(model, epochs, decay):
    sections = {"split": HOLDOUT, "model": {"name": model}, "training": {"epochs": epochs, "batch_size": 40}}
    assert training(**sections).ema_decay == decay
    assert f"{100 * epochs} steps" in reason("ema_decay", **sections)


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
    assert training(found, training={"loss": "focal"}).imbalance == "none"


def test_loss_is_a_proper_score():
    assert training().loss == "cross_entropy"
    assert training(cohort(task="multilabel")).loss == "cross_entropy"
    assert reason("loss") != reason("loss", cohort(task="multilabel"))


@pytest.mark.parametrize(
    ("found", "sections", "expected"),
    [
        (cohort(), {"split": {"scheme": "kfold"}}, "last"),
        (cohort(), {"split": {"scheme": "kfold", "val_fraction": 0.1}}, "last"),
        (cohort(), {"split": {"scheme": "kfold_holdout"}}, "last"),
        (cohort(), {"split": HOLDOUT}, "best"),
        (cohort(parts=GIVEN_PARTS), {}, "best"),
        (cohort(), {"split": HOLDOUT, **OWN}, "last"),
        (cohort(), {"split": HOLDOUT, **OWN, "training": {"patience": 3}}, "best"),
    ],
)
def test_an_epoch_is_chosen_only_where_that_is_not_flattering(found, sections, expected):
    assert training(found, **sections).select == expected


@pytest.mark.parametrize(
    ("n_cores", "device", "augment_on", "n_workers"),
    [(2, "cpu", "host", 0), (64, "cpu", "host", 0), (1, "cuda", "device", 0), (7, "cuda", "device", 0), (8, "cuda", "host", 7),
     (64, "cuda", "host", 8), (2, "mps", "host", 1)],
)  # fmt: skip
def test_a_gpu_augments_where_the_cores_would_not_keep_up(n_cores, device, augment_on, n_workers):
    decided = training(machine=dataclasses.replace(GPU, n_cores=n_cores, device=device))
    assert (decided.augment_on, decided.n_workers) == (augment_on, n_workers)


def test_the_processes_of_torchrun_share_the_cores():
    shared = dataclasses.replace(GPU, n_cores=16, n_processes=4)
    assert training(machine=shared).augment_on == "device"
    assert "4 cores for each GPU" in reason("augment_on", machine=shared)
    assert "16 cores for the GPU" in reason("augment_on", machine=GPU)
    assert training(machine=dataclasses.replace(shared, n_cores=32)).augment_on == "host"


def test_the_cores_work_where_they_are_asked_to():
    few = dataclasses.replace(GPU, n_cores=4)
    assert training(machine=few, training={"augment_on": "host"}).n_workers == 3
    assert training(machine=GPU, training={"augment_on": "device"}).n_workers == 0


@pytest.mark.parametrize(
    ("machine", "speeds", "expected", "words"),
    [
        (CPU, {"float32": 1}, False, "seen not to pay on a CPU"),
        (dataclasses.replace(GPU, device="mps", compiles=True), {}, False, "not tried"),
        (GPU, {"float32": 1}, False, "is not installed"),
        (dataclasses.replace(GPU, compiles=True), {"float32": 41}, False, "a training takes about 9.8 minutes"),
        (dataclasses.replace(GPU, compiles=True), {"float32": 40}, True, "compiling takes a minute or two"),
        (dataclasses.replace(GPU, compiles=True), {"float32": 40, "bfloat16": 60}, False, "6.7 minutes"),
    ],
)
def test_steps_are_compiled_where_a_gpu_trains_for_long(machine, speeds, expected, words):
    # 6 epochs of 4,000 images: 600 seconds at 40 a second
    sections = {"machine": machine, "measured": Measured(images_per_second=speeds), "training": {"epochs": 6}, "split": HOLDOUT}
    assert training(**sections).compile is expected
    assert words in reason("compile", **sections)


def test_without_a_measurement_the_steps_are_counted():
    able = dataclasses.replace(GPU, compiles=True)
    sections = {"split": HOLDOUT, "training": {"epochs": 156}}  # 32 steps of 128 images for 4,000
    assert training(machine=able, **sections).compile is False
    assert "4992 steps" in reason("compile", machine=able, **sections)
    sections["training"] = {"epochs": 157}
    assert training(machine=able, **sections).compile is True


def test_what_a_gpu_does_to_the_last_bits_is_said():
    assert "TF32" in reason("precision", machine=GPU)
    assert "agree but for rounding" in reason("precision", machine=GPU)
    assert "TF32" not in reason("precision")


def test_batch_norm_fits_what_prediction_sees():
    assert training().norm_statistics == "plain"
    assert training(prediction={"n_views": 4}).norm_statistics == "running"
    assert "3 of the 4 views" in reason("norm_statistics", prediction={"n_views": 4})
    assert training(prediction={"n_views": 4}, training={"norm_statistics": "plain"}).norm_statistics == "plain"
