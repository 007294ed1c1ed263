"""What every test may use: where the real data and the reference values are, when they are there."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs {path.relative_to(SHARED.parent)} beside the repository, which is absent here")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real images; the test is skipped, with a message, where it is absent."""
    return _need(SHARED / "data")
