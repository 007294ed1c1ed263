"""Oracle of a training on several processes: the same training in one. The processes are forked here, without torchrun."""

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from timm.layers.norm_act import BatchNormAct2d
from torch import distributed, nn

from medcnn.artifact import Key, drafted, read_stamp
from medcnn.errors import InputError, RunError
from medcnn.model import loop
from medcnn.model.backbones import build_model
from medcnn.model.batches import Deal
from medcnn.model.checkpoint import CHECKPOINT
from medcnn.model.distributed import Team, take_part, together
from medcnn.model.shared_norm import batch_norms, shared_batch_norm
from medcnn.model.training import TrainingResult, train

N, N_VAL = 74, 25  # odd shares everywhere
IMAGES, CLASSES = blobs(N + N_VAL, n_classes=3)
BINARY = (CLASSES > 0)[:, None].astype(np.float64)
SEVERAL = np.eye(3)[CLASSES]
SEVERAL[::7, 1] = np.nan
PLAN = training_plan(epochs=3, batch_size=16, ema_decay=0.9, label_smoothing=0.05, checkpoint_minutes=0)
N_STEPS = 5
TOLERANCE = 1e-5


class Plain(nn.Module):
    """Convolutions without dropout and, unless normed, without batch norm: nothing in it knows of other images.

    No bias before a batch norm: its gradient is nothing but rounding, which AdamW would blow up to whole steps.
    """

    def __init__(self, n_outputs: int, *, normed: bool = False) -> None:
        super().__init__()
        norms = (BatchNormAct2d(8), BatchNormAct2d(16)) if normed else (nn.GELU(), nn.GELU())
        first, second = nn.Conv2d(1, 8, 3, stride=2, bias=not normed), nn.Conv2d(8, 16, 3, stride=2, bias=not normed)
        self.features = nn.Sequential(first, norms[0], second, norms[1], nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, n_outputs))

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images))


def plain(n_outputs: int = 2) -> nn.Module:
    torch.manual_seed(5)
    return Plain(n_outputs)


def normed() -> nn.Module:
    torch.manual_seed(5)
    return Plain(2, normed=True)


def train_small(model: nn.Module, source: Any = None, **changes: Any) -> TrainingResult:
    arguments: dict[str, Any] = {
        "y": BINARY, "rows_train": np.arange(N), "rows_val": np.arange(N, N + N_VAL), "task": "binary", "plan": PLAN, "mean": (0.5,), "std": (0.25,),
        "seed": 3,
    }  # fmt: skip
    return train(model, source or Arrays(IMAGES), **(arguments | changes))


def with_the_others(model: nn.Module, changes: dict[str, Any], source: Any = None) -> tuple[TrainingResult, list[Any]]:
    """The result here, and the weights and history of each process."""
    result = train_small(model, source, **changes)
    everywhere: list[Any] = [None] * distributed.get_world_size()
    own = ({name: tensor.numpy().tobytes() for name, tensor in result.state_dict.items()}, result.history.to_csv(), result.n_images)
    distributed.all_gather_object(everywhere, own)
    return result, everywhere


def in_processes(flow: Callable[[], object], place: Path, n: int = 2) -> tuple[Any, list[int]]:
    """Run `flow` in the first of n processes, where the others help; returns its result and the exit code of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = [
        _fork(flow, place / "result.pt", {"RANK": rank, "WORLD_SIZE": n, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
        for rank in range(n)
    ]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    result = torch.load(place / "result.pt", weights_only=False) if (place / "result.pt").exists() else None
    (place / "result.pt").unlink(missing_ok=True)
    return result, codes


def _fork(flow: Callable[[], object], place: Path, environment: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    signal.alarm(120)  # ends a process that waits for ever
    try:
        os.environ.update({name: str(value) for name, value in environment.items()})
        take_part(lambda: torch.save(flow(), place))
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except (Exception, KeyboardInterrupt):  # noqa: BLE001 - what main would see
        traceback.print_exc()
        code = 7
    finally:
        os._exit(code)


def joint(model: nn.Module, place: Path, n: int = 2, **changes: Any) -> TrainingResult:
    """The training by n processes, whose results are shown to be the same."""
    (result, everywhere), codes = in_processes(lambda: together(with_the_others, model, changes), place, n)
    assert codes == [0] * n
    assert len(everywhere) == n and all(other == everywhere[0] for other in everywhere)
    return result  # type: ignore[no-any-return]


def apart(one: TrainingResult, other: TrainingResult) -> float:
    """Largest relative difference between two loss curves."""
    columns = ["train_loss", "val_loss"]
    return float(np.abs(one.history[columns].to_numpy() / other.history[columns].to_numpy() - 1).max())


def assert_alike(one: TrainingResult, other: TrainingResult) -> None:
    assert apart(one, other) < TOLERANCE
    assert one.chosen_epoch == other.chosen_epoch and one.n_images == other.n_images
    for name, tensor in one.state_dict.items():
        torch.testing.assert_close(tensor, other.state_dict[name], rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- the same training as in one process


@pytest.mark.parametrize("n", [2, 3])
def test_the_losses_are_those_of_one_process(n: int, tmp_path: Path) -> None:
    result = joint(plain(), tmp_path, n)
    alone = train_small(plain())
    assert_alike(result, alone)
    assert result.history["train_loss"].iloc[-1] < result.history["train_loss"].iloc[0]
    assert result.cpu_seconds > 0


def busy(seconds: float) -> float:
    """CPU seconds that this process spent; the helpers spend ten times as much as the first one."""
    wanted = seconds * (10 if distributed.is_initialized() and distributed.get_rank() else 1)
    started = time.process_time()
    while time.process_time() - started < wanted:
        pass
    return wanted


def stamped(place: Path) -> float:
    key = Key(stage="train", settings={}, inputs={}, code="")
    with drafted(place / "stage", key):
        together(busy, 0.05)
    return read_stamp(place / "stage").cpu_seconds


def test_the_stamp_counts_all_processes(tmp_path: Path) -> None:
    seconds, codes = in_processes(lambda: stamped(tmp_path), tmp_path, 3)
    assert codes == [0, 0, 0]
    assert 1.05 <= seconds < 3


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.4},
        {"cutmix": 1.0},
        {"mixup": 0.4, "cutmix": 1.0, "imbalance": "oversample"},
        {"imbalance": "loss_weights"},
        {"imbalance": "oversample"},
        {"head_epochs": 1, "backbone_lr_factor": 0.1},
        {"accumulate": 3, "imbalance": "loss_weights"},
    ],
    ids=lambda changes: str(next(iter(changes.values()))),
)
def test_under_other_plans_too(changes: dict[str, Any], tmp_path: Path) -> None:
    plan = PLAN.model_copy(update=changes)
    assert_alike(joint(plain(), tmp_path, plan=plan), train_small(plain(), plan=plan))


def test_labels_that_are_not_known_count_nowhere(tmp_path: Path) -> None:
    changes = {"y": SEVERAL, "task": "multilabel"}
    assert_alike(joint(plain(3), tmp_path, **changes), train_small(plain(3), **changes))


def test_shared_batch_norm_is_that_of_one_process(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"sync_batch_norm": True})
    assert_alike(joint(normed(), tmp_path, plan=plan), train_small(normed(), plan=plan))


def test_batch_norm_of_each_share_is_another_but_leaves_the_same_weights_everywhere(tmp_path: Path) -> None:
    assert apart(joint(normed(), tmp_path), train_small(normed())) > 10 * TOLERANCE


class Counting(Arrays):
    n_asked = 0

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        self.n_asked += len(rows)
        return super().batch(rows, epoch, shows)


def count_asked() -> list[int]:
    source = Counting(IMAGES)
    train_small(plain(), source)
    everywhere: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everywhere, source.n_asked)
    return everywhere


def test_each_process_looks_at_its_share_only(tmp_path: Path) -> None:
    counts, codes = in_processes(lambda: together(count_asked), tmp_path)
    assert codes == [0, 0]
    assert sum(counts) == PLAN.epochs * (N + N_VAL) and max(counts) - min(counts) <= PLAN.epochs * (N_STEPS + 1)


def test_dropout_differs_between_processes() -> None:
    """The first process's noise is that of one process; with the second one's being equal, twin shares would be twins."""
    seeds = [loop._step_seed(3, 7, rank) for rank in range(3)]
    assert len(set(seeds)) == 3


def test_shared_batch_norm_against_torch() -> None:
    """One process, so the statistics of all are its own."""
    torch.manual_seed(0)
    ours, torchs = nn.BatchNorm2d(5, momentum=0.3), nn.BatchNorm2d(5, momentum=0.3)
    images = torch.randn(6, 5, 4, 3) * 3 + 20
    mine, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    with shared_batch_norm(ours, shared=True):
        output = ours(mine)
        output.pow(3).sum().backward()
    expected = torchs(theirs)
    expected.pow(3).sum().backward()
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)
    for name, tensor in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)
    assert type(ours) is nn.BatchNorm2d


def test_a_strange_batch_norm_cannot_be_shared() -> None:
    class Strange(nn.BatchNorm2d):
        pass

    with pytest.raises(InputError, match="has a Strange"), shared_batch_norm(nn.Sequential(Strange(3)), shared=True):
        pass
    assert len(batch_norms(nn.Sequential(Strange(3)))) == 1


# ---------------------------------------------------------------- continuation


class Killing(Arrays):
    """The n-th batch of the process of this rank is its last."""

    def __init__(self, images: np.ndarray, n: int, rank: int) -> None:
        super().__init__(images)
        self.left, self.rank = n, rank

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        if os.environ["RANK"] == str(self.rank):
            self.left -= 1
            if self.left == 0:
                self.act()
        return super().batch(rows, epoch, shows)

    def act(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Failing(Killing):
    def act(self) -> None:
        raise InputError("cache: image 17 is gone")


class Interrupting(Killing):
    def act(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def weights(result: TrainingResult) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in result.state_dict.values()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """The training by two processes that nothing interrupts, with batch norm and dropout."""
    return joint(dropping(), tmp_path_factory.mktemp("whole"))


def dropping() -> nn.Module:
    return build_model(model_plan(dropout=0.3), channels=1, n_outputs=2, size_px=16, seed=3)


@pytest.mark.parametrize(("n", "rank"), [(1, 0), (N_STEPS - 1, 1), (N_STEPS + 1, 0), (2 * N_STEPS, 1)])
def test_a_killed_training_ends_with_the_same_bits(n: int, rank: int, tmp_path: Path, whole: TrainingResult) -> None:
    """SIGKILL for one process within an epoch or in validation: the other one ends as well, and all is done again."""
    source, changes = Killing(IMAGES, n, rank), {"checkpoint_dir": tmp_path / "draft"}
    _, codes = in_processes(lambda: together(with_the_others, dropping(), changes, source), tmp_path)
    assert codes[rank] == -signal.SIGKILL and codes[1 - rank] not in {0, -signal.SIGKILL}
    assert (tmp_path / "draft" / CHECKPOINT).exists() == (n > 1)
    again = joint(dropping(), tmp_path, **changes)
    assert weights(again) == weights(whole) and again.history.equals(whole.history)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_interrupt_is_the_first_processs_affair(rank: int, tmp_path: Path, whole: TrainingResult) -> None:
    changes = {"checkpoint_dir": tmp_path / "draft", "plan": PLAN.model_copy(update={"checkpoint_minutes": 60})}
    source = Interrupting(IMAGES, 3, rank)
    result, codes = in_processes(lambda: together(with_the_others, dropping(), changes, source), tmp_path)
    if rank == 1:
        assert codes == [0, 0] and weights(result[0]) == weights(whole)
        return
    assert codes == [7, 1] and result is None
    assert torch.load(tmp_path / "draft" / CHECKPOINT, weights_only=True)["journey"]["step"] == 2
    assert weights(joint(dropping(), tmp_path, **changes)) == weights(whole)


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_process_ends_all_and_is_told_once(rank: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = Failing(IMAGES, 4, rank)
    result, codes = in_processes(lambda: together(with_the_others, plain(), {}, source), tmp_path)
    assert result is None and codes[rank] == 7 and codes[1 - rank] == 1
    assert capfd.readouterr().err.count("InputError: cache: image 17 is gone") == 1


def test_an_error_of_all_processes_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    changes = {"plan": training_plan(learning_rate=1e30, warmup_fraction=0)}
    _, codes = in_processes(lambda: together(with_the_others, plain(), changes), tmp_path)
    assert sorted(codes) == [1, 7]
    assert capfd.readouterr().err.count("Diverged: the training loss or its gradient is not finite") == 1


def refuse() -> None:
    raise RunError("no")


def test_an_error_outside_the_training_lets_the_others_go(tmp_path: Path) -> None:
    assert in_processes(refuse, tmp_path)[1] == [7, 0]


@pytest.mark.parametrize(
    ("n", "changes", "message"),
    [
        (2, {"batch_size": 3}, r"smallest step has 2 images, too few for 2 processes, which need 2 images each for batch norm"),
        (2, {"device": "mps:0"}, r"training.device"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    n: int, changes: dict[str, Any], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, codes = in_processes(lambda: together(with_the_others, normed(), {"plan": PLAN.model_copy(update=changes)}), tmp_path, n)
    assert sorted(codes) == [1, 7]
    found = capfd.readouterr().err
    assert message in found and found.count("errors.InputError: ") == 1


def test_shares_make_up_the_step() -> None:
    deal = Deal(2, np.arange(11), np.arange(11) % 3)
    shares = [Team(rank, 4).share(deal) for rank in range(4)]
    assert sorted(np.concatenate([share.rows for share in shares])) == list(range(11))
    assert all((share.shows == share.rows % 3).all() and share.epoch == 2 for share in shares)
    assert {len(share.rows) for share in shares} == {2, 3}
    assert Team().share(deal) is deal
    for size in (2, 3, 4, 12):  # for blends: neighbours stay together, and each share begins with the image before its first
        beside = [Team(rank, size).share(deal, neighbours=True) for rank in range(size)]
        assert np.concatenate([share.rows[1:] for share in beside]).tolist() == list(range(11))
        held = [share.rows for share in beside if len(share.rows) > 1]
        assert all((np.diff(rows)[1:] == 1).all() and rows[0] == (rows[1] - 1) % 11 for rows in held)
        assert all((share.shows == share.rows % 3).all() for share in beside)
    assert Team().share(deal, neighbours=True) is deal
    rows = np.arange(30, 41)
    np.testing.assert_array_equal(np.concatenate([rows[Team(rank, 4).rows(rows)] for rank in range(4)]), rows)
    assert len(rows[:1][Team(0, 3).rows(rows[:1])]) + len(rows[:1][Team(2, 3).rows(rows[:1])]) == 1


def test_without_torchrun_work_is_simply_done() -> None:
    assert together(sorted, [2, 1]) == [1, 2]
    assert (Team.of_this_process().rank, Team.of_this_process().size) == (0, 1)


def test_only_the_leader_of_torchruns_processes_may_call_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a copy of it that jobs or Ray have started."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="jobs must be 1"):
        together(sorted, [2, 1])
