"""Hyper-parameter search: settings of the main model, compared on inner folds of the patients that the split trains on.

The outer test part is not read: neither its images nor its labels. The config is not changed; what was found is written
down, to be pasted or not.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from medcnn.artifact import code_digest, digest, read_stamp, write_file
from medcnn.cohort import Fingerprint, read_fingerprint
from medcnn.config import Config
from medcnn.errors import InputError
from medcnn.plan import Plan, SplitPlan, read_plan
from medcnn.runs import ROOMS, Run, do_stage
from medcnn.search_space import SECTIONS, Dimension, Value, nested, read_space, with_values
from medcnn.stain_stages import trained_images
from medcnn.tables import read_table
from medcnn.train_stages import Inputs, cached_labels, fit_network, rows_of_parts, weights_digest
from medcnn.trials import Trial, best_of, run_trials, trials_table

JOURNAL = "search.journal"  # in the run's folder: it outlives a killed search, and one with fewer trials
TRACE = "search.json"  # what the report of a run in the same folder reads
N_SHOWN = 5


def search(run: Run, inputs: Inputs) -> Path:
    """Try search.n_trials settings of the main model: `search/best.yaml`, `search/trials.csv`, and `search/search.json` for a report.

    inputs: folders of fingerprint, plan, audit, split and cache. Each trial is trained and scored on search.n_folds inner
    folds; the lowest mean log-loss wins. A search that was killed goes on with the trials that are done, and one with a
    larger n_trials adds to them. Raises InputError for a space or inner folds that cannot be, before anything is trained.
    """
    config, decided = run.config, read_plan(inputs["plan"] / "plan.yaml")
    space = read_space(config)
    read = {name: inputs[name] for name in ("audit", "split", "cache")}
    settings: dict[str, Any] = {
        "plan": decided.model_dump(mode="json", exclude={"reasons", "ladder", "prediction", "simple_cnn"}),
        "config": {name: config.model_dump(mode="json")[name] for name in SECTIONS},
        "search": config.search.model_dump(mode="json", exclude={"n_trials"}),
        "weights": weights_digest(decided),
    }
    contents = {name: stamp.content if (stamp := read_stamp(folder)) else "" for name, folder in read.items()}
    study = digest({**settings, "inputs": contents, "code": code_digest(*ROOMS["search"])})[:16]

    def work(draft: Path) -> None:
        found = read_fingerprint(inputs["fingerprint"] / "fingerprint.json")
        _try_settings(run, decided, space, found, read, draft, study=study)

    return do_stage(run, "search", work, settings={**settings, "n_trials": config.search.n_trials}, inputs=read)


def _try_settings(
    run: Run, decided: Plan, space: Sequence[Dimension], found: Fingerprint, inputs: Inputs, draft: Path, *, study: str
) -> None:
    from medcnn.data.cache import open_cache
    from medcnn.model.distributed import n_processes
    from medcnn.model.machine import inspect_machine

    if run.config.jobs > 1 or n_processes() > 1:
        run.say("search: settings are tried one after the other, by one process")
    machine, n_folds = inspect_machine(), run.config.search.n_folds
    for dimension in space:
        for value in dimension.choices or (dimension.low, dimension.high):
            replan(decided, found, run.config, machine, {dimension.key: dimension.settle(value)})
    manifest, outer = read_table(inputs["audit"] / "manifest.parquet"), read_table(inputs["split"] / "split.parquet")
    inner = deal_inner(manifest, outer, decided, n_folds)
    for note in inner.attrs["notes"]:
        run.say(f"search: {note}")
    cached = open_cache(inputs["cache"])
    y, rows = _inner_targets(manifest, inner, cached, decided)
    images = [trained_images(inputs, cached.images, decided, of_fold["train"])[0] for of_fold in rows]

    def score(values: Mapping[str, Value], fold: int) -> float:
        return score_fold(replan(decided, found, run.config, machine, values), images[fold], y, rows[fold], seed=decided.seed + fold)

    standing = {dimension.key: value_of(decided, dimension.key) for dimension in space}
    trials = run_trials(
        space, score, standing=standing, n_folds=n_folds, n_trials=run.config.search.n_trials, seed=decided.seed,
        journal=run.folder / JOURNAL, name=study, say=run.say,
    )  # fmt: skip
    trials_table(trials).to_csv(draft / "trials.csv", index=False)
    write_file(draft / "best.yaml", best_text(trials, inner.attrs["notes"]).encode())
    write_file(draft / TRACE, (json.dumps(trace_of(trials, inner), indent=1) + "\n").encode())


# ---------------------------------------------------------------- inner folds


def deal_inner(manifest: pd.DataFrame, outer: pd.DataFrame, decided: Plan, n_folds: int) -> pd.DataFrame:
    """Inner folds of the patients that the outer split's first fold trains and tunes on: image_id, patient_id, part, fold.

    In fold f the f-th share is `test`: it is scored. `val` has its share of the others, as in the outer fold, and is
    absent where that has none. `.attrs["notes"]` says what a reader must know. Raises InputError when a class cannot
    stand in every inner part.
    """
    from medcnn.data.split import deal

    first = outer[outer["fold"] == outer["fold"].min()]
    own = first[first["part"] != "test"]
    n_patients, n_val = own["patient_id"].nunique(), own.loc[own["part"] == "val", "patient_id"].nunique()
    if not (own["part"] == "train").any():
        raise InputError("search: the split has no train part in its first fold, so there is nobody to search on")
    share = n_val / n_patients * (1 - 1 / n_folds)
    wanted = SplitPlan(scheme="kfold", n_folds=n_folds, val_fraction=share, test_fraction=0.0, unit=decided.split.unit)
    table = manifest[manifest["image_id"].isin(set(own["image_id"]))].drop(columns=["given_part", "given_fold"], errors="ignore")
    try:
        inner = deal(table, wanted, labels=decided.labels, seed=decided.seed)
    except InputError as problem:
        raise InputError(f"search: the inner folds (search.n_folds: {n_folds}) cannot be dealt: {problem}") from None
    notes = [f"{n_folds} inner folds of the {n_patients} train and val patients; no test image is read."]
    if outer.loc[outer["part"] == "test", "image_id"].isin(set(own["image_id"])).any():
        notes.append(
            "They are those of the first fold. Other folds test some of them, so their results are of settings that these patients "
            "helped to choose; only the first fold's test patients had no part in it."
        )
    inner.attrs["notes"] = notes
    return inner


def _inner_targets(
    manifest: pd.DataFrame, inner: pd.DataFrame, cached: Any, decided: Plan
) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Labels in cache order, float32 (N, n_labels), NaN outside the inner folds; for each fold the cache rows of its parts."""
    own = manifest[manifest["image_id"].isin(set(inner["image_id"]))]
    folds = [of_fold for _, of_fold in inner.groupby("fold", sort=True)]
    return cached_labels(cached, own, decided.labels), [rows_of_parts(cached, of_fold, ("train", "val", "test")) for of_fold in folds]


def score_fold(decided: Plan, pixels: np.ndarray, y: np.ndarray, rows: Mapping[str, np.ndarray], *, seed: int) -> float:
    """Mean log-loss on the rows `test` of the main model trained on `train`, its epoch chosen on `val`.

    pixels: uint8 (N, H, W, C). y: float (N, n_labels), 0/1/NaN. No other row is read. Raises Diverged.
    """
    from medcnn.data.augment import AugmentedImages
    from medcnn.model.losses import log_loss
    from medcnn.model.predict import predict

    model, result = fit_network(decided, pixels, y, rows, seed=seed)
    logits, _ = predict(
        model, AugmentedImages(pixels, None, seed), rows["test"], card=result.signature,
        device=decided.training.device, precision=decided.training.precision, n_threads=decided.training.n_threads,
    )  # fmt: skip
    return log_loss(logits, y[rows["test"]], decided.task)


# ---------------------------------------------------------------- settings


def replan(decided: Plan, found: Fingerprint, config: Config, machine: Any, values: Mapping[str, Value]) -> Plan:
    """The plan with these values, and with what the rules decide otherwise because of them.

    What was measured or edited by hand stays. Raises InputError for settings that cannot be, or want other images.
    """
    from medcnn.model.rules import make_plan

    before, after = make_plan(found, config, machine), make_plan(found, with_values(config, values), machine)
    if after.image != before.image:
        raise InputError(
            f"search.space: {', '.join(values)}: some of the values want other images ({after.image.size_px} px, {after.image.channels} channels) "
            f"than {before.image.size_px} px, {before.image.channels} channels; set image.size_px and image.channels, so that all trials have the same"
        )
    changed = {}
    for section in SECTIONS:
        old, new = getattr(before, section).model_dump(), getattr(after, section).model_dump()
        update = {name: value for name, value in new.items() if value != old[name] or f"{section}.{name}" in values}
        changed[section] = getattr(decided, section).model_copy(update=update)
    return decided.model_copy(update=changed)


def value_of(decided: Plan, key: str) -> Value:
    """What the plan has for a dotted key."""
    section, _, name = key.partition(".")
    value: Value = getattr(getattr(decided, section), name)
    return value


# ---------------------------------------------------------------- what was found


def best_text(trials: Sequence[Trial], notes: Sequence[str]) -> str:
    """The best setting as a piece of a config file, and in comments what it is worth and how it was found."""
    standing, best = trials[0], best_of(trials)
    lines = [f"# The best of {len(trials) - 1} settings that `medcnn search` tried.", *(f"# {note}" for note in notes)]
    if best is None:
        return "\n".join([*lines, "# No trial was trained on all inner folds: nothing can be recommended.", "{}", ""])
    lines.append(f"# Mean log-loss of the inner folds: {_folds(best)}; of the config as it stands: {_folds(standing)}.")
    if standing.loss is not None and best.loss is not None and standing.loss <= best.loss:
        lines.append("# The config as it stands did no worse: there is no reason to paste this.")
    lines.append("# The lowest of many is lower than it would be on new patients: the gain of a run will be smaller.")
    words = [f"{key}={yaml.safe_dump(value).splitlines()[0]}" for key, value in best.values.items()]
    lines.append(f"# Paste into the config, or: medcnn run CONFIG {' '.join(words)}")
    return "\n".join([*lines, yaml.safe_dump(nested(best.values), sort_keys=False)])


def trace_of(trials: Sequence[Trial], inner: pd.DataFrame) -> dict[str, Any]:
    """What a report must know of a search: `statement` for its methods, the searched `keys`, and the `best` setting, if any."""
    standing, best, n_folds = trials[0], best_of(trials), inner["fold"].nunique()
    keys = list(standing.values)
    n_complete = sum(trial.outcome == "complete" for trial in trials[1:])
    said = (
        f"Before, {len(trials) - 1} settings of {', '.join(keys)} of the main model were compared by their log-loss on {n_folds} inner folds of "
        f"{inner['patient_id'].nunique()} training and tuning patients ({n_complete} of them on all folds; tree-structured Parzen estimator, doi:10.5555/2986459.2986743)"
    )
    if best is not None and standing.loss is not None:
        said += f"; the best reached {best.loss:.4f}, the setting before the search {standing.loss:.4f}"
    overlap = inner.attrs["notes"][1:]
    return {"statement": " ".join([f"{said}.", *overlap]), "keys": keys, "best": dict(best.values) if best is not None else None}


def found_text(folder: Path) -> str:
    """The best trials of a finished search as a table, and the best setting; for the terminal."""
    table = read_table(folder / "trials.csv")
    outcomes = table.loc[table["trial"] > 0, "outcome"].value_counts()
    said = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items())
    keys = [column for column in table.columns if "." in column]
    shown = pd.concat([table[table["trial"] == 0], table[table["trial"] > 0].sort_values("log_loss", kind="stable").head(N_SHOWN)])
    shown = shown[["trial", "log_loss", *keys]].assign(trial=shown["trial"].replace({0: "as it stands"}))
    best = (folder / "best.yaml").read_text(encoding="utf-8").rstrip()
    statement = json.loads((folder / TRACE).read_text(encoding="utf-8"))["statement"]
    told = (
        f"A run of this cohort and split with --out {folder.parent} says in its report that it was searched; in the methods of any other, "
        f"write whether the best setting was adopted, and:\n{statement}"
    )
    return "\n".join([shown.to_string(index=False, na_rep="", float_format="{:.4g}".format), f"trials: {said}", "", best, "", told])


def _folds(trial: Trial) -> str:
    folds = ", ".join(f"{loss:.4f}" for loss in trial.losses)
    return f"{trial.loss:.4f} ({folds})" if trial.loss is not None else f"none, it {trial.outcome}"
