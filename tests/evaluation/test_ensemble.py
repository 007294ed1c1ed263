from itertools import pairwise

import ladder_cases as cases
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit, softmax

from medcnn.errors import InputError
from medcnn.evaluation.ensemble import combine
from medcnn.tables import check_predictions


def by_definition(members: list[pd.DataFrame], part: str, column: str) -> pd.Series:
    rows = pd.concat(members)
    return rows[rows["part"] == part].groupby("image_id")[column].mean()


@pytest.mark.parametrize("design", [cases.holdout(3), cases.kfold(n_repeats=2, n_seeds=2), cases.kfold_holdout(n_repeats=2, n_seeds=2)])
def test_each_image_is_the_mean_of_all_its_models(design: list[pd.DataFrame]) -> None:
    found = combine(design, how="probability", task="binary")
    assert not found.duplicated(["image_id", "part"]).any()
    assert check_predictions(found, source="combined").equals(found)
    for part in found["part"].unique():
        rows = found[found["part"] == part].set_index("image_id")
        expected = by_definition(design, part, "p_x").reindex(rows.index)
        np.testing.assert_allclose(rows["p_x"], expected, rtol=1e-14)
        np.testing.assert_allclose(rows["logit_x"], logit(expected), rtol=1e-12)
        logits = combine(design, how="logit", task="binary").query("part == @part").set_index("image_id")
        np.testing.assert_allclose(logits["logit_x"], by_definition(design, part, "logit_x").reindex(logits.index), rtol=1e-12)
        np.testing.assert_allclose(logits["p_x"], expit(logits["logit_x"]), rtol=1e-14)


def test_the_fold_is_that_of_the_first_repeat() -> None:
    design = cases.kfold(k=3, n_repeats=2)
    found = combine(design[::-1], how="probability", task="binary").set_index("image_id")["fold"]
    first = pd.concat(design[:3]).set_index("image_id")["fold"]
    assert found.to_dict() == first.to_dict()
    assert (combine(cases.kfold_holdout(), how="probability", task="binary").query("part == 'test'")["fold"] == 0).all()


def test_val_rows_stay_with_their_folds_models_where_they_are_tested_elsewhere() -> None:
    design = cases.kfold(k=3, n_repeats=2, n_seeds=2, val=True)
    found = combine(design, how="probability", task="binary")
    val, alone = found[found["part"] == "val"], pd.concat(design).query("part == 'val'")
    assert len(val) == len(alone) / 2
    expected = alone.groupby(["fold", "image_id"])["p_x"].mean()
    np.testing.assert_allclose(
        val.set_index(["fold", "image_id"])["p_x"], expected.reindex(pd.MultiIndex.from_frame(val[["fold", "image_id"]]))
    )
    assert (found["part"] == "test").sum() == cases.N


def test_one_model_stays_as_it_is_and_order_changes_nothing() -> None:
    (alone,) = cases.holdout(1)
    pd.testing.assert_frame_equal(
        combine([alone.iloc[::-1]], how="probability", task="binary"), alone.sort_values("image_id", ignore_index=True)
    )
    shifted = classes(np.arange(27.0).reshape(9, 3) ** 1.1 % 5 + 5)  # its own logits, not ln p
    assert combine([shifted], how="probability", task="multiclass").equals(shifted.sort_values("image_id", ignore_index=True))
    design = cases.kfold_holdout(n_seeds=3)
    pd.testing.assert_frame_equal(combine(design, how="logit", task="binary"), combine(design[::-1], how="logit", task="binary"))
    rungs = [combine(each, how="probability", task="binary") for each in (cases.kfold(n_seeds=3), cases.kfold())]
    found = combine(rungs, how="probability", task="binary")
    np.testing.assert_allclose(found["p_x"], (rungs[0]["p_x"] + rungs[1]["p_x"]) / 2)  # a rung counts once, not thrice


def classes(scores: np.ndarray) -> pd.DataFrame:
    p, target = softmax(scores, axis=1), np.arange(len(scores)) % 3
    columns = {
        f"{kind}_{name}": values[:, k]
        for kind, values in (("y", np.eye(3)[target]), ("logit", scores), ("p", p))
        for k, name in enumerate("abc")
    }
    return check_predictions(pd.DataFrame(columns), source="made up")


@pytest.mark.parametrize("how", ["probability", "logit"])
def test_several_classes(how: str) -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(0, 2, (9, 3)) for _ in range(2)]
    shifted = [scores[0], scores[1] + 5]  # softmax does not see a constant
    found = combine([classes(each) for each in shifted], how=how, task="multiclass").set_index("image_id")
    p = np.mean([softmax(each, axis=1) for each in scores], axis=0) if how == "probability" else softmax(np.mean(scores, axis=0), axis=1)
    rows = [f"row{number}" for number in range(9)]
    np.testing.assert_allclose(found.loc[rows, ["p_a", "p_b", "p_c"]], p, rtol=1e-10)
    np.testing.assert_allclose(softmax(found.loc[rows, ["logit_a", "logit_b", "logit_c"]], axis=1), p, rtol=1e-10)


@pytest.mark.parametrize("how", ["probability", "logit"])
def test_certainty_has_a_finite_logit(how: str) -> None:
    table = check_predictions(pd.DataFrame({"y_x": [1, 0, 1], "p_x": [1.0, 0.0, 0.5]}), source="made up")
    for member in (table, table.assign(logit_x=[np.inf, -np.inf, 0.0])):
        found = combine([member, member], how=how, task="binary")
        np.testing.assert_allclose(found["logit_x"], [np.log(1e12), -np.log(1e12), 0], rtol=1e-4)
        np.testing.assert_allclose(found["p_x"], [1, 0, 0.5], atol=1e-11)


def broken(change: str) -> list[pd.DataFrame]:
    first, second = cases.holdout(2)
    third = cases.model(0, {"val": np.arange(18, 38), "test": np.arange(40, cases.N)})
    return {
        "labels": [first, second.rename(columns={"y_x": "y_z", "p_x": "p_z", "logit_x": "logit_z"})],
        "truth": [first, second.assign(y_x=second["y_x"].where(second["image_id"] != "i041", 1 - second["y_x"]))],
        "patient": [first, second.assign(patient_id=second["patient_id"].where(second["image_id"] != "i041", "other"))],
        "images": [first, third],
        "nan": [first, second.assign(logit_x=second["logit_x"].where(second["image_id"] != "i041"))],
        "fold": [*cases.kfold(n_seeds=2)[:-1]],
        "none": [],
    }[change]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("labels", "label x is in only one of members 0 and 1"),
        ("truth", "y_x of i041 is 0.0 in one member and 1.0|y_x of i041 is 1.0 in one member and 0.0"),
        ("patient", "patient_id of i041"),
        ("images", "val image i018 of fold 0 is in only one of members 0 and 1"),
        ("nan", r"the logit of i041 \(fold 0\) is not a number"),
        ("fold", "predicted by 2 models.* by 1; give every model"),
        ("none", "no member"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        combine(broken(change), how="logit", task="binary")


def test_an_unknown_mean_is_refused() -> None:
    with pytest.raises(InputError, match="'median' cannot be averaged"):
        combine(cases.holdout(2), how="median", task="binary")  # type: ignore[arg-type]


def test_averaging_helps_as_jensen_says() -> None:
    design = cases.holdout(4)
    losses = [
        -np.log(np.where(table["y_x"] == 1, table["p_x"], 1 - table["p_x"])).mean()
        for table in [*design, combine(design, how="probability", task="binary")]
    ]
    assert losses[-1] <= np.mean(losses[:-1])
    assert all(one != other for one, other in pairwise(losses))
