"""Oracle of the continuation: the same training, never interrupted, bit for bit."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from torch import nn

from medcnn.errors import InputError, RunError
from medcnn.model import checkpoint, loop
from medcnn.model.backbones import build_model, split_head
from medcnn.model.checkpoint import CHECKPOINT
from medcnn.model.predict import predict
from medcnn.model.training import TrainingResult, train

N, N_VAL = 72, 24
IMAGES, CLASSES = blobs(N + N_VAL)
Y = CLASSES[:, None].astype(np.float64)
PLAN = training_plan(epochs=3, batch_size=16, ema_decay=0.9, label_smoothing=0.05, checkpoint_minutes=0)
N_STEPS = 5  # per epoch: 72 images in batches of 16


def train_small(source: Any = None, *, model: nn.Module | None = None, y: np.ndarray = Y, **changes: Any) -> TrainingResult:
    arguments: dict[str, Any] = {
        "rows_train": np.arange(N), "rows_val": np.arange(N, N + N_VAL), "task": "binary", "plan": PLAN, "mean": (0.5,), "std": (0.25,), "seed": 3,
    }  # fmt: skip
    model = model or build_model(model_plan(), channels=1, n_outputs=2, size_px=16, seed=3)
    return train(model, source or Arrays(IMAGES), y, **(arguments | changes))


def same(one: TrainingResult, other: TrainingResult) -> bool:
    weights = all(torch.equal(tensor, other.state_dict[name]) for name, tensor in one.state_dict.items())
    return weights and one.history.equals(other.history) and one.chosen_epoch == other.chosen_epoch


@pytest.fixture(scope="module")
def whole() -> TrainingResult:
    """The training that nothing interrupts."""
    return train_small()


class Interrupted(Arrays):
    """Calls `act` when the n-th batch is asked for, training and validation batches together."""

    def __init__(self, images: np.ndarray, n: int, act: Callable[[], None]) -> None:
        super().__init__(images)
        self.left, self.act = n, act

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        self.left -= 1
        if self.left == 0:
            self.act()
        return super().batch(rows, epoch, shows)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_process_that_is_killed(work: Callable[[], object]) -> None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()  # without a time limit, which would wait for the workers of the dead as well
    assert process.exitcode == -signal.SIGKILL


# ---------------------------------------------------------------- the outcome


def test_it_learns(whole: TrainingResult) -> None:
    assert whole.history["train_loss"].iloc[-1] < 0.5 < whole.history["train_loss"].iloc[0]
    assert whole.history["epoch"].tolist() == [1, 2, 3]
    assert whole.n_images == 3 * N and whole.cpu_seconds > 0 and 0 < whole.loading_seconds < whole.seconds
    assert whole.images_per_cpu_second == pytest.approx(3 * N / whole.cpu_seconds)


def test_the_history_is_that_of_the_chosen_weights() -> None:
    model = build_model(model_plan(), channels=1, n_outputs=2, size_px=16)
    result = train_small(model=model)
    assert result.chosen_epoch == result.history["val_loss"].idxmin() + 1
    assert all(torch.equal(result.state_dict[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training
    _, p = predict(model, Arrays(IMAGES), np.arange(N, N + N_VAL), card=result.signature, device="cpu")
    y = Y[N:, 0]
    loss = -np.mean(y * np.log(p[:, 0]) + (1 - y) * np.log(1 - p[:, 0]))
    assert result.history["val_loss"].min() == pytest.approx(loss, rel=1e-5)


def test_the_same_inputs_give_the_same_bits(whole: TrainingResult) -> None:
    torch.rand(7)  # whatever was drawn before
    assert same(train_small(), whole)
    assert not same(train_small(seed=4), whole)


def test_row_order_changes_nothing(whole: TrainingResult) -> None:
    assert same(train_small(rows_train=np.arange(N)[::-1]), whole)


def test_workers_change_nothing(whole: TrainingResult) -> None:
    assert same(train_small(plan=PLAN.model_copy(update={"n_workers": 2})), whole)


def test_torchs_generators_are_left_as_they_were() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train_small(plan=training_plan(epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_the_last_epoch_or_the_best() -> None:
    """With the validation labels turned round, every epoch of learning is a step back."""
    y = np.where(np.arange(len(Y))[:, None] < N, Y, 1 - Y)
    plan = training_plan(epochs=5)
    best = train_small(y=y, plan=plan)
    last = train_small(y=y, plan=plan.model_copy(update={"select": "last"}))
    assert best.history.equals(last.history)
    assert best.chosen_epoch == best.history["val_loss"].idxmin() + 1 < 5 == last.chosen_epoch
    assert not torch.equal(best.state_dict["classifier.4.bias"], last.state_dict["classifier.4.bias"])
    patient = train_small(y=y, plan=plan.model_copy(update={"patience": 2}))
    assert len(patient.history) == patient.chosen_epoch + 2 < 5
    pd.testing.assert_frame_equal(patient.history, best.history.iloc[: len(patient.history)])


# ---------------------------------------------------------------- what the plan says


def test_head_first_leaves_the_backbone_alone_until_it_joins() -> None:
    model = build_model(model_plan(), channels=1, n_outputs=2, size_px=16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_small(model=model, plan=training_plan(epochs=1, head_epochs=1, select="last"))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) == name.startswith("features") for name in before)
    train_small(model=model, plan=training_plan(epochs=2, head_epochs=1, select="last"))
    assert not torch.equal(before["features.0.0.weight"], model.state_dict()["features.0.0.weight"])


def test_a_frozen_backbone_never_learns() -> None:
    model = build_model(model_plan(), channels=1, n_outputs=2, size_px=16)
    before = [parameter.clone() for parameter in split_head(model)[0]]
    train_small(model=model, plan=training_plan(freeze_backbone=True))
    assert all(map(torch.equal, before, split_head(model)[0]))


@pytest.mark.parametrize("imbalance", ["none", "loss_weights", "oversample"])
def test_probabilities_refer_to_the_cohort_whatever_is_done_about_imbalance(imbalance: str) -> None:
    """Pure noise, a fifth positive: there is nothing to learn but the prevalence."""
    rng = np.random.default_rng(0)
    source, y = Arrays(rng.integers(0, 255, (300, 8, 8, 1)).astype(np.uint8)), (np.arange(300) % 5 == 0)[:, None].astype(float)
    model = build_model(model_plan(), channels=1, n_outputs=2, size_px=8)
    plan = training_plan(epochs=6, learning_rate=0.001, imbalance=imbalance, select="last", freeze_backbone=True)
    result = train_small(source, model=model, y=y, rows_train=np.arange(200), rows_val=np.arange(200, 300), plan=plan)
    _, p = predict(model, source, np.arange(300), card=result.signature, device="cpu")
    assert p.mean() == pytest.approx(0.2, abs=0.04)
    assert (result.signature.prior_correction == ()) == (imbalance == "none")


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_other_tasks(task: str) -> None:
    images, classes = blobs(96, n_classes=3)
    y = np.eye(3)[classes]
    if task == "multilabel":
        y[::7, 1] = np.nan
    model = build_model(model_plan(), channels=1, n_outputs=3, size_px=16)
    result = train_small(Arrays(images), model=model, y=y, task=task, plan=training_plan(epochs=6))
    assert result.history["val_auroc"].iloc[-1] > 0.9
    assert np.isfinite(result.history.to_numpy()).all()


def test_rows_without_a_label_are_left_out_and_counted(whole: TrainingResult) -> None:
    y = Y.copy()
    y[[5, 9]] = np.nan
    rows = np.setdiff1d(np.arange(N), [5, 9])
    with_blanks = train_small(y=y)
    assert with_blanks.n_unlabelled == 2
    assert same(with_blanks, train_small(rows_train=rows))


def test_the_moving_average_is_what_is_validated_and_chosen(whole: TrainingResult) -> None:
    plain = train_small(plan=PLAN.model_copy(update={"ema_decay": 0.0}))
    pd.testing.assert_series_equal(plain.history["train_loss"], whole.history["train_loss"])
    assert (plain.history["val_loss"] != whole.history["val_loss"]).all()
    assert not torch.equal(plain.state_dict["classifier.4.bias"], whole.state_dict["classifier.4.bias"])


def test_a_worker_that_dies_is_a_run_error() -> None:
    class Deadly(Arrays):
        def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
            if epoch == 1:
                die()
            return super().batch(rows, epoch, shows)

    with pytest.raises(RunError, match=r"a process that loads images died .* training.n_workers=0"):
        train_small(Deadly(IMAGES), plan=PLAN.model_copy(update={"n_workers": 1}))


def test_bfloat16_learns_too() -> None:
    result = train_small(plan=training_plan(epochs=3, precision="bfloat16"))
    assert result.history["train_loss"].iloc[-1] < 0.5
    assert all(tensor.dtype != torch.bfloat16 for tensor in result.state_dict.values())


def test_without_a_validation_part_the_last_epoch_is_taken() -> None:
    result = train_small(rows_val=np.arange(0), plan=training_plan(epochs=2, select="last"))
    assert result.chosen_epoch == 2 and result.history.columns.tolist() == ["epoch", "learning_rate", "train_loss"]


# ---------------------------------------------------------------- continuation


@pytest.mark.parametrize("n", [1, 3, N_STEPS, N_STEPS + 1, N_STEPS + 2, 2 * N_STEPS + 2, 3 * N_STEPS + 3])
def test_a_killed_training_ends_with_the_same_bits(n: int, tmp_path: Path, whole: TrainingResult) -> None:
    """SIGKILL when the n-th batch is asked for: at the start, within an epoch, in validation (n = 6, 12, 18), after it."""
    in_a_process_that_is_killed(lambda: train_small(Interrupted(IMAGES, n, die), checkpoint_dir=tmp_path))
    assert (tmp_path / CHECKPOINT).exists() == (n > 1)
    assert same(train_small(checkpoint_dir=tmp_path), whole)


def test_a_kill_while_the_checkpoint_is_written(tmp_path: Path, whole: TrainingResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dies between writing and renaming the fourth checkpoint, again and again, and still gets there."""
    fsync, calls = os.fsync, [0]

    def deadly(handle: int) -> None:
        calls[0] += 1
        if calls[0] == 7:  # two per checkpoint: the file, then the folder
            die()
        fsync(handle)

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.os, "fsync", deadly)
            in_a_process_that_is_killed(lambda: train_small(checkpoint_dir=tmp_path))
    assert same(train_small(checkpoint_dir=tmp_path), whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"imbalance": "oversample"},
        {"head_epochs": 1, "backbone_lr_factor": 0.1},
        {"patience": 1, "learning_rate": 0.3},
        {"precision": "bfloat16", "select": "last"},
        {"n_workers": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_killed_within_an_epoch_under_other_plans(changes: dict[str, Any], tmp_path: Path) -> None:
    plan = PLAN.model_copy(update=changes)

    passes = []
    model = build_model(model_plan(), channels=1, n_outputs=2, size_px=16, seed=3)
    model.register_forward_hook(lambda *_: passes.append(1) if len(passes) < N_STEPS + 3 else die())
    in_a_process_that_is_killed(lambda: train_small(model=model, plan=plan, checkpoint_dir=tmp_path))
    assert (tmp_path / CHECKPOINT).exists()
    assert same(train_small(plan=plan, checkpoint_dir=tmp_path), train_small(plan=plan))


def test_a_finished_training_is_not_repeated(tmp_path: Path, whole: TrainingResult) -> None:
    train_small(checkpoint_dir=tmp_path)
    source = Interrupted(IMAGES, 1, lambda: pytest.fail("an image was asked for"))
    again = train_small(source, checkpoint_dir=tmp_path)
    assert same(again, whole)
    assert again.seconds > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("n", [4, N_STEPS + 1])
def test_an_interrupt_leaves_a_checkpoint(n: int, number: signal.Signals, tmp_path: Path, whole: TrainingResult) -> None:
    plan = PLAN.model_copy(update={"checkpoint_minutes": 60})
    with pytest.raises(KeyboardInterrupt):
        train_small(Interrupted(IMAGES, n, lambda: signal.raise_signal(number)), plan=plan, checkpoint_dir=tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["journey"]["step"] == n - 1
    assert same(train_small(plan=plan, checkpoint_dir=tmp_path), whole)


def test_an_interrupt_within_a_step_waits_for_its_end(tmp_path: Path, whole: TrainingResult) -> None:
    model = build_model(model_plan(), channels=1, n_outputs=2, size_px=16, seed=3)
    handle = model.register_forward_hook(lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train_small(model=model, plan=PLAN.model_copy(update={"checkpoint_minutes": 60}), checkpoint_dir=tmp_path)
    handle.remove()
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["journey"]["step"] == 1 and len(state["journey"]["losses"]) == 1
    assert same(train_small(checkpoint_dir=tmp_path), whole)


def saved_at(monkeypatch: pytest.MonkeyPatch, *, seconds: float, bytes_per_second: float) -> list[tuple[int, int]]:
    """(epoch, step) of each checkpoint, filled while one trains on a disk that takes `seconds` for each."""
    write, places = loop.write_checkpoint, []

    def timed(folder: Path, state: dict[str, Any]) -> None:
        places.append((state["journey"]["epoch"], state["journey"]["step"]))
        time.sleep(seconds)
        write(folder, state)

    monkeypatch.setattr(loop, "write_checkpoint", timed)
    monkeypatch.setattr(loop, "DISK_BYTES_PER_SECOND", bytes_per_second)
    return places


def test_within_an_epoch_it_saves_only_after_the_given_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = saved_at(monkeypatch, seconds=0, bytes_per_second=2e8)
    train_small(plan=PLAN.model_copy(update={"checkpoint_minutes": 60}), checkpoint_dir=tmp_path / "hourly")
    assert all(step == 0 for _, step in places)
    places.clear()
    train_small(checkpoint_dir=tmp_path / "always")
    assert places == [divmod(step, N_STEPS) for step in range(1, 3 * N_STEPS + 1)]


@pytest.mark.parametrize(("seconds", "bytes_per_second", "expected"), [(0.1, 1e12, [(1, 0)]), (0.0, 1e4, [])])
def test_slow_disks_are_asked_less_often(
    seconds: float,
    bytes_per_second: float,
    expected: list[tuple[int, int]],
    tmp_path: Path,
    whole: TrainingResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Short epochs, and a checkpoint that took long, or is expected to."""
    places = saved_at(monkeypatch, seconds=seconds, bytes_per_second=bytes_per_second)
    assert same(train_small(plan=PLAN.model_copy(update={"checkpoint_minutes": 60}), checkpoint_dir=tmp_path), whole)
    assert places == expected


@pytest.mark.parametrize(
    "changes", [{"seed": 4}, {"rows_train": np.arange(N - 1)}, {"plan": PLAN.model_copy(update={"learning_rate": 0.1})}, {"mean": (0.4,)}]
)
def test_another_trainings_checkpoint_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    train_small(checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="belongs to a training with other data"):
        train_small(checkpoint_dir=tmp_path, **changes)


def test_how_it_is_computed_may_change_on_the_way(tmp_path: Path, whole: TrainingResult) -> None:
    in_a_process_that_is_killed(lambda: train_small(Interrupted(IMAGES, 4, die), checkpoint_dir=tmp_path))
    plan = PLAN.model_copy(update={"n_workers": 1, "checkpoint_minutes": 9, "device": "auto" if not torch.cuda.is_available() else "cpu"})
    assert same(train_small(plan=plan, checkpoint_dir=tmp_path), whole)


# ---------------------------------------------------------------- what cannot be trained


def test_a_loss_that_is_not_finite_says_where(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"epoch 1, step [2-5] of 5; try a lower training.learning_rate"):
        train_small(plan=training_plan(learning_rate=1e30, warmup_fraction=0), checkpoint_dir=tmp_path)
    assert not (tmp_path / CHECKPOINT).exists(), "ruined weights are not kept"


def test_a_gradient_that_is_not_finite_is_caught_before_the_loss_is() -> None:
    model = build_model(model_plan(), channels=1, n_outputs=2, size_px=16)
    next(model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(RunError, match=r"its gradient is not finite in epoch 1, step 1 of 5"):
        train_small(model=model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.ones_like(Y)}, "the training part has no negative image"),
        ({"y": np.full_like(Y, np.nan)}, "the train part has no labelled image"),
        ({"rows_train": np.arange(0)}, "the train part has no labelled image"),
        ({"rows_val": np.arange(0)}, "training.select=last"),
        ({"rows_val": np.array([3, 80, 5])}, "2 images stand in the train and in the val part, first row 3"),
        ({"plan": training_plan(batch_size=1)}, "batch norm, which needs at least 2"),
        ({"plan": training_plan(device="cuda:7")}, "training.device"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_small(**changes)


def test_an_error_of_the_source_comes_through(tmp_path: Path) -> None:
    def broken() -> None:
        raise InputError("cache: image 17 is gone")

    with pytest.raises(InputError, match="image 17 is gone"):
        train_small(Interrupted(IMAGES, 7, broken), checkpoint_dir=tmp_path)


def test_progress_counts_the_steps_that_are_left(tmp_path: Path) -> None:
    totals: list[tuple[str, int | None]] = []

    def progress(items, title, total=None):  # type: ignore[no-untyped-def]
        totals.append((title, total))
        yield from items

    with pytest.raises(KeyboardInterrupt):
        train_small(Interrupted(IMAGES, 4, lambda: signal.raise_signal(signal.SIGINT)), checkpoint_dir=tmp_path, progress=progress)
    train_small(checkpoint_dir=tmp_path, progress=progress)
    assert totals == [("training", 15), ("training", 12)]


def test_history_is_a_table_of_plain_columns(whole: TrainingResult) -> None:
    assert isinstance(whole.history, pd.DataFrame)
    assert whole.history.columns.tolist() == ["epoch", "learning_rate", "train_loss", "val_loss", "val_auroc"]
