"""What a piece of work used of electricity, where the package codecarbon is installed (extra energy)."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

SOURCE = "codecarbon, from the power of the processor, the memory and the GPU; estimated where the machine has no meter"


@dataclass
class Meter:
    """watt_hours: known when the work has ended; None: not measured."""

    watt_hours: float | None = None


@contextlib.contextmanager
def metered() -> Iterator[Meter]:
    """Measure this process while the block runs. Nothing is sent anywhere: the tracker works offline and writes no file."""
    meter = Meter()
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        yield meter
        return
    logging.getLogger("codecarbon").disabled = True
    # The country decides the CO2 alone, which is not taken over: the grid of the machine is not known here.
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", save_to_file=False, log_level="critical", tracking_mode="process", allow_multiple_runs=True
    )
    tracker.start()
    try:
        yield meter
    finally:
        tracker.stop()
        meter.watt_hours = 1000 * float(tracker.final_emissions_data.energy_consumed)
