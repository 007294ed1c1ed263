"""AutoTimm as its documentation shows it: `ImageClassifier` and `AutoTrainer`; AdamW on all layers, cosine schedule."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from autotimm import AutoTrainer, BackboneConfig, ImageClassifier, ImageDataModule, TransformConfig
from pytorch_lightning import Callback
from torchvision import transforms

from benchmarks.peers_job import MODEL, PARTS, WEIGHTS, Clock, Job, auroc


class Classifier(ImageClassifier):  # type: ignore[misc]
    """Keeps what it says outside training: its own metrics see classes only, no probabilities."""

    said: list[torch.Tensor]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = super().forward(x)
        if not self.training:
            self.said.append(logits.detach())
        return logits

    def auroc(self, part: Path) -> float:
        """AUROC of what was said since the list was last emptied, for the images of a CSV in its order."""
        labels = pd.read_csv(part)["label"]
        return auroc(labels == sorted(labels.unique())[1], torch.cat(self.said).softmax(dim=1)[:, 1].numpy())


class EpochEnd(Callback):  # type: ignore[misc]
    """Tells the clock."""

    def __init__(self, clock: Clock, val: Path) -> None:
        self.clock, self.val = clock, val

    def on_train_start(self, *_: Any) -> None:
        self.clock.start()

    def on_validation_epoch_start(self, _: Any, model: Classifier) -> None:
        model.said = []

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_end(self, trainer: Any, model: Classifier) -> None:
        if not trainer.sanity_checking:
            self.clock.auroc.append(model.auroc(self.val))

    def on_train_epoch_end(self, *_: Any) -> None:
        self.clock.end_epoch()


def train(job: Job, clock: Clock) -> float:
    """Its best checkpoint by validation loss; returns the test AUROC.

    The system's name says how: `mild`: augmentation about as strong as the others' instead of its default crops of 8% to
    100% of the area; `channels_last`. torch.compile, its default, is off: it compiles for minutes of CPU time.
    """
    work = Path(job.work)
    looks = (
        mild_transforms(job.size_px)
        if "mild" in job.system
        else {"transform_config": TransformConfig(image_size=job.size_px), "backbone": MODEL}
    )
    data = ImageDataModule(
        **{f"{part}_csv": str(work / f"{part}.csv") for part in PARTS}, image_dir=job.image_root, image_size=job.size_px,
        batch_size=job.batch_size, num_workers=0, pin_memory=False, **looks,
    )  # fmt: skip
    backbone = BackboneConfig(MODEL, extra_kwargs={"pretrained_cfg_overlay": {"file": str(work / WEIGHTS)}})
    model = Classifier(backbone, num_classes=2, lr=job.learning_rate, seed=job.seed, deterministic=False, compile_model=False)
    if "channels_last" in job.system:
        model.to(memory_format=torch.channels_last)
    trainer = AutoTrainer(
        max_epochs=job.epochs, accelerator="cpu", devices=1, tuner_config=False, callbacks=[EpochEnd(clock, work / "val.csv")],
        seed=job.seed, default_root_dir=job.scratch, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    # Its own trainer.test(ckpt_path="best") refuses its own file: torch >= 2.6 unpickles no transforms, which it saves with the settings.
    kept = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=False)
    model.load_state_dict(kept["state_dict"])
    trainer.test(model, datamodule=data, ckpt_path=None, verbose=False)
    return model.auroc(work / "test.csv")


def mild_transforms(size_px: int) -> dict[str, Any]:
    """torchvision transforms about as strong as the others' policies, with the backbone's own normalisation."""
    end = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    change = [
        transforms.RandomResizedCrop(size_px, scale=(0.75, 1.0), ratio=(0.95, 1.05)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1),
    ]
    return {
        "train_transforms": transforms.Compose([*change, *end]),
        "eval_transforms": transforms.Compose([transforms.Resize((size_px, size_px)), *end]),
    }
