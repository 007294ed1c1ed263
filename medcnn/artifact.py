"""A stage's folder: drafted aside, stamped last, published in one move.

A folder is complete if and only if its `stamp.json` is there. The stamp says what the folder was made from (`key`)
and what it holds (sha256 of each file), so a stage is skipped only when nothing it depends on has changed.
"""

import contextlib
import errno
import hashlib
import json
import os
import resource
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import medcnn
from medcnn.errors import InputError, RunError

STAMP = "stamp.json"
DRAFT_KEY = "draft.key"
COST_FILE = "cost.json"  # what the work cost is no part of what was made
CHUNK_BYTES = 1 << 20
_elsewhere = [0.0]  # CPU seconds that other processes, not children of this one, worked for it


@dataclass(frozen=True, kw_only=True)
class Key:
    """All that a stage's result depends on: its name, its settings, the content of its inputs, its source code."""

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: str

    @property
    def digest(self) -> str:
        """sha256 (hex) of the whole key."""
        return digest(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What a finished stage says of itself.

    key: digest of the stage's name, settings, code and inputs. outputs: file -> sha256.
    cpu_seconds, wall_seconds: what the last process that worked on it spent, with those that worked for it (torchrun).
    peak_memory_mb: of that process.
    """

    stage: str
    key: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: str
    outputs: Mapping[str, str]
    cpu_seconds: float
    wall_seconds: float
    peak_memory_mb: float
    finished: str
    version: str

    @property
    def content(self) -> str:
        """Digest of what the folder holds, whatever it was made from."""
        return digest(dict(self.outputs))


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON-able value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()


@cache
def code_digest(*rooms: str) -> str:
    """sha256 over the source of the named rooms of the package (folders or files, without ending)."""
    root = Path(medcnn.__file__).parent
    sha = hashlib.sha256()
    for room in sorted(rooms):
        files = sorted((root / room).glob("*.py")) if (root / room).is_dir() else [root / f"{room}.py"]
        for file in files:
            sha.update(file.name.encode() + file.read_bytes())
    return sha.hexdigest()


def read_stamp(folder: Path) -> Stamp | None:
    """The folder's stamp, or None when the folder is not complete."""
    path = folder / STAMP
    if not path.is_file():
        return None
    try:
        return Stamp(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RunError(f"{path}: is damaged ({error}); delete the folder {folder} to have it made again") from error


def is_current(folder: Path, key: Key) -> bool:
    """True when the folder is complete and was made from exactly this key."""
    stamp = read_stamp(folder)
    return stamp is not None and stamp.key == key.digest


@contextlib.contextmanager
def drafted(folder: Path, key: Key) -> Iterator[Path]:
    """Yield a draft folder beside `folder`; when the block ends well, stamp it and move it into place.

    A draft left by a killed process is handed back when it was made from the same key (so a stage may continue
    from its own checkpoint), and removed otherwise. When the block raises, the draft stays and `folder` is untouched.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    _open_draft(draft, key.digest)
    started, cpu = time.monotonic(), _cpu_seconds()
    yield draft
    stamp = Stamp(
        **asdict(key),
        key=key.digest,
        outputs={
            str(file.relative_to(draft).as_posix()): file_digest(file)
            for file in sorted(draft.rglob("*"))
            if file.is_file() and file.name not in {DRAFT_KEY, COST_FILE}
        },
        cpu_seconds=round(_cpu_seconds() - cpu, 3),
        wall_seconds=round(time.monotonic() - started, 3),
        peak_memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        version=medcnn.__version__,
    )
    write_file(draft / STAMP, (json.dumps(asdict(stamp), indent=1, default=str) + "\n").encode())
    _publish(draft, folder)


def recover(folder: Path) -> None:
    """Finish what a killed process had begun: publish a stamped draft, or put the previous folder back."""
    draft, previous = folder.with_name(f".{folder.name}.draft"), folder.with_name(f".{folder.name}.previous")
    if (draft / STAMP).is_file():
        _publish(draft, folder)
    elif previous.exists() and not folder.exists():
        previous.replace(folder)


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that a kill leaves either the old one or the new one: aside, fsynced, renamed."""
    aside = path.with_name(f".{path.name}.aside")
    with aside.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)


def expose(file: Path, place: Path) -> None:
    """Show a stage's file at a second place (the run's top folder): a hard link, or a copy where links are not to be had."""
    aside = place.with_name(f".{place.name}.aside")
    aside.unlink(missing_ok=True)
    try:
        os.link(file, aside)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EMLINK, errno.EACCES}:
            raise
        shutil.copyfile(file, aside)
    aside.replace(place)


def make_folder(folder: Path) -> Path:
    """Make the folder and check that it can be written to; raises InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: is in the way, it is not a folder; choose another --out") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror}); choose another --out") from None
    return folder


def _open_draft(draft: Path, key: str) -> None:
    note = draft / DRAFT_KEY
    if draft.exists() and not (note.is_file() and note.read_text(encoding="utf-8") == key):
        shutil.rmtree(draft)
    draft.mkdir(parents=True, exist_ok=True)
    note.write_text(key, encoding="utf-8")


def _publish(draft: Path, folder: Path) -> None:
    (draft / DRAFT_KEY).unlink(missing_ok=True)
    previous = folder.with_name(f".{folder.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        folder.replace(previous)
    draft.replace(folder)
    shutil.rmtree(previous, ignore_errors=True)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system + _elsewhere[0]


def count_cpu_seconds(seconds: float) -> None:
    """Note what processes that are not children of this one spent for it, so that the stamp of its stage counts it."""
    _elsewhere[0] += seconds
