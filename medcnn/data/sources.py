"""What a source of images hands to ingest, and what all sources share: walking a folder, words for parts."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from medcnn.cohort import Exclusion
from medcnn.errors import InputError

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


def n_threads() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

    Links to files and folders are followed, but not into a folder that contains the link.
    """
    files: list[str] = []
    excluded: list[Exclusion] = []
    _walk(root, "", (os.path.realpath(root),), files, excluded)
    return sorted(files), excluded


def _walk(folder: Path, prefix: str, above: tuple[str, ...], files: list[str], excluded: list[Exclusion]) -> None:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        excluded.append(Exclusion(where=prefix or str(folder), kind="unreadable_folder", reason=f"cannot be listed ({error.strerror})"))
        return
    for entry in entries:
        relative = f"{prefix}{entry.name}"
        if entry.name.startswith(".") or entry.name in {"__MACOSX", "Thumbs.db"}:
            excluded.append(Exclusion(where=relative, kind="hidden", reason="a hidden or system file"))
        elif entry.is_dir():
            real = os.path.realpath(entry.path)
            if real in above:
                excluded.append(Exclusion(where=relative, kind="link_loop", reason="a link to a folder that contains it"))
            else:
                _walk(Path(entry.path), f"{relative}/", (*above, real), files, excluded)
        elif entry.is_file():
            files.append(relative)
        else:
            reason = "a link to a file that is not there" if entry.is_symlink() else "not a plain file"
            excluded.append(Exclusion(where=relative, kind="missing_file" if entry.is_symlink() else "not_a_file", reason=reason))
