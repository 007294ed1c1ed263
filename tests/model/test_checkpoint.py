import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from medcnn.errors import InputError, RunError
from medcnn.model.checkpoint import CHECKPOINT, Interruptions, read_checkpoint, write_checkpoint

STATE = {"key": "k", "weights": {"a": torch.arange(3.0)}, "history": [{"epoch": 1, "loss": 0.5}]}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "new", STATE)
    state = read_checkpoint(tmp_path / "new", "k")
    assert state is not None
    assert state["history"] == STATE["history"] and torch.equal(state["weights"]["a"], torch.arange(3.0))
    assert [file.name for file in (tmp_path / "new").iterdir()] == [CHECKPOINT]
    assert read_checkpoint(tmp_path, "k") is None


def test_another_trainings_checkpoint_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE)
    with pytest.raises(InputError, match="belongs to a training with other data"):
        read_checkpoint(tmp_path, "another")


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "keyless"])
def test_a_damaged_checkpoint_is_a_run_error(tmp_path: Path, damage: str) -> None:
    write_checkpoint(tmp_path, STATE)
    path = tmp_path / CHECKPOINT
    if damage == "keyless":
        torch.save({"weights": 1}, path)
    else:
        path.write_bytes({"cut": path.read_bytes()[:500], "empty": b"", "text": b"hello there"}[damage])
    with pytest.raises(RunError, match="is damaged .*; delete it"):
        read_checkpoint(tmp_path, "k")


def test_a_checkpoint_with_code_inside_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"key": "k", "bomb": Bomb()}, tmp_path / CHECKPOINT)
    with pytest.raises(RunError, match="is damaged"):
        read_checkpoint(tmp_path, "k")
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, STATE)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left on device.*free some space"):
        write_checkpoint(tmp_path, {**STATE, "history": []})
    monkeypatch.undo()
    state = read_checkpoint(tmp_path, "k")
    assert state is not None and state["history"] == STATE["history"]
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT]


def test_the_old_file_is_never_written_into(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with (tmp_path / CHECKPOINT).open("rb") as old:
        write_checkpoint(tmp_path, {**STATE, "history": []})
        assert old.read() == before != (tmp_path / CHECKPOINT).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_a_held_block(number: signal.Signals) -> None:
    interruptions, done = Interruptions(), []
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptions.listening():
        with interruptions.held():
            signal.raise_signal(number)
            done.append("whole")
        done.append("never")
    assert done == ["whole"]
    assert signal.getsignal(number) is before


def test_outside_a_held_block_a_signal_acts_at_once() -> None:
    interruptions, done = Interruptions(), []
    with pytest.raises(KeyboardInterrupt), interruptions.listening():
        with interruptions.held():
            done.append("whole")
        signal.raise_signal(signal.SIGINT)
        done.append("never")
    assert done == ["whole"]


def test_a_second_signal_acts_at_once() -> None:
    interruptions, done = Interruptions(), []
    with pytest.raises(KeyboardInterrupt), interruptions.listening(), interruptions.held():
        signal.raise_signal(signal.SIGINT)
        done.append("still here")
        signal.raise_signal(signal.SIGINT)
        done.append("never")
    assert done == ["still here"]


def test_in_another_thread_no_handler_is_set() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with Interruptions().listening():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
