"""The models of a ladder: one for each trained rung, fold and seed, and where each of them stands."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from medcnn.artifact import COST_FILE, write_file
from medcnn.config import Rung
from medcnn.errors import InputError
from medcnn.plan import Plan

TRAINED: tuple[Rung, ...] = ("frozen", "mil", "simple_cnn", "main")  # rungs whose models are trained; soup and ensemble are made of them
MEMBERS_FILE, MEMBER_TABLE = "members.json", "members.parquet"
SEEDS_APART = 10_000  # more than there can be folds: no two models of a run share a seed


@dataclass(frozen=True, order=True)
class Member:
    """One model. number: from 0; models of one rung and fold differ in it, and in their seed, only."""

    rung: Rung
    fold: int
    number: int = 0

    @property
    def place(self) -> str:
        """Folder of the model within its run."""
        return f"train/{self.rung}/fold{self.fold}" + (f"-seed{self.number}" if self.number else "")

    @classmethod
    def at(cls, place: str) -> "Member":
        """The inverse of `place`."""
        _, rung, name = place.split("/")
        fold, _, number = name.removeprefix("fold").partition("-seed")
        return cls(rung, int(fold), int(number or 0))  # type: ignore[arg-type]  # one of the rungs: this class wrote it

    def seed(self, plan: Plan) -> int:
        """Seed of its weights, order and augmentation."""
        return plan.seed + self.fold + SEEDS_APART * self.number


def planned_members(plan: Plan, folds: Iterable[int]) -> list[Member]:
    """Every model that the plan asks for, rung by rung. Frozen features with a logistic regression know no chance: one for each fold."""
    folds = sorted(int(fold) for fold in folds)
    return [
        Member(rung, fold, number)
        for rung in TRAINED
        if rung in trained_rungs(plan)
        for fold in folds
        for number in range(1 if rung == "frozen" else plan.ladder.n_seeds)
    ]


def trained_rungs(plan: Plan) -> list[Rung]:
    """Rungs that are trained: those of the ladder, and main where a soup is made of it."""
    wanted = {*plan.ladder.rungs} | ({"main"} if "soup" in plan.ladder.rungs else set())
    return [rung for rung in TRAINED if rung in wanted]


def plan_of(plan: Plan, rung: Rung) -> Plan:
    """The plan as it is for one rung: its network and its training. Raises InputError when an edited plan lacks them."""
    if rung in {"frozen", "mil"}:  # nothing of the backbone learns, so it needs no adapters
        return plan.model_copy(update={"model": plan.model.model_copy(update={"lora_rank": 0})})
    if rung != "simple_cnn":
        return plan
    if plan.simple_cnn is None:
        raise InputError("plan: ladder.rungs names simple_cnn, but the plan has no section simple_cnn; give it one or take the rung out")
    return plan.model_copy(update={"model": plan.simple_cnn.model, "training": plan.simple_cnn.training})


def write_members(folder: Path, members: Iterable[Member]) -> None:
    """Note in `members.json` whose models made the predictions of a folder."""
    write_file(folder / MEMBERS_FILE, (json.dumps([asdict(member) for member in members], indent=1) + "\n").encode())


def read_members(folder: Path) -> list[Member]:
    """The models behind a folder's predictions; none for prevalence and shortcuts."""
    return [Member(**row) for row in json.loads((folder / MEMBERS_FILE).read_text(encoding="utf-8"))]


def representatives(members: Mapping[Member, Path]) -> dict[int, Path]:
    """fold -> folder of the model that stands for it in pictures and histories: the highest rung's first seed."""
    height: dict[Rung, int] = {**{rung: place for place, rung in enumerate(TRAINED)}, "mil": -1}  # mil sees bags, not single images
    order = sorted(members, key=lambda member: (height.get(member.rung, len(TRAINED)), -member.number))
    return {member.fold: members[member] for member in order}


def read_cost(folder: Path) -> dict[str, float]:
    """What a stage noted of its cost."""
    found: dict[str, float] = json.loads((folder / COST_FILE).read_text(encoding="utf-8"))
    return found
