"""fastai as its documentation shows it: `vision_learner` with `fine_tune`, or unfrozen with `fit_one_cycle`."""

from pathlib import Path

import pandas as pd
from fastai.callback.tracker import SaveModelCallback
from fastai.metrics import RocAucBinary
from fastai.vision.all import Callback, ImageDataLoaders, Resize, aug_transforms, set_seed, vision_learner

from benchmarks.peers_job import MODEL, SPLIT, WEIGHTS, Clock, Job, auroc


class EpochEnd(Callback):  # type: ignore[misc]
    """Tells the clock."""

    order = 90  # after the recorder and the saving of the best

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def before_fit(self) -> None:
        if not self.clock.seconds:  # fine_tune fits twice
            self.clock.start()

    def after_epoch(self) -> None:
        if hasattr(self.learn, "gather_preds"):  # the test part is being predicted
            return
        self.clock.end_epoch()
        self.clock.auroc.append(float(self.learn.recorder.values[-1][-1]))


def train(job: Job, clock: Clock) -> float:
    """One-cycle schedule, its own augmentation (with upright flips), the epoch with the lowest validation loss; returns the test AUROC.

    `fine_tune`: one epoch of the head, then all layers, the first ones at a hundredth of the rate. The system's name says
    what else: `all layers`: unfrozen from the first step, at one rate; `channels_last`.
    """
    set_seed(job.seed)
    table = pd.read_csv(Path(job.work) / SPLIT)
    table["is_valid"] = table["part"] == "val"
    loaders = ImageDataLoaders.from_df(
        table[table["part"] != "test"], path=job.image_root, fn_col="image", label_col="label", valid_col="is_valid",
        item_tfms=Resize(job.size_px), batch_tfms=aug_transforms(flip_vert=True), bs=job.batch_size, num_workers=0,
    )  # fmt: skip
    learner = vision_learner(
        loaders, MODEL, metrics=RocAucBinary(), path=job.scratch, cbs=[EpochEnd(clock), SaveModelCallback(monitor="valid_loss")],
        pretrained_cfg_overlay={"file": str(Path(job.work) / WEIGHTS)},
    )  # fmt: skip
    if "channels_last" in job.system:
        learner.to_channelslast(use_amp=False)
    with learner.no_bar(), learner.no_logging():
        if "all layers" in job.system:
            learner.unfreeze()
            learner.fit_one_cycle(job.epochs, lr_max=job.learning_rate)
        else:
            learner.fine_tune(job.epochs - 1, base_lr=job.learning_rate, freeze_epochs=1)
        test = table[table["part"] == "test"]
        p, _ = learner.get_preds(dl=loaders.test_dl(test, with_labels=False))
    return auroc(test["label"] == loaders.vocab[1], p[:, 1].numpy())
