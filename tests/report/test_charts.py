"""What the charts draw, read back from the drawing."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from medcnn.report.blocks import Figure
from medcnn.report.charts import decision_chart, distribution_chart, rates, roc_chart, training_charts
from medcnn.report.counts import count_thresholds
from medcnn.report.diagrams import Box, ForestRow, confusion_chart, cost_chart, flow_chart, forest_chart
from medcnn.report.lookup import Distribution

SVG = "{http://www.w3.org/2000/svg}"


def tree(figure: Figure | None) -> ElementTree.Element:
    assert figure is not None
    return ElementTree.fromstring(str(figure.svg))  # noqa: S314 - our own drawing


def words(figure: Figure | None) -> list[str]:
    return [node.text or "" for node in tree(figure).iter(f"{SVG}text")]


def to_data(root: ElementTree.Element, pair: tuple[float, float]) -> tuple[float, float]:
    """Pixels to data, as the page's script does it."""
    left, top, width, height = map(float, root.attrib["data-box"].split())
    x0, x1, _ = map(float, root.attrib["data-x"].split())
    y0, y1, _ = map(float, root.attrib["data-y"].split())
    return x0 + (pair[0] - left) / width * (x1 - x0), y0 + (top + height - pair[1]) / height * (y1 - y0)


def test_each_class_is_drawn_as_shares_of_itself() -> None:
    spread = Distribution(np.array([0, 0.5, 1]), np.array([30.0, 10.0]), np.array([0.0, 2.0]))
    root = tree(distribution_chart(spread, name="x", id_words=["x"]))
    heights = {}
    for bar in (
        node
        for node in root.iter(f"{SVG}rect")
        if "data-box" not in node.attrib and node.attrib["class"] in {"p0", "p1"} and float(node.attrib["width"]) > 20
    ):
        top, bottom = float(bar.attrib["y"]), float(bar.attrib["y"]) + float(bar.attrib["height"])
        high, low = to_data(root, (0, top))[1], to_data(root, (0, bottom))[1]
        heights.setdefault(bar.attrib["class"], []).append((round(low, 2), round(high, 2)))
    assert heights == {"p1": [(0.0, 1.0)], "p0": [(-0.75, 0.0), (-0.25, 0.0)]}


def test_the_roc_curve_and_its_operating_point() -> None:
    curve = pd.DataFrame({"x": [0, 0.25, 1], "y": [0, 0.75, 1], "threshold": [1.1, 0.5, 0.0]})
    figure = roc_chart({"model": curve}, name="x", id_words=["x"], points={"0.5": (0.25, 0.75)})
    root = tree(figure)
    line = next(node for node in root.iter(f"{SVG}polyline") if node.attrib.get("data-name") == "model")
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert [to_data(root, pair) for pair in points] == [
        pytest.approx((a, b), abs=1e-4) for a, b in zip(curve["x"], curve["y"], strict=True)
    ]
    assert line.attrib["data-t"] == "1.1 0.5 0"
    dot = next(node for node in root.iter(f"{SVG}circle") if "data-text" in node.attrib)
    assert to_data(root, (float(dot.attrib["cx"]), float(dot.attrib["cy"]))) == pytest.approx((0.25, 0.75), abs=1e-3)
    assert dot.attrib["data-text"] == "0.5: sensitivity 75.0%, specificity 75.0%"


def test_no_curve_is_no_chart() -> None:
    empty = pd.DataFrame(columns=["x", "y", "low", "high"])
    assert roc_chart({"model": empty}, name="x", id_words=["x"]) is None
    assert decision_chart({"model": empty}, empty, name="x", id_words=["x"]) is None


def test_treat_all_and_treat_none_are_in_the_decision_curve() -> None:
    t = np.linspace(0.01, 0.6, 30)
    everyone = pd.DataFrame({"x": t, "y": 0.3 - 0.7 * t / (1 - t)})
    figure = decision_chart(
        {"model": pd.DataFrame({"x": t, "y": 0.25, "low": 0.2, "high": 0.37})}, everyone, name="x", id_words=["x"], mark=0.2
    )
    root = tree(figure)
    named = {node.attrib["data-name"] for node in root.iter(f"{SVG}polyline") if "data-name" in node.attrib}
    assert named == {"model", "Treat all", "Treat none"}
    assert float(root.attrib["data-y"].split()[1]) >= 0.37
    assert "threshold 0.2" in words(figure)


def test_rates_by_definition() -> None:
    y, p = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.4, 0.6, 0.2, 0.1])
    counts = count_thresholds(y.astype(float), p, label="x", n_steps=2)
    found = {name: values.tolist() for name, values in rates(counts).items()}
    assert found["Sensitivity"] == pytest.approx([1, 0.5, 0])
    assert found["Specificity"] == pytest.approx([0, 2 / 3, 1])
    assert found["PPV"] == pytest.approx([0.4, 0.5, np.nan], nan_ok=True)
    assert found["NPV"] == pytest.approx([np.nan, 2 / 3, 0.6], nan_ok=True)


def test_training_is_averaged_over_folds() -> None:
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 1, 2],
            "fold": [0, 0, 1, 1],
            "train_loss": [1.0, 0.5, 0.6, 0.3],
            "val_loss": [1.0, 0.8, 1.0, 0.6],
            "val_auroc": [0.6, 0.8, 0.7, 0.9],
        }
    )
    loss, auroc = training_charts(history)
    assert auroc.numbers["val_auroc"].tolist() == pytest.approx([0.65, 0.85])
    root = tree(loss)
    line = next(node for node in root.iter(f"{SVG}polyline") if node.attrib.get("data-name") == "Training")
    points = [to_data(root, tuple(map(float, pair.split(",")))) for pair in line.attrib["points"].split()]  # type: ignore[arg-type]
    assert points == [pytest.approx((1, 0.8), abs=0.01), pytest.approx((2, 0.4), abs=0.01)]
    assert training_charts(history[["epoch", "fold"]]) == []


def test_a_forest_says_what_is_not_estimable() -> None:
    rows = [
        ForestRow("All", ("90", "30"), 0.8, 0.7, 0.9, "0.800 (0.700 to 0.900)"),
        ForestRow("sex", heading=True),
        ForestRow("F", ("5", "1")),
    ]
    figure = forest_chart(rows, id="f", title="t", axis_title="AUROC", columns=("n", "Events"), reference=0.8)
    assert "not estimable" in words(figure)
    assert "0.800 (0.700 to 0.900)" in words(figure)
    assert figure.numbers["subgroup"].tolist() == ["All", "F"]


def test_the_confusion_table_holds_the_counts() -> None:
    matrix = pd.DataFrame([[5, 1], [2, 1200]], index=["a", "b"], columns=["a", "b"])
    assert {"5", "1", "2", "1,200", "83.3%"} <= set(words(confusion_chart(matrix, id="c", title="t")))


def test_cost_stands_on_a_logarithmic_axis() -> None:
    root = tree(cost_chart([("small", 1e4, 0.8, 0.7, 0.9), ("large", 1e6, 0.85, None, None)], axis_title="Parameters", id="c"))
    dots = [node for node in root.iter(f"{SVG}circle") if "data-text" in node.attrib]
    left, _, width, _ = map(float, root.attrib["data-box"].split())
    assert root.attrib["data-x"] == "10000 1e+07 1"
    assert [round((float(dot.attrib["cx"]) - left) / width, 2) for dot in dots] == [0.0, 0.67]


def test_the_flow_names_every_box() -> None:
    figure = flow_chart(
        [(Box("10 found", ["source"]), Box("2 left out", ["2 unreadable"])), (Box("8 came in"), None)], [Box("Training"), Box("Test")]
    )
    assert {"10 found", "2 left out", "2 unreadable", "8 came in", "Training", "Test"} <= set(words(figure))
    assert figure.numbers["box"].tolist() == ["10 found", "2 left out", "8 came in", "Training", "Test"]
