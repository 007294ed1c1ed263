"""A finished training is what it was made from and nothing else: no checkpoint, no seconds, whenever it was stopped on the way."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcnn import artifact
from medcnn.artifact import COST_FILE, Stamp, read_stamp
from medcnn.members import read_cost
from medcnn.model import card, checkpoint, training
from medcnn.model.checkpoint import CHECKPOINT, write_checkpoint
from pipelines.finetune import finetune
from tests.pipelines.conftest import tiny_config

PLACE = "train/main/fold0"


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def content(run: Path) -> str:
    stamp = read_stamp(run / PLACE)
    assert stamp is not None
    return stamp.content


@pytest.fixture
def untrained(finished: Path, tmp_path: Path) -> Path:
    """A run up to the plan."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    for stage in ("train", "predict", "calibrate", "evaluate", "explain", "report"):
        shutil.rmtree(copy / stage)
    return copy


def test_two_identical_runs_have_identical_folders(finished: Path, tmp_path: Path) -> None:
    again = finetune(tiny_config(), tmp_path / "again", quiet=True).folder
    assert content(again) == content(finished)
    one, other = read_cost(again / PLACE), read_cost(finished / PLACE)
    assert one.keys() == other.keys() == {"training_seconds", "cpu_seconds", "gpu_seconds", "images_per_second", "loading_share"}
    assert one["training_seconds"] > 0


def test_a_finished_folder_holds_model_history_and_cost(finished: Path) -> None:
    files = {path.name for path in (finished / PLACE).iterdir()}
    assert files == {"weights.safetensors", "model.json", "history.csv", COST_FILE, "stamp.json"}
    stamp = read_stamp(finished / PLACE)
    assert stamp is not None and set(stamp.outputs) == {"weights.safetensors", "model.json", "history.csv"}


def killed(*_arguments: Any, **_settings: Any) -> Any:
    raise Killed


def killed_after(work: Callable[..., Any]) -> Callable[..., Any]:
    def both(*arguments: Any) -> Any:
        work(*arguments)
        raise Killed

    return both


def killed_at_the_stamp(**fields: Any) -> Stamp:
    if fields["stage"] == "train":
        raise Killed
    return Stamp(**fields)


@pytest.mark.parametrize(
    ("module", "name", "act", "is_saved", "has_checkpoint"),
    [
        (card, "save_cost", killed, False, True),
        (card, "save_model", killed, False, True),
        (card, "save_model", killed_after(card.save_model), True, True),
        (checkpoint, "remove_checkpoint", killed_after(checkpoint.remove_checkpoint), True, False),
        (artifact, "Stamp", killed_at_the_stamp, True, False),
    ],
    ids=["before the cost", "before the model", "after the model", "after the checkpoint", "before the stamp"],
)
def test_stopped_after_the_last_step_it_ends_with_the_same_folder(
    module: Any, name: str, act: Callable[..., Any], is_saved: bool, has_checkpoint: bool, finished: Path, untrained: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(module, name, act)
        with pytest.raises(Killed):
            finetune(tiny_config(training={"checkpoint_minutes": 0}), untrained, quiet=True, update=True)
    (draft,) = (untrained / "train/main").glob(".*.draft")
    assert card.is_saved(draft) == is_saved and (draft / CHECKPOINT).exists() == has_checkpoint
    if is_saved:
        monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it was trained again"))
    run = finetune(tiny_config(training={"checkpoint_minutes": 0}), untrained, quiet=True, update=True).folder
    assert content(run) == content(finished)
    assert not (run / PLACE / CHECKPOINT).exists()


def test_what_a_killed_checkpoint_left_is_swept_up(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"key": "k"})
    (tmp_path / f".{CHECKPOINT}.aside").write_bytes(b"half")
    checkpoint.remove_checkpoint(tmp_path)
    checkpoint.remove_checkpoint(tmp_path)
    assert not list(tmp_path.iterdir())
