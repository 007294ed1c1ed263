"""What the ladder's rungs are asked with: features that are there already, or images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medcnn import cohort_stages, model_stages, predict_stages, train_stages
from medcnn.members import Member, read_cost
from medcnn.model.machine import inspect_machine
from medcnn.plan import Plan, read_plan
from medcnn.runs import Run, open_run
from medcnn.tables import read_table
from tests.pipelines.conftest import tiny_config

pytestmark = pytest.mark.skipif(
    not inspect_machine().wheel_weights, reason="needs installed pretrained weights (extra weights), which are absent here"
)


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Path], dict[Member, Path], Plan]:
    """A run up to its trained frozen rung."""
    config = tiny_config(
        data={"n_images": 60}, image={"size_px": 32, "channels": 3}, model={"name": "tf_efficientnet_lite0", "pretrained": True},
        ladder={"rungs": ["prevalence", "frozen"]}, training={"select": "last"}, prediction={"engine": "torch"},
    )  # fmt: skip
    run = open_run(config, tmp_path_factory.mktemp("looked") / "run", quiet=True)
    audited = cohort_stages.audit(run, cohort_stages.ingest(run))
    planned = model_stages.plan(run, cohort_stages.fingerprint(run, audited))
    inputs = {"audit": audited, "plan": planned, "split": cohort_stages.split(run, audited, planned)}
    inputs["cache"] = cohort_stages.cache(run, audited, planned)
    inputs |= train_stages.features(run, inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medcnn.model.frozen.STRENGTHS", (1.0,))  # these images tell it so little that it would say the same of all
        return run, inputs, train_stages.train(run, inputs), read_plan(planned / "plan.yaml")


def asked(looked: tuple[Run, dict[str, Path], dict[Member, Path], Plan]) -> pd.DataFrame:
    run, inputs, trained, decided = looked
    ((member, folder),) = trained.items()
    wanted = predict_stages._asked(*predict_stages._read_tables(inputs), decided, member.fold)
    return predict_stages._predict_member(run, member, folder, decided, inputs, wanted)


def test_frozen_features_are_not_computed_again(looked, monkeypatch: pytest.MonkeyPatch) -> None:
    run, inputs, trained, decided = looked
    with monkeypatch.context() as patch:
        patch.setattr(predict_stages, "_is_looked", lambda *_: False)
        slow = asked(looked)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the backbone was asked again")

    monkeypatch.setattr("medcnn.model.predict.predict", refuse)
    folders = predict_stages.predict(run, inputs, trained)
    quick = read_table(folders["frozen"] / "predictions.parquet").sort_values("image_id", ignore_index=True)
    slow = slow.sort_values("image_id", ignore_index=True)
    assert list(quick["image_id"]) == list(slow["image_id"])
    assert quick["p_nodule"].std() > 0.01
    np.testing.assert_allclose(quick["p_nodule"], slow["p_nodule"], atol=1e-5)
    np.testing.assert_allclose(quick["logit_nodule"], slow["logit_nodule"], rtol=1e-3, atol=1e-4)

    cost = read_cost(folders["frozen"])  # an image that comes new must be looked at, and the speed says so
    looking = predict_stages._seconds_of_looking(inputs, len(quick))
    assert looking > 0.05
    assert cost["cpu_seconds"] > looking
    assert cost["images_per_second"] < len(quick) / looking

    views = decided.model_copy(update={"prediction": decided.prediction.model_copy(update={"n_views": 2})})
    assert not predict_stages._is_looked("frozen", views)
    with pytest.raises(AssertionError, match="asked again"):
        asked((run, inputs, trained, views))
