"""A trained model on disk: `weights.safetensors`, the card that says what it is, `model.json`, and what it cost, `cost.json`."""

import json
import platform
from pathlib import Path

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import nn

import medcnn
from medcnn.artifact import COST_FILE, write_file
from medcnn.config_file import explain_problems
from medcnn.errors import InputError
from medcnn.model.attention import AttentionShape, BagNetwork
from medcnn.model.backbones import build_model
from medcnn.model.catalogue import count_multiply_adds, count_parameters
from medcnn.model.devices import choose_device
from medcnn.model.signature import Signature, count_outputs
from medcnn.model.training import TrainingResult
from medcnn.model.weights import read_state_dict, weights_source
from medcnn.plan import ImagePlan, ModelPlan, Plan

CARD, WEIGHTS = "model.json", "weights.safetensors"


class ModelCard(Signature):
    """What a trained model is, what it takes and what its outputs mean.

    name, dropout: the network. labels: one per label; the outputs are softmax classes in this order, or for a binary
    task its negative and positive class. image: the one preprocessing its inputs need. initial_weights: what training
    started from. n_multiply_adds: for one image. stain_target: the colours that image.stain brings an image to, named by
    medcnn/data/stain.py; blank: none. attention: of the rung mil, what the network ends in. epochs: trained; chosen_epoch: whose weights these are (both from 1).
    """

    name: str
    dropout: float
    labels: tuple[str, ...]
    image: ImagePlan
    stain_target: tuple[float, ...] = ()
    attention: AttentionShape | None = None
    initial_weights: str
    n_parameters: int
    n_multiply_adds: int
    seed: int
    fold: int
    epochs: int
    chosen_epoch: int
    versions: dict[str, str]

    @property
    def n_outputs(self) -> int:
        """Width of the last layer."""
        return count_outputs(self.task, len(self.labels), self.loss)

    @property
    def channels(self) -> int:
        """1: grey, 3: colour."""
        return self.image.channels


def make_card(
    plan: Plan, result: TrainingResult, model: nn.Module, *, fold: int, seed: int, stain_target: tuple[float, ...] = ()
) -> ModelCard:
    """The card of a model that was trained by `plan`."""
    return ModelCard(
        **result.signature.model_dump(),
        name=plan.model.name,
        dropout=plan.model.dropout,
        labels=plan.labels,
        image=plan.image,
        stain_target=stain_target,
        attention=model.attention.shape if isinstance(model, BagNetwork) else None,
        initial_weights=describe_start(plan.model),
        n_parameters=count_parameters(model),
        n_multiply_adds=count_multiply_adds(model, channels=plan.image.channels, size_px=plan.image.size_px),
        seed=seed,
        fold=fold,
        epochs=len(result.history),
        chosen_epoch=result.chosen_epoch,
        versions=versions(),
    )


def describe_start(plan: ModelPlan) -> str:
    """What training starts from, in words: `random`, `file NAME`, or where the pretrained weights came from."""
    if not plan.pretrained:
        return "random"
    return f"file {plan.weights.name}" if plan.weights else weights_source(plan.name)


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    import timm

    return {"medcnn": medcnn.__version__, "torch": torch.__version__, "timm": timm.__version__, "python": platform.python_version()}


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write weights and card into the folder; each file is whole or absent, the card last."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_file(folder / WEIGHTS, safetensors.torch.save(state))
    write_file(folder / CARD, (card.model_dump_json(indent=1) + "\n").encode())


def save_cost(folder: Path, result: TrainingResult, *, device: str, watt_hours: float | None = None) -> None:
    """Write what the training cost, apart from the card: equal trainings give equal cards, but never take equally long.

    training_seconds, cpu_seconds: of the whole training; gpu_seconds: those of the wall seconds that a GPU was held.
    images_per_second: training images per second of wall time. loading_share: of the wall time, what was spent waiting for
    images. watt_hours: of this process since its last start, where they were measured.
    """
    seconds = max(result.seconds, 1e-9)
    cost = {
        "training_seconds": round(result.seconds, 3),
        "cpu_seconds": round(result.cpu_seconds, 3),
        "gpu_seconds": round(result.seconds, 3) if choose_device(device).type == "cuda" else 0.0,
        "images_per_second": round(result.n_images / seconds, 3),
        "loading_share": round(result.loading_seconds / seconds, 4),
        **({} if watt_hours is None else {"watt_hours": round(watt_hours, 4)}),
    }
    write_file(folder / COST_FILE, (json.dumps(cost, indent=1) + "\n").encode())


def is_saved(folder: Path) -> bool:
    """True when a model stands there whole: the card is written last."""
    return (folder / CARD).is_file()


def load_model(folder: Path) -> tuple[nn.Module, ModelCard]:
    """Read a trained model, on the CPU and in evaluation mode. Raises InputError when a file is missing or does not fit."""
    card = read_card(folder)
    plan = ModelPlan(name=card.name, pretrained=False, dropout=card.dropout, drop_path=0.0)
    model = build_model(plan, channels=card.channels, n_outputs=card.n_outputs, size_px=card.image.size_px)
    if card.attention is not None:
        model = BagNetwork.around(model, card.n_outputs, card.attention)
    state = read_state_dict(folder / WEIGHTS)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder / WEIGHTS}: does not fit the {card.name} of {CARD}: {reason}; were the two files mixed up?") from error
    return model.eval(), card


def read_card(folder: Path) -> ModelCard:
    """Read `model.json`; raises InputError."""
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the folder of a finished training")
    try:
        return ModelCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not valid JSON: {error}") from error
    except ValidationError as error:
        raise InputError(f"{explain_problems(error, ModelCard, source=str(path))}") from None
