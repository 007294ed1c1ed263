"""Search on inner folds: who may be looked at, what a setting changes in the plan, what is said of the best."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from medcnn.artifact import Key, drafted, read_stamp
from medcnn.cohort import Fingerprint
from medcnn.config import Config
from medcnn.config_file import build_config, read_config
from medcnn.data.augment import AugmentedImages
from medcnn.data.fingerprint import fingerprint
from medcnn.data.ingest import ingest
from medcnn.data.split import deal
from medcnn.errors import InputError
from medcnn.model.machine import Machine, inspect_machine
from medcnn.model.predict import predict
from medcnn.model.rules import make_plan
from medcnn.plan import Plan
from medcnn.readout import search_facts, searched
from medcnn.runs import Run
from medcnn.search import best_text, deal_inner, found_text, replan, score_fold, trace_of, value_of
from medcnn.tables import label_matrix
from medcnn.train_stages import fit_network
from medcnn.trials import Trial, trials_table


def config_of(**sections: Any) -> Config:
    tree: dict[str, Any] = {
        "name": "x",
        "modality": "chest_xray",
        "data": {"source": "phantom", "n_images": 160},
        "split": {"scheme": "holdout", "val_fraction": 0.2, "test_fraction": 0.3},
        "image": {"size_px": 32, "channels": 1},
        "model": {"name": "simple_cnn"},
        "ladder": {"rungs": ["main"]},
        "training": {"device": "cpu", "epochs": 1, "n_workers": 0, "n_threads": 1, "select": "last"},
    }
    return build_config(
        {
            key: {**tree.get(key, {}), **sections.get(key, {})} if key != "name" and key != "modality" else tree[key]
            for key in {**tree, **sections}
        },
        source="test",
    )


@pytest.fixture(scope="module")
def machine() -> Machine:
    return inspect_machine()


@pytest.fixture(scope="module")
def manifest() -> pd.DataFrame:
    return ingest(config_of().data)[0]


@pytest.fixture(scope="module")
def found(manifest: pd.DataFrame) -> Fingerprint:
    return fingerprint(manifest, task="auto")


def decided_of(found: Fingerprint, machine: Machine, **sections: Any) -> Plan:
    return make_plan(found, config_of(**sections), machine)


# ---------------------------------------------------------------- inner folds


@pytest.mark.parametrize(
    "split",
    [
        {"scheme": "holdout"},
        {"scheme": "holdout", "val_fraction": 0.0},
        {"scheme": "kfold", "n_folds": 3, "val_fraction": 0.15},
        {"scheme": "kfold", "n_folds": 3, "val_fraction": 0.0},
        {"scheme": "kfold_holdout", "n_folds": 3, "val_fraction": 0.0},
        {"scheme": "leave_site_out", "val_fraction": 0.15},
    ],
)
def test_inner_folds_hold_the_train_and_val_patients_and_nobody_else(
    manifest: pd.DataFrame, found: Fingerprint, machine: Machine, split: dict[str, Any]
) -> None:
    fixed = {"calibration": {"method": "none"}, "evaluation": {"thresholds": [{"rule": "fixed", "value": 0.5}]}}
    decided = decided_of(found, machine, split=split, **fixed)
    outer = deal(manifest, decided.split, labels=decided.labels, seed=decided.seed)
    first = outer[outer["fold"] == 0].set_index("image_id")["part"]
    inner = deal_inner(manifest, outer, decided, 3)
    own = set(first.index[first != "test"])
    assert set(inner["image_id"]) == own
    assert inner[inner["part"] == "test"].groupby("image_id").size().reindex(sorted(own)).eq(1).all()
    assert inner.groupby(["fold", "patient_id"])["part"].nunique().eq(1).all()
    shares = inner[inner["part"] != "test"].groupby("fold")["part"].apply(lambda parts: parts.eq("val").mean())
    assert shares.to_numpy() == pytest.approx(np.full(3, first[first != "test"].eq("val").mean()), abs=0.06)
    assert ("val" in set(inner["part"])) == ("val" in set(first))
    assert "no test image is read" in inner.attrs["notes"][0]
    assert (len(inner.attrs["notes"]) == 2) == (split["scheme"] in {"kfold", "leave_site_out"})


def test_test_rows_do_not_decide_the_inner_folds(manifest: pd.DataFrame, found: Fingerprint, machine: Machine) -> None:
    decided = decided_of(found, machine)
    outer = deal(manifest, decided.split, labels=decided.labels, seed=0)
    tested = manifest["image_id"].isin(outer.loc[outer["part"] == "test", "image_id"])
    poisoned = manifest.copy()
    poisoned.loc[tested, ["y_nodule", "sha256", "pixel_sha256"]] = [0.0, "same", "same"]
    pd.testing.assert_frame_equal(deal_inner(poisoned, outer, decided, 3), deal_inner(manifest, outer, decided, 3))


def test_inner_folds_that_cannot_be(manifest: pd.DataFrame, found: Fingerprint, machine: Machine) -> None:
    decided = decided_of(found, machine)
    outer = deal(manifest, decided.split, labels=decided.labels, seed=0)
    with pytest.raises(InputError, match="no train part in its first fold"):
        deal_inner(manifest, outer.assign(part="test"), decided, 3)
    rare = manifest.assign(y_nodule=0.0)
    rare.loc[rare["patient_id"].isin(outer.loc[outer["part"] == "train", "patient_id"].unique()[:2]), "y_nodule"] = 1.0
    with pytest.raises(InputError, match=r"inner folds \(search.n_folds: 3\) cannot be dealt: .*class nodule has 2 patients"):
        deal_inner(rare, outer, decided, 3)


def test_a_fold_is_scored_from_its_own_rows(manifest: pd.DataFrame, found: Fingerprint, machine: Machine) -> None:
    from sklearn.metrics import log_loss

    decided = decided_of(found, machine)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (len(manifest), 32, 32, 1), dtype=np.uint8)
    y = label_matrix(manifest, decided.labels).astype(np.float32)
    rows = {"train": np.arange(40), "val": np.arange(0), "test": np.arange(60, 90)}
    loss = score_fold(decided, pixels, y, rows, seed=3)
    model, result = fit_network(decided, pixels, y, rows, seed=3)
    _, p = predict(model, AugmentedImages(pixels, None, 3), rows["test"], card=result.signature, device="cpu", n_threads=1)
    assert loss == pytest.approx(log_loss(y[60:90, 0], p[:, 0], labels=[0, 1]), rel=1e-5)
    others = np.r_[40:60, 90 : len(pixels)]
    pixels[others], y[others] = 0, np.nan
    assert score_fold(decided, pixels, y, rows, seed=3) == loss


# ---------------------------------------------------------------- settings


def changes(before: Plan, after: Plan) -> set[str]:
    old, new = before.model_dump(), after.model_dump()
    return {
        f"{section}.{name}"
        for section in ("augment", "model", "training")
        for name in old[section]
        if old[section][name] != new[section][name]
    }


def test_a_value_changes_itself_and_what_follows_from_it(found: Fingerprint, machine: Machine) -> None:
    config = config_of(training={"epochs": "auto", "batch_size": "auto"})
    decided = make_plan(found, config, machine)
    assert changes(decided, replan(decided, found, config, machine, {"training.weight_decay": 0.5})) == {"training.weight_decay"}
    assert replan(decided, found, config, machine, {}) == decided
    follows = replan(decided, found, config, machine, {"training.batch_size": 8})
    wanted = make_plan(found, config_of(training={"epochs": "auto", "batch_size": 8}), machine)
    assert follows.training == wanted.training
    assert follows.training.batch_size == 8 and value_of(follows, "training.batch_size") == 8


def test_what_was_edited_or_measured_stays_unless_it_is_searched(found: Fingerprint, machine: Machine) -> None:
    config = config_of()
    decided = make_plan(found, config, machine)
    edited = decided.model_copy(update={"training": decided.training.model_copy(update={"epochs": 77, "clip_norm": 3.0})})
    assert changes(edited, replan(edited, found, config, machine, {"training.weight_decay": 0.5})) == {"training.weight_decay"}
    same_as_config = replan(edited, found, config, machine, {"training.epochs": 1})
    assert same_as_config.training.epochs == 1 and same_as_config.training.clip_norm == 3.0


def test_values_that_want_other_images_are_refused(found: Fingerprint, machine: Machine) -> None:
    config = config_of(model={"name": "simple_cnn"}, image={"size_px": "auto", "channels": "auto"})
    decided = make_plan(found, config, machine)
    with pytest.raises(InputError, match=r"search.space: model.name: some of the values want other images"):
        replan(decided, found, config, machine, {"model.name": "tf_efficientnet_lite0"})


# ---------------------------------------------------------------- what was found


def trial(number: int, *losses: float, outcome: Any = "complete", **values: Any) -> Trial:
    given = {f"training.{name}": value for name, value in values.items()}
    return Trial(number=number, outcome=outcome, values=given, losses=losses, seconds=1.0)


STANDING = trial(0, 0.5, 0.6, learning_rate=0.001, epochs=3)
TRIALS = [
    STANDING,
    trial(1, 0.9, outcome="pruned", learning_rate=0.1, epochs=9),
    trial(2, 0.4, 0.5, learning_rate=0.00001, epochs=7),
    trial(3, 0.45, 0.5, learning_rate=0.01, epochs=5),
]


def test_the_best_is_a_piece_of_a_config_and_words_for_the_command_line(tmp_path: Path) -> None:
    text = best_text(TRIALS, ["3 inner folds of 9 patients."])
    assert yaml.safe_load(text) == {"training": {"learning_rate": 0.00001, "epochs": 7}}
    assert "# Mean log-loss of the inner folds: 0.4500 (0.4000, 0.5000); of the config as it stands: 0.5500 (0.5000, 0.6000)." in text
    assert "no reason to paste" not in text and "# 3 inner folds of 9 patients." in text
    words = next(line for line in text.splitlines() if "medcnn run CONFIG" in line).split("CONFIG ")[1].split()
    (tmp_path / "c.yaml").write_text("name: x\ndata: {source: phantom}\n")
    config = read_config(tmp_path / "c.yaml", words)
    assert (config.training.learning_rate, config.training.epochs) == (0.00001, 7)


def test_a_search_that_found_nothing_better_says_so() -> None:
    assert "The config as it stands did no worse: there is no reason to paste this." in best_text(
        [STANDING, trial(1, 0.5, 0.6, epochs=1)], []
    )
    nothing = best_text([STANDING, trial(1, outcome="diverged", epochs=1)], [])
    assert yaml.safe_load(nothing) == {} and "nothing can be recommended" in nothing
    stuck = best_text([trial(0, outcome="diverged"), trial(1, 0.5, epochs=1)], [])
    assert "of the config as it stands: none, it diverged." in stuck


def test_the_terminal_shows_the_best_first(tmp_path: Path) -> None:
    trials_table(TRIALS).to_csv(tmp_path / "trials.csv", index=False)
    (tmp_path / "best.yaml").write_text(best_text(TRIALS, []))
    (tmp_path / "search.json").write_text(json.dumps(trace_of(TRIALS, inner_folds())))
    lines = found_text(tmp_path).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["as", "2", "3"]
    assert "trials: 2 complete, 1 pruned" in lines
    assert "  epochs: 7" in lines
    assert lines[-2].startswith(f"A run of this cohort and split with --out {tmp_path.parent} says in its report")
    assert lines[-1].startswith(
        "Before, 3 settings of training.learning_rate, training.epochs of the main model were compared by their log-loss"
    )


def inner_folds() -> pd.DataFrame:
    table = pd.DataFrame({"fold": [0, 1, 2], "patient_id": ["a", "b", "a"]})
    table.attrs["notes"] = ["3 inner folds.", "They are those of the first fold."]
    return table


def test_a_search_leaves_a_trace_for_the_report(found: Fingerprint, machine: Machine, tmp_path: Path) -> None:
    trace = trace_of(TRIALS, inner_folds())
    assert trace["best"] == {"training.learning_rate": 0.00001, "training.epochs": 7}
    assert "on 3 inner folds of 2 training and tuning patients (2 of them on all folds;" in trace["statement"]
    assert "; the best reached 0.4500, the setting before the search 0.5500. They are those of the first fold." in trace["statement"]
    (tmp_path / "search.json").write_text(json.dumps(trace))
    decided = decided_of(found, machine, training={"epochs": 7, "learning_rate": 0.5})
    facts = search_facts(tmp_path, decided)
    assert (facts.statement, list(facts.keys), list(facts.adopted)) == (trace["statement"], trace["keys"], ["training.epochs"])
    copied = decided_of(found, machine, training={"epochs": 7, "learning_rate": 0.0000100001})
    assert set(search_facts(tmp_path, copied).adopted) == set(facts.keys)
    nothing = trace_of([STANDING, trial(1, outcome="diverged", epochs=1)], inner_folds())
    assert nothing["best"] is None and "the best reached" not in nothing["statement"]


def test_a_search_belongs_to_a_run_of_the_same_images_and_split(tmp_path: Path) -> None:
    def made(folder: Path, stage: str, text: str, inputs: dict[str, str]) -> Path:
        with drafted(folder, Key(stage=stage, settings={}, inputs=inputs, code="")) as draft:
            (draft / ("search.json" if stage == "search" else "x")).write_text(text)
        return folder

    run = Run(config_of(), tmp_path, tmp_path, shared=False)
    folders = {name: made(tmp_path / name, name, name, {}) for name in ("audit", "split", "cache", "plan")}
    assert searched(run, folders) == {}
    contents = {name: read_stamp(folders[name]).content for name in ("audit", "split", "cache")}
    made(tmp_path / "search", "search", "{}", contents)
    assert searched(run, folders) == {"search": tmp_path / "search"}
    made(folders["split"], "split", "dealt anew", {"audit": "other"})
    assert searched(run, folders) == {}
