"""What one training of benchmarks/peers.py is told, and what it notes."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
MODEL, WEIGHTS = "tf_efficientnet_lite0", "weights.safetensors"
SPLIT, PARTS = "split.csv", ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train. work: folder with split.csv, PART.csv and the weights; scratch: an empty folder; out: where the result goes."""

    system: str
    learning_rate: float
    seed: int
    epochs: int
    work: str
    scratch: str
    out: str
    config: str
    image_root: str
    size_px: int
    batch_size: int


@dataclass
class Clock:
    """CPU seconds of this process and of the children it has waited for, noted at the end of each epoch."""

    n_epochs: int
    before: float = 0.0
    seconds: list[float] = field(default_factory=list)
    auroc: list[float] = field(default_factory=list)

    def start(self) -> None:
        """All that comes before the first batch is done: imports, data, model."""
        self.before = cpu_seconds()

    def end_epoch(self) -> None:
        """Training and validation of an epoch are done."""
        self.seconds.append(cpu_seconds())

    def progress(self, items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
        """medcnn's progress: its loop asks for the next batch when the epoch before is validated."""
        if title != "training" or total is None:
            yield from items
            return
        n_steps = total // self.n_epochs
        try:
            for number, item in enumerate(items):
                if number == 0:
                    self.start()
                elif number % n_steps == 0:
                    self.end_epoch()
                yield item
        finally:
            self.end_epoch()


def cpu_seconds() -> float:
    """User and system CPU seconds since the process began, with those of its ended children."""
    return sum(os.times()[:4])


def auroc(y: Any, p: Any) -> float:
    """AUROC, by the same function for all."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, p))
