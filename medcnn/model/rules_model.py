"""Rules on the network, on the rungs beside it, and on how trained models are asked."""

from collections.abc import Sequence

from medcnn.cohort import Fingerprint
from medcnn.config import Rung
from medcnn.model.decisions import Decision
from medcnn.model.machine import OFFLINE_BACKBONE, Machine
from medcnn.model.rules_image import TINY_PX, short_side

OWN_NETWORKS = {"simple_cnn", "small_vgg", "fully_connected"}
TRANSFORMERS = (
    "vit", "deit", "swin", "eva", "beit", "cait", "xcit", "mvit", "maxvit", "davit", "hiera", "flexivit", "samvit", "pit_", "tiny_vit",
)  # fmt: skip
BIG = ("base", "large", "huge", "giant", "gigantic", "so400m")
GPU_BACKBONE = "resnet50"
TRAINED: tuple[Rung, ...] = ("frozen", "mil", "simple_cnn", "main")
FEWEST_TO_WEIGH = 50


def is_transformer(name: str) -> bool:
    """True for networks made of attention blocks, by timm's names."""
    return name.startswith(TRANSFORMERS)


# ---------------------------------------------------------------- the network


def backbone(found: Fingerprint, machine: Machine) -> Decision:
    """By the images' size and the machine."""
    short = short_side(found)
    if short <= TINY_PX:
        return "small_vgg", (
            f"images of {short} px carry little that a larger network could use; three blocks of two convolutions, from random weights, "
            "were measured ahead of a plainer CNN on chest X-rays of 28 px"
        )
    if machine.device != "cpu":
        return GPU_BACKBONE, f"a GPU ({machine.device}) and images of {short} px: the standard of transfer learning"
    if machine.wheel_weights:
        return OFFLINE_BACKBONE, "no GPU: a small pretrained network whose weights are installed here"
    return "simple_cnn", "no GPU and no installed pretrained weights (extra weights): a small network from random weights"


def pretrained(name: str) -> Decision:
    """Wherever there are weights."""
    if name in OWN_NETWORKS:
        return False, f"{name} has no pretrained weights"
    return True, "a network that has learnt to see on other pictures needs fewer patients"


def dropout(name: str) -> Decision:
    """As designed, or as usual."""
    return (0.3, "as the network was designed") if name in OWN_NETWORKS else (0.2, "usual for fine-tuned backbones")


def drop_path(name: str) -> Decision:
    """For transformers large enough to overfit."""
    if is_transformer(name) and any(word in name for word in BIG):
        return 0.1, "a large transformer: leaving out up to a tenth of its blocks at random keeps it from learning the images by heart"
    return 0.0, "the network is small enough to train with all its blocks"


# ---------------------------------------------------------------- the ladder


def rungs(name: str, *, pretrained: bool, n_seeds: int) -> Decision:
    """What a reader needs to see what each step buys."""
    chosen: list[Rung] = ["prevalence", "shortcuts"]
    words = ["knowing nothing but the share of cases", "shortcuts that see no disease"]
    if pretrained:
        chosen.append("frozen")
        words.append("pretrained features as they are")
    if name != "simple_cnn":
        chosen.append("simple_cnn")
        words.append("a small network from random weights")
    chosen.append("main")
    words.append("the main model")
    n_trained = sum(rung in TRAINED for rung in chosen)
    if n_seeds > 1 or n_trained > 1:
        chosen.append("ensemble")
        words.append("the weighted mean of all trained models")
    return tuple(chosen), f"each step stands beside the next one on the same patients: {', '.join(words)}"


def headline(decided: Sequence[Rung]) -> Decision:
    """The last rung."""
    return decided[-1], "the last rung; named here, before the test part is opened, so that the best-looking rung is not picked afterwards"


def ensemble_weights(decided: Sequence[Rung], n_to_fit: int) -> Decision:
    """Fitted where there are several rungs to weigh and patients to weigh them by."""
    n_trained = sum(rung in TRAINED for rung in decided)
    if "ensemble" not in decided or n_trained < 2:
        return "equal", "there are not several trained rungs to weigh"
    if n_to_fit < FEWEST_TO_WEIGH:
        return "equal", f"about {n_to_fit} images could fit weights, fewer than {FEWEST_TO_WEIGH}: too few to tell the rungs apart"
    return "fitted", (
        "a weak rung pulls a plain mean down (log-loss .415 against .344 of the best rung alone, measured on chest X-rays; .342 weighted), "
        "and where rungs are alike, weights fitted on few patients lose little"
    )


# ---------------------------------------------------------------- prediction


def engine(name: str, machine: Machine) -> Decision:
    """OpenVINO where it can be used and helps."""
    if name in OWN_NETWORKS:
        return "torch", f"{name} is small enough that nothing is gained by another engine"
    if machine.device != "cpu":
        return "torch", f"the {machine.device} device computes"
    if not machine.openvino:
        return "torch", "OpenVINO is not installed (extra openvino)"
    return "openvino", "a pretrained backbone on a CPU, where OpenVINO is installed and usually the faster engine"
