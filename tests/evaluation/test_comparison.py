import math

import numpy as np
import pandas as pd
import pytest

from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation.comparison import compare_models, comparison_sentences
from medcnn.evaluation.seeds import seed_difference
from medcnn.evaluation.significance import adjust_p, mcnemar, paired_auroc_test
from medcnn.tables import Comparison, check_predictions, read_comparisons, write_records

CONFIG = EvaluationConfig(n_bootstrap=60)


def predictions(
    model: int, *, labels: tuple[str, ...] = ("cat",), n: int = 240, n_patients: int | None = None, kind: str = "independent"
) -> pd.DataFrame:
    """The same images, patients and truth for every model; better probabilities for a higher `model`."""
    truth, own = np.random.default_rng(0), np.random.default_rng(model + 1)
    y = (truth.random((n, len(labels))) < 0.4).astype(float)
    if kind == "classes":
        y = np.eye(len(labels))[truth.integers(0, len(labels), n)]
    frame = pd.DataFrame({"image_id": [f"i{k:03d}" for k in range(n)]})
    if n_patients is not None:
        frame["patient_id"] = truth.integers(0, n_patients, n)
    p = 1 / (1 + np.exp(-(own.normal(size=y.shape) + (0.6 + 0.6 * model) * y - 0.5)))
    for column, label in enumerate(labels):
        frame[f"y_{label}"], frame[f"p_{label}"] = y[:, column], p[:, column]
    return check_predictions(frame, source=f"model {model}")


def compare(tables: dict[str, pd.DataFrame], at: float = 0.5, config: EvaluationConfig = CONFIG) -> list[Comparison]:
    labels = [column[2:] for column in next(iter(tables.values())).columns if column.startswith("y_")]
    return compare_models(tables, config, {name: {label: [at] for label in labels} for name in tables})


def found(comparisons: list[Comparison], **wanted: object) -> list[Comparison]:
    return [record for record in comparisons if all(getattr(record, key) == value for key, value in wanted.items())]


def test_auroc_of_each_pair_is_the_paired_test_with_holm_over_the_pairs() -> None:
    tables = {name: predictions(model) for model, name in enumerate("abc")}
    records = found(compare(tables), metric="auroc")
    assert [(record.a, record.b) for record in records] == [("a", "b"), ("a", "c"), ("b", "c")]
    for record in records:
        test = paired_auroc_test(tables["a"].y_cat, tables[record.a].p_cat, tables[record.b].p_cat)
        assert (record.difference, record.low, record.high, record.p, record.method) == (
            test.difference,
            test.low,
            test.high,
            test.p,
            "delong",
        )
    assert [record.p_adjusted for record in records] == adjust_p([record.p for record in records], "holm")
    bonferroni = found(compare(tables, config=CONFIG.model_copy(update={"correction": "bonferroni"})), metric="auroc")
    assert [record.p_adjusted for record in bonferroni] == adjust_p([record.p for record in records], "bonferroni")


def test_each_metric_label_and_method_is_corrected_on_its_own() -> None:
    tables = {name: predictions(model, labels=("cat", "dog")) for model, name in enumerate("abc")}
    records = compare(tables)
    groups = {(record.metric, record.label, record.method, record.threshold) for record in records}
    for metric, label, method, threshold in groups:
        members = found(records, metric=metric, label=label, method=method, threshold=threshold)
        assert len(members) == 3
        assert [record.p_adjusted for record in members] == adjust_p([record.p for record in members], "holm")
    assert {metric for metric, *_ in groups} == {
        "auroc", "average_precision", "brier", "log_loss", "calibration_slope", "sensitivity", "specificity", "accuracy", "net_benefit",
    }  # fmt: skip


def test_order_of_rows_changes_nothing() -> None:
    tables = {"a": predictions(0, n_patients=90), "b": predictions(1, n_patients=90)}
    shuffled = {name: table.sample(frac=1, random_state=number) for number, (name, table) in enumerate(tables.items())}
    assert compare(shuffled) == compare(tables)


def test_decisions_are_compared_by_mcnemar_among_positives_negatives_and_all() -> None:
    tables = {"a": predictions(0), "b": predictions(1)}
    records, y = compare(tables), tables["a"].y_cat
    right = [(table.p_cat >= 0.5) == (y == 1) for table in tables.values()]
    for metric, among in (("sensitivity", y == 1), ("specificity", y == 0), ("accuracy", y >= 0)):
        test = mcnemar(int((right[0] & ~right[1])[among].sum()), int((~right[0] & right[1])[among].sum()))
        methods = {record.method: record for record in found(records, metric=metric)}
        assert set(methods) == {"mcnemar", "mcnemar_exact", "mcnemar_mid_p"}
        assert [methods[name].p for name in ("mcnemar", "mcnemar_exact", "mcnemar_mid_p")] == [test.p, test.p_exact, test.p_mid]
        assert methods["mcnemar"].difference == pytest.approx(right[0][among].mean() - right[1][among].mean())
        assert (methods["mcnemar"].n, methods["mcnemar"].threshold) == (among.sum(), 0.5)


def test_repeated_patients_are_respected_throughout() -> None:
    records = compare({"a": predictions(0, n_patients=80), "b": predictions(1, n_patients=80)})
    assert {record.method for record in records} == {"obuchowski", "bootstrap", "mcnemar_clustered"}
    assert found(records, metric="auroc")[0].n_patients == predictions(0, n_patients=80).patient_id.nunique()


def test_patient_level_compares_patients() -> None:
    config = CONFIG.model_copy(update={"levels": ("patient",)})
    tables = {"a": predictions(0, n_patients=80), "b": predictions(1, n_patients=80)}
    record = found(compare(tables, config=config), metric="auroc")[0]
    groups = [table.groupby("patient_id") for table in tables.values()]
    test = paired_auroc_test(groups[0].y_cat.max(), groups[0].p_cat.mean(), groups[1].p_cat.mean())
    assert (record.n, record.method) == (len(groups[0]), "delong")
    assert record.difference == pytest.approx(test.difference)


def test_several_labels_have_a_macro_difference() -> None:
    tables = {"a": predictions(0, labels=("cat", "dog")), "b": predictions(1, labels=("cat", "dog"))}
    records = compare(tables)
    (macro,) = found(records, label="macro")
    assert macro.difference == pytest.approx(
        np.mean([record.difference for record in records if record.metric == "auroc" and record.label != "macro"])
    )
    assert macro.method == "linearised"
    assert macro.low < macro.difference < macro.high
    # The labels are independent here, so that the variances of the two differences add up.
    single = [record for record in found(records, metric="auroc") if record.label != "macro"]
    widths = [record.high - record.low for record in single]
    assert macro.high - macro.low == pytest.approx(math.hypot(*widths) / 2, rel=0.1)


def test_classes_have_hand_till_and_top_one_accuracy() -> None:
    labels = ("cat", "dog", "emu")
    tables = {"a": predictions(0, labels=labels, kind="classes"), "b": predictions(2, labels=labels, kind="classes")}
    records = compare(tables)
    assert {(record.metric, record.label) for record in records} >= {("hand_till_m", "macro"), ("auroc", "macro"), ("accuracy", "all")}
    truth = tables["a"][[f"y_{label}" for label in labels]].to_numpy().argmax(axis=1)
    right = [(table[[f"p_{label}" for label in labels]].to_numpy().argmax(axis=1) == truth).mean() for table in tables.values()]
    assert found(records, metric="accuracy", label="all", method="mcnemar")[0].difference == pytest.approx(right[0] - right[1])


def test_equal_models_differ_by_nothing() -> None:
    same = predictions(0, labels=("cat", "dog"))
    records = compare({"a": same, "b": same.copy()})
    assert all((record.difference, record.p, record.p_adjusted) == (0.0, 1.0, 1.0) for record in records)
    assert not any(" is higher" in sentence or " is lower" in sentence for sentence in comparison_sentences(records))


def test_missing_labels_leave_their_rows_out() -> None:
    tables = {"a": predictions(0), "b": predictions(1)}
    for table in tables.values():
        table.loc[:39, "y_cat"] = np.nan
    record = found(compare(tables), metric="auroc")[0]
    assert record.n == 200
    test = paired_auroc_test(tables["a"].y_cat[40:], tables["a"].p_cat[40:], tables["b"].p_cat[40:])
    assert record.p == pytest.approx(test.p)


# ---------------------------------------------------------------- thresholds


def test_thresholds_of_folds_reach_their_rows() -> None:
    tables = {"a": predictions(0), "b": predictions(1)}
    for table in tables.values():
        table["fold"] = np.arange(len(table)) % 2
    by_fold = {0: 0.3, 1: 0.6}
    records = compare_models(tables, CONFIG, {name: {"cat": [by_fold]} for name in tables})
    at = tables["a"].fold.map(by_fold)
    called = [table.p_cat >= at for table in tables.values()]
    positive = tables["a"].y_cat == 1
    record = found(records, metric="sensitivity", method="mcnemar")[0]
    assert record.difference == pytest.approx(called[0][positive].mean() - called[1][positive].mean())
    assert (record.threshold, "mean over folds" in record.note) == (None, True)
    assert found(records, metric="net_benefit")[0].difference is not None
    with pytest.raises(InputError, match="no threshold for fold 1; there is one for folds"):
        compare_models(tables, CONFIG, {name: {"cat": [{0: 0.3}]} for name in tables})


def test_own_thresholds_compare_decisions_but_not_net_benefit() -> None:
    tables = {"a": predictions(0), "b": predictions(1)}
    records = compare_models(tables, CONFIG, {"a": {"cat": [0.3]}, "b": {"cat": [0.6]}})
    assert found(records, metric="sensitivity", method="mcnemar")[0].note == "a at 0.3, b at 0.6"
    (net_benefit,) = found(records, metric="net_benefit")
    assert (net_benefit.difference, net_benefit.p_adjusted) == (None, None)
    assert "different quantities" in net_benefit.note


def test_different_numbers_of_operating_points_are_not_matched_up() -> None:
    tables = {"a": predictions(0), "b": predictions(1)}
    records = compare_models(tables, CONFIG, {"a": {"cat": [0.3, 0.5]}, "b": {"cat": [0.6]}})
    (accuracy,) = found(records, metric="accuracy")
    assert "different numbers of operating points (a 2, b 1)" in accuracy.note
    assert not found(records, metric="sensitivity")


# ---------------------------------------------------------------- refusals, words, file


def test_other_images_are_refused() -> None:
    with pytest.raises(InputError, match="200 in common, 40 only in a"):
        compare({"a": predictions(0), "b": predictions(1).iloc[:200]})


def test_non_inferiority_is_told_both_ways() -> None:
    config = CONFIG.model_copy(update={"margin": 0.1})
    records = compare({"weak": predictions(0), "strong": predictions(2)}, config=config)
    told = {(record.a, record.b): record for record in found(records, method="delong_non_inferiority")}
    assert told["strong", "weak"].note == "strong is non-inferior to weak at a margin of 0.1"
    assert told["weak", "strong"].note == "weak is not shown to be non-inferior to strong at a margin of 0.1"
    assert told["strong", "weak"].p < 0.025 < told["weak", "strong"].p
    sentences = comparison_sentences(records, margin=0.1)
    assert any("strong is non-inferior to weak at a margin of 0.1 (lower limit of the difference +" in sentence for sentence in sentences)


def test_sentences_claim_what_is_significant_and_nothing_else() -> None:
    records = compare({"weak": predictions(0), "strong": predictions(2)})
    sentences = comparison_sentences(records)
    assert sentences[0].startswith("AUROC of cat: weak is lower than strong (difference -0.")
    assert any(sentence.startswith("Brier score of cat: weak is higher than strong") for sentence in sentences)
    alike = comparison_sentences(compare({"a": predictions(0), "b": predictions(0).assign(p_cat=lambda t: t.p_cat.round(3))}))
    assert alike[0].startswith("AUROC of cat: between a and b no difference can be claimed")
    assert alike[-1].startswith("cat: between a and b no difference can be claimed in average precision")


def test_better_is_said_where_it_is_known() -> None:
    common = {"label": "cat", "a": "a", "b": "b", "low": 0.01, "high": 0.2, "p": 0.01, "p_adjusted": 0.01, "method": "bootstrap"}
    words = {
        metric: comparison_sentences([Comparison(metric=metric, difference=difference, **common)])[0]
        for metric, difference in (("auroc", 0.1), ("brier", -0.1), ("calibration_slope", 0.1))
    }
    assert "a is higher (better) than b" in words["auroc"]
    assert "a is lower (better) than b" in words["brier"]
    assert "a is higher than b" in words["calibration_slope"]
    nothing = Comparison(metric="auroc", label="cat", a="a", b="b", difference=None, note="not estimable: no positive case among 5")
    assert comparison_sentences([nothing]) == ["AUROC of cat: a and b cannot be compared (not estimable: no positive case among 5)."]


def test_one_class_is_not_estimable_and_the_rest_goes_on() -> None:
    tables = {"a": predictions(0), "b": predictions(1)}
    for table in tables.values():
        table["y_cat"] = 0.0
    records = compare(tables)
    assert found(records, metric="auroc")[0].difference is None
    assert found(records, metric="brier")[0].p is not None
    assert found(records, metric="sensitivity")[0].note.startswith("not estimable: no case to count")


def test_comparisons_survive_their_file(tmp_path: object) -> None:
    records = compare({"a": predictions(0), "b": predictions(1)})
    write_records(records, tmp_path / "comparison.json")
    assert read_comparisons(tmp_path / "comparison.json") == records


def test_probability_at_the_threshold_is_called_positive() -> None:
    tables = {"a": predictions(0), "b": predictions(1)}
    tables["a"]["p_cat"], tables["b"]["p_cat"] = 0.5, 0.4
    assert found(compare(tables), metric="sensitivity", method="mcnemar")[0].difference == 1.0


def test_methods_with_several_seeds_are_compared_as_groups() -> None:
    tables = {f"{name}_seed{seed}": predictions(2 * number + seed) for number, name in enumerate(("old", "new")) for seed in (0, 1)}
    (record,) = found(compare(tables), method="seeds")
    assert (record.metric, record.a, record.b) == ("auroc", "old", "new")
    test = seed_difference(tables["old_seed0"].y_cat, *([tables[f"{name}_seed{seed}"].p_cat for seed in (0, 1)] for name in ("old", "new")))
    assert (record.difference, record.p) == (test.difference, test.p)
    assert not found(compare({"a": predictions(0), "b": predictions(1)}), method="seeds")
