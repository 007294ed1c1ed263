"""The network, the rungs beside it, the engine: each rule at both sides of where it turns."""

import dataclasses

import pytest
import timm
from plan_cases import CPU, GPU, cohort, plan

from medcnn.model.backbones import OWN_MODELS
from medcnn.model.rules_model import OWN_NETWORKS, is_transformer


@pytest.mark.parametrize(
    ("short", "machine", "name"),
    [
        (28, CPU, "small_vgg"),
        (28, GPU, "small_vgg"),
        (48, CPU, "small_vgg"),
        (48, GPU, "small_vgg"),
        (49, CPU, "tf_efficientnet_lite0"),
        (49, GPU, "resnet50"),
        (1024, CPU, "tf_efficientnet_lite0"),
        (1024, dataclasses.replace(CPU, wheel_weights=False), "simple_cnn"),
        (1024, dataclasses.replace(CPU, device="mps"), "resnet50"),
    ],
)
def test_backbone_follows_size_and_machine(short, machine, name):
    decided = plan(cohort(short), machine)
    own = name in OWN_NETWORKS
    assert decided.model.name == name
    assert decided.model.pretrained != own
    assert decided.model.dropout == (0.3 if own else 0.2)


def test_own_networks_are_those_that_can_be_built_and_have_no_weights():
    assert set(OWN_MODELS) == OWN_NETWORKS
    assert not plan(model={"name": "fully_connected"}).model.pretrained
    assert plan(model={"name": "resnet18"}).model.pretrained


def test_transformers_are_known_by_their_names():
    names = [
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
        "deit_small_patch16_224",
        "eva02_tiny_patch14_224",
        "beit_base_patch16_224",
    ]
    assert all(timm.is_model(name) and is_transformer(name) for name in names)
    assert not any(is_transformer(name) for name in ("resnet50", "convnext_base", "tf_efficientnet_lite0", "simple_cnn", "densenet121"))


def test_only_large_transformers_leave_blocks_out():
    paths = {name: plan(model={"name": name}).model.drop_path for name in ("vit_base_patch16_224", "vit_tiny_patch16_224", "convnext_base")}
    assert paths == {"vit_base_patch16_224": 0.1, "vit_tiny_patch16_224": 0.0, "convnext_base": 0.0}


# ---------------------------------------------------------------- the ladder


@pytest.mark.parametrize(
    ("model", "n_seeds", "rungs"),
    [
        ({"name": "resnet18"}, 1, ("prevalence", "shortcuts", "frozen", "simple_cnn", "main", "ensemble")),
        ({"name": "resnet18", "pretrained": False}, 1, ("prevalence", "shortcuts", "simple_cnn", "main", "ensemble")),
        ({"name": "simple_cnn"}, 1, ("prevalence", "shortcuts", "main")),
        ({"name": "simple_cnn"}, 3, ("prevalence", "shortcuts", "main", "ensemble")),
    ],
)
def test_rungs_follow_the_main_model_and_the_seeds(model, n_seeds, rungs):
    decided = plan(model=model, ladder={"n_seeds": n_seeds})
    assert decided.ladder.rungs == rungs
    assert decided.ladder.headline == rungs[-1]


@pytest.mark.parametrize(
    ("found", "sections", "weights", "reason"),
    [
        ({}, {}, "fitted", "a weak rung pulls a plain mean down"),
        ({}, {"ladder": {"weights": "equal"}}, "equal", "given in the config"),
        ({}, {"ladder": {"rungs": ["frozen", "main"]}}, "equal", "there are not several trained rungs to weigh"),
        ({}, {"model": {"name": "simple_cnn"}, "ladder": {"n_seeds": 3}}, "equal", "there are not several"),
        ({"n_images": 61, "n_patients": 61}, {"split": {"n_folds": 5}}, "equal", "about 49 images could fit weights"),
        ({"n_images": 63, "n_patients": 63}, {"split": {"n_folds": 5}}, "fitted", "a weak rung"),
        ({"n_images": 300, "n_patients": 300}, {"split": {"scheme": "holdout"}}, "equal", "about 45 images"),
    ],
)
def test_the_ensemble_is_weighed_where_there_is_something_to_weigh_and_to_weigh_by(found, sections, weights, reason):
    decided = plan(cohort(**found), **sections)
    assert decided.ladder.weights == weights
    assert decided.reasons["ladder.weights"].startswith(reason)


def test_headline_is_the_last_of_the_given_rungs_and_may_be_another():
    assert plan(ladder={"rungs": ["main", "prevalence"]}).ladder.headline == "prevalence"
    assert plan(ladder={"headline": "main"}).ladder.headline == "main"


# ---------------------------------------------------------------- prediction


@pytest.mark.parametrize(
    ("machine", "name", "engine"),
    [
        (dataclasses.replace(CPU, openvino=True), "resnet18", "openvino"),
        (CPU, "resnet18", "torch"),
        (dataclasses.replace(CPU, openvino=True), "simple_cnn", "torch"),
        (dataclasses.replace(GPU, openvino=True), "resnet18", "torch"),
    ],
)
def test_openvino_computes_backbones_on_a_cpu_where_it_is_there(machine, name, engine):
    assert plan(machine=machine, model={"name": name}).prediction.engine == engine
