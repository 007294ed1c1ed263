"""A new site: the shift is found, its worth is stated with its uncertainty, nothing is overwritten."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from medcnn.errors import InputError
from medcnn.tables import read_table
from pipelines.site import recalibrate


def new_site(n: int, shift: float, labelled: int) -> pd.DataFrame:
    """Cases whose true log odds are the model's plus `shift`; the first `labelled` rows have labels."""
    rng = np.random.default_rng(3)
    score = rng.normal(0, 1.5, n)
    y = (rng.random(n) < expit(score + shift)).astype(float)
    y[labelled:] = np.nan
    return pd.DataFrame({"y_disease": y, "p_disease": expit(score)})


def test_a_shifted_site_is_found_and_helped(tmp_path: Path) -> None:
    table = new_site(800, -1.5, 400)
    table.to_csv(tmp_path / "site.csv", index=False)
    (sentence,) = recalibrate(tmp_path / "site.csv", tmp_path / "out")
    stated = json.loads((tmp_path / "out" / "site_update.json").read_text())["disease"]
    assert stated["intercept"]["low"] < -1.5 < stated["intercept"]["high"]
    assert stated["helps"]
    assert "show a gain" in sentence
    shifted = read_table(tmp_path / "out" / "predictions.parquet")["p_disease"]
    np.testing.assert_allclose(logit(shifted) - logit(table["p_disease"]), stated["intercept"]["value"], atol=1e-6)


def test_a_like_site_shows_no_gain(tmp_path: Path) -> None:
    new_site(200, 0.0, 60).to_csv(tmp_path / "site.csv", index=False)
    (sentence,) = recalibrate(tmp_path / "site.csv", tmp_path / "out")
    assert "no gain can be claimed" in sentence


def test_a_site_without_labels_is_refused(tmp_path: Path) -> None:
    new_site(50, 0.0, 0).to_csv(tmp_path / "site.csv", index=False)
    with pytest.raises(InputError, match="no row is labelled"):
        recalibrate(tmp_path / "site.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()
