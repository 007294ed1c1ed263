import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from medcnn.errors import InputError
from medcnn.evaluation.discrimination import auroc_interval
from medcnn.evaluation.subgroups import auroc_heterogeneity, cut_covariate, heterogeneity_estimate, subgroup_order, too_few


@pytest.mark.parametrize(
    ("values", "name", "groups"),
    [
        pytest.param(
            [5, 17.9, 18, 39, 40, 59, 60, 80, None],
            "age",
            ["under 18", "under 18", "18-39", "18-39", "40-59", "40-59", "60-79", "80 and over", "missing"],
            id="age",
        ),
        pytest.param([70], "patient_age", ["60-79"], id="age in the name"),
        pytest.param(["40", "70"], "Age", ["40-59", "60-79"], id="age as text"),
        pytest.param(list("FMF"), "sex", ["F", "M", "F"], id="text"),
        pytest.param([1.0, 2.0, np.nan], "grade", ["1", "2", "missing"], id="few numbers"),
        pytest.param([True, False], "portable", ["True", "False"], id="yes or no"),
        pytest.param(list(range(9)), "dose", ["[0, 2]"] * 3 + ["(2, 4]"] * 2 + ["(4, 6]"] * 2 + ["(6, 8]"] * 2, id="quartiles"),
        pytest.param(["10", "x"], "page", ["10", "x"], id="page is no age"),
    ],
)
def test_how_a_covariate_is_cut(values: list, name: str, groups: list[str]) -> None:
    assert cut_covariate(pd.Series(values), name).tolist() == groups


def test_tied_quartiles_merge_and_many_texts_become_other() -> None:
    zeros = pd.Series([0.0] * 60 + list(np.linspace(1, 10, 40)))
    assert cut_covariate(zeros, "lesions").value_counts().to_dict() == {"[0, 4.288]": 75, "(4.288, 10]": 25}
    texts = pd.Series([f"ward {n}" for n in range(50)] + ["ward 1"] * 5)
    cut = cut_covariate(texts, "ward")
    assert cut.nunique() == 30
    assert (cut == "other").sum() == 21
    assert (cut == "ward 1").sum() == 6


def test_reading_order() -> None:
    assert subgroup_order(pd.Series(["80 and over", "missing", "18-39", "under 18", "60-79"])) == [
        "under 18",
        "18-39",
        "60-79",
        "80 and over",
        "missing",
    ]
    assert subgroup_order(pd.Series(["(2, 10]", "(10, 200]", "[-1, 2]"])) == ["[-1, 2]", "(2, 10]", "(10, 200]"]
    assert subgroup_order(pd.Series(["M", "missing", "F"])) == ["F", "M", "missing"]


def test_too_few_counts_patients_not_images() -> None:
    y = np.array([1] * 6 + [0] * 6)
    assert too_few(y, None) == ""
    assert "1 patients with" in too_few(y, np.array([0] * 6 + list(range(1, 7))))
    assert "4 patients with and 6" in too_few(y[2:], None)


def made_up(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    y = rng.integers(0, 2, n).astype(float)
    return y, 1 / (1 + np.exp(-rng.normal(y * (1 + 0.5 * group), 1))), group


def test_statistic_is_cochrans_q_of_the_logit_aurocs() -> None:
    y, p, group = made_up()
    each = [auroc_interval(y[group == k], p[group == k]) for k in range(3)]
    effect = np.array([np.log(e.value / (1 - e.value)) for e in each])
    variance = np.array([(e.se / (e.value * (1 - e.value))) ** 2 for e in each])
    theirs = combine_effects(effect, variance)
    found = auroc_heterogeneity(y, p, group)
    np.testing.assert_allclose([found.statistic, found.df], [theirs.q, 2], rtol=1e-9)
    np.testing.assert_allclose(found.i_squared, max(0, 1 - 2 / theirs.q), rtol=1e-9)
    assert found.p < 0.05


def test_level_of_the_test_holds_when_patients_span_subgroups() -> None:
    rng = np.random.default_rng(1)
    rejected = []
    for _ in range(300):
        shared = rng.normal(0, 1, 80)
        label = (np.arange(80) % 2).astype(float)
        views = [1 / (1 + np.exp(-(label + shared + rng.normal(0, 0.5, 80)))) for _ in range(2)]
        test = auroc_heterogeneity(np.tile(label, 2), np.concatenate(views), np.repeat([0, 1], 80), np.tile(np.arange(80), 2))
        rejected.append(test.p < 0.05)
    assert 0.02 < np.mean(rejected) < 0.09, "with independent groups assumed, hardly ever"


def test_subgroups_without_a_variance_are_left_out() -> None:
    y, p, group = made_up()
    y[group == 2] = 1
    assert auroc_heterogeneity(y, p, group).df == 1
    p[group == 1] = y[group == 1]
    assert auroc_heterogeneity(y, p, group) is None
    assert "not estimable" in heterogeneity_estimate(None).note
    with pytest.raises(InputError, match="differ in length"):
        auroc_heterogeneity(y, p, group[:5])
