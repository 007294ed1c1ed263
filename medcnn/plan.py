"""The plan: the config's sections with every `auto` decided, and the reason for each decision.

`medcnn/model/rules.py` makes a plan; a person may edit `plan.yaml` and run again.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from medcnn.config import (
    AugmentConfig,
    EvaluationConfig,
    ImageConfig,
    Imbalance,
    LadderConfig,
    Loss,
    Modality,
    ModelConfig,
    PredictionConfig,
    Rung,
    SplitConfig,
    TrainingConfig,
)
from medcnn.config_file import explain_problems, read_yaml
from medcnn.errors import InputError
from medcnn.section import Fraction, Section
from medcnn.tables import Level, Task


class SplitPlan(SplitConfig):
    """How patients are dealt to parts, decided."""

    scheme: Literal["given", "holdout", "kfold", "kfold_holdout", "leave_site_out"]
    val_fraction: Fraction = 0.15


class ImagePlan(ImageConfig):
    """What an image is when a model sees it, decided."""

    size_px: Annotated[int, Field(ge=8, le=2048)]
    channels: Literal[1, 3]
    fit: Literal["pad", "crop", "stretch"]
    stain: Literal["none", "macenko", "reinhard"] = "none"


class AugmentPlan(AugmentConfig):
    """Training transforms, decided."""

    policy: Modality | Literal["none"]


class ModelPlan(ModelConfig):
    """What is trained, decided."""

    pretrained: bool
    dropout: float
    drop_path: float = 0.0


class TrainingPlan(TrainingConfig):
    """How it is trained, decided."""

    epochs: int
    batch_size: int
    accumulate: int = 1
    learning_rate: float
    backbone_lr_factor: float
    head_epochs: int
    layer_decay: float = 1.0
    loss: Loss = "cross_entropy"
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    imbalance: Imbalance
    select: Literal["best", "last"] = "best"
    norm_statistics: Literal["running", "plain"] = "running"
    precision: Literal["float32", "bfloat16"]
    n_workers: int
    augment_on: Literal["host", "device"] = "host"
    compile: bool = False


class BaselinePlan(Section):
    """A small network from random weights, and how it is trained."""

    model: ModelPlan
    training: TrainingPlan


class LadderPlan(LadderConfig):
    """Which rungs there are, decided."""

    rungs: tuple[Rung, ...] = ("main",)
    headline: Rung = "main"
    bag: Literal["study", "patient"] = "patient"
    weights: Literal["equal", "fitted"] = "equal"

    @model_validator(mode="after")
    def _check_headline(self) -> "LadderPlan":
        if self.headline not in self.rungs:
            raise ValueError(f"headline {self.headline} is not among rungs {list(self.rungs)}")
        return self


class PredictionPlan(PredictionConfig):
    """How trained models are asked, decided."""

    engine: Literal["torch", "openvino"] = "torch"


class EvaluationPlan(Section):
    """At which levels numbers are taken, decided; the rest of the config's section evaluation is as it stands there."""

    levels: Annotated[tuple[Level, ...], Field(min_length=1)] = ("image",)


class Plan(Section):
    """Everything that was decided for one cohort on one machine.

    model and training belong to the rung main; simple_cnn is the network of the rung of that name, with its training.
    task, labels: what is learnt; a binary task has one label. reasons: dotted key -> sentence.
    """

    task: Task
    labels: tuple[str, ...]
    seed: int
    split: SplitPlan
    image: ImagePlan
    augment: AugmentPlan
    model: ModelPlan
    training: TrainingPlan
    simple_cnn: BaselinePlan | None = None
    ladder: LadderPlan = LadderPlan()
    prediction: PredictionPlan = PredictionPlan()
    evaluation: EvaluationPlan = EvaluationPlan()
    reasons: dict[str, str]

    @model_validator(mode="after")
    def _check_baseline(self) -> "Plan":
        if "simple_cnn" in self.ladder.rungs and self.simple_cnn is None:
            raise ValueError("ladder.rungs names simple_cnn, so the plan needs a section simple_cnn; take the rung out, or give it one")
        return self


def evaluated_as(config: EvaluationConfig, plan: Plan) -> EvaluationConfig:
    """The config's section evaluation with the levels that the plan decided."""
    return config.model_copy(update={"levels": plan.evaluation.levels})


def read_plan(path: Path) -> Plan:
    """Read `plan.yaml`, edited or not; raises InputError naming the keys that do not fit."""
    tree = read_yaml(path)
    try:
        return Plan.model_validate(tree)
    except ValidationError as error:
        problems = explain_problems(error, Plan, source=str(path))
        raise InputError(f"{problems}; mend the file or delete it to have it written anew") from None


def write_plan(plan: Plan, path: Path) -> None:
    """Write the plan as YAML with each reason as a comment on its line; reading it gives the same plan."""
    path.write_text(plan_text(plan), encoding="utf-8")


def plan_text(plan: Plan) -> str:
    """The plan as commented YAML."""
    lines = ["# Every decision for this run. Edit a value and run again: it is honoured, and what depends on it is redone."]
    lines += _block(plan.model_dump(mode="json", exclude={"reasons"}), plan.reasons, parents=())
    reasons = yaml.safe_dump({"reasons": plan.reasons}, sort_keys=False, allow_unicode=True, width=1000)
    return "\n".join([*lines, "", reasons])


def _block(tree: dict[str, Any], reasons: dict[str, str], *, parents: tuple[str, ...]) -> list[str]:
    """Lines of a section and of the sections in it, each value with its reason."""
    lines: list[str] = []
    for name, value in tree.items():
        indent, path = "  " * len(parents), (*parents, name)
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:{_comment('.'.join(path), reasons)}", *_block(value, reasons, parents=path)]
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
            lines.append(f"{indent}{name}: {text}{_comment('.'.join(path), reasons)}")
    return lines


def _comment(dotted: str, reasons: dict[str, str]) -> str:
    return f"  # {' '.join(reasons[dotted].split())}" if dotted in reasons else ""
