"""Multiple instance learning: labels are of bags of images (the tiles of a slide), learnt from features that were computed once.

The backbone stays as it was pretrained; only the attention over its features learns (attention.py).
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from medcnn.errors import InputError
from medcnn.model.attention import BagNetwork, GatedAttention
from medcnn.model.batches import BatchSource
from medcnn.model.devices import choose_device, compute_settings, seed_generators
from medcnn.model.losses import check_classes, is_labelled, log_loss
from medcnn.model.scoring import Engine, check_finite, score_batches
from medcnn.model.signature import Signature
from medcnn.model.training import TrainingResult
from medcnn.tables import Task

EPOCHS, PATIENCE = 100, 20
BATCH_BAGS = 16
MOST_IMAGES = 1024  # of a bag in one epoch of training; each epoch draws others
AT_ONCE = 1 << 15  # images whose attention is computed at once when predicting; a bag is never cut
MOST_STANDARDISED = 100_000
LOOK_SIZE = 64
LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 1e-3, 1e-2, 0.25
N_INNER = 3


@dataclass(frozen=True)
class Bags:
    """Which rows of the features make up each bag. rows: int arrays, ascending; y: float (n_bags, n_labels), 0/1/NaN; patients: (n_bags,)."""

    rows: Sequence[np.ndarray]
    y: np.ndarray
    patients: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, chosen: np.ndarray) -> "Bags":
        """Some of the bags."""
        return Bags([self.rows[number] for number in chosen], self.y[chosen], self.patients[chosen])


def make_bags(rows: np.ndarray, bag: np.ndarray, y: np.ndarray, patients: np.ndarray) -> Bags:
    """The bags among these rows, in the order of their numbers.

    rows: int (n,). bag, patients: int (N,), y: float (N, n_labels), for every row there is. A bag has a label where any
    of its images has it, lacks it where all known ones do, and is unlabelled where none is known.
    """
    ordered = rows[np.lexsort((rows, bag[rows]))]
    starts = np.flatnonzero(np.diff(bag[ordered], prepend=-1))
    parts = np.split(ordered, starts[1:]) if len(ordered) else []
    known = [~np.isnan(y[part]) for part in parts]
    labels = [np.where(there.any(axis=0), (y[part] == 1).any(axis=0), np.nan) for part, there in zip(parts, known, strict=True)]
    return Bags(parts, np.array(labels).reshape(len(parts), y.shape[1]), patients[ordered[starts]])


def train_mil(
    model: BagNetwork,
    features: np.ndarray,
    train: Bags,
    val: Bags,
    *,
    signature: Signature,
    seed: int,
    device: str = "auto",
    n_threads: int = 0,
) -> TrainingResult:
    """Train the attention of `model`, in place; it ends in evaluation mode with the chosen weights.

    features: float32 (N, D), as write_features makes them with this model's backbone. With validation bags the epoch with
    their lowest log-loss is taken, and training stops PATIENCE epochs after it; without, inner folds of the training
    patients say how many epochs are best, and all bags are then trained for so many. On a CPU a function of the bags,
    the seed and the number of threads; torch's generators stay as they were. Raises InputError for a multilabel task,
    bags with two classes, or parts that cannot be learnt from.
    """
    wall, cpu, task = time.monotonic(), time.process_time(), signature.task
    if task == "multilabel":
        raise InputError("the rung mil learns one label or one class of each bag; for several findings leave mil out of ladder.rungs")
    learnt = train.part(np.flatnonzero(is_labelled(train.y, task)))
    tuned = val.part(np.flatnonzero(is_labelled(val.y, task)))
    check_bags(learnt, task)
    where = choose_device(device)
    with compute_settings(where, n_threads=n_threads), torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        model.attention.to(where)
        trainer = _Trainer(model.attention, features, signature, where, seed)
        history = trainer.fit(learnt, tuned) if len(tuned) else trainer.fit_for(learnt, trainer.count_epochs(learnt))
    model.to(where).eval()
    losses = [row.get("val_loss", np.nan) for row in history]
    return TrainingResult(
        state_dict={name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()},
        signature=signature,
        history=pd.DataFrame(history),
        chosen_epoch=int(np.argmin(losses)) + 1 if len(tuned) else len(history),
        seconds=time.monotonic() - wall,
        cpu_seconds=time.process_time() - cpu,
        loading_seconds=0.0,
        n_images=sum(len(rows) for rows in learnt.rows) * len(history),
        n_unlabelled=sum(len(rows) for rows in train.rows) - sum(len(rows) for rows in learnt.rows),
    )


def predict_bags(
    model: BagNetwork, features: np.ndarray, bags: Bags, *, signature: Signature, device: str = "auto", n_threads: int = 0
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Logits float32 and probabilities float64 of each bag, (n_bags, n_labels), and the weights of its images, which add up to 1.

    features: float32 (N, D). Raises RunError when a score is not finite.
    """
    where = choose_device(device)
    attention = model.attention.to(where).eval()
    logits, weights = [], list[np.ndarray]()
    with compute_settings(where, n_threads=n_threads), torch.inference_mode():
        for chunk in _chunks(bags):
            outputs, found = attention(*_inputs(features, chunk, where))
            logits.append(signature.logits(outputs).cpu().numpy())
            weights += np.split(found.cpu().numpy(), np.cumsum([len(rows) for rows in chunk])[:-1])
    together = np.concatenate(logits) if logits else np.empty((0, bags.y.shape[1]), np.float32)
    check_finite(together, np.arange(len(together)), "score")
    return together, signature.probabilities(together), weights


def look(
    model: BagNetwork,
    images: BatchSource,
    n: int,
    *,
    signature: Signature,
    device: str = "auto",
    precision: str = "float32",
    engine: Engine = "torch",
    n_threads: int = 0,
) -> np.ndarray:
    """What the backbone makes of n new images, float32 (n, D), not augmented: as write_features does for a cohort."""
    where = choose_device(device)
    model.trunk.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    asked = ((chunk, None) for chunk in np.array_split(np.arange(n), max(1, -(-n // LOOK_SIZE))))
    with compute_settings(where, n_threads=n_threads):
        batches = score_batches(model.trunk, images, asked, signature=signature, device=where, precision=precision, engine=engine)
        found: np.ndarray = torch.cat([batch.float().cpu() for batch in batches]).numpy()
    return found


def check_bags(bags: Bags, task: Task) -> None:
    """Raise InputError when a class has no training bag, or a bag has two classes. All bags are labelled."""
    n_mixed = int((bags.y.sum(axis=1) != 1).sum()) if task == "multiclass" else 0
    if n_mixed:
        raise InputError(
            f"{n_mixed} of {len(bags)} training bags have images of different classes, so they have no class of their own; "
            "name smaller bags (data.study_column, ladder.bag), or leave mil out of ladder.rungs"
        )
    check_classes(bags.y, task)


# ---------------------------------------------------------------- training


class _Trainer:
    """The attention's training on one device. Every number that is drawn follows from the seed and the epoch."""

    def __init__(self, attention: GatedAttention, features: np.ndarray, signature: Signature, device: torch.device, seed: int) -> None:
        self.attention, self.features, self.signature, self.device, self.seed = attention, features, signature, device, seed
        self.start = {name: tensor.clone() for name, tensor in attention.state_dict().items()}

    def fit(self, train: Bags, val: Bags) -> list[dict[str, float]]:
        """Train until PATIENCE epochs brought nothing; the attention ends with the best epoch's weights. Returns the history."""
        best, state, history = np.inf, self.start, list[dict[str, float]]()
        for row in self._epochs(train, EPOCHS):
            row["val_loss"] = self._loss(val)
            history.append(row)
            if row["val_loss"] < best:
                best, state = row["val_loss"], {name: tensor.clone() for name, tensor in self.attention.state_dict().items()}
            elif row["epoch"] - 1 - int(np.argmin([past["val_loss"] for past in history])) >= PATIENCE:
                break
        self.attention.load_state_dict(state)
        return history

    def fit_for(self, train: Bags, n_epochs: int) -> list[dict[str, float]]:
        """Train all bags for so many epochs. Returns the history."""
        return list(self._epochs(train, n_epochs))

    def count_epochs(self, train: Bags) -> int:
        """How many epochs give the lowest mean log-loss on patients of inner folds that were not trained on, side by side."""
        folds = []
        for inside, outside in self._inner_folds(train):
            twin = _Trainer(copy.deepcopy(self.attention), self.features, self.signature, self.device, self.seed)
            folds.append((twin, twin._epochs(train.part(inside), EPOCHS), train.part(outside)))
        curve: list[float] = []
        while len(curve) < EPOCHS and len(curve) - 1 - int(np.argmin(curve or [0])) < PATIENCE:
            for _, epochs, _ in folds:
                next(epochs)
            curve.append(float(np.mean([twin._loss(held) for twin, _, held in folds])))
        return int(np.argmin(curve)) + 1

    def _inner_folds(self, train: Bags) -> list[tuple[np.ndarray, np.ndarray]]:
        from sklearn.model_selection import StratifiedGroupKFold

        classes = train.y.argmax(axis=1) if train.y.shape[1] > 1 else train.y[:, 0].astype(int)
        fewest = min(len(np.unique(train.patients[classes == number])) for number in np.unique(classes))
        if fewest < 2:
            raise InputError(
                "the rung mil finds its number of epochs on inner folds of the training patients, but a class has bags of one of them only; "
                "set split.val_fraction, add patients, or leave mil out of ladder.rungs"
            )
        dealt = StratifiedGroupKFold(min(N_INNER, fewest), shuffle=True, random_state=self.seed % 2**32)
        return [
            (inside, outside)
            for inside, outside in dealt.split(train.y, classes, train.patients)
            if len(np.unique(classes[inside])) == len(np.unique(classes)) and len(outside)
        ]

    def _epochs(self, train: Bags, n_epochs: int) -> Iterator[dict[str, float]]:
        """Train from the start, and stop after each epoch to say how it went."""
        self.attention.load_state_dict(self.start)
        self._standardise(train)
        optimiser = torch.optim.AdamW(self.attention.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
        classes = train.y.argmax(axis=1) if train.y.shape[1] > 1 else train.y[:, 0].astype(np.int64)
        for epoch in range(1, n_epochs + 1):
            self.attention.train()
            rng = np.random.default_rng([self.seed, epoch])
            seed_generators(self.device, int(rng.integers(2**31)))  # dropout
            losses = []
            for chosen in np.array_split(rng.permutation(len(train)), max(1, len(train) // BATCH_BAGS)):
                drawn = [_some(train.rows[number], rng, MOST_IMAGES) for number in chosen]
                outputs, _ = self.attention(*_inputs(self.features, drawn, self.device))
                loss = nn.functional.cross_entropy(outputs, torch.from_numpy(classes[chosen]).to(self.device))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                losses.append((loss.detach(), len(chosen)))
            mean = sum(float(loss) * n for loss, n in losses) / len(train)
            yield {"epoch": epoch, "learning_rate": LEARNING_RATE, "train_loss": mean}

    def _standardise(self, train: Bags) -> None:
        """Each feature's mean and spread over the training images, or about MOST_STANDARDISED of them, as many of each bag."""
        rng = np.random.default_rng([self.seed, 0])
        most = max(1, min(MOST_IMAGES, MOST_STANDARDISED // len(train)))
        seen = self.features[np.sort(np.concatenate([_some(rows, rng, most) for rows in train.rows]))].astype(np.float64)
        spread = seen.std(axis=0)
        self.attention.mean.copy_(torch.from_numpy(seen.mean(axis=0)))
        self.attention.scale.copy_(torch.from_numpy(np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0.0)))

    def _loss(self, bags: Bags) -> float:
        self.attention.eval()
        with torch.inference_mode():
            logits = [
                self.signature.logits(self.attention(*_inputs(self.features, chunk, self.device))[0]).cpu().numpy()
                for chunk in _chunks(bags)
            ]
        return log_loss(np.concatenate(logits), bags.y, self.signature.task)


def _some(rows: np.ndarray, rng: np.random.Generator, most: int) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _inputs(features: np.ndarray, bags: Sequence[np.ndarray], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, int]:
    """What the attention takes: features (n, D), the bag of each row (n,), the number of bags."""
    sizes = [len(rows) for rows in bags]
    taken = torch.from_numpy(np.ascontiguousarray(features[np.concatenate(bags)], dtype=np.float32)).to(device)
    return taken, torch.from_numpy(np.repeat(np.arange(len(bags)), sizes)).to(device), len(bags)


def _chunks(bags: Bags) -> Iterator[list[np.ndarray]]:
    """The bags' rows, about AT_ONCE images at a time."""
    held: list[np.ndarray] = []
    for rows in bags.rows:
        if held and sum(map(len, held)) + len(rows) > AT_ONCE:
            yield held
            held = []
        held.append(rows)
    if held:
        yield held
