"""A stage's folder is complete if and only if its stamp is there, whatever moment it was killed at."""

import errno
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from medcnn import artifact
from medcnn.errors import InputError, RunError

KEY = artifact.Key(stage="train", settings={"epochs": 3}, inputs={"split": "abc"}, code="1")


def make(folder: Path, text: str = "weights", **changes: object) -> None:
    with artifact.drafted(folder, replace(KEY, **changes)) as draft:
        (draft / "weights.txt").write_text(text)


def test_a_finished_folder_is_stamped_and_current(tmp_path: Path) -> None:
    make(tmp_path / "train")
    stamp = artifact.read_stamp(tmp_path / "train")
    assert stamp is not None
    assert stamp.outputs == {"weights.txt": artifact.file_digest(tmp_path / "train" / "weights.txt")}
    assert artifact.is_current(tmp_path / "train", KEY)
    assert [entry.name for entry in tmp_path.iterdir()] == ["train"]


@pytest.mark.parametrize("change", [{"settings": {"epochs": 4}}, {"inputs": {"split": "xyz"}}, {"code": "2"}, {"stage": "predict"}])
def test_any_change_makes_it_stale(tmp_path: Path, change: dict[str, object]) -> None:
    make(tmp_path / "train")
    assert not artifact.is_current(tmp_path / "train", replace(KEY, **change))


def test_content_depends_on_the_files_alone(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b", settings={"epochs": 9})
    make(tmp_path / "c", "other weights")
    a, b, c = (artifact.read_stamp(tmp_path / name) for name in "abc")
    assert a and b and c
    assert a.content == b.content != c.content


def test_a_failure_leaves_the_old_folder_and_the_draft(tmp_path: Path) -> None:
    make(tmp_path / "train", "old")
    with pytest.raises(OSError, match="full"), artifact.drafted(tmp_path / "train", KEY) as draft:
        (draft / "half.txt").write_text("half")
        raise OSError(errno.ENOSPC, "full")
    assert (tmp_path / "train" / "weights.txt").read_text() == "old"
    with artifact.drafted(tmp_path / "train", KEY) as draft:
        assert (draft / "half.txt").read_text() == "half"
    assert not (tmp_path / "train" / "weights.txt").exists()


def test_a_draft_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), artifact.drafted(tmp_path / "train", KEY) as draft:
        (draft / "half.txt").touch()
        raise KeyboardInterrupt
    with artifact.drafted(tmp_path / "train", replace(KEY, code="2")) as draft:
        assert not (draft / "half.txt").exists()


def test_a_damaged_stamp_is_named(tmp_path: Path) -> None:
    make(tmp_path / "train")
    (tmp_path / "train" / artifact.STAMP).write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        artifact.read_stamp(tmp_path / "train")


def test_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """A process that rewrites a folder forever is killed; whenever that was, what stands there is whole."""
    code = f"""
import pathlib
from medcnn import artifact
for number in range(10**6):
    with artifact.drafted(pathlib.Path({str(tmp_path)!r}) / "train", artifact.Key(stage="train", settings={{"n": number}}, inputs={{}}, code="1")) as draft:
        for name in "abc":
            (draft / name).write_text(str(number))
"""
    folder = tmp_path / "train"
    for milliseconds in (5, 11, 23, 37):
        process = subprocess.Popen([sys.executable, "-c", code])
        while artifact.read_stamp(folder) is None and process.poll() is None:
            time.sleep(0.01)
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()
        artifact.recover(folder)
        stamp = artifact.read_stamp(folder)
        assert stamp is not None
        assert {name: artifact.file_digest(folder / name) for name in "abc"} == stamp.outputs


def test_recovery_publishes_a_stamped_draft_and_puts_a_moved_folder_back(tmp_path: Path) -> None:
    make(tmp_path / "train", "new")
    (tmp_path / "train").rename(tmp_path / ".train.draft")
    make(tmp_path / "other", "old")
    (tmp_path / "other").rename(tmp_path / ".train.previous")
    artifact.recover(tmp_path / "train")
    assert (tmp_path / "train" / "weights.txt").read_text() == "new"
    (tmp_path / "train").rename(tmp_path / ".train.previous")
    artifact.recover(tmp_path / "train")
    assert (tmp_path / "train" / "weights.txt").read_text() == "new"


def test_write_file_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    artifact.write_file(path, b"1")
    artifact.write_file(path, b"22")
    assert path.read_bytes() == b"22"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_expose_shows_the_same_bytes_and_follows_a_change(tmp_path: Path) -> None:
    (tmp_path / "inside.html").write_text("one")
    artifact.expose(tmp_path / "inside.html", tmp_path / "report.html")
    (tmp_path / "second.html").write_text("two")
    artifact.expose(tmp_path / "second.html", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "two"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="is not a folder"):
        artifact.make_folder(tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be written to"):
        artifact.make_folder(Path("/proc/medcnn"))


def test_code_digest_tells_rooms_apart() -> None:
    assert artifact.code_digest("tables") != artifact.code_digest("config")
    assert artifact.code_digest("tables", "config") == artifact.code_digest("config", "tables")
