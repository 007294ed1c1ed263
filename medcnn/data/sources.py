"""What a source of images hands to ingest, and what all sources share: walking a folder, words for parts."""

import errno
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from medcnn.cohort import Exclusion
from medcnn.errors import InputError

MOST_VISITS = 8  # of one folder by links
PART_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Images that want to come in.

    rows: image_id, patient_id, path (relative to the source's root), frame, y_LABEL columns, and what else is known
    (study_id, site, given_part, given_fold, spacing_mm, covariates). n_found: files or table rows looked at.
    tiles: of slides, see Flow.tiles.
    """

    rows: pd.DataFrame
    n_found: int
    excluded: list[Exclusion] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tiles: dict[str, int] = field(default_factory=dict)


def part_of(word: str) -> str | None:
    """train, val or test for a word that means one of them, else None."""
    return PART_WORDS.get(word.strip().lower())


def require_folder(path: Path) -> Path:
    """The folder, or InputError when it is missing or no folder."""
    if not path.is_dir():
        raise InputError(
            f"{path}: {'is a file, not a folder' if path.exists() else 'no such folder'}; set data.path to the folder with the images"
        )
    return path


def walk_files(root: Path) -> tuple[list[str], list[Exclusion]]:
    """Every file below root as a relative path with /, sorted; and what could not be walked, with reasons.

    Links to files and folders are followed, but not into a folder that contains the link, and into one folder at most
    MOST_VISITS times: links that lead to each other make more paths than there is time.
    """
    files: list[str] = []
    excluded: list[Exclusion] = []
    visits: Counter[str] = Counter()
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while waiting:
        prefix, above = waiting.pop()
        for entry in _listed(root, prefix, excluded):
            relative = f"{prefix}{entry.name}"
            problem = _refused(entry)
            if problem is not None:
                excluded.append(Exclusion(where=_shown(relative), kind=problem[0], reason=problem[1]))
            elif entry.is_file():
                files.append(relative)
            else:
                real = os.path.realpath(entry.path) if entry.is_symlink() else f"{above[-1]}/{entry.name}"
                visits[real] += 1
                if real in above:
                    excluded.append(Exclusion(where=relative, kind="link_loop", reason="a link to a folder that contains it"))
                elif visits[real] > MOST_VISITS:
                    reason = f"a link to a folder that was walked {MOST_VISITS} times already"
                    excluded.append(Exclusion(where=relative, kind="link_loop", reason=reason))
                else:
                    waiting.append((f"{relative}/", (*above, real)))
    return sorted(files), excluded


def _listed(root: Path, prefix: str, excluded: list[Exclusion]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root / prefix) as entries:
            return sorted(entries, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        where = _shown(prefix) or str(root)
        excluded.append(Exclusion(where=where, kind="unreadable_folder", reason=f"cannot be listed ({error.strerror})"))
        return []


def _refused(entry: os.DirEntry[str]) -> tuple[str, str] | None:
    """Why a name in a folder does not come in; None for a plain file or a folder."""
    if entry.name.startswith(".") or entry.name in {"__MACOSX", "Thumbs.db"}:
        return "hidden", "a hidden or system file"
    if _shown(entry.name) != entry.name:
        return "unreadable_name", "its name is not UTF-8 text; rename it"
    try:
        if entry.is_dir() or entry.is_file():
            return None
    except OSError as error:  # links that lead to each other, no permission
        return "link_loop" if error.errno == errno.ELOOP else "unreadable_file", f"cannot be followed ({error.strerror})"
    return ("missing_file", "a link to a file that is not there") if entry.is_symlink() else ("not_a_file", "not a plain file")


def _shown(name: str) -> str:
    """A name as it can be written: bytes that are no UTF-8 as \\xff."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
