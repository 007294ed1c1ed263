"""A finished model's predictions at a new site, shifted by the site's few labelled cases."""

from pathlib import Path

from medcnn.site import update_site
from medcnn.tables import check_predictions, read_table


def recalibrate(predictions: Path, out: Path) -> list[str]:
    """Shift the probabilities of a predictions file; returns what may be said of the effect. Raises InputError."""
    return update_site(check_predictions(read_table(predictions), source=str(predictions)), out, name=predictions.stem)
