"""The plan's file: YAML that a person reads, reasons as comments, the same plan when read again, edits that fit together."""

from pathlib import Path

import pytest
import yaml

from medcnn.errors import InputError
from medcnn.plan import BaselinePlan, LadderPlan, ModelPlan, Plan, TrainingPlan, plan_text, read_plan, write_plan

TRAINING = {
    "epochs": 20, "batch_size": 32, "learning_rate": 0.002, "backbone_lr_factor": 0.3, "head_epochs": 1, "imbalance": "none",
    "precision": "float32", "n_workers": 0,
}  # fmt: skip
REASONS = {
    "training.epochs": "about 1000 steps: as many as a network needs, # no more",
    "simple_cnn": "what the main model must beat",
    "simple_cnn.training.epochs": "its own: 'more'\nover two lines",
    "ladder.headline": "named beforehand",
}


def a_plan(*, baseline: bool = True, reasons: dict[str, str] | None = None) -> Plan:
    model = ModelPlan(name="simple_cnn", pretrained=False, dropout=0.3)
    small = BaselinePlan(model=model, training=TrainingPlan.model_validate({**TRAINING, "epochs": 60}))
    return Plan.model_validate(
        {
            "task": "binary", "labels": ["ill: yes", "no"], "seed": 3, "split": {"scheme": "kfold", "val_fraction": 0},
            "image": {"size_px": 128, "channels": 3, "fit": "pad"}, "augment": {"policy": "histology"},
            "model": {"name": "resnet18", "pretrained": True, "dropout": 0.2, "weights": "weights.safetensors"}, "training": TRAINING,
            "simple_cnn": small if baseline else None,
            "ladder": LadderPlan(rungs=("simple_cnn", "main") if baseline else ("main",)), "reasons": REASONS if reasons is None else reasons,
        }
    )  # fmt: skip


@pytest.mark.parametrize("baseline", [True, False])
def test_plan_survives_its_file(tmp_path: Path, baseline: bool) -> None:
    write_plan(a_plan(baseline=baseline), tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == a_plan(baseline=baseline)


def test_sections_are_blocks_and_every_reason_stands_on_its_line() -> None:
    lines = plan_text(a_plan()).splitlines()
    assert "  epochs: 20  # about 1000 steps: as many as a network needs, # no more" in lines
    assert "simple_cnn:  # what the main model must beat" in lines
    place = lines.index("simple_cnn:  # what the main model must beat")
    assert lines[place + 1 : place + 3] == ["  model:", "    name: simple_cnn"]
    assert "    epochs: 60  # its own: 'more' over two lines" in lines[place:]
    assert "simple_cnn: null  # what the main model must beat" in plan_text(a_plan(baseline=False)).splitlines()
    assert not any("{" in line for line in lines)


def test_yaml_itself_reads_the_text_as_the_plan() -> None:
    decided = a_plan()
    assert yaml.safe_load(plan_text(decided)) == decided.model_dump(mode="json")


def edited(tmp_path: Path, old: str, new: str) -> Plan:
    path = tmp_path / "plan.yaml"
    text = plan_text(a_plan())
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return read_plan(path)


def test_an_edit_in_a_nested_section_is_honoured(tmp_path: Path) -> None:
    decided = edited(tmp_path, "    epochs: 60", "    epochs: 7")
    assert decided.simple_cnn is not None
    assert (decided.simple_cnn.training.epochs, decided.training.epochs) == (7, 20)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("headline: main", "headline: ensemble", "headline ensemble is not among rungs"),
        ("    epochs: 60", "    epoch: 60", "simple_cnn.training.epoch is not a known key"),
        ("scheme: kfold", "scheme: auto", "split.scheme"),
        ("  batch_size: 32", "  batch_size: many", "training.batch_size"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused_with_its_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=f"plan.yaml.*{message}.*mend the file"):
        edited(tmp_path, old, new)


def test_a_rung_without_its_network_is_refused(tmp_path: Path) -> None:
    text = plan_text(a_plan(baseline=False)).replace("rungs: [main]", "rungs: [simple_cnn, main]")
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(InputError, match="the plan needs a section simple_cnn"):
        read_plan(tmp_path / "plan.yaml")
