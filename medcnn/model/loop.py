"""The training loop: steps, validation at the end of each epoch, checkpoints between steps, exact continuation.

Everything random is a function of (seed, epoch) or (seed, step, process, piece): the order of the images, their
augmentation, dropout. So a checkpoint needs no generator's state, and a training that was killed ends with the same bits as one that
was not. Under torchrun each process takes its share of every step, and all of them hold the same weights.
"""

import contextlib
import math
import os
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from medcnn.errors import Diverged
from medcnn.model.adapters import merge_adapters
from medcnn.model.batches import Batch, Deal, deal_epoch, n_batches, n_drawn, stream, worker_deaths_named
from medcnn.model.checkpoint import Interruptions, read_checkpoint, write_checkpoint
from medcnn.model.compilation import Forward, compiled
from medcnn.model.device_augment import augmented
from medcnn.model.devices import autocast, depthwise_in_float32, seed_generators
from medcnn.model.distributed import Team
from medcnn.model.imbalance import balance
from medcnn.model.journey import Journey, TrainingData, training_key
from medcnn.model.losses import log_loss, make_objective
from medcnn.model.mixing import mix
from medcnn.model.optimisation import MovingAverage, Schedule, make_optimiser, set_learning_rates, set_training_mode
from medcnn.model.plain_norm import take_plain_statistics
from medcnn.model.predict import predict
from medcnn.model.shared_norm import moving_statistics, shared_batch_norm
from medcnn.plan import TrainingPlan
from medcnn.progress import Progress

STEPS_BETWEEN_LOOKS = 25  # at the losses: each look waits for the GPU
SAVING_SHARE = 0.02  # of the time, at most, goes into checkpoints at the ends of short epochs
DISK_BYTES_PER_SECOND = 2e8  # assumed until the first checkpoint was timed


class TrainingLoop:
    """One training and its verbs: `resume`, `run`, `save`, `finish`. What may change is all in a checkpoint."""

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        plan: TrainingPlan,
        *,
        seed: int,
        device: torch.device,
        interruptions: Interruptions,
        team: Team,
    ) -> None:
        self.key = training_key(model, data, plan, seed)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.plan, self.seed, self.device, self.interruptions, self.team = data, plan, seed, device, interruptions, team
        balanced = balance(data.y[data.rows_train], data.signature.task, plan.imbalance)
        self.signature = data.signature.model_copy(update={"prior_correction": balanced.prior_correction})
        self.classes, self.objective = balanced.classes, make_objective(plan, data.signature.task, balanced, device)
        self.targets = torch.from_numpy(data.y.astype(np.float32))
        self.n_drawn = n_drawn(data.rows_train, balanced.classes)
        self.n_steps = n_batches(self.n_drawn, plan.batch_size)
        self.schedule = Schedule(
            n_steps=plan.epochs * self.n_steps, n_head_steps=plan.head_epochs * self.n_steps, warmup_fraction=plan.warmup_fraction
        )
        self.optimiser = make_optimiser(model, plan)
        self.learning = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        self.average = MovingAverage(self.model, plan.ema_decay) if plan.ema_decay else None
        self.journey = Journey()
        self.forward: Forward = self.model
        self.best: dict[str, torch.Tensor] = {}
        self.unseen: list[torch.Tensor] = []  # losses that were not looked at yet
        self.statistics: list[torch.Tensor] = []  # of the batch norms that learn in this epoch
        self.folder: Path | None = None
        self.clock = _clock()
        n_bytes = 3 * sum(parameter.nbytes for parameter in model.parameters())  # weights and AdamW's two moments
        self.saved, self.saving_seconds = time.monotonic(), n_bytes / DISK_BYTES_PER_SECOND

    # ------------------------------------------------------------ the loop

    def run(self, progress: Progress) -> None:
        """Train from where the training is to its end."""
        if self.journey.step == self.n_steps:  # it was stopped during validation
            self._end_epoch()
        if self._is_over():
            return
        self._set_mode()
        remaining = (self.plan.epochs - self.journey.epoch) * self.n_steps - self.journey.step
        n_workers = -(-self.plan.n_workers // self.team.size)
        batches = stream(self.data.images, self._deals(), n_workers=n_workers, device=self.device, augment_on=self.plan.augment_on)
        depthwise = depthwise_in_float32(self.model, self.device, self.plan.precision)
        norms = shared_batch_norm(self.model, shared=self.plan.sync_batch_norm and self.team.size > 1)
        compiling = compiled(self.model, self.device, wanted=self.plan.compile)
        with worker_deaths_named(), contextlib.closing(batches), depthwise, norms, compiling as self.forward:
            for batch in progress(self._timed(batches), "training", remaining):
                with self.interruptions.held():
                    self._step(batch)
                if self.journey.step == self.n_steps:
                    self._end_epoch()
                    if self._is_over():
                        break
                    self._set_mode()
                elif self._save_is_due():
                    with self.interruptions.held():
                        self.save()

    def _deals(self) -> Iterator[Deal]:
        """Every batch from here to the last epoch: this process's share of it."""
        first, n_done = self.journey.epoch, self.journey.step
        for epoch in range(first, self.plan.epochs):
            deals = deal_epoch(self.data.rows_train, self.classes, batch_size=self.plan.batch_size, seed=self.seed, epoch=epoch)
            yield from (self.team.share(deal, neighbours=self.mixes) for deal in deals[n_done if epoch == first else 0 :])

    @property
    def mixes(self) -> bool:
        """Whether images are blended with their neighbours."""
        return bool(self.plan.mixup or self.plan.cutmix)

    def _timed(self, batches: Generator[Batch]) -> Iterator[Batch]:
        started = time.perf_counter()
        for batch in batches:
            self.journey.loading_seconds += time.perf_counter() - started
            yield batch
            started = time.perf_counter()

    def _step(self, batch: Batch) -> None:
        """One update of the weights."""
        step = self.journey.epoch * self.n_steps + self.journey.step
        seed_generators(self.device, _step_seed(self.seed, step, self.team.rank))
        set_learning_rates(self.optimiser, self.plan.learning_rate, self.schedule, step)
        inputs = self.signature.inputs(augmented(batch.pixels.to(self.device, non_blocking=True), batch.draws), self.device)
        y = self.targets[batch.rows].to(self.device, non_blocking=True)
        if self.mixes:  # the same draw in all processes, of which each has its first image's neighbour too
            rng, shared = np.random.default_rng(_step_seed(self.seed, step, 0)), self.team.size > 1
            inputs, y = mix(inputs, y, mixup=self.plan.mixup, cutmix=self.plan.cutmix, rng=rng)
            inputs, y = (inputs[1:], y[1:]) if shared else (inputs, y)
        loss = self._descend(inputs, y, step)
        n_images = self.n_drawn // self.n_steps + (self.journey.step < self.n_drawn % self.n_steps)  # of all processes
        loss = self._add_up(loss, len(y) / n_images)
        norm = nn.utils.clip_grad_norm_(self.learning, self.plan.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.average:
            self.average.update(step)
        self.unseen.append(torch.where(norm.isfinite(), loss, math.nan))
        self.journey.step += 1
        self.journey.n_images += n_images
        if len(self.unseen) == STEPS_BETWEEN_LOOKS:
            self._look_at_losses()

    def _descend(self, inputs: torch.Tensor, y: torch.Tensor, step: int) -> torch.Tensor:
        """Leave the gradient of the step's mean loss at the weights, computed in `accumulate` pieces; returns that loss."""
        n_terms = self.team.add_up(self.objective.n_terms(y).float()).clamp(min=1)
        n_pieces = min(self.plan.accumulate, len(y))
        losses = []
        for piece, (some, of_some) in enumerate(zip(inputs.tensor_split(n_pieces), y.tensor_split(n_pieces), strict=True)):
            if n_pieces > 1:
                seed_generators(self.device, _step_seed(self.seed, step, self.team.rank, piece))
            with autocast(self.device, self.plan.precision):
                outputs = self.forward(some)
            loss = self.objective.total(outputs, of_some) / n_terms
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return losses[0] if n_pieces == 1 else torch.stack(losses).sum()

    def _add_up(self, loss: torch.Tensor, share: float) -> torch.Tensor:
        """Sum gradients and loss over the processes, average the batch norms' statistics by their shares; returns the loss."""
        if self.team.size > 1:
            gradients = [parameter.grad for parameter in self.learning if parameter.grad is not None]
            torch._foreach_mul_(self.statistics, share) if self.statistics else None
            self.team.add_up_all([*gradients, *self.statistics, loss])
        return loss

    def _look_at_losses(self) -> None:
        """Move new losses to the epoch's list; raises Diverged at the first that, or whose gradient, is not finite."""
        for loss in torch.stack(self.unseen).tolist() if self.unseen else ():
            self.journey.losses.append(loss)
            if not math.isfinite(loss):
                raise Diverged(
                    f"the training loss or its gradient is not finite in epoch {self.journey.epoch + 1}, step {len(self.journey.losses)} of "
                    f"{self.n_steps}; try a lower training.learning_rate (now {self.plan.learning_rate:g}), a longer "
                    "training.warmup_fraction, or training.precision=float32"
                )
        self.unseen.clear()

    def _set_mode(self) -> None:
        """As the coming epoch needs it, after validation left the model in evaluation mode."""
        learns = not self.plan.freeze_backbone and self.journey.epoch >= self.plan.head_epochs
        set_training_mode(self.model, backbone_learns=learns)
        self.statistics = moving_statistics(self.model)

    # ------------------------------------------------------------ the end of an epoch

    def _end_epoch(self) -> None:
        """Validate, note the epoch in the history, keep the weights if they are the best, write a checkpoint if it costs little."""
        with self.interruptions.held():
            self._look_at_losses()
            self._count_time()
        row = {"epoch": self.journey.epoch + 1, "learning_rate": max(group["lr"] for group in self.optimiser.param_groups)}
        row |= {"train_loss": float(np.mean(self.journey.losses)), **self._validate()}
        with self.interruptions.held():
            self._compare(row)
            self.journey.history.append(row)
            self.journey.epoch, self.journey.step, self.journey.losses = self.journey.epoch + 1, 0, []
            if self._save_is_due() or self._save_is_cheap():
                self.save()

    def _validate(self) -> dict[str, float]:
        rows = self.data.rows_val
        if not len(rows):
            return {}
        y, mine = self.data.y[rows], self.team.rows(rows)
        logits = np.zeros(y.shape, np.float32)
        if len(rows[mine]):
            logits[mine], _ = predict(
                self.candidate, self.data.images, rows[mine], card=self.signature, device=str(self.device),
                precision=self.plan.precision, batch_size=2 * self.plan.batch_size,
            )  # fmt: skip
        if self.team.size > 1:
            logits = self.team.add_up(torch.from_numpy(logits).to(self.device)).cpu().numpy()
        return {"val_loss": log_loss(logits, y, self.signature.task), "val_auroc": _macro_auroc(self.signature.probabilities(logits), y)}

    @property
    def candidate(self) -> nn.Module:
        """The model that is validated and may be chosen: the moving average, if there is one."""
        return self.average.model if self.average else self.model

    def _compare(self, row: Mapping[str, float]) -> None:
        loss = row.get("val_loss", -float(row["epoch"]))  # without validation the last epoch is the best
        if loss >= self.journey.best_loss:
            return
        self.journey.best_loss, self.journey.best_epoch = loss, int(row["epoch"])
        if self.plan.select == "best":
            self.best = _on_cpu(self.candidate)

    def _is_over(self) -> bool:
        waited = self.journey.epoch - self.journey.best_epoch
        return self.journey.epoch >= self.plan.epochs or 0 < self.plan.patience <= waited

    def finish(self) -> dict[str, torch.Tensor]:
        """Load the chosen weights into the model, which ends in evaluation mode and without adapters; returns them, on the CPU."""
        self._count_time()
        chosen = self.best if self.plan.select == "best" else _on_cpu(self.candidate)
        self.model.load_state_dict(chosen)
        self.model.eval().requires_grad_(True)
        if self.plan.norm_statistics == "plain" and not self.plan.freeze_backbone:
            with depthwise_in_float32(self.model, self.device, self.plan.precision):
                take_plain_statistics(
                    self.model, self.data.images, self.data.rows_train, signature=self.signature, device=self.device,
                    precision=self.plan.precision, batch_size=self.plan.batch_size,
                )  # fmt: skip
        merge_adapters(self.model)
        return _on_cpu(self.model)

    # ------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Write a checkpoint of the last whole step, if there is a folder for it."""
        if self.folder is None:
            return
        self._look_at_losses()
        if self.team.size == 1:  # else the processes count together, at the end of an epoch
            self._count_time()
        state = {
            "key": self.key,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.model.state_dict() if self.average else {},
            "best": self.best,
            "journey": vars(self.journey),
        }
        started = time.monotonic()
        write_checkpoint(self.folder, state)
        self.saved = time.monotonic()
        self.saving_seconds = self.saved - started

    def _save_is_due(self) -> bool:
        return time.monotonic() - self.saved > 60 * self.plan.checkpoint_minutes

    def _save_is_cheap(self) -> bool:
        return self.saving_seconds <= SAVING_SHARE * (time.monotonic() - self.saved)

    def resume(self, folder: Path) -> None:
        """Keep checkpoints in `folder`, which the first process writes, and continue from the one that is there."""
        self.folder = folder if self.team.rank == 0 else None
        state = read_checkpoint(folder, self.key)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.best, self.journey = state["best"], Journey(**state["journey"])

    def _count_time(self) -> None:
        """To be called by all processes of the team, whose CPU seconds are added up."""
        now = _clock()
        self.journey.seconds += now[0] - self.clock[0]
        self.journey.cpu_seconds += self.team.add_up(torch.tensor(now[1] - self.clock[1], device=self.device)).item()
        self.clock = now


def _step_seed(seed: int, step: int, rank: int, piece: int = 0) -> int:
    return int(np.random.SeedSequence([seed, step, rank, piece]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _clock() -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process and of the workers it has ended."""
    return time.monotonic(), sum(os.times()[:4])


def _on_cpu(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _macro_auroc(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Mean AUROC over the labels that have both classes among the known rows, NaN when none has. For the history only."""
    from sklearn.metrics import roc_auc_score

    areas = []
    for scores, column in zip(probabilities.T, y.T, strict=True):
        known = ~np.isnan(column)
        if len(np.unique(column[known])) == 2:
            areas.append(roc_auc_score(column[known], scores[known]))
    return float(np.mean(areas)) if areas else math.nan
