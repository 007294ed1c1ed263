"""What our training loop costs over a bare PyTorch loop: same model, batches, augmentation, optimiser; CPU seconds.

    python -m benchmarks.loop_overhead [--repeats 5] [--threads 1] [--out loop_overhead.csv]

Both loops train their own copy of the model on the same batches of made-up images, in one process, a step of the one
after a step of the other. Ours does what it does in a run: set-up, schedule, per-step seeds, a look at each loss, fsynced
checkpoints. Neither validates. The ratio is the median over the repeats of our CPU seconds / the bare loop's.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from medcnn.data.augment import AugmentedImages, build_augmentation
from medcnn.model.backbones import build_model, normalisation
from medcnn.model.batches import deal_epoch, n_batches
from medcnn.model.training import train
from medcnn.plan import AugmentPlan, ModelPlan, TrainingPlan


@dataclass(frozen=True)
class Case:
    """One training epoch to time."""

    name: str
    size_px: int
    channels: int
    batch_size: int
    n_images: int


CASES = (
    Case("simple_cnn", 28, 1, 128, 4736),
    Case("simple_cnn", 64, 3, 64, 640),
    Case("simple_cnn", 128, 3, 32, 160),
    Case("simple_cnn", 224, 3, 16, 64),
    Case("tf_efficientnet_lite0", 64, 3, 32, 640),
    Case("tf_efficientnet_lite0", 128, 3, 32, 256),
    Case("tf_efficientnet_lite0", 224, 3, 16, 64),
    Case("resnet18", 64, 3, 32, 384),
    Case("resnet18", 128, 3, 32, 128),
    Case("resnet18", 224, 3, 16, 64),
)


def bare_steps(model: nn.Module, case: Case, images: AugmentedImages, y: np.ndarray, plan: TrainingPlan) -> Iterator[None]:
    """What one would write without a library; pauses after each step."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in normalisation(_model_plan(case), case.channels))
    targets = torch.from_numpy(y[:, 0]).long()
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True)
    for epoch in range(plan.epochs):
        for deal in deal_epoch(np.arange(case.n_images), None, batch_size=case.batch_size, seed=0, epoch=epoch):
            pixels = torch.from_numpy(images.batch(deal.rows, epoch))
            inputs = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
            loss = functional.cross_entropy(model(inputs), targets[torch.from_numpy(deal.rows)])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm)
            optimiser.step()
            optimiser.zero_grad()
            yield


class InTurn:
    """The images of our loop, which with each batch lets the bare loop make its step first, and times it."""

    def __init__(self, images: AugmentedImages, steps: Iterator[None]) -> None:
        self.images, self.steps, self.seconds = images, steps, 0.0

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        started = time.process_time()
        next(self.steps)
        self.seconds += time.process_time() - started
        return self.images.batch(rows, epoch, shows)


def measure(case: Case, *, n_repeats: int, n_threads: int) -> dict[str, float | int | str]:
    """Time both loops step by step in turn, so that whatever else the machine does falls on both alike."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (case.n_images, case.size_px, case.size_px, case.channels), dtype=np.uint8)
    y = (np.arange(case.n_images) % 2)[:, None].astype(float)
    augmentation = build_augmentation(AugmentPlan(policy="chest_xray"), size_px=case.size_px, channels=case.channels)
    images = AugmentedImages(pixels, augmentation, 0)
    plan = TrainingPlan(
        epochs=2, batch_size=case.batch_size, learning_rate=1e-3, backbone_lr_factor=1.0, head_epochs=0, imbalance="none",
        precision="float32", device="cpu", n_workers=0, n_threads=n_threads, select="last",
    )  # fmt: skip
    bare, ours = [], []
    for repeat in range(n_repeats + 1):
        source = InTurn(images, bare_steps(_model(case), case, images, y, plan))
        model = _model(case)
        started = time.process_time()
        _train(model, source, y, case, plan)
        total = time.process_time() - started
        if repeat:  # the first pass warms up
            bare.append(source.seconds)
            ours.append(total - source.seconds)
    n_shown = plan.epochs * case.n_images
    ratios = [one / other for one, other in zip(ours, bare, strict=True)]
    return {
        "model": case.name, "size_px": case.size_px, "batch": case.batch_size, "steps": plan.epochs * n_batches(case.n_images, case.batch_size),
        "bare images/CPU s": round(n_shown / statistics.median(bare), 1),
        "our images/CPU s": round(n_shown / statistics.median(ours), 1),
        "ratio of CPU s": round(statistics.median(ratios), 3), "lowest": round(min(ratios), 3), "highest": round(max(ratios), 3),
    }  # fmt: skip


def _train(model: nn.Module, source: InTurn, y: np.ndarray, case: Case, plan: TrainingPlan) -> None:
    mean, std = normalisation(_model_plan(case), case.channels)
    with tempfile.TemporaryDirectory() as folder:
        train(
            model, source, y, rows_train=np.arange(case.n_images), rows_val=np.arange(0), task="binary", plan=plan,
            mean=mean, std=std, seed=0, checkpoint_dir=Path(folder),
        )  # fmt: skip


def _model(case: Case) -> nn.Module:
    return build_model(_model_plan(case), channels=case.channels, n_outputs=2, size_px=case.size_px)


def _model_plan(case: Case) -> ModelPlan:
    return ModelPlan(name=case.name, pretrained=False, dropout=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed passes of each loop")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--only", default="", help="cases whose name contains this, for instance simple_cnn")
    parser.add_argument("--out", type=Path, help="write the table as CSV too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for case in CASES:
        if arguments.only in case.name:
            rows.append(measure(case, n_repeats=arguments.repeats, n_threads=arguments.threads))
            print(f"{case.name} {case.size_px} px: ratio {rows[-1]['ratio of CPU s']}", file=sys.stderr, flush=True)
    print(pd.DataFrame(rows).to_string(index=False))
    if arguments.out:
        pd.DataFrame(rows).to_csv(arguments.out, index=False)


if __name__ == "__main__":
    main()
