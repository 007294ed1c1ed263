"""Rules on how a network is trained. Each takes the case and what was decided before it, and gives one value with one sentence.

The numbers are conventions; where one was measured, the sentence says so.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from medcnn.cohort import Fingerprint
from medcnn.config import TrainingConfig
from medcnn.errors import InputError
from medcnn.model.decisions import Decision, Decisions
from medcnn.model.machine import BATCH_NORM_IMAGES, Machine, Measured
from medcnn.model.rules_model import is_transformer
from medcnn.model.rules_split import Parts
from medcnn.plan import TrainingPlan

RARE = 0.1
FEW_IMAGES = 1500
TARGET_STEPS, TARGET_STEPS_SMALL_VGG, TARGET_STEPS_PRETRAINED = 2500, 1500, 1000
FEWEST_EPOCHS, MOST_EPOCHS = 8, 60
EPOCHS_WITH_HEAD_FIRST = 4
MOST_WORKERS = 8
WORTHWHILE_GAIN = 1.1  # of bfloat16 over float32
BUDGET_SHARE = 0.9  # of training.minutes: loading, checkpoints and the start of each training take the rest
VALIDATION_COST = 1 / 3  # of a training image: forward, no backward
FEW_CORES = 8  # for one GPU
COMPILING_SECONDS = 600.0  # a training on a GPU that is shorter does not win back the minutes of compiling
MANY_STEPS, SOME_STEPS, FEW_STEPS = 5000, 1000, 300


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network to be trained for one cohort on one machine. n_models: over all folds, repeats and seeds. n_views: in prediction."""

    found: Fingerprint
    machine: Machine
    name: str
    pretrained: bool
    lora_rank: int
    parts: Parts
    n_models: int
    measured: Measured | None = None
    n_views: int = 1

    def n_steps(self, decided: Mapping[str, Any]) -> int:
        """Updates of the weights in one training."""
        return int(decided["epochs"] * math.ceil(self.parts.n_train / decided["batch_size"]))


def decide_training(asked: TrainingConfig, case: Case, decisions: Decisions, part: str = "training") -> TrainingPlan:
    """Every `auto` of a training section. Raises InputError when a step cannot fit into memory, or a budget pays for no epoch."""
    decided = asked.model_dump()
    for name, rule in RULES.items():
        decided[name] = decisions.one(f"{part}.{name}", decided[name], lambda rule=rule: rule(case, decided))  # type: ignore[misc]
    return TrainingPlan.model_validate(decided)


# ---------------------------------------------------------------- the step


def _loss(case: Case, decided: Mapping[str, Any]) -> Decision:  # noqa: ARG001 - as every rule
    if case.found.task == "multilabel":
        return "cross_entropy", "each finding has its own yes or no, scored so that the probabilities can be taken at their word"
    return "cross_entropy", "a proper score: a model is best off when it states its true belief, so its probabilities can be calibrated"


def _batch_size(case: Case, decided: Mapping[str, Any]) -> Decision:  # noqa: ARG001
    if case.found.n_images < FEW_IMAGES:
        return 32, f"{case.found.n_images} images: small batches give enough steps"
    if case.machine.gpu_memory_gb >= 16:
        return 128, f"{case.machine.gpu_memory_gb:.0f} GB on the GPU"
    return 64, "a usual size that fits everywhere"


def _precision(case: Case, decided: Mapping[str, Any]) -> Decision:  # noqa: ARG001
    machine, speeds = case.machine, case.measured.images_per_second if case.measured else {}
    if machine.device not in {"cpu", "cuda"} or not machine.bfloat16:
        return "float32", f"this {machine.device} device has no fast way to compute in bfloat16"
    if "float32" not in speeds:
        return "float32", "exact and safe; how much faster bfloat16 would be was not measured"
    if "bfloat16" not in speeds:
        return "float32", f"the training is short ({speeds['float32']:.0f} images a second here), so exact numbers cost little"
    words = f"measured here: {speeds['bfloat16']:.0f} images a second in bfloat16, {speeds['float32']:.0f} in float32"
    if speeds["bfloat16"] > WORTHWHILE_GAIN * speeds["float32"]:
        return "bfloat16", f"{words}: faster by more than 10%"
    return "float32", f"{words}: not faster by more than 10%"


def _precision_and_bits(case: Case, decided: Mapping[str, Any]) -> Decision:
    """The precision, and what a GPU does to the last bits."""
    precision, words = _precision(case, decided)
    if case.machine.device != "cuda":
        return precision, words
    return precision, f"{words}; float32 products run in TF32 on this GPU, and two runs agree but for rounding"


def _accumulate(case: Case, decided: Mapping[str, Any]) -> Decision:
    batch, measured = decided["batch_size"], case.measured
    if measured is None or measured.image_gb is None or measured.n_fitting is None:
        return 1, "steps are taken whole; their memory was not looked at"
    fitting, how = measured.n_fitting, "estimated" if measured.estimated else "measured"
    needed = measured.fixed_gb + batch * measured.image_gb
    words = f"a step of {batch} images needs about {needed:.2g} GB ({how}), {measured.free_gb:.3g} GB are free"
    if batch <= fitting:
        return 1, f"{words}: it is computed whole"
    if fitting < BATCH_NORM_IMAGES:
        raise InputError(
            f"training: {words}, and not even {BATCH_NORM_IMAGES} images of this size fit; expected a step of {BATCH_NORM_IMAGES} to fit into "
            "80% of the free memory; set image.size_px lower, a smaller model.name, or free some memory"
        )
    pieces = math.ceil(batch / fitting)
    return pieces, f"{words}: it is computed in {pieces} pieces whose gradients are summed, so that the result is that of the whole step"


# ---------------------------------------------------------------- how long


def _epochs(case: Case, decided: Mapping[str, Any]) -> Decision:
    batch, n_train = decided["batch_size"], case.parts.n_train
    steps = TARGET_STEPS_PRETRAINED if case.pretrained else TARGET_STEPS_SMALL_VGG if case.name == "small_vgg" else TARGET_STEPS
    enough = max(FEWEST_EPOCHS, min(MOST_EPOCHS, round(steps * batch / n_train)))
    words = f"about {steps} steps of {batch} over {n_train} training images, between {FEWEST_EPOCHS} and {MOST_EPOCHS} epochs"
    if decided["minutes"] is None:
        return enough, words
    speeds = case.measured.images_per_second if case.measured else {}
    if not speeds:
        return enough, f"{words}; what {decided['minutes']:g} minutes pay for was not measured"
    return _affordable(case, decided["minutes"], speeds.get(decided["precision"], max(speeds.values())), enough)


def _affordable(case: Case, minutes: float, images_per_second: float, enough: int) -> Decision:
    """As many epochs as the budget pays for, never more than are enough."""
    per_epoch = case.n_models * (case.parts.n_train + VALIDATION_COST * case.parts.n_val) / images_per_second / 60
    paid = BUDGET_SHARE * minutes / per_epoch
    models = f"{case.n_models} models" if case.n_models > 1 else "the model"
    words = f"{images_per_second:.0f} images a second were measured here, so an epoch of {models} takes {per_epoch:.2g} minutes"
    if paid < 1:
        raise InputError(
            f"training.minutes is {minutes:g}, but {words}; expected a budget for one epoch at least; raise training.minutes to "
            f"{math.ceil(per_epoch / BUDGET_SHARE)} or more, or set fewer folds or seeds, a smaller image.size_px or model.name"
        )
    if paid >= enough:
        return enough, f"{words}; {minutes:g} minutes would pay for {paid:.0f} epochs, and {enough} are enough for this cohort"
    return int(paid), f"{words}; this is what {minutes:g} minutes pay for, where {enough} would be usual"


def _head_epochs(case: Case, decided: Mapping[str, Any]) -> Decision:
    if not case.pretrained:
        return 0, "nothing is pretrained, so all layers learn from the start"
    if decided["epochs"] < EPOCHS_WITH_HEAD_FIRST:
        return 0, f"{decided['epochs']} epochs are too few to spend one on the head alone"
    return 1, "the new last layer settles first, so that its first large errors do not damage the pretrained ones"


# ---------------------------------------------------------------- how fast


def _learning_rate(case: Case, decided: Mapping[str, Any]) -> Decision:  # noqa: ARG001
    if is_transformer(case.name):
        return 5e-4, "transformers take gentle steps"
    if not case.pretrained:
        return 2e-3, "usual for AdamW from random weights"
    return 2e-3, "for the new last layer; the pretrained ones learn at a fraction of it"


def _layer_decay(case: Case, decided: Mapping[str, Any]) -> Decision:
    if not case.pretrained or decided["freeze_backbone"]:
        return 1.0, "no pretrained layers are trained"
    if case.lora_rank:
        return 1.0, "only the adapters learn, and they are new in every layer"
    if is_transformer(case.name):
        return 0.75, "the lower a layer of a transformer, the more general what it has learnt: each keeps more than the one above it"
    return 1.0, "in a convolutional network one common fraction does as well"


def _backbone_lr_factor(case: Case, decided: Mapping[str, Any]) -> Decision:
    if not case.pretrained:
        return 1.0, "nothing is pretrained"
    if case.lora_rank:
        return 1.0, "the pretrained weights themselves are not changed"
    if decided["layer_decay"] < 1:
        return 1.0, "layer_decay already slows the pretrained layers down"
    return 0.3, "slow enough to keep most of what the pretrained weights know"


# ---------------------------------------------------------------- against learning by heart


def _label_smoothing(case: Case, decided: Mapping[str, Any]) -> Decision:
    if decided["loss"] != "cross_entropy":
        return 0.0, f"the {decided['loss']} loss has its own way of not becoming too sure"
    if decided["mixup"] or decided["cutmix"]:
        return 0.0, "blended images have blended labels already"
    if case.found.task == "multilabel":
        return 0.0, "with several findings it would lift the probability of the rare ones"
    if case.pretrained:
        return 0.0, "a pretrained network is trained too briefly to become too sure"
    return 0.05, "a network from random weights sees the same images many times and grows too sure of them; 5% of doubt keeps it moderate"


def _ema_decay(case: Case, decided: Mapping[str, Any]) -> Decision:
    n_steps = case.n_steps(decided)
    if n_steps < FEW_STEPS:
        return 0.0, f"{n_steps} steps are too few: an average would still hold weights from the start"
    if case.pretrained:
        decay = 0.998 if n_steps >= MANY_STEPS else 0.99
    else:
        decay = 0.999 if n_steps >= MANY_STEPS else 0.998 if n_steps >= SOME_STEPS else 0.99
    horizon = round(1 / (1 - decay))
    return decay, f"the final weights are an average over about the last {horizon} of {n_steps} steps, which is steadier than the last one"


def _imbalance(case: Case, decided: Mapping[str, Any]) -> Decision:
    rarest = min(min(value, 1 - value) for value in case.found.prevalence.values())
    if decided["loss"] in {"focal", "asymmetric"}:
        return "none", f"the {decided['loss']} loss itself lets the frequent and easy images count less"
    if case.found.task != "multilabel" and rarest < RARE:
        return (
            "loss_weights",
            f"the rarest class is {rarest:.1%} of the images and counts more in training; the shift is undone in the probabilities",
        )
    return "none", f"the rarest class is {rarest:.1%} of the images, enough to be learnt as it is"


def _norm_statistics(case: Case, decided: Mapping[str, Any]) -> Decision:
    if decided["freeze_backbone"]:
        return "running", "the frozen backbone keeps the statistics of its pretraining"
    if case.n_views > 1:
        return "running", (
            f"{case.n_views - 1} of the {case.n_views} views in prediction are augmented as in training; with plain statistics and 4 views AUROC fell "
            "from .958 to .944 on chest X-rays in three classes"
        )
    return "plain", (
        "training sees augmented images only, prediction plain ones; measured on patients held out: log-loss .48 to .41 on histology at 64 px, "
        ".10 to .08 on chest X-rays at 28 px, .40 to .40 in three classes"
    )


def _select(case: Case, decided: Mapping[str, Any]) -> Decision:
    if decided["patience"]:
        return "best", f"training stops after {decided['patience']} epochs without progress, so the best epoch lies before the last"
    if not case.parts.n_val:
        return "last", "no validation part chooses among epochs; the learning rate ends at zero, so the last epoch is the settled one"
    if case.parts.n_trainings > 1:
        return "last", (
            "the learning rate ends at zero, so the last epoch is the settled one; choosing an epoch on the patients that fit the calibration "
            "would make both look better than they are"
        )
    if case.pretrained:
        return "best", "a pretrained network can begin to learn a small cohort by heart, which the validation patients show"
    return "last", (
        "the learning rate ends at zero, so the last epoch is the settled one; on chest X-rays of 28 px an epoch chosen by validation was worse"
    )


def _augment_on(case: Case, decided: Mapping[str, Any]) -> Decision:  # noqa: ARG001
    machine = case.machine
    if machine.device == "cpu":
        return "host", "the network runs on the CPU too, where OpenCV is the faster way"
    cores = f"{machine.cores_per_gpu} cores for each GPU" if machine.n_processes > 1 else f"{machine.n_cores} cores for the GPU"
    if machine.device == "cuda" and machine.cores_per_gpu < FEW_CORES:
        return "device", f"{cores} are likely too few to augment as fast as it trains, so it augments whole batches itself"
    if machine.device == "cuda":
        return "host", f"{cores} can augment while it trains, by the same OpenCV as on a CPU"
    return "host", f"the cores augment; doing it on this {machine.device} device was never tried"


def _compile(case: Case, decided: Mapping[str, Any]) -> Decision:
    machine, speeds = case.machine, case.measured.images_per_second if case.measured else {}
    if machine.device != "cuda":
        return False, "seen not to pay on a CPU" if machine.device == "cpu" else f"not tried on a {machine.device} device"
    if not machine.compiles:
        return False, "triton or a C compiler, which torch.compile needs on a GPU, is not installed"
    if not speeds:
        n_steps = case.n_steps(decided)
        return n_steps >= MANY_STEPS, f"{n_steps} steps, where {MANY_STEPS} or more are taken to win back the minutes that compiling takes"
    seconds = decided["epochs"] * case.parts.n_train / speeds.get(decided["precision"], max(speeds.values()))
    words = f"a training takes about {seconds / 60:.2g} minutes here without it"
    return seconds >= COMPILING_SECONDS, f"{words}; compiling takes a minute or two, which {COMPILING_SECONDS / 60:.0f} or more win back"


def _n_workers(case: Case, decided: Mapping[str, Any]) -> Decision:
    if case.machine.device == "cpu":
        return 0, "the network itself keeps the cores busy"
    if decided["augment_on"] == "device":
        return 0, "a thread reads plain images one batch ahead, and the GPU augments them"
    n_cores = case.machine.n_cores
    return min(MOST_WORKERS, max(1, n_cores - 1)), f"{n_cores} cores augment while the GPU trains"


TrainingRule = Callable[[Case, Mapping[str, Any]], Decision]
RULES: Mapping[str, TrainingRule] = {  # in this order: later rules read what earlier ones decided
    "loss": _loss,
    "batch_size": _batch_size,
    "accumulate": _accumulate,
    "precision": _precision_and_bits,
    "epochs": _epochs,
    "head_epochs": _head_epochs,
    "learning_rate": _learning_rate,
    "layer_decay": _layer_decay,
    "backbone_lr_factor": _backbone_lr_factor,
    "label_smoothing": _label_smoothing,
    "ema_decay": _ema_decay,
    "imbalance": _imbalance,
    "select": _select,
    "norm_statistics": _norm_statistics,
    "augment_on": _augment_on,
    "n_workers": _n_workers,
    "compile": _compile,
}
