from pathlib import Path

import ladder_cases as cases
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, log_softmax, softmax

from medcnn.errors import InputError
from medcnn.evaluation.ensemble import combine
from medcnn.evaluation.ensemble_weights import EnsembleWeights, equal_weights, fit_weights, weighted_mean
from medcnn.tables import Task, check_predictions

HOW = ["probability", "logit"]


def rung(members: list[pd.DataFrame]) -> pd.DataFrame:
    return combine(members, how="probability", task="binary")


def two(design, noise: float = 3.0, **sizes) -> dict[str, pd.DataFrame]:
    """A good rung, and the same images by one whose scores are mostly noise."""
    good = rung(design(**sizes))
    rng = np.random.default_rng(3)
    logit = good["logit_x"] + noise * rng.normal(size=len(good))
    return {"main": good, "frozen": good.assign(logit_x=logit, p_x=expit(logit))}


def losses(tables: dict[str, pd.DataFrame], keep: pd.Series, grid: np.ndarray) -> np.ndarray:
    """Log-loss of w main + (1 - w) frozen on some rows, by definition."""
    y, p, q = (tables["main"].loc[keep, "y_x"], *(tables[name].loc[keep, "p_x"] for name in ("main", "frozen")))
    mean = [w * p + (1 - w) * q for w in grid]
    return np.array([-np.mean(np.where(y == 1, np.log(m), np.log(1 - m))) for m in mean])


def test_the_weights_are_the_best_of_a_fine_grid_and_no_fold_sees_whom_it_tests() -> None:
    tables = two(cases.kfold, k=3)
    grid = np.linspace(0, 1, 2001)
    found = fit_weights(tables, how="probability", task="binary")
    assert (found.how, found.fitted_on) == ("fitted", "out-of-fold predictions of the other folds")
    for fold in range(3):
        others = tables["main"]["fold"] != fold
        best = grid[np.argmin(losses(tables, others, grid))]
        assert found.of("test", fold)["main"] == pytest.approx(best, abs=1e-3)
        assert sum(found.of("test", fold).values()) == pytest.approx(1, abs=1e-12)
        (own,) = [each for each in found.folds if each.fold == fold]
        assert own.log_loss == pytest.approx(losses(tables, others, np.array([own.weights["main"]]))[0], rel=1e-12)
        assert own.log_loss_equal == pytest.approx(losses(tables, others, np.array([0.5]))[0], rel=1e-12)
        assert (own.n_rows, own.n_patients) == (others.sum(), tables["main"].loc[others, "patient_id"].nunique())
        turned = {name: table.assign(y_x=np.where(table["fold"] == fold, 1 - table["y_x"], table["y_x"])) for name, table in tables.items()}
        again = fit_weights(turned, how="probability", task="binary")
        assert again.of("test", fold) == found.of("test", fold)
        assert again.of("test", (fold + 1) % 3) != found.of("test", (fold + 1) % 3)


def test_which_rows_fit_which_rows_in_each_design() -> None:
    grid = np.linspace(0, 1, 2001)

    def best(tables: dict[str, pd.DataFrame], keep: pd.Series) -> float:
        return float(grid[np.argmin(losses(tables, keep, grid))])

    tables = two(cases.holdout)
    found, val = fit_weights(tables, how="probability", task="binary"), tables["main"]["part"] == "val"
    for part in ("val", "test"):
        assert found.of(part, 0)["main"] == pytest.approx(best(tables, val), abs=1e-3)

    tables = two(cases.kfold_holdout, n_repeats=2)
    found, val = fit_weights(tables, how="probability", task="binary"), tables["main"]["part"] == "val"
    assert found.of("test", 0)["main"] == pytest.approx(best(tables, val), abs=1e-3)
    for fold in range(3):  # a fold's val rows are not weighed by themselves
        others = val & (tables["main"]["fold"] != fold)
        assert found.of("val", fold)["main"] == pytest.approx(best(tables, others), abs=1e-3)

    tables = two(cases.kfold, k=3, val=True)
    found = fit_weights(tables, how="probability", task="binary")
    for fold in range(3):
        own = (tables["main"]["part"] == "val") & (tables["main"]["fold"] == fold)
        assert found.of("test", fold) == found.of("val", fold)
        assert found.of("test", fold)["main"] == pytest.approx(best(tables, own), abs=1e-3)


def members(task: Task, n: int, k: int, seed: int) -> tuple[dict[str, pd.DataFrame], np.ndarray]:
    """k rungs of random skill and independent noise; val and test alternate. And y (n, labels), with gaps where a label may lack."""
    rng = np.random.default_rng(seed)
    names = ["x"] if task == "binary" else ["a", "b", "c"]
    y = np.eye(3)[rng.integers(0, 3, n)] if task == "multiclass" else (rng.random((n, len(names))) < 0.4).astype(float)
    if task == "multilabel":
        y[rng.random(y.shape) < 0.2] = np.nan
    tables = {}
    for number in range(k):
        logit = rng.uniform(0, 2) * (np.nan_to_num(y) - 0.4) + rng.uniform(0.2, 3) * rng.normal(size=y.shape)
        p = softmax(logit, axis=1) if task == "multiclass" else expit(logit)
        columns = {f"{kind}_{name}": v[:, c] for kind, v in (("y", y), ("logit", logit), ("p", p)) for c, name in enumerate(names)}
        tables[f"rung{number}"] = check_predictions(
            pd.DataFrame({"part": np.where(np.arange(n) % 2, "val", "test"), **columns}), source="x"
        )
    return tables, y


def loss_of(tables: dict[str, pd.DataFrame], y: np.ndarray, weights: np.ndarray, how: str, task: Task) -> float:
    kind = "p" if how == "probability" else "logit"
    mean = sum(w * table.filter(regex=f"^{kind}_").to_numpy() for w, table in zip(weights, tables.values(), strict=True))
    val = np.arange(len(y)) % 2 == 1
    if task == "multiclass":
        log_p = np.log(mean) if how == "probability" else log_softmax(mean, axis=1)
        return float(-log_p[val][y[val] == 1].mean())
    p = mean if how == "probability" else expit(mean)
    known = ~np.isnan(y[val])
    return float(-np.where(y[val] == 1, np.log(p[val]), np.log1p(-p[val]))[known].mean())


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_no_other_point_of_the_simplex_is_lower(task: Task, how: str) -> None:
    rng = np.random.default_rng(9)
    for seed, (n, k) in enumerate([(30, 2), (80, 3), (200, 4), (1000, 5)]):
        tables, y = members(task, n, k, seed)
        found = fit_weights(tables, how=how, task=task)
        best = np.array(list(found.of("test", 0).values()))
        lowest = loss_of(tables, y, best, how, task)
        assert best.min() >= 0
        assert best.sum() == pytest.approx(1, abs=1e-12)
        assert found.folds[0].log_loss == pytest.approx(lowest, rel=1e-9)
        near = [(1 - step) * best + step * corner for step in (1e-3, 0.03) for corner in np.eye(k)]  # downhill nowhere: it is convex
        for other in [*near, *rng.dirichlet(np.full(k, 0.5), 30)]:
            assert lowest <= loss_of(tables, y, other, how, task) + 1e-9


@pytest.mark.parametrize("how", HOW)
def test_rows_are_averaged_with_their_folds_weights(how: str) -> None:
    tables = two(cases.kfold_holdout, n_repeats=2)
    weights = fit_weights(tables, how=how, task="binary")
    found = weighted_mean({name: table.iloc[::-1] for name, table in tables.items()}, weights, how=how, task="binary")
    plain = combine(list(tables.values()), how=how, task="binary")
    assert check_predictions(found, source="combined").equals(found)
    pd.testing.assert_frame_equal(found.drop(columns=["logit_x", "p_x"]), plain.drop(columns=["logit_x", "p_x"]))
    column = "p_x" if how == "probability" else "logit_x"
    values = {name: table.set_index(["part", "fold", "image_id"])[column] for name, table in tables.items()}
    for (part, fold, image), value in found.set_index(["part", "fold", "image_id"])[column].items():
        share = weights.of(part, fold)
        assert value == pytest.approx(sum(share[name] * values[name][part, fold, image] for name in tables), abs=1e-12)
    np.testing.assert_allclose(found["p_x"], expit(found["logit_x"]), atol=1e-12)


@pytest.mark.parametrize("how", HOW)
def test_equal_weights_give_the_plain_mean(how: str) -> None:
    for tables in (two(cases.kfold, val=True), two(cases.holdout)):
        plain = combine(list(tables.values()), how=how, task="binary")
        found = weighted_mean(tables, equal_weights(tables), how=how, task="binary")
        pd.testing.assert_frame_equal(found, plain, rtol=1e-12)


def test_one_rung_has_the_whole_weight() -> None:
    tables = {"main": rung(cases.kfold(n_seeds=2))}
    assert fit_weights(tables, how="probability", task="binary").spread() == {"main": (1, 1, 1)}


def test_the_file_brings_them_back_and_new_images_get_the_mean(tmp_path: Path) -> None:
    found = fit_weights(two(cases.kfold, k=3), how="probability", task="binary")
    assert EnsembleWeights.read(tmp_path) is None
    found.write(tmp_path)
    assert EnsembleWeights.read(tmp_path) == found
    shares = [found.of("test", fold)["main"] for fold in range(3)]
    assert found.for_new().of("test", 0)["main"] == pytest.approx(np.mean(shares))
    assert found.spread()["main"] == (pytest.approx(np.mean(shares)), min(shares), max(shares))


def test_what_cannot_be_weighed_is_refused() -> None:
    tables = two(cases.kfold)
    with pytest.raises(InputError, match=r"fold 7 has no weights for its test rows"):
        fit_weights(tables, how="probability", task="binary").of("test", 7)
    with pytest.raises(InputError, match="one fold without val rows"):
        fit_weights({name: table[table["fold"] == 0] for name, table in tables.items()}, how="probability", task="binary")
    with pytest.raises(InputError, match="is in only one of members 0 and 1"):
        fit_weights({**tables, "frozen": tables["frozen"].iloc[1:]}, how="probability", task="binary")
    blank = {name: table.assign(y_x=table["y_x"].where(table["fold"] == 0)) for name, table in tables.items()}
    with pytest.raises(InputError, match=r"fold 0 has no labelled row .* its test rows on; set ladder\.weights=equal"):
        fit_weights(blank, how="probability", task="binary")
    repeated = {name: pd.concat([table, table.assign(fold=9)]) for name, table in tables.items()}
    with pytest.raises(InputError, match="combine its models first"):
        weighted_mean(repeated, equal_weights(repeated), how="probability", task="binary")
