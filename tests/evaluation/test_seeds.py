import numpy as np
import pytest
from scipy.stats import t

from medcnn.errors import InputError
from medcnn.evaluation.placements import auroc
from medcnn.evaluation.seeds import seed_difference, seed_groups
from medcnn.evaluation.significance import paired_auroc_test


def sample(n_seeds: int, spread: float, n: int = 300) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.4).astype(int)
    shared = rng.normal(size=n)
    sides = [[(1 + spread * rng.normal()) * y + shared + rng.normal(size=n) for _ in range(n_seeds)] for _ in range(2)]
    return y, sides[0], sides[1], rng.integers(0, n // 3, n)


def test_names_that_differ_in_the_seed_are_one_method() -> None:
    names = ["resnet_seed0", "resnet_seed1", "vit-seed-3", "vit-seed-12", "seedling", "alone_seed0", "plain"]
    assert seed_groups(names) == {"resnet": ["resnet_seed0", "resnet_seed1"], "vit": ["vit-seed-3", "vit-seed-12"]}


def test_difference_is_that_of_the_means_over_seeds() -> None:
    y, a, b, _ = sample(4, 0.5)
    found = seed_difference(y, a, b)
    values = [[auroc(y, s) for s in side] for side in (a, b)]
    assert found.difference == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    seeds = sum(np.var(side, ddof=1) / 4 for side in values)
    assert found.se**2 > seeds
    patients = found.se**2 - seeds
    assert found.df == pytest.approx(found.se**4 / sum((np.var(side, ddof=1) / 4) ** 2 / 3 for side in values))
    assert found.p == pytest.approx(2 * t.sf(abs(found.difference) / found.se, found.df))
    # The patients' part is that of a paired test of the seeds' averaged placements: smaller than that of single networks.
    assert patients < paired_auroc_test(y, a[0], b[0]).se ** 2


def test_seeds_that_agree_leave_the_variance_of_the_patients() -> None:
    y, a, b, patient = sample(2, 0.5)
    for who in (None, patient):
        found, single = seed_difference(y, [a[0]] * 3, [b[0]] * 3, who), paired_auroc_test(y, a[0], b[0], who)
        assert (found.difference, found.se, found.p) == pytest.approx((single.difference, single.se, single.p), rel=1e-6)


def test_seeds_that_scatter_widen_the_interval() -> None:
    y, a, b, _ = sample(3, 0.0)
    _, wild_a, wild_b, _ = sample(3, 1.5)
    calm, wild = seed_difference(y, a, b), seed_difference(y, wild_a, wild_b)
    assert wild.se > 2 * calm.se
    assert "3 seeds, sd " in wild.note


def test_equal_groups_differ_by_nothing() -> None:
    y, a, *_ = sample(2, 0.5)
    found = seed_difference(y, [a[0], a[0]], [a[0], a[0]])
    assert (found.difference, found.statistic, found.p) == (0.0, 0.0, 1.0)


def test_one_seed_is_refused_and_one_class_not_estimable() -> None:
    y, a, b, _ = sample(2, 0.5)
    with pytest.raises(InputError, match="two seeds or more of each method, got 1 and 2"):
        seed_difference(y, a[:1], b)
    assert seed_difference(np.ones(300), a, b).note == "not estimable: no negative case among 300"
