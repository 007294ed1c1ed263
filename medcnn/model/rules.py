"""The rules that decide every `auto` of a config: facts in, one value and one sentence out. A config value beats a rule.

Rules know facts only (fingerprint, config, machine, measurements); what is measured, and how, stands in measure.py.
"""

from collections.abc import Mapping
from dataclasses import replace

from medcnn.cohort import Fingerprint
from medcnn.config import Config, Rung
from medcnn.model import rules_bags, rules_image, rules_model, rules_split
from medcnn.model.decisions import GIVEN, Decisions
from medcnn.model.machine import Machine, Measured, inspect_machine
from medcnn.model.recipe import check_recipe
from medcnn.model.rules_checks import check_asked, check_ladder, check_split, check_training
from medcnn.model.rules_split import Parts, expected_parts
from medcnn.model.rules_training import Case, decide_training
from medcnn.plan import AugmentPlan, BaselinePlan, EvaluationPlan, ImagePlan, LadderPlan, ModelPlan, Plan, PredictionPlan, SplitPlan

__all__ = ["GIVEN", "Machine", "Measured", "inspect_machine", "machine_for", "make_plan"]

# Values of the config that are meant for the main model and would be wrong for the small network beside it.
MAIN_ONLY = ("epochs", "learning_rate", "backbone_lr_factor", "layer_decay", "head_epochs", "label_smoothing", "ema_decay")


def make_plan(found: Fingerprint, config: Config, machine: Machine, measured: Mapping[Rung, Measured] | None = None) -> Plan:
    """Decide every `auto` of the config for one cohort on one machine; each decision has its reason.

    measured: rung -> what its network was seen to cost (measure.py); a rung that is not there was not measured.
    Raises InputError for a combination of settings that cannot be.
    """
    measured = measured or {}
    machine = machine_for(config, machine)
    check_asked(found, config)
    decisions = Decisions()
    split = _split(found, config, decisions)
    parts = expected_parts(found, split)
    model = _model(found, config, machine, decisions)
    ladder = _ladder(found, config, model, parts, decisions)
    evaluation = _evaluation(found, config, model, ladder, decisions)
    case = Case(
        found=found, machine=machine, name=model.name, pretrained=model.pretrained, lora_rank=model.lora_rank, parts=parts,
        n_models=parts.n_trainings * ladder.n_seeds, measured=measured.get("main"), n_views=config.prediction.n_views,
    )  # fmt: skip
    image = _image(found, config, machine, model, decisions)
    augment = decisions.section("augment", config.augment.model_dump(), {"policy": lambda: rules_image.policy(config.modality)})
    training = decide_training(config.training, case, decisions)
    check_training(config, parts, model, training)
    check_recipe(training, found.task)
    engine = {"engine": lambda: rules_model.engine(model.name, machine)}
    return Plan(
        task=found.task,
        labels=found.labels,
        seed=config.seed,
        split=split,
        image=image,
        augment=AugmentPlan.model_validate(augment),
        model=model,
        training=training,
        simple_cnn=_baseline(config, ladder, replace(case, measured=measured.get("simple_cnn")), decisions),
        ladder=ladder,
        prediction=PredictionPlan.model_validate(decisions.section("prediction", config.prediction.model_dump(), engine)),
        evaluation=evaluation,
        reasons=decisions.reasons,
    )


def machine_for(config: Config, machine: Machine) -> Machine:
    """The machine with the device that the config asks for."""
    device = config.training.device.partition(":")[0]
    if device in {"auto", machine.device}:
        return machine
    if device == "cpu":
        return replace(machine, device="cpu", gpu_memory_gb=0.0, bfloat16=machine.cpu_bfloat16)
    return replace(machine, device=device)


# ---------------------------------------------------------------- sections


def _split(found: Fingerprint, config: Config, decisions: Decisions) -> SplitPlan:
    scheme = decisions.one("split.scheme", config.split.scheme, lambda: rules_split.scheme(found, config.split))
    asked = config.split.model_dump()
    share = decisions.one("split.val_fraction", asked["val_fraction"], lambda: rules_split.val_fraction(found, scheme))
    split = SplitPlan.model_construct(**{**asked, "scheme": scheme, "val_fraction": share})
    check_split(split)  # before pydantic says the same less plainly
    return SplitPlan.model_validate(split.model_dump())


def _model(found: Fingerprint, config: Config, machine: Machine, decisions: Decisions) -> ModelPlan:
    asked = config.model.model_dump()
    name = decisions.one("model.name", asked["name"], lambda: rules_model.backbone(found, machine))
    rules = {
        "pretrained": lambda: rules_model.pretrained(name),
        "dropout": lambda: rules_model.dropout(name),
        "drop_path": lambda: rules_model.drop_path(name),
    }
    return ModelPlan.model_validate(decisions.section("model", {**asked, "name": name}, rules))


def _image(found: Fingerprint, config: Config, machine: Machine, model: ModelPlan, decisions: Decisions) -> ImagePlan:
    rules = {
        "size_px": lambda: rules_image.size_px(found, machine, model.name, model.pretrained),
        "channels": lambda: rules_image.channels(found, model.pretrained),
        "fit": lambda: rules_image.fit(found),
        "stain": lambda: rules_image.stain(config.modality),
    }
    image = ImagePlan.model_validate(decisions.section("image", config.image.model_dump(), rules))
    rules_image.check_stain(image)
    return image


def _ladder(found: Fingerprint, config: Config, model: ModelPlan, parts: Parts, decisions: Decisions) -> LadderPlan:
    asked = config.ladder.model_dump()
    of_slides = rules_bags.slide_rungs(found) if model.pretrained else None
    rungs = decisions.one(
        "ladder.rungs",
        asked["rungs"],
        lambda: of_slides or rules_model.rungs(model.name, pretrained=model.pretrained, n_seeds=config.ladder.n_seeds),
    )
    bag = decisions.one("ladder.bag", asked["bag"], lambda: rules_bags.bag(found))
    headline = asked["headline"]
    if rungs:
        headline = decisions.one("ladder.headline", headline, lambda: rules_model.headline(rungs))
    weights = decisions.one("ladder.weights", asked["weights"], lambda: rules_model.ensemble_weights(rungs, parts.n_to_fit))
    check_ladder(
        tuple(rungs), headline, pretrained=model.pretrained, n_seeds=config.ladder.n_seeds, has_val=parts.n_val > 0,
        can_weigh=weights == "equal" or parts.n_to_fit > 0,
    )  # fmt: skip
    return LadderPlan.model_validate({**asked, "rungs": rungs, "headline": headline, "bag": bag, "weights": weights})


def _evaluation(found: Fingerprint, config: Config, model: ModelPlan, ladder: LadderPlan, decisions: Decisions) -> EvaluationPlan:
    levels = decisions.one("evaluation.levels", config.evaluation.levels, lambda: rules_bags.levels(found, ladder.rungs, ladder.bag))
    rules_bags.check_bags(found, config, ladder.rungs, ladder.bag, model.pretrained, levels)
    return EvaluationPlan(levels=levels)


def _baseline(config: Config, ladder: LadderPlan, case: Case, decisions: Decisions) -> BaselinePlan | None:
    """The small network beside the main one, trained by the same rules; None unless it is a rung."""
    if "simple_cnn" not in ladder.rungs:
        return None
    decisions.reasons["simple_cnn"] = "what the main model must beat: a small network from random weights, trained by the same rules"
    asked = config.training.model_copy(update={**dict.fromkeys(MAIN_ONLY, "auto"), "freeze_backbone": False})
    case = replace(case, name="simple_cnn", pretrained=False, lora_rank=0)
    training = decide_training(asked, case, decisions, "simple_cnn.training")
    dropout = decisions.one("simple_cnn.model.dropout", "auto", lambda: rules_model.dropout("simple_cnn"))
    model = ModelPlan(name="simple_cnn", pretrained=False, dropout=dropout, drop_path=0.0)
    return BaselinePlan(model=model, training=training)
