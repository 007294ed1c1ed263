"""A run: one config, its folder, the cohort folder it may share, and the rule by which a stage is done or skipped."""

import contextlib
import functools
import getpass
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from medcnn.artifact import Key, code_digest, drafted, is_current, make_folder, read_stamp, recover, write_file
from medcnn.config import Config
from medcnn.config_file import build_config, changed_keys, read_yaml, write_config
from medcnn.errors import InputError, RunError
from medcnn.progress import Progress, shown, silent

CONFIG_FILE = "config.yaml"
LEDGER_FILE = "test_ledger.jsonl"
COHORT_STAGES = ("ingest", "audit", "fingerprint", "split", "cache", "shortcuts", "drift", "doubts")

PLANNING = (
    "rules",
    "rules_split",
    "rules_image",
    "rules_bags",
    "rules_model",
    "rules_training",
    "rules_checks",
    "recipe",
    "decisions",
    "machine",
    "measure",
)

AVERAGING = (
    "ensemble",
    "ensemble_weights",
    "baseline",
    "calibration_rows",
    "levels",
    "estimates",
    "recalibration",
    "recalibrated_predictions",
    "multiclass_recalibration",
)

DEALING = ("data/split", "data/split_folds", "data/split_given", "data/split_units", "data/stratification")

PREPARING = (
    "cache", "chunks", "shards", "prepared", "images", "formats", "png", "arrays", "phantom", "pixel_record",
    "dicom", "dicom_codecs", "dicom_colour", "dicom_display", "dicom_elements", "dicom_geometry",
    "slides", "slide_readers", "slide_dicom", "slide_tiff", "tiles", "tile_places", "tile_quality", "tile_store",
)  # fmt: skip

# Which source a stage's result depends on: a change there makes the stage run again.
ROOMS = {
    "ingest": ("tables", "data"),
    "audit": ("tables", "data"),
    "fingerprint": ("data/fingerprint", "data/intensity"),
    "split": DEALING,
    "cache": tuple(f"data/{name}" for name in PREPARING),
    "shortcuts": ("data", "evaluation"),
    "drift": ("data", "evaluation"),
    "doubts": ("data",),
    "pictures": ("finding_pictures",),
    "search": (
        "search",
        "search_space",
        "trials",
        "train_stages",
        "stain_stages",
        "model",
        "data/augment",
        "data/policies",
        "data/mapped",
        "data/stain",
        *DEALING,
    ),
    "plan": ("plan", *(f"model/{name}" for name in PLANNING)),
    "stain": ("data/stain", "data/mapped", "stain_stages"),
    "features": ("model", "train_stages", "stain_stages", "data/stain", "data/mapped"),
    "train": (
        "model",
        "data/augment",
        "data/policies",
        "data/stain",
        "data/mapped",
        "members",
        "train_stages",
        "stain_stages",
        "bag_stages",
    ),
    "predict": (
        "predict_stages",
        "members",
        "model",
        "stain_stages",
        "bag_stages",
        "data/augment",
        "data/policies",
        "data/mapped",
        "data/stain",
        "data/shortcut_model",
        "data/shortcuts",
        "data/shortcut_features",
        *(f"evaluation/{name}" for name in AVERAGING),
    ),
    "calibrate": ("evaluation",),
    "evaluate": ("evaluation", "tables"),
    "ladder": ("evaluation", "model_stages"),
    "explain": ("model/explain", "bag_pictures", "explanation"),
    "report": ("report", "evaluation", "readout"),
}


@dataclass(frozen=True)
class Run:
    """Where one config's results stand. shared: the cohort folder belongs to several runs."""

    config: Config
    folder: Path
    cohort: Path
    shared: bool
    progress: Progress = silent
    say: Callable[[str], None] = lambda _: None

    @property
    def ledger(self) -> Path:
        """The test ledger: it belongs to the test set, so to the cohort when several runs share it."""
        return (self.cohort if self.shared else self.folder) / LEDGER_FILE

    def done(self, name: str) -> Path:
        """Folder of a finished stage of this run; raises InputError when it is not there."""
        folder = self.folder / name
        if read_stamp(folder) is None:
            raise InputError(f"{folder}: stage {name} is not finished; run `medcnn run` on this config first")
        return folder


def open_run(config: Config, out: Path | None = None, *, update: bool = False, quiet: bool = False) -> Run:
    """Make or reopen a run's folder.

    Raises InputError when the folder holds a run of another config (and `update` is not set), or cannot be written to.
    """
    folder = make_folder((out or Path("reports") / config.name).resolve())
    cohort = make_folder(config.cohort or folder / "cohort")
    _require_same_config(config, folder, update)
    aside = folder / f".{CONFIG_FILE}"
    write_config(config, aside)
    write_file(folder / CONFIG_FILE, aside.read_bytes())
    aside.unlink()
    say: Callable[[str], None] = (lambda _: None) if quiet else functools.partial(print, flush=True)
    return Run(config, folder, cohort, config.cohort is not None, silent if quiet else shown, say)


def reopen_run(folder: Path) -> Run:
    """The run in a folder, by its saved config; raises InputError when there is none."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{folder}: holds no run ({CONFIG_FILE} is missing); expected the folder that `medcnn run --out` made")
    config = build_config(read_yaml(path), source=str(path))
    return Run(config, folder, config.cohort or folder / "cohort", config.cohort is not None)


def do_stage(
    run: Run,
    name: str,
    work: Callable[[Path], None],
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Path],
    place: str | None = None,
) -> Path:
    """Do a stage unless its folder was made from the same settings, inputs and code; return the folder.

    work: writes into the draft folder it is given. place: the folder's name within the run (default: the stage's name).
    """
    stamps = {upstream: read_stamp(folder) for upstream, folder in inputs.items()}
    contents = {upstream: stamp.content if stamp else "" for upstream, stamp in stamps.items()}
    key = Key(stage=name, settings=settings, inputs=contents, code=code_digest(*ROOMS[name]))
    folder = _stage_folder(run, name, place or name, key.digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not is_current(folder, key):
        with _locked(folder):
            recover(folder)
            if not is_current(folder, key):
                _work(run, folder, key, work, place or name)
                return folder
    run.say(f"{place or name}: done before")
    return folder


def _work(run: Run, folder: Path, key: Key, work: Callable[[Path], None], title: str) -> None:
    run.say(f"{title} ...")
    started = time.monotonic()
    with drafted(folder, key) as draft:
        work(draft)
    run.say(f"{title}: done in {time.monotonic() - started:.1f} s")


def ledger_entry(name: str, config_digest: str, predictions_digest: str, *, run: str = "") -> dict[str, str]:
    """One opening of the test part: when, who, which run (its folder's name), which config, which predictions."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    known = {"run": run} if run else {}
    return {"when": when, "who": getpass.getuser(), "name": name, **known, "config": config_digest, "predictions": predictions_digest}


def append_ledger(path: Path, entry: Mapping[str, Any]) -> None:
    """Add one line to the test ledger and make it last, unless the opening is noted already.

    A line that differs in nothing but when and who is the same opening: a kill had come between the line and the stamp.
    """
    same = {key: value for key, value in entry.items() if key not in {"when", "who"}}
    if any(all(line.get(key, value) == value for key, value in same.items()) for line in read_ledger(path)):
        return
    line = json.dumps(entry, sort_keys=True) + "\n"
    before = path.read_bytes() if path.exists() else b""
    write_file(path, before + line.encode())


def note_opening(run: Run, entry: Mapping[str, Any]) -> None:
    """Add one line to the run's test ledger; runs that share a cohort may do so at the same time."""
    with FileLock(run.ledger.with_name(f".{LEDGER_FILE}.lock")):
        append_ledger(run.ledger, entry)


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """All openings of the test part so far, oldest first."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _stage_folder(run: Run, name: str, place: str, key: str) -> Path:
    if name not in COHORT_STAGES:
        return run.folder / place
    return run.cohort / (f"{place}-{key[:10]}" if run.shared else place)


def _require_same_config(config: Config, folder: Path, update: bool) -> None:
    path = folder / CONFIG_FILE
    if not path.is_file() or update:
        return
    changes = changed_keys(read_yaml(path), config.model_dump(mode="json"))
    if changes:
        raise InputError(
            f"{folder}: holds a run of another config ({'; '.join(changes[:5])}); choose another --out, or --update to redo what depends on it"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{folder}: another process is working here; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()
