"""Dealing patients: a partition always, copies never apart, shares against the best possible, given splits as they are."""

import ast
import importlib
import inspect
import itertools

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_cases import cohort, plan, with_parts

from medcnn.data import stratification
from medcnn.data.split import count_parts, deal
from medcnn.data.stratification import deal_units
from medcnn.errors import InputError
from medcnn.runs import ROOMS
from medcnn.tables import read_table, split_hash, write_table

# ---------------------------------------------------------------- always true


@settings(max_examples=100, deadline=None)
@given(
    n_patients=st.integers(12, 80),
    n_labels=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    multiclass=st.booleans(),
    missing=st.sampled_from([0.0, 0.3]),
    scheme=st.sampled_from(["holdout", "kfold"]),
    n_folds=st.integers(2, 5),
    fractions=st.sampled_from([(0.15, 0.2), (0.1, 0.1), (0.313, 0.2871), (0.2, 0.4)]),
)
def test_parts_are_a_partition_of_units_with_every_class_in_each(
    n_patients, n_labels, seed, multiclass, missing, scheme, n_folds, fractions
):
    table, labels = cohort(n_patients, n_labels + multiclass, seed, multiclass, missing)
    rng = np.random.default_rng(seed)
    table.loc[rng.integers(0, len(table), 6), "sha256"] = "a copy"  # six images are one, and join their patients
    wanted = plan(scheme, n_folds=n_folds, val_fraction=fractions[0], test_fraction=fractions[1])
    try:
        split = deal(table, wanted, labels=labels, seed=seed)
    except InputError as error:
        assert "patients per class" in str(error)
        carriers = [
            table.loc[table[f"y_{label}"] == value, "patient_id"].nunique() for label in labels for value in (1, 0)[: 2 - multiclass]
        ]
        assert min(carriers) - 5 < max(4, n_folds if scheme == "kfold" else 3)  # the copies join up to six patients
        return
    n_parts = n_folds if scheme == "kfold" else 1
    assert split.groupby("image_id").size().eq(n_parts).all()
    assert set(split["image_id"]) == set(table["image_id"])
    assert len(split) == n_parts * len(table)
    assert split.groupby(["fold", "patient_id"])["part"].nunique().eq(1).all()
    copies = split[split["image_id"].isin(table.loc[table["sha256"] == "a copy", "image_id"])]
    assert copies.groupby("fold")["part"].nunique().eq(1).all()
    if scheme == "kfold":
        assert split[split["part"] == "test"].groupby("image_id").size().eq(1).all()
        assert set(split.loc[split["part"] == "test", "image_id"]) == set(table["image_id"])
    joined = split.merge(table, on="image_id")
    for label in labels:
        there = joined.groupby(["fold", "part"])[f"y_{label}"].agg(["max", "min"])
        assert (there["max"] == 1).all()
        assert multiclass or (there["min"] == 0).all()
    assert set(split["part"]) == {"train", "val", "test"}


def test_row_order_never_matters_and_the_seed_does():
    table, labels = cohort(50, 3, missing=0.2)
    shuffled = table.sample(frac=1, random_state=3)
    for scheme in ("holdout", "kfold"):
        split = deal(table, plan(scheme), labels=labels, seed=5)
        pd.testing.assert_frame_equal(deal(shuffled, plan(scheme), labels=labels, seed=5), split)
        assert split_hash(deal(table, plan(scheme), labels=labels, seed=6)) != split_hash(split)
        assert list(split.columns) == ["image_id", "patient_id", "part", "fold"]
        assert split.equals(split.sort_values(["fold", "image_id"]))


def test_units_are_the_connected_components_of_patients_and_copies():
    table, labels = cohort(80, seed=2)
    rng = np.random.default_rng(2)
    table["pixel_sha256"] = [f"pixels{n}" for n in range(len(table))]
    for _ in range(12):
        one, other = rng.choice(len(table), 2, replace=False)
        column = rng.choice(["sha256", "pixel_sha256"])
        table.loc[other, column] = table.loc[one, column]
    graph = nx.Graph()
    for row in table.itertuples():
        graph.add_edges_from([(row.image_id, row.patient_id), (row.image_id, row.sha256), (row.image_id, row.pixel_sha256)])
    split = deal(table, plan("kfold"), labels=labels, seed=0)
    tested = split[split["part"] == "test"].set_index("image_id")["fold"]
    components = [sorted(node for node in component if node in tested.index) for component in nx.connected_components(graph)]
    joined = [component for component in components if table.set_index("image_id").loc[component, "patient_id"].nunique() > 1]
    assert len(joined) > 5
    assert all(tested[component].nunique() == 1 for component in components)
    n_patients = sum(table.set_index("image_id").loc[component, "patient_id"].nunique() for component in joined)
    assert split.attrs["notes"] == [f"{n_patients} patients share pictures and were dealt as {len(joined)} units."]


def test_frames_of_one_file_are_not_copies():
    table, labels = cohort(30)
    table["sha256"], table["frame"] = "the file", np.arange(len(table))
    assert deal(table, plan(), labels=labels, seed=0).attrs["notes"] == []


def test_unknown_digests_join_nobody():
    table, labels = cohort(30)
    table["sha256"] = None
    assert deal(table, plan(), labels=labels, seed=0).attrs["notes"] == []


# ---------------------------------------------------------------- how good the shares are


def deviations(table, split, labels, fractions):
    """Largest distance of any part from its share: of patients, and of patients with each label."""
    joined = split.merge(table.drop(columns="patient_id"), on="image_id")
    columns = [joined["image_id"].notna(), *(joined[f"y_{label}"] == 1 for label in labels)]
    worst = []
    for column in columns:
        patients = joined[column].groupby("part")["patient_id"].nunique()
        worst.append(max(abs(patients.get(part, 0) - share * patients.sum()) for part, share in fractions.items()))
    return np.array(worst)


def test_val_of_a_fold_has_its_share_of_all_patients():
    table, labels = cohort(200)
    counts = count_parts(table, deal(table, plan("kfold", n_folds=4, val_fraction=0.15), labels=labels, seed=0), labels)
    share = counts.pivot(index="fold", columns="part", values="n_patients") / 200
    assert np.abs(share[["train", "val", "test"]] - [0.6, 0.15, 0.25]).to_numpy().max() < 0.0051  # one patient


@pytest.mark.parametrize(("n_labels", "multiclass"), [(1, False), (4, True), (8, False)])
def test_shares_are_within_two_patients_and_far_better_than_chance(n_labels, multiclass):
    table, labels = cohort(400, n_labels, multiclass=multiclass)
    fractions = {"train": 0.65, "val": 0.15, "test": 0.2}
    rng = np.random.default_rng(0)
    ours = deviations(table, deal(table, plan(), labels=labels, seed=0), labels, fractions)
    patients = table["patient_id"].unique()
    chance = []
    for _ in range(20):
        part = pd.Series(rng.choice(list(fractions), len(patients), p=list(fractions.values())), index=patients)
        chance.append(deviations(table, table[["image_id", "patient_id"]].assign(part=table["patient_id"].map(part)), labels, fractions))
    assert ours.max() <= 2
    assert ours.max() < np.mean([one.max() for one in chance]) / 3


def test_images_are_balanced_too():
    table, labels = cohort(400, 3, most_images=30)
    split = deal(table, plan(), labels=labels, seed=0)
    share = split["part"].value_counts() / len(split)
    assert share.to_dict() == pytest.approx({"train": 0.65, "val": 0.15, "test": 0.2}, abs=0.002)
    counts = count_parts(table, split, labels)
    for label in labels:
        share = counts[f"n_positive_{label}"] / counts[f"n_positive_{label}"].sum()
        assert share.to_numpy() == pytest.approx([0.65, 0.15, 0.2], abs=0.01)


def imbalance(per_class, sizes, ways, fractions):
    """The sum that dealing minimises, written out, for each way (n_ways, n_units)."""
    total = np.zeros(len(ways))
    for column in [np.ones(len(sizes)), sizes, *(per_class.T > 0), *per_class.T]:
        for number, share in enumerate(fractions):
            expected = share * column.sum()
            total += ((ways == number) @ column.astype(float) - expected) ** 2 / expected
    return total


@pytest.mark.parametrize("fractions", [(0.5, 0.25, 0.25), (1 / 3, 1 / 3, 1 / 3)])
def test_dealing_is_close_to_the_best_of_all_ways(fractions):
    ways, gaps = np.array(list(itertools.product(range(3), repeat=8))), []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 5, 8)
        per_class = np.minimum(rng.integers(0, 3, (8, 2)) * (rng.random((8, 2)) < 0.7), sizes[:, None])
        if ((per_class > 0).sum(axis=0) >= 3).all():
            ours = imbalance(per_class, sizes, deal_units(per_class, sizes, fractions, rng)[None], fractions)[0]
            costs = imbalance(per_class, sizes, ways, fractions)
            gaps.append((ours - costs.min()) / (np.median(costs) - costs.min()))
    assert len(gaps) >= 5
    assert np.mean(gaps) < 0.06  # 0: the best there is, 1: the median of all ways


def test_sweeps_bring_it_closer(monkeypatch):
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 9, 40)
    per_class = np.minimum(rng.integers(0, 4, (40, 3)) * (rng.random((40, 3)) < 0.5), sizes[:, None])
    fractions, sums = (0.65, 0.15, 0.2), {}
    for n_sweeps in (0, 2):
        monkeypatch.setattr(stratification, "N_SWEEPS", n_sweeps)
        dealt = np.stack([deal_units(per_class, sizes, fractions, np.random.default_rng(seed)) for seed in range(20)])
        sums[n_sweeps] = imbalance(per_class, sizes, dealt, fractions)
    assert (sums[2] <= sums[0] + 1e-9).all()
    assert sums[2].mean() < 0.9 * sums[0].mean()


def test_alike_units_are_dealt_exactly():
    part = deal_units(np.ones((200, 1), int), np.ones(200, int), (0.65, 0.15, 0.2), np.random.default_rng(0))
    assert np.bincount(part).tolist() == [130, 30, 40]


def test_each_part_gets_a_class_that_is_barely_there():
    per_class = np.zeros((300, 2), int)
    per_class[:, 0] = 1
    per_class[[3, 90, 200], 1] = 1
    for seed in range(20):
        part = deal_units(per_class, np.ones(300, int), (0.9, 0.05, 0.05), np.random.default_rng(seed))
        assert sorted(part[[3, 90, 200]]) == [0, 1, 2]


# ---------------------------------------------------------------- what is refused


def test_class_with_fewer_patients_than_parts_is_refused_with_the_counts():
    table, labels = cohort(30)
    table["y_l0"] = table["patient_id"].isin(["p0001", "p0002"]).astype(float)
    with pytest.raises(InputError, match=r"class l0 has 2 patients, too few.*train, val, test.*patients per class: l0 2, no l0 28"):
        deal(table, plan(), labels=labels, seed=0)
    with pytest.raises(InputError, match=r"class no l0 has 2 patients.*in each of 5 folds"):
        deal(table.assign(y_l0=1 - table["y_l0"]), plan("kfold"), labels=labels, seed=0)


def test_copies_count_as_one_patient():
    table, labels = cohort(30)
    sick = table["patient_id"].isin(["p0001", "p0002", "p0003"])
    table["y_l0"] = sick.astype(float)
    assert set(deal(table, plan(), labels=labels, seed=0).loc[sick.to_numpy(), "part"]) == {"train", "val", "test"}
    table.loc[sick, "sha256"] = "one image"
    with pytest.raises(InputError, match="class l0 has 1 patients"):
        deal(table, plan(), labels=labels, seed=0)


def test_val_that_eats_the_training_part_is_refused():
    table, labels = cohort(30)
    with pytest.raises(InputError, match="leaves nothing to train on"):
        deal(table, plan("kfold", n_folds=2, val_fraction=0.5), labels=labels, seed=0)


def test_blank_patients_and_repeated_images_are_refused():
    table, labels = cohort(30)
    with pytest.raises(InputError, match="1 images have no patient_id, first i00004"):
        deal(table.assign(patient_id=table["patient_id"].where(table.index != 4)), plan(), labels=labels, seed=0)
    with pytest.raises(InputError, match="image_id i00000 occurs twice"):
        deal(pd.concat([table, table.head(1)]), plan(), labels=labels, seed=0)


def test_part_that_is_not_wanted_is_noted():
    table, labels = cohort(30)
    split = deal(table, plan(test_fraction=0.0), labels=labels, seed=0)
    assert set(split["part"]) == {"train", "val"}
    assert split.attrs["notes"] == ["There is no test part: its fraction is 0."]


def test_giant_unit_is_noted():
    table, labels = cohort(100)
    table.loc[:40, "patient_id"] = "p0000"
    assert any("patient p0000) holds" in note for note in deal(table, plan(), labels=labels, seed=0).attrs["notes"])


# ---------------------------------------------------------------- given splits


def test_given_parts_are_honoured_exactly_even_with_copies_across():
    table, labels = cohort(60)
    table = with_parts(table)
    table.loc[table.groupby("given_part").head(1).index, "sha256"] = "a copy in each part"
    split = deal(table, plan("given"), labels=labels, seed=0)
    assert split.set_index("image_id")["part"].equals(table.set_index("image_id")["given_part"].rename("part"))
    assert split.attrs["notes"] == []
    assert split_hash(deal(table, plan("given"), labels=labels, seed=1)) == split_hash(split)


def test_other_words_for_the_parts():
    table, labels = cohort(60)
    split = deal(with_parts(table, ("Training", "valid ", "TEST")), plan("given"), labels=labels, seed=0)
    assert set(split["part"]) == {"train", "val", "test"}


def test_val_that_is_not_given_is_dealt_from_train_and_said(tmp_path):
    table, labels = cohort(100)
    table = with_parts(table, ("train", "test"))
    split = deal(table, plan("given", val_fraction=0.25), labels=labels, seed=0)
    parts = split.set_index("image_id")["part"]
    was_test = (table.set_index("image_id")["given_part"] == "test").rename("part")
    assert (parts == "test").equals(was_test)
    n_train = table.loc[table["given_part"] == "train", "patient_id"].nunique()
    n_val = split.loc[split["part"] == "val", "patient_id"].nunique()
    assert n_val == pytest.approx(0.25 * n_train, abs=1)
    sentence = f"The given split has no val part: {n_val} of the {n_train} patients of train became val, stratified by label."
    assert split.attrs["notes"] == [sentence]
    write_table(split, tmp_path / "split.parquet")
    assert read_table(tmp_path / "split.parquet").attrs["notes"] == [sentence]


def test_given_part_without_a_class_is_noted():
    table, labels = cohort(60)
    table = with_parts(table)
    table.loc[table["given_part"] == "test", "y_l0"] = 0
    assert deal(table, plan("given"), labels=labels, seed=0).attrs["notes"] == ["The given part test has no image of class l0."]


def test_only_a_test_part_is_an_external_cohort():
    table, labels = cohort(20)
    split = deal(table.assign(given_part="test"), plan("given"), labels=labels, seed=0)
    assert set(split["part"]) == {"test"}
    assert split.attrs["notes"] == ["The given split has no train part.", "The given split has no val part."]


def test_given_folds_are_the_test_folds():
    table, labels = cohort(60)
    fold = pd.Series(np.arange(60) % 3, index=table["patient_id"].unique())
    table = table.assign(given_fold=table["patient_id"].map(fold).astype(float))
    split = deal(table, plan("given"), labels=labels, seed=0)
    tested = split[split["part"] == "test"].set_index("image_id")["fold"]
    assert (tested == table.set_index("image_id").loc[tested.index, "given_fold"]).all()
    assert len(tested) == len(table)
    assert set(split["part"]) == {"train", "val", "test"}
    assert any("3 folds are given" in note for note in split.attrs["notes"])
    assert split_hash(deal(table, plan("given"), labels=labels, seed=1)) != split_hash(split)  # its val is dealt


def test_class_that_train_was_not_given_cannot_be_dealt_to_val():
    table, labels = cohort(80, 3, multiclass=True)
    table = with_parts(table, ("train", "test"))
    in_train = table["given_part"] == "train"
    table.loc[in_train & (table["y_l2"] == 1), ["y_l0", "y_l2"]] = [1, 0]
    split = deal(table, plan("given"), labels=labels, seed=0)
    assert split.attrs["notes"][1:] == ["The given part train has no image of class l2.", "The given part val has no image of class l2."]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("given_part", lambda t: None, "come with no split"),
        ("given_part", lambda t: np.where(t.index == 3, None, "train"), "given_part is blank for 1 images, first i00003"),
        ("given_part", lambda t: np.where(t.index == 3, "holdout", "train"), "given_part 'holdout' is unknown"),
        ("given_part", lambda t: np.where(t.index % 2 == 0, "train", "test"), "patients stand in two parts"),
        ("given_fold", lambda t: 0, "expected every whole number from 0"),
        ("given_fold", lambda t: np.where(t["patient_id"] < "p0010", 0, 2), "expected every whole number from 0"),
        ("given_fold", lambda t: np.where(t["patient_id"] < "p0010", 0, 0.5), "expected every whole number from 0"),
        ("given_fold", lambda t: np.where(t["patient_id"] < "p0010", "a", "b"), "expected every whole number from 0"),
        ("given_fold", lambda t: np.arange(len(t)) % 2, "patients stand in two parts"),
    ],
)
def test_given_splits_that_make_no_sense(column, values, message):
    table, labels = cohort(40)
    with pytest.raises(InputError, match=message):
        deal(table.assign(**{column: values(table)}), plan("given"), labels=labels, seed=0)


def test_part_and_fold_together_are_refused():
    table, labels = cohort(40)
    with pytest.raises(InputError, match="one of data.part_column and data.fold_column"):
        deal(with_parts(table).assign(given_fold=0), plan("given"), labels=labels, seed=0)


# ---------------------------------------------------------------- counts and hash


def test_counts_are_what_a_hand_counts():
    manifest = pd.DataFrame(
        {"image_id": list("abcde"), "patient_id": ["p", "p", "q", "r", "s"], "y_x": [1, 1, 0, np.nan, 1], "y_z": [0, 0, 0, 1, np.nan]}
    )
    split = (
        manifest[["image_id", "patient_id"]].assign(part=["train", "train", "train", "val", "test"], fold=0).sample(frac=1, random_state=0)
    )
    counts = count_parts(manifest, split, ["x", "z"])
    assert counts["part"].tolist() == ["train", "val", "test"]
    assert counts["n_images"].tolist() == [3, 1, 1]
    assert counts["n_patients"].tolist() == [2, 1, 1]
    assert counts["n_positive_x"].tolist() == [2, 0, 1]
    assert counts["n_labelled_x"].tolist() == [3, 0, 1]
    assert counts["n_positive_patients_x"].tolist() == [1, 0, 1]
    assert counts["n_positive_z"].tolist() == [0, 1, 0]


def test_hash_is_of_the_content_alone():
    table, labels = cohort(30)
    split = deal(table, plan("kfold"), labels=labels, seed=0)
    same = split.sample(frac=1, random_state=1)[["fold", "part", "patient_id", "image_id"]]
    assert split_hash(same) == split_hash(split.astype({"fold": "int8"})) == split_hash(split)
    moved = split.copy()
    moved.loc[0, "part"] = "val" if moved.loc[0, "part"] != "val" else "train"
    assert split_hash(moved) != split_hash(split)
    assert len(split_hash(split)) == 64


def test_the_stage_is_done_again_when_any_of_its_files_changes():
    """The files that a split is made by, read off their imports."""
    found, waiting = set(), ["split"]
    while waiting:
        name = waiting.pop()
        found.add(name)
        tree = ast.parse(inspect.getsource(importlib.import_module(f"medcnn.data.{name}")))
        modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        waiting += [module.split(".")[-1] for module in modules if module.startswith("medcnn.data.") and module.split(".")[-1] not in found]
    assert {f"data/{name}" for name in found} == set(ROOMS["split"])
