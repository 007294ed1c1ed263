"""Train one model: arrays and a plan in, the chosen weights, their history and what they cost out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from medcnn.errors import InputError
from medcnn.model.batches import BatchSource
from medcnn.model.checkpoint import Interruptions
from medcnn.model.devices import compute_settings
from medcnn.model.distributed import Team
from medcnn.model.journey import TrainingData
from medcnn.model.loop import TrainingLoop
from medcnn.model.losses import check_classes, is_labelled
from medcnn.model.recipe import check_recipe
from medcnn.model.shared_norm import batch_norms
from medcnn.model.signature import Signature
from medcnn.plan import TrainingPlan
from medcnn.progress import Progress, silent
from medcnn.tables import Task


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What training gives.

    state_dict: the chosen weights, on the CPU. signature: how to read the outputs, prior correction included.
    history: one row per epoch: epoch (from 1), learning_rate (highest of the groups, at the epoch's end), train_loss,
    and with validation rows val_loss, val_auroc. seconds, cpu_seconds: of the whole training, validation included, over
    all processes that worked on it; loading_seconds: of the wall seconds, those spent waiting for images.
    n_images: shown in training. n_unlabelled: training rows that were left out because they have no label.
    """

    state_dict: dict[str, torch.Tensor]
    signature: Signature
    history: pd.DataFrame
    chosen_epoch: int
    seconds: float
    cpu_seconds: float
    loading_seconds: float
    n_images: int
    n_unlabelled: int

    @property
    def images_per_second(self) -> float:
        """Training images per second of wall time."""
        return self.n_images / self.seconds

    @property
    def images_per_cpu_second(self) -> float:
        """Training images per second of CPU time."""
        return self.n_images / self.cpu_seconds


def train(  # noqa: PLR0913 - the room's front door
    model: nn.Module,
    images: BatchSource,
    y: np.ndarray,
    *,
    rows_train: np.ndarray,
    rows_val: np.ndarray,
    task: Task,
    plan: TrainingPlan,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int,
    checkpoint_dir: Path | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Train `model` in place; it ends with the chosen weights, in evaluation mode, on the device.

    images: uint8 (B, H, W, C) by row. y: float (N, n_labels), 0/1/NaN, one row per image of the source. rows_train,
    rows_val: int, which rows are learnt from and which choose the epoch. plan.select `best` takes the epoch with the
    lowest validation log-loss of the prior-corrected probabilities (of the moving average, if there is one).

    On a CPU the result is bit-identical for the same inputs, seed and number of threads, also when the process was
    killed and train is called again with a fresh model and the same checkpoint_dir. torch's generators stay as they were.
    Raises InputError for parts that cannot be learnt from, a device that is not there, a checkpoint of another training;
    RunError when the loss is not finite or the disk is full; KeyboardInterrupt (Ctrl-C, SIGTERM) after a checkpoint.

    Within distributed.together all processes train this one model: each step's images, plan.batch_size in all, are dealt
    among them. Without batch norm and dropout, or with plan.sync_batch_norm instead of the former, the losses are those
    of one process but for rounding; every process returns the same result. The first one writes the checkpoint, which
    another number of processes may continue, but not to the same bits.
    """
    check_recipe(plan, task)
    team = Team.of_this_process()
    device = team.device(plan.device)
    learnt = rows_train[is_labelled(y[rows_train], task)]
    _check_parts(y, learnt, rows_val, task, plan)
    signature = Signature(task=task, mean=mean, std=std, loss=plan.loss, focal_gamma=plan.focal_gamma)
    data = TrainingData(images=images, y=y, rows_train=learnt, rows_val=rows_val, signature=signature)
    interruptions = Interruptions(deaf=team.rank > 0)
    own_randomness = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with compute_settings(device, n_threads=plan.n_threads), own_randomness, interruptions.listening():
        loop = TrainingLoop(model, data, plan, seed=seed, device=device, interruptions=interruptions, team=team)
        _check_shares(model, plan, team, loop.n_drawn // loop.n_steps)
        if checkpoint_dir is not None:
            loop.resume(checkpoint_dir)
        try:
            loop.run(progress if team.rank == 0 else silent)
        except KeyboardInterrupt:
            loop.save()
            raise
        chosen, journey = loop.finish(), loop.journey
    return TrainingResult(
        state_dict=chosen,
        signature=loop.signature,
        history=pd.DataFrame(journey.history).astype({"epoch": int}),
        chosen_epoch=journey.best_epoch if plan.select == "best" else journey.epoch,
        seconds=journey.seconds,
        cpu_seconds=journey.cpu_seconds,
        loading_seconds=journey.loading_seconds,
        n_images=journey.n_images,
        n_unlabelled=len(rows_train) - len(learnt),
    )


def _check_parts(y: np.ndarray, rows_train: np.ndarray, rows_val: np.ndarray, task: Task, plan: TrainingPlan) -> None:
    shared = np.intersect1d(rows_train, rows_val)
    if len(shared):
        raise InputError(f"{len(shared)} images stand in the train and in the val part, first row {shared[0]}")
    if not len(rows_train):
        raise InputError("the train part has no labelled image")
    check_classes(y[rows_train], task)
    if not is_labelled(y[rows_val], task).any() and (plan.select == "best" or plan.patience or len(rows_val)):
        raise InputError(
            "the val part has no labelled image, so no epoch can be chosen by it; give it some, or leave it empty with "
            "training.select=last and training.patience=0"
        )


def _check_pieces(model: nn.Module, plan: TrainingPlan, smallest_step: int) -> None:
    if plan.batch_size == 1 and batch_norms(model):
        raise InputError("training.batch_size is 1, but this network has batch norm, which needs at least 2 images per step")

    if plan.accumulate > plan.batch_size:
        raise InputError(f"training.accumulate is {plan.accumulate}, but a step has only training.batch_size={plan.batch_size} images")
    if plan.accumulate > 1 and batch_norms(model) and smallest_step < 2 * plan.accumulate:
        raise InputError(
            f"training.accumulate={plan.accumulate} cuts steps of {smallest_step} images into pieces of a single image, but this network has "
            "batch norm, which needs at least 2 at once; accumulate less"
        )


def _check_shares(model: nn.Module, plan: TrainingPlan, team: Team, smallest_step: int) -> None:
    """Every process needs images in every piece of every step."""
    _check_pieces(model, plan, smallest_step)
    each = 2 if batch_norms(model) and not plan.sync_batch_norm else 1
    if team.size > 1 and smallest_step // team.size < each * plan.accumulate:
        pieces = f" in {plan.accumulate} pieces each" if plan.accumulate > 1 else ""
        raise InputError(
            f"the smallest step has {smallest_step} images, too few for {team.size} processes{pieces}"
            f"{', which need 2 images each for batch norm' if each == 2 else ''}; raise training.batch_size, or lower --nproc-per-node"
        )
