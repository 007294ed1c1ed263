"""The cases of the reference: their rows, their records, and how an interval is written there."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "reference"


@cache
def table(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / "inputs" / f"{name}.csv")


@cache
def scores(case: str) -> tuple[np.ndarray, np.ndarray]:
    if case.startswith("aSAH."):
        return table("a_aSAH").y.to_numpy(float), table("a_aSAH")[case.removeprefix("aSAH.")].to_numpy(float)
    if case.startswith("e5000."):
        return table("e5000_calib").y.to_numpy(float), table("e5000_calib")[case.removeprefix("e5000.")].to_numpy(float)
    return table(case).y.to_numpy(float), table(case).score.to_numpy(float)


@cache
def records() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads((FOLDER / "reference.json").read_text())["records"])


@cache
def by_id() -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in records()}


def by_method(estimates: list[Any], method: str) -> Any:
    return next(estimate for estimate in estimates if estimate.method == method)


def limits(estimate: Any) -> list[float]:
    return [estimate.low, estimate.high]


def triple(estimate: Any) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]
