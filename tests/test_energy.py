"""Energy is measured where codecarbon is installed, and not known where it is not."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from medcnn.energy import metered


def test_watt_hours_are_those_of_the_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Tracker:
        final_emissions_data = SimpleNamespace(energy_consumed=0.0125)  # kWh

        def __init__(self, **settings: object) -> None:
            assert settings["save_to_file"] is False

        def start(self) -> None:
            said.append("start")

        def stop(self) -> None:
            said.append("stop")

    package = ModuleType("codecarbon")
    package.OfflineEmissionsTracker = Tracker  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "codecarbon", package)
    with metered() as meter:
        assert meter.watt_hours is None
    assert meter.watt_hours == pytest.approx(12.5)
    with pytest.raises(KeyboardInterrupt), metered():
        raise KeyboardInterrupt
    assert said == ["start", "stop"] * 2


def test_nothing_is_known_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with metered() as meter:
        pass
    assert meter.watt_hours is None
