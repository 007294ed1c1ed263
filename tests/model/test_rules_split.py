"""How patients are dealt, and how many images each training then has."""

import pytest
from plan_cases import GIVEN_PARTS, cohort, plan

from medcnn.config import SplitConfig
from medcnn.errors import InputError
from medcnn.model.rules_split import expected_parts, scheme, val_fraction
from medcnn.plan import SplitPlan


def chosen(found, **asked):
    return scheme(found, SplitConfig(**asked))


def test_few_patients_are_cross_validated():
    assert chosen(cohort(n_patients=1999))[0] == "kfold"
    assert chosen(cohort(n_patients=2000))[0] == "holdout"
    assert "1999 patients" in chosen(cohort(n_patients=1999))[1]


def test_given_split_is_used_when_it_is_whole():
    assert chosen(cohort(parts={"train": 4000, "test": 1000}))[0] == "given"
    assert chosen(cohort(extra={"n_given_fold": 5000}))[0] == "given"
    name, reason = chosen(cohort(parts={"train": 4000, "test": 900}))
    assert name == "holdout"
    assert "its own split covers 4900 of 5000 images" in reason


def test_repeats_ask_for_folds():
    assert chosen(cohort(), n_repeats=3)[0] == "kfold"
    assert chosen(cohort(parts=GIVEN_PARTS), n_repeats=3)[0] == "kfold_holdout"
    assert chosen(cohort(extra={"n_given_fold": 5000}), n_repeats=3)[0] == "kfold"
    assert plan(split={"n_repeats": 3}).split.scheme == "kfold"


@pytest.mark.parametrize(
    ("found", "name", "share"),
    [
        (cohort(), "kfold", 0),
        (cohort(), "kfold_holdout", 0),
        (cohort(), "holdout", 0.15),
        (cohort(), "leave_site_out", 0.15),
        (cohort(parts=GIVEN_PARTS), "given", 0.15),
        (cohort(extra={"n_given_fold": 5000}), "given", 0),
    ],
)
def test_validation_part_is_spared_where_folds_do_its_work(found, name, share):
    assert val_fraction(found, name)[0] == share


def test_given_validation_part_is_named():
    assert "not used" in val_fraction(cohort(parts=GIVEN_PARTS), "given")[1]
    assert "not used" not in val_fraction(cohort(parts={"train": 4000, "test": 1000}), "given")[1]


@pytest.mark.parametrize(
    ("found", "split", "n_train", "n_val", "n_trainings"),
    [
        (cohort(), {"scheme": "holdout", "val_fraction": 0.15}, 3250, 750, 1),
        (cohort(), {"scheme": "kfold", "val_fraction": 0, "n_repeats": 2}, 4000, 0, 10),
        (cohort(), {"scheme": "kfold", "val_fraction": 0.1, "n_folds": 4}, 3250, 500, 4),
        (cohort(), {"scheme": "kfold_holdout", "val_fraction": 0, "test_fraction": 0.5}, 2000, 500, 5),
        (cohort(parts=GIVEN_PARTS), {"scheme": "kfold_holdout", "val_fraction": 0}, 3200, 800, 5),
        (cohort(parts=GIVEN_PARTS), {"scheme": "given", "val_fraction": 0.15}, 3500, 500, 1),
        (cohort(parts={"Training": 3500, "dev": 500, "test": 1000}), {"scheme": "given"}, 3500, 500, 1),
        (cohort(parts={"train": 4000, "test": 1000}), {"scheme": "given", "val_fraction": 0.1}, 3600, 400, 1),
        (cohort(extra={"n_given_fold": 5000, "n_folds": 10}), {"scheme": "given", "val_fraction": 0}, 4500, 0, 10),
        (cohort(sites={"A": 2500, "B": 2500}), {"scheme": "leave_site_out", "val_fraction": 0.1}, 2000, 500, 2),
    ],
)
def test_parts_are_those_of_a_hand(found, split, n_train, n_val, n_trainings):
    parts = expected_parts(found, SplitPlan(**split))
    assert (parts.n_train, parts.n_val, parts.n_trainings) == (n_train, n_val, n_trainings)


def test_given_split_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="the cohort brings no split; set data.part_column"):
        plan(split={"scheme": "given"})
    for partly in ({"parts": {"train": 10}}, {"extra": {"n_given_fold": 10}}):  # deal names the blank ones
        assert plan(cohort(**partly), split={"scheme": "given"}).split.scheme == "given"
