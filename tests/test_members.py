"""Which models a plan asks for, and where they stand."""

from pathlib import Path

import pytest

from medcnn.errors import InputError
from medcnn.members import Member, plan_of, planned_members, read_members, representatives, write_members
from medcnn.plan import AugmentPlan, BaselinePlan, ImagePlan, LadderPlan, ModelPlan, Plan, SplitPlan, TrainingPlan


def plan(**ladder: object) -> Plan:
    numbers = {"epochs": 1, "batch_size": 8, "learning_rate": 0.1, "backbone_lr_factor": 1.0, "head_epochs": 0, "imbalance": "none"}
    training = TrainingPlan(**numbers, precision="float32", n_workers=0)
    small = BaselinePlan(
        model=ModelPlan(name="simple_cnn", pretrained=False, dropout=0.3), training=training.model_copy(update={"epochs": 7})
    )
    return Plan(
        task="binary", labels=("sick",), seed=5, split=SplitPlan(scheme="kfold"), image=ImagePlan(size_px=32, channels=3, fit="pad"),
        augment=AugmentPlan(policy="none"), model=ModelPlan(name="resnet18", pretrained=True, dropout=0.2), training=training,
        simple_cnn=small, ladder=LadderPlan(**ladder), reasons={},
    )  # fmt: skip


def test_one_model_for_each_rung_fold_and_seed() -> None:
    found = planned_members(plan(rungs=("prevalence", "frozen", "simple_cnn", "main", "ensemble"), headline="ensemble", n_seeds=2), [1, 0])
    assert [(member.rung, member.fold, member.number) for member in found] == [
        ("frozen", 0, 0), ("frozen", 1, 0),  # a logistic regression knows no chance
        ("simple_cnn", 0, 0), ("simple_cnn", 0, 1), ("simple_cnn", 1, 0), ("simple_cnn", 1, 1),
        ("main", 0, 0), ("main", 0, 1), ("main", 1, 0), ("main", 1, 1),
    ]  # fmt: skip
    assert len({member.place for member in found}) == len(found)


def test_no_two_models_of_a_rung_share_a_seed() -> None:
    decided = plan(n_seeds=4)
    members = planned_members(decided, range(50))
    assert len({member.seed(decided) for member in members}) == len(members) == 200
    assert members[0].seed(decided) == decided.seed


def test_a_soup_needs_the_main_models() -> None:
    assert {member.rung for member in planned_members(plan(rungs=("soup",), headline="soup", n_seeds=2), [0])} == {"main"}


@pytest.mark.parametrize("member", [Member("main", 0), Member("simple_cnn", 12, 3)])
def test_a_place_names_its_model(member: Member) -> None:
    assert Member.at(member.place) == member


def test_members_are_written_and_read(tmp_path: Path) -> None:
    members = [Member("main", 0), Member("frozen", 1, 2)]
    write_members(tmp_path, members)
    assert read_members(tmp_path) == members


def test_the_highest_rungs_first_seed_stands_for_a_fold() -> None:
    there = {
        member: Path(member.place) for member in [Member("main", 0, 1), Member("main", 0), Member("frozen", 0), Member("simple_cnn", 1)]
    }
    assert representatives(there) == {0: Path("train/main/fold0"), 1: Path("train/simple_cnn/fold1")}


def test_each_rung_has_its_own_network_and_training() -> None:
    decided = plan(rungs=("simple_cnn", "main"))
    assert (plan_of(decided, "simple_cnn").model.name, plan_of(decided, "simple_cnn").training.epochs) == ("simple_cnn", 7)
    assert plan_of(decided, "main") == decided
    adapted = decided.model_copy(update={"model": decided.model.model_copy(update={"lora_rank": 4})})
    assert (plan_of(adapted, "frozen").model.lora_rank, plan_of(adapted, "main").model.lora_rank) == (0, 4)
    with pytest.raises(InputError, match="no section simple_cnn"):
        plan_of(decided.model_copy(update={"simple_cnn": None}), "simple_cnn")
