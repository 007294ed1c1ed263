"""Repeated folds, folds beside one test part, sites left out or kept whole: what must hold for any cohort, and what is refused."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_cases import cohort, plan, with_parts, with_sites

from medcnn.data.split import count_parts, deal
from medcnn.errors import InputError
from medcnn.tables import check_split, read_table, split_hash, write_table

SCHEMES = ["holdout", "kfold", "kfold_holdout", "leave_site_out"]


def parts_of(split):
    """Parts as a table: images down, folds across."""
    return split.pivot(index="image_id", columns="fold", values="part")


def few_copies(table, rng, n=5):
    """Some images become one and join their patients; all at one site where there are sites."""
    rows = rng.choice(np.flatnonzero(table["site"] == table["site"].iloc[0]), n)
    table.loc[rows, "sha256"] = "a copy"
    return table


# ---------------------------------------------------------------- always true


@settings(max_examples=60, deadline=None)
@given(
    n_patients=st.integers(30, 90),
    seed=st.integers(0, 10_000),
    multiclass=st.booleans(),
    scheme=st.sampled_from(SCHEMES),
    unit=st.sampled_from(["patient", "site"]),
    n_folds=st.integers(2, 4),
    n_repeats=st.integers(1, 3),
    val_fraction=st.sampled_from([0.0, 0.15]),
    given_test=st.booleans(),
)
def test_every_scheme_is_a_partition_that_tears_no_unit(
    n_patients, seed, multiclass, scheme, unit, n_folds, n_repeats, val_fraction, given_test
):
    table, labels = cohort(n_patients, 1 + multiclass, seed, multiclass)
    table = few_copies(with_sites(table, 12, seed), np.random.default_rng(seed))
    if given_test:
        table = with_parts(table)
    n_repeats = n_repeats if scheme in {"kfold", "kfold_holdout"} else 1
    wanted = plan(scheme, n_folds=n_folds, n_repeats=n_repeats, val_fraction=val_fraction, unit=unit)
    try:
        split = deal(table, wanted, labels=labels, seed=seed)
    except InputError as error:
        assert re.search(rf"{unit}s per class|occurs at site", str(error)), error
        return
    pd.testing.assert_frame_equal(split, deal(table.sample(frac=1, random_state=seed), wanted, labels=labels, seed=seed))
    check_split(split, source="split")
    n_sites = table["site"].nunique()
    parts = parts_of(split)
    assert parts.shape == (len(table), {"holdout": 1, "leave_site_out": n_sites}.get(scheme, n_folds * n_repeats))
    assert parts.notna().all(axis=None)
    assert set(parts.index) == set(table["image_id"])
    tested = (parts == "test").sum(axis=1)
    if scheme == "kfold":
        assert all((parts.loc[:, r * n_folds : (r + 1) * n_folds - 1] == "test").sum(axis=1).eq(1).all() for r in range(n_repeats))
    if scheme == "leave_site_out":
        assert tested.eq(1).all()
    if scheme == "kfold_holdout":
        assert tested.isin([0, n_folds * n_repeats]).all()
        assert (parts == "val").sum(axis=1)[tested == 0].eq(n_repeats).all()
    assert (val_fraction == 0 and scheme != "kfold_holdout") == ("val" not in set(split["part"]))
    given_too = given_test and scheme == "kfold_holdout"  # what is given may tear a site or part two copies
    rows = table.set_index("image_id").loc[parts.index]
    among = parts[tested == 0] if given_too else parts
    for column in ["patient_id", *(["site"] if unit == "site" else [])]:
        assert among.groupby(rows[column]).nunique().le(1).all(axis=None)
    copies = among.index[rows.loc[among.index, "sha256"] == "a copy"]
    assert among.loc[copies].nunique().le(1).all()
    counts = count_parts(table, split, labels)
    assert counts.groupby("fold")["n_images"].sum().eq(len(table)).all()
    if scheme != "leave_site_out" and not given_too:
        assert (counts[[f"n_positive_{label}" for label in labels]] > 0).all(axis=None)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("unit", ["patient", "site"])
def test_row_order_never_matters_and_the_seed_does(scheme, unit):
    table, labels = cohort(120, 2)
    table = with_sites(table, 16)
    wanted = plan(scheme, unit=unit, n_folds=3)
    split = deal(table, wanted, labels=labels, seed=5)
    pd.testing.assert_frame_equal(deal(table.sample(frac=1, random_state=3), wanted, labels=labels, seed=5), split)
    assert split_hash(deal(table, wanted, labels=labels, seed=6)) != split_hash(split)
    assert split.equals(split.sort_values(["fold", "image_id"]))


# ---------------------------------------------------------------- repeats


def test_one_repeat_is_what_it_was_before_there_were_several():
    """Hashes from the code before repeats."""
    table, labels = cohort(70)
    table.loc[[3, 40, 80], "sha256"] = "copy"
    one = deal(table, plan("kfold"), labels=labels, seed=0)
    assert split_hash(one).startswith("620d347fda304258")
    three = deal(table, plan("kfold", n_repeats=3), labels=labels, seed=0)
    pd.testing.assert_frame_equal(three[three["fold"] < 5], one)
    table, labels = cohort(70, 3, 2, missing=0.2)
    table.loc[[3, 40, 80], "sha256"] = "copy"
    assert split_hash(deal(table, plan(), labels=labels, seed=2)).startswith("803a26a9c5a3b2d6")


@pytest.mark.parametrize("unit", ["patient", "site"])
def test_each_repeat_is_dealt_anew(unit):
    table, labels = cohort(120)
    table = with_sites(table, 20)
    parts = parts_of(deal(table, plan("kfold", n_folds=3, n_repeats=4, unit=unit), labels=labels, seed=0))
    tested = [(parts.loc[:, 3 * r : 3 * r + 2] == "test").to_numpy().argmax(axis=1) for r in range(4)]
    together = np.array([[np.mean((a[:, None] == a) & (b[:, None] == b)) for a in tested] for b in tested])
    apart = together[~np.eye(4, dtype=bool)]
    # pairs of images that two repeats both keep together: 1/9 by chance between patients, 1/3 were it one deal
    assert apart.max() < (0.16 if unit == "patient" else 0.25)


def test_repeats_differ_even_where_no_two_patients_are_alike():
    """Slides with tiles: every size occurs once, so a fixed order would deal the same folds each time."""
    patients = np.repeat(np.arange(24), np.arange(10, 34))
    y = (patients % 2).astype(float)
    table = pd.DataFrame({"image_id": [f"i{n:04d}" for n in range(len(patients))], "patient_id": patients.astype(str), "y_x": y})
    split = deal(table, plan("kfold", n_folds=3, n_repeats=5), labels=["x"], seed=0)
    assert split.attrs["notes"][-1] == "The 3 folds were dealt 5 times; fold // 3 is the repeat."
    folds = [parts_of(split).loc[:, 3 * r].eq("test").to_numpy().tobytes() for r in range(5)]
    assert len(set(folds)) == 5


def test_repeats_that_cannot_differ_are_said():
    table, labels = cohort(40)
    table = table.assign(site=np.where(table["patient_id"] < "p0020", "a", "b"))
    split = deal(table, plan("kfold", n_folds=2, n_repeats=4, unit="site", val_fraction=0), labels=labels, seed=0)
    assert split.attrs["notes"][-2] == "Only 1 of the 4 repeats differ: there are few sites to deal."


def test_shares_of_a_repeat_are_as_good_as_those_of_the_first():
    table, labels = cohort(400, 3)
    counts = count_parts(table, deal(table, plan("kfold", n_repeats=3), labels=labels, seed=0), labels)
    tested = counts[counts["part"] == "test"].set_index("fold")
    assert np.abs(tested["n_patients"] - 80).max() <= 1
    for label in labels:
        assert np.ptp(tested[f"n_positive_{label}"]) <= 6  # dealt by chance: about 20


# ---------------------------------------------------------------- no val part


def test_without_val_each_fold_trains_on_all_it_does_not_test(tmp_path):
    table, labels = cohort(60)
    with_val = deal(table, plan("kfold"), labels=labels, seed=0)
    split = deal(table, plan("kfold", val_fraction=0), labels=labels, seed=0)
    assert set(split["part"]) == {"train", "test"}
    assert split["part"].eq("test").equals(with_val["part"].eq("test"))
    sentence = "No fold has a val part; what is fitted on val is fitted on the predictions for the other folds."
    assert split.attrs["notes"] == [sentence]
    write_table(split, tmp_path / "split.parquet")
    assert read_table(tmp_path / "split.parquet").attrs["notes"] == [sentence]


def test_given_folds_without_val():
    table, labels = cohort(60)
    fold = pd.Series(np.arange(60) % 3, index=table["patient_id"].unique())
    split = deal(table.assign(given_fold=table["patient_id"].map(fold)), plan("given", val_fraction=0), labels=labels, seed=0)
    assert set(split["part"]) == {"train", "test"}
    assert split.attrs["notes"] == ["The 3 folds are given; there is no val part."]


# ---------------------------------------------------------------- folds beside one test part


def test_given_test_part_stays_and_given_train_and_val_are_pooled():
    table, labels = cohort(80)
    table = with_parts(table, ("train", "valid", "test"))
    split = deal(table, plan("kfold_holdout", n_folds=4), labels=labels, seed=0)
    parts = parts_of(split)
    was_test = table.set_index("image_id")["given_part"].eq("test")
    assert parts.eq("test").eq(was_test, axis=0).all(axis=None)
    was_val = table.set_index("image_id")["given_part"].eq("valid")
    assert parts[was_val].eq("train").any(axis=None)
    assert parts[~was_test & ~was_val].eq("val").any(axis=None)
    n_test, n_dev = (table.loc[rows, "patient_id"].nunique() for rows in (was_test.to_numpy(), ~was_test.to_numpy()))
    assert split.attrs["notes"] == [
        f"The given test part ({n_test} patients) is the same in every fold; of the {n_dev} others, each is in val once."
    ]


def test_dealt_test_part_is_the_same_in_every_repeat():
    table, labels = cohort(200)
    split = deal(table, plan("kfold_holdout", n_folds=3, n_repeats=2, test_fraction=0.3), labels=labels, seed=1)
    parts = parts_of(split)
    assert parts.eq("test").nunique(axis=1).eq(1).all()
    assert "each is in val once in each repeat." in split.attrs["notes"][0]
    tested = table.loc[parts.loc[table["image_id"], 0].eq("test").to_numpy(), "patient_id"].nunique()
    assert tested == pytest.approx(60, abs=1)
    assert parts[[0, 1, 2]].eq("val").to_numpy().tobytes() != parts[[3, 4, 5]].eq("val").to_numpy().tobytes()


def test_copies_across_a_given_test_part_stay_and_those_beside_it_stay_together():
    table, labels = cohort(80)
    table = with_parts(table)
    in_test, outside = (np.flatnonzero(table["given_part"].eq("test") == test) for test in (True, False))
    table.loc[[in_test[0], outside[0], outside[50], outside[-1]], "sha256"] = "a copy"
    split = deal(table, plan("kfold_holdout"), labels=labels, seed=0)
    parts = parts_of(split)
    assert parts.loc[table.loc[in_test[0], "image_id"]].eq("test").all()
    assert parts.loc[table.loc[outside[[0, 50, -1]], "image_id"]].nunique().eq(1).all()
    assert any("3 patients share pictures and were dealt as 1 units" in note for note in split.attrs["notes"])


def test_given_parts_that_do_not_serve_a_test_part():
    table, labels = cohort(60)
    split = deal(with_parts(table, ("train", "val")), plan("kfold_holdout"), labels=labels, seed=0)
    assert split.attrs["notes"][0] == "The given split has no test part; one was dealt."
    assert "test" in set(split["part"])
    without = with_parts(table)
    without.loc[without["given_part"] == "test", "y_l0"] = 0
    assert "The given part test has no image of class l0." in deal(without, plan("kfold_holdout"), labels=labels, seed=0).attrs["notes"]
    without = with_parts(table)
    without.loc[without["given_part"] != "test", "y_l0"] = 0
    notes = deal(without, plan("kfold_holdout"), labels=labels, seed=0).attrs["notes"]
    assert "Outside the given part test there is no image of class l0." in notes


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (lambda t: t.assign(given_part="test"), {}, "every image is in the given test part"),
        (lambda t: t.assign(given_part=np.where(t.index == 3, None, "train")), {}, "given_part is blank for 1 images, first i00003"),
        (lambda t: t.assign(given_part=np.where(t.index == 3, "?", "train")), {}, "given_part '\\?' is unknown"),
        (lambda t: t.assign(given_part=np.where(t.index % 2 == 0, "train", "test")), {}, "patients stand in two parts"),
        (lambda t: t, {"test_fraction": 0.0}, "kfold_holdout needs a test part"),
        (lambda t: t.assign(y_l0=t["patient_id"].isin(["p0001", "p0002", "p0003"]) * 1.0), {}, "class l0 has 2 patients.*each of 5 folds"),
    ],
)
def test_folds_beside_a_test_part_that_make_no_sense(change, more, message):
    table, labels = cohort(40)
    with pytest.raises(InputError, match=message):
        deal(change(table), plan("kfold_holdout", **more), labels=labels, seed=0)


def test_a_given_split_that_is_not_used_is_said():
    table, labels = cohort(60)
    table = with_parts(table)
    assert "(given_part) is not used: the scheme is kfold." in deal(table, plan("kfold"), labels=labels, seed=0).attrs["notes"][0]
    folds = table.drop(columns="given_part").assign(given_fold=0)
    assert "(given_fold) is not used" in deal(folds, plan("kfold_holdout"), labels=labels, seed=0).attrs["notes"][0]


# ---------------------------------------------------------------- a site left out


def test_each_site_is_tested_by_models_of_the_others():
    table, labels = cohort(90)
    table = with_sites(table, 4)
    split = deal(table, plan("leave_site_out"), labels=labels, seed=0)
    site = table.set_index("image_id")["site"]
    for fold, name in enumerate(sorted(site.unique())):
        rows = split[split["fold"] == fold]
        assert set(rows.loc[rows["part"] == "test", "image_id"]) == set(site.index[site == name])
        others = rows[rows["part"] != "test"].groupby("part")["patient_id"].nunique()
        assert others["val"] == pytest.approx(0.15 * others.sum(), abs=1)
    assert "Each fold tests one site: 0 s0, 1 s1, 2 s2, 3 s3." in split.attrs["notes"]


def test_a_site_without_a_class_is_said():
    table, labels = cohort(90)
    table = with_sites(table, 3)
    table.loc[table["site"] == "s1", "y_l0"] = 0
    assert "Site s1 has no image of class l0." in deal(table, plan("leave_site_out"), labels=labels, seed=0).attrs["notes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="site"), "come with none; set data.site_column"),
        (lambda t: t.assign(site=None), "come with none; set data.site_column"),
        (lambda t: t.assign(site=t["site"].where(t.index > 2)), "3 images have no site, first i00000; .*leave_site_out needs it"),
        (lambda t: t.assign(site="here"), "two sites or more; all .* images are of here"),
        (lambda t: t.assign(site=np.where(t.index % 2, "a", "b")), r"patients have images at two sites or more, first p00.*unit: site"),
        (lambda t: t.assign(y_l0=(t["site"] == "s1") * 1.0), "class l0 occurs at site s1 only"),
    ],
)
def test_sites_that_cannot_be_left_out(change, message):
    table, labels = cohort(60)
    with pytest.raises(InputError, match=message):
        deal(change(with_sites(table, 3)), plan("leave_site_out"), labels=labels, seed=0)


@pytest.mark.parametrize("unit", ["patient", "site"])
def test_copies_across_sites_are_refused_where_one_is_left_out(unit):
    table, labels = cohort(60)
    table = with_sites(table, 3)
    rows = [np.flatnonzero(table["site"] == site)[0] for site in ("s0", "s2")]
    table.loc[rows, "sha256"] = "a copy"
    with pytest.raises(InputError, match=r"1 groups of patients share pictures across sites; set audit.exclude.duplicate"):
        deal(table, plan("leave_site_out", unit=unit), labels=labels, seed=0)


# ---------------------------------------------------------------- sites kept whole


def test_sites_that_share_a_patient_or_a_copy_are_one_unit():
    table, labels = cohort(200)
    table = with_sites(table, 10)
    s0, s1, s2 = (np.flatnonzero(table["site"] == site) for site in ("s0", "s1", "s2"))
    table.loc[s0[0], "patient_id"] = table.loc[s1[0], "patient_id"]
    table.loc[[s1[1], s2[0]], "sha256"] = "a copy"
    split = deal(table, plan("kfold", n_folds=3, unit="site"), labels=labels, seed=0)
    parts = parts_of(split)
    assert parts.loc[table.loc[[*s0, *s1, *s2], "image_id"]].nunique().eq(1).all()
    assert split.attrs["notes"][:2] == [
        "All patients of a site stand in one part; there are 10 sites.",
        "3 sites share patients or pictures and were dealt as 1 units.",
    ]


def test_shares_of_whole_sites_are_far_better_than_chance():
    table, labels = cohort(600, 2)
    table = with_sites(table, 40)
    counts = count_parts(table, deal(table, plan("kfold", n_folds=4, unit="site"), labels=labels, seed=0), labels)
    ours = counts.loc[counts["part"] == "test", "n_positive_l0"]
    rng, sites = np.random.default_rng(0), table["site"].unique()
    chance = []
    for _ in range(50):
        fold = table["site"].map(dict(zip(sites, rng.permutation(len(sites)) % 4, strict=True)))
        chance.append(np.ptp(table.groupby(fold)["y_l0"].sum()))
    assert np.ptp(ours) < np.mean(chance) / 3


def test_too_few_sites_are_refused_with_counts():
    table, labels = cohort(60)
    message = r"has 3 sites, too few to stand in each of 5 folds; sites per class: l0 3, no l0 3; .*split.unit: patient"
    with pytest.raises(InputError, match=message):
        deal(with_sites(table, 3), plan("kfold", unit="site"), labels=labels, seed=0)
    with pytest.raises(InputError, match=r"has 2 sites, too few to stand in each of train, val, test"):
        deal(with_sites(table, 2), plan(unit="site"), labels=labels, seed=0)
    with pytest.raises(InputError, match=r"unit: site needs to know each image's site"):
        deal(table, plan(unit="site"), labels=labels, seed=0)


def test_given_parts_that_tear_a_site_are_left_and_said():
    table, labels = cohort(120)
    table = with_sites(with_parts(table, ("train", "test")), 6)
    split = deal(table, plan("given", unit="site"), labels=labels, seed=0)
    assert split.attrs["notes"][-1].startswith("6 sites stand in more than one given part, which is left as it is: s0, s1")
    trained = table.set_index("image_id")["given_part"].eq("train")
    of_site = table.set_index("image_id")["site"]
    dealt = parts_of(split)[0][trained]
    assert dealt.groupby(of_site[trained]).nunique().eq(1).all()  # val is whole sites
