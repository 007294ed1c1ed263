"""What a training needs to continue exactly where it stopped, and how it is stopped between two steps."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import torch

from medcnn.errors import InputError, RunError

CHECKPOINT = "checkpoint.pt"


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint in one move: written aside, fsynced, renamed. A kill leaves the old one or the new one.

    state: tensors, numbers, strings, and dicts and lists of them. Raises RunError when it cannot be written.
    """
    path = folder / CHECKPOINT
    aside = folder / f".{CHECKPOINT}.aside"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as stream:
            torch.save(dict(state), stream)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{path}: the checkpoint cannot be written ({reason}); free some space or choose another --out, and run again"
        ) from error


def remove_checkpoint(folder: Path) -> None:
    """Take the checkpoint out of a folder whose training has ended; nothing happens when there is none."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
    (folder / f".{CHECKPOINT}.aside").unlink(missing_ok=True)


def read_checkpoint(folder: Path, key: str) -> dict[str, Any] | None:
    """The checkpoint, tensors on the CPU, or None when there is none.

    Raises RunError when it is damaged, InputError when it was made by another training (another `key`).
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = state["key"]
    except (UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path}: is damaged ({type(error).__name__}); delete it to train from the start") from error
    if found != key:
        raise InputError(f"{path}: belongs to a training with other data, settings or initial weights; delete it, or choose another --out")
    return state


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last through a power cut (POSIX)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Interruptions:
    """Keeps Ctrl-C (SIGINT) and a scheduler's SIGTERM out of the moments in which the training state changes.

    Inside `held()` a signal waits for the end of the block; outside, and after a second signal, it acts at once.
    Both raise KeyboardInterrupt. Elsewhere than in the main thread, where Python delivers no signals, it does nothing.
    deaf: signals are ignored, for a process that stops when another one does.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, *, deaf: bool = False) -> None:
        self._deaf, self._holding = deaf, False
        self._came = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals in this block; the previous handlers come back afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handler = signal.SIG_IGN if self._deaf else self._receive
        previous = {number: signal.signal(number, handler) for number in self.SIGNALS}
        try:
            yield
        finally:
            for number, before in previous.items():
                signal.signal(number, before)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A block that is done whole."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._came:
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a signal handler
        self._came += 1
        if not self._holding or self._came > 1:
            raise KeyboardInterrupt
