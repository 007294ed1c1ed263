"""What each option of the training recipe does, with everything else as the plan has it, over seeds.

    python -m benchmarks.ablations --data ../shared/data --out reports/ablations --minutes 25
    python -m benchmarks.ablations --data ../shared/data --out reports/ablations --table > table.md

A row is one training: task, option, seed. Rows already in OUT/rows.jsonl are not done again, so a run that was cut goes on;
those of most interest get their first two seeds first, and a third one last. --minutes is CPU time, over all starts. The hold-out of a task
is read once by each trained model and chooses nothing; where a part chooses an epoch or a soup, it is cut from the pool.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ablations_table import as_table, macro_auroc
from benchmarks.ablations_tasks import Bench, describe, make_benches
from medcnn.data.augment import AugmentedImages, build_augmentation
from medcnn.model.backbones import build_model, normalisation
from medcnn.model.losses import log_loss
from medcnn.model.plain_norm import take_plain_statistics
from medcnn.model.predict import predict
from medcnn.model.signature import Signature, count_outputs
from medcnn.model.soup import greedy_soup
from medcnn.model.training import train
from medcnn.plan import AugmentPlan, ModelPlan

N_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Option:
    """One departure from the default of a task. against: what it is compared with."""

    task: str
    name: str
    training: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    policy: str | None = None
    with_val: bool = False
    against: str = "default"
    n_seeds: int = N_SEEDS
    rank: int = 1  # 0 is measured first
    views: int = 0  # test-time augmentation of the models of `against`; 0: it is trained
    refresh: bool = False  # batch norm's statistics taken anew from the training images as they are, not augmented
    mixture: str = ""  # ensemble or soup of the models of `against`


Change = tuple[str, dict[str, Any]]
HISTOLOGY: list[Change] = [
    ("freeze_backbone", {"freeze_backbone": True}),
    ("backbone_lr_factor 1.0", {"backbone_lr_factor": 1.0}),
    ("head_epochs 0", {"head_epochs": 0}),
    ("learning_rate x 3", {"learning_rate": 6e-3}),
    ("learning_rate x 0.3", {"learning_rate": 6e-4}),
    ("imbalance loss_weights", {"imbalance": "loss_weights"}),
    ("backbone_lr_factor 0.1", {"backbone_lr_factor": 0.1}),
    ("layer_decay 0.75 (factor 1)", {"layer_decay": 0.75, "backbone_lr_factor": 1.0}),
    ("ema_decay 0.99", {"ema_decay": 0.99}),
    ("imbalance logit_adjusted", {"imbalance": "logit_adjusted"}),
    ("mixup 0.2", {"mixup": 0.2}),
    ("label_smoothing 0.1", {"label_smoothing": 0.1}),
    ("cutmix 1.0", {"cutmix": 1.0}),
    ("loss focal", {"loss": "focal"}),
    ("imbalance class_balanced", {"imbalance": "class_balanced"}),
    ("imbalance oversample", {"imbalance": "oversample"}),
    ("accumulate 2", {"accumulate": 2}),
]
XRAYS: list[Change] = [
    ("label_smoothing 0", {"label_smoothing": 0.0}),
    ("label_smoothing 0.1", {"label_smoothing": 0.1}),
    ("ema_decay 0.99", {"ema_decay": 0.99}),
    ("learning_rate x 0.3", {"learning_rate": 6e-4}),
    ("learning_rate x 3", {"learning_rate": 6e-3}),
    ("weight_decay 0", {"weight_decay": 0.0}),
    ("weight_decay 0.1", {"weight_decay": 0.1}),
    ("mixup 0.2", {"mixup": 0.2, "label_smoothing": 0.0}),
    ("cutmix 1.0", {"cutmix": 1.0, "label_smoothing": 0.0}),
    ("loss focal", {"loss": "focal", "label_smoothing": 0.0}),
]
LATER = {  # with two seeds
    "accumulate 2", "weight_decay 0", "weight_decay 0.1", "label_smoothing 0.1", "cutmix 1.0", "loss focal", "imbalance class_balanced",
    "imbalance oversample",
}  # fmt: skip


def make_options() -> list[Option]:
    """Everything that is measured."""
    found = [Option(task=task, name="default", against="", rank=0) for task in ("histology", "pneumonia", "findings")]
    found += [
        Option(task="findings", name="loss asymmetric", training={"loss": "asymmetric"}),
        Option(task="histology", name="4 views", views=4),
        Option(task="histology", name="8 views", views=8),
        Option(task="pneumonia", name="4 views", views=4),
        *(Option(task=task, name="statistics of plain images", refresh=True) for task in ("histology", "pneumonia")),
        Option(task="histology", name="statistics of plain images, 4 views", refresh=True, views=4),
        *(Option(task=task, name="no augmentation", policy="none", rank=rank) for task, rank in (("histology", 1), ("pneumonia", 2))),
        Option(task="grades", name="default", against="", rank=2),
        Option(task="grades", name="loss ordinal (CORN)", training={"loss": "ordinal"}, rank=2),
    ]
    on_histology, on_xrays = ([_of(task, *one) for one in some] for task, some in (("histology", HISTOLOGY), ("pneumonia", XRAYS)))
    found += [option for pair in zip_longest(on_histology, on_xrays) for option in pair if option]  # in turn, as a run may be cut
    found.append(Option(task="histology", name="drop_path 0.1", model={"drop_path": 0.1}, n_seeds=2, rank=2))
    best, last = {"select": "best"}, "val part, last epoch"
    for task in ("histology", "pneumonia"):
        found.append(Option(task=task, name=last, with_val=True))
        found.append(Option(task=task, name="val part, best epoch", training=best, with_val=True, against=last, rank=2))
    patient = best | {"patience": 1}
    found.append(Option(task="pneumonia", name="val part, patience 1", training=patient, with_val=True, against=last, n_seeds=2, rank=2))
    for task in ("histology", "pneumonia"):
        found.append(Option(task=task, name="ensemble of 3", mixture="ensemble", n_seeds=1))
        found.append(Option(task=task, name="soup of 3", mixture="soup", against=last, n_seeds=1))
    return found


def _of(task: str, name: str, training: dict[str, Any]) -> Option:
    later = name in LATER
    return Option(task=task, name=name, training=training, n_seeds=2 if later else N_SEEDS, rank=2 if later else 1)


# ---------------------------------------------------------------- one row


class Store:
    """Rows, probabilities and weights of what was done so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    @property
    def path(self) -> Path:
        """One JSON object a line."""
        return self.folder / "rows.jsonl"

    def has(self, task: str, option: str, seed: int) -> bool:
        """Whether this row is there."""
        return any((row["task"], row["option"], row["seed"]) == (task, option, seed) for row in self.rows)

    def place(self, task: str, option: str, seed: int, ending: str) -> Path:
        """File that belongs to a row."""
        name = "".join(letter if letter.isalnum() else "_" for letter in f"{task}_{option}_{seed}")
        return self.folder / f"{name}.{ending}"

    def add(self, bench: Bench, option: Option, seed: int, probabilities: np.ndarray, row: dict[str, Any]) -> None:
        """Keep a row and its probabilities."""
        np.save(self.place(option.task, option.name, seed, "npy"), probabilities)
        numbers = {"auroc": macro_auroc(bench, probabilities), "log_loss": float(np.nanmean(bench.losses(probabilities)))}
        whole = {"task": option.task, "option": option.name, "against": option.against, "seed": seed, **numbers, **row}
        self.rows.append(whole)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(whole) + "\n")
        print(json.dumps(whole), flush=True)


def train_row(bench: Bench, option: Option, seed: int, store: Store) -> None:
    """Train one model and let it read the hold-out."""
    training = bench.training.model_copy(update=option.training)
    model_plan = bench.model.model_copy(update=option.model)
    augment = AugmentPlan(policy=option.policy) if option.policy else bench.augment
    model = _built(bench, model_plan, training.loss, seed)
    mean, std = normalisation(model_plan, bench.image.channels)
    rows_train, rows_val = bench.parts(with_val=option.with_val)
    augmentation = build_augmentation(augment, size_px=bench.image.size_px, channels=bench.image.channels)
    result = train(
        model, AugmentedImages(bench.images, augmentation, seed), bench.y, rows_train=rows_train, rows_val=rows_val, task=bench.task,
        plan=training, mean=mean, std=std, seed=seed,
    )  # fmt: skip
    probabilities = _asked(bench, model, result.signature, views=1)
    if option.name in {"default", "val part, last epoch"}:
        torch.save(result.state_dict, store.place(option.task, option.name, seed, "pt"))
    row = {"cpu_seconds": round(result.cpu_seconds, 1), "train_loss": result.history["train_loss"].iloc[-1], "epoch": result.chosen_epoch}
    store.add(bench, option, seed, probabilities, row | {"epochs_trained": len(result.history)})


def asking_row(bench: Bench, option: Option, seed: int, store: Store) -> None:
    """Ask a trained model in another way: for several views of each image, or with batch norm's statistics taken anew."""
    started = time.process_time()
    model, signature = _kept(bench, option.against, seed, store)
    if option.refresh:
        take_plain_statistics(
            model, AugmentedImages(bench.images, None, 0), bench.pool, signature=signature, device=torch.device("cpu"), precision="float32",
            batch_size=bench.training.batch_size,
        )  # fmt: skip
    probabilities = _asked(bench, model, signature, views=max(1, option.views))
    store.add(bench, option, seed, probabilities, {"cpu_seconds": round(time.process_time() - started, 1)})


def mixture_row(bench: Bench, option: Option, store: Store) -> None:
    """Mean probabilities, or mean weights, of the models of `against`."""
    started = time.process_time()
    models = [_kept(bench, option.against, seed, store) for seed in range(N_SEEDS)]
    model, signature = models[0]
    row: dict[str, Any] = {}
    if option.mixture == "soup":
        source, rows = AugmentedImages(bench.images, None, 0), bench.parts(with_val=True)[1]

        def score(state: Any) -> float:
            model.load_state_dict(state)
            logits, _ = predict(model, source, rows, card=signature, device="cpu", n_threads=1)
            return log_loss(logits, bench.y[rows], bench.task)

        soup = greedy_soup([{name: tensor.clone() for name, tensor in one.state_dict().items()} for one, _ in models], score)
        model.load_state_dict(soup.state_dict)
        probabilities, row = _asked(bench, model, signature, views=1), {"members": list(soup.members)}
    else:
        single = [np.load(store.place(option.task, option.against, seed, "npy")) for seed in range(N_SEEDS)]
        probabilities = np.mean(single, axis=0)
    store.add(bench, option, 0, probabilities, {"cpu_seconds": round(time.process_time() - started, 1), **row})


def _built(bench: Bench, plan: ModelPlan, loss: Any, seed: int) -> torch.nn.Module:
    n_outputs = count_outputs(bench.task, bench.y.shape[1], loss)
    return build_model(plan, channels=bench.image.channels, n_outputs=n_outputs, size_px=bench.image.size_px, seed=seed)


def _kept(bench: Bench, option: str, seed: int, store: Store) -> tuple[torch.nn.Module, Signature]:
    mean, std = normalisation(bench.model, bench.image.channels)
    model = _built(bench, bench.model, "cross_entropy", seed)
    model.load_state_dict(torch.load(store.place(bench.name, option, seed, "pt"), weights_only=True))
    return model, Signature(task=bench.task, mean=mean, std=std)


def _asked(bench: Bench, model: torch.nn.Module, signature: Signature, *, views: int) -> np.ndarray:
    augmentation = build_augmentation(bench.augment, size_px=bench.image.size_px, channels=bench.image.channels) if views > 1 else None
    source = AugmentedImages(bench.images, augmentation, 0)
    return predict(model, source, bench.test, card=signature, device="cpu", views=views, n_threads=1)[1]


# ---------------------------------------------------------------- all rows


def run_all(benches: dict[str, Bench], store: Store, minutes: float) -> None:
    """Every row that is not there yet, by rank; what is made of three models comes last."""
    started, before = time.process_time(), sum(row["cpu_seconds"] for row in store.rows)
    options = make_options()
    singles = [option for option in options if not option.mixture]
    todo = [(option, seed) for option in singles for seed in range(option.n_seeds)]
    todo.sort(key=lambda one: one[0].rank + (2 if one[1] == N_SEEDS - 1 else 0))
    for option, seed in [*todo, *((option, 0) for option in options if option.mixture)]:
        if store.has(option.task, option.name, seed) or before + time.process_time() - started > 60 * minutes:
            continue
        bench = benches[option.task]
        if option.mixture:
            if all(store.has(option.task, option.against, number) for number in range(N_SEEDS)):
                mixture_row(bench, option, store)
        elif option.views or option.refresh:
            asking_row(bench, option, seed, store)
        else:
            train_row(bench, option, seed, store)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--configs", type=Path, default=Path("configs"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25, help="CPU minutes of all starts together")
    parser.add_argument("--table", action="store_true", help="print the table of the rows that are there, and train nothing")
    asked = parser.parse_args()
    benches = make_benches(asked.data, asked.configs, asked.out)
    store = Store(asked.out)
    if not asked.table:
        run_all(benches, store, asked.minutes)
    print("\n".join(f"- {describe(bench)}" for bench in benches.values()))
    print(as_table(benches, store.rows, lambda row: np.load(store.place(row["task"], row["option"], row["seed"], "npy"))))


if __name__ == "__main__":
    main()
