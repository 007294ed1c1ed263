"""What the tests of the data room share: a key for pseudonyms that is made anew for each test and lies in no home folder."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("key") / "folder" / "pseudonym.key"
    monkeypatch.setenv("MEDCNN_PSEUDONYM_KEY", str(path))
    return path
