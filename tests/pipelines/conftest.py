"""Two finished runs on tiny made-up images, shared by the tests of whole pipelines."""

from pathlib import Path
from typing import Any

import pytest

from medcnn.config import Config
from medcnn.config_file import build_config

TINY: dict[str, Any] = {
    "name": "tiny",
    "modality": "chest_xray",
    "data": {"source": "phantom", "n_images": 120, "covariates": ["sex", "age", "site"]},
    "split": {"scheme": "holdout", "test_fraction": 0.3, "val_fraction": 0.25},
    "image": {"size_px": 32, "channels": 1},
    "model": {"name": "simple_cnn"},
    "ladder": {"rungs": ["main"]},
    "training": {"epochs": 2, "batch_size": 16, "learning_rate": 0.003, "n_threads": 1},
    "evaluation": {"by": ["sex"], "n_bootstrap": 50},
    "report": {"n_errors": 2},
}


def tiny_config(**sections: Any) -> Config:
    """The tiny config with some sections' values replaced."""
    tree = {key: {**value, **sections.pop(key, {})} if isinstance(value, dict) else sections.pop(key, value) for key, value in TINY.items()}
    return build_config({**tree, **sections}, source="test")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished hold-out run."""
    from pipelines.finetune import finetune

    return finetune(tiny_config(), tmp_path_factory.mktemp("runs") / "small", quiet=True).folder


@pytest.fixture(scope="session")
def other(finished: Path) -> Path:
    """A second model on the same split."""
    from pipelines.finetune import finetune

    config = tiny_config(model={"dropout": 0.5}, training={"epochs": 1})
    return finetune(config, finished.parent / "other", quiet=True).folder
