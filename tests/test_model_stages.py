"""Which rows the choice among rungs may be judged on."""

import pandas as pd
import pytest

from medcnn.model_stages import out_of_fold
from medcnn.plan import SplitPlan
from tests.test_members import plan


def table(part_of_fold: dict[int, tuple[str, ...]]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"image_id": f"{fold}-{part}", "part": part, "fold": fold} for fold, parts in part_of_fold.items() for part in parts]
    )


FOLDS, ONE = {0: ("val", "test"), 1: ("val", "test")}, {0: ("val", "test")}


@pytest.mark.parametrize(
    ("scheme", "parts", "rows", "rungs"),
    [
        ("kfold", FOLDS, "test", ["frozen", "main", "soup"]),
        ("leave_site_out", FOLDS, "test", ["frozen", "main", "soup"]),
        ("given", FOLDS, "test", ["frozen", "main", "soup"]),  # given folds are a cross-validation
        ("kfold_holdout", FOLDS, "val", ["frozen", "main"]),  # the soup was mixed by these very rows
        ("given", ONE, "", []),
        ("holdout", ONE, "", []),
    ],
)
def test_rungs_are_chosen_by_rows_that_none_of_them_has_seen(
    scheme: str, parts: dict[int, tuple[str, ...]], rows: str, rungs: list[str]
) -> None:
    decided = plan().model_copy(update={"split": SplitPlan(scheme=scheme)})
    found = out_of_fold(dict.fromkeys(["prevalence", "shortcuts", "frozen", "main", "soup"], table(parts)), decided)
    assert list(found) == rungs
    assert all(set(rung["part"]) == {rows} for rung in found.values())


def test_one_rung_is_no_choice() -> None:
    decided = plan().model_copy(update={"split": SplitPlan(scheme="kfold_holdout")})
    assert out_of_fold(dict.fromkeys(["prevalence", "main", "soup"], table(FOLDS)), decided) == {}
