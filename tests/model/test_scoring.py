import threading

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs

from medcnn.errors import RunError
from medcnn.model.scoring import _loaded, check_finite

SOURCE = Arrays(blobs(20)[0])
ASKED = [(np.arange(0, 7), None), (np.arange(7, 14), 3), (np.arange(14, 20), None)]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_batches_come_in_order(device: str) -> None:
    """Nothing is sent to the device here, so one that is not there can be named."""
    for pixels, (rows, epoch) in zip(_loaded(SOURCE, iter(ASKED), torch.device(device)), ASKED, strict=True):
        assert np.array_equal(pixels.numpy(), SOURCE.batch(rows, epoch))


def test_a_gpu_has_the_next_batch_read_meanwhile() -> None:
    class Announcing(Arrays):
        def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
            if rows[0] == 7:
                second.set()
            return super().batch(rows, epoch, shows)

    second = threading.Event()
    batches = _loaded(Announcing(SOURCE.images), iter(ASKED), torch.device("mps"))
    next(batches)
    assert second.wait(timeout=10)
    batches.close()


def test_what_the_source_raises_arrives() -> None:
    class Lost(Arrays):
        def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
            raise RunError("row 7 is lost")

    for device in ("cpu", "mps"):
        with pytest.raises(RunError, match="row 7 is lost"):
            list(_loaded(Lost(SOURCE.images), iter(ASKED), torch.device(device)))


def test_the_first_row_that_is_no_number_is_named() -> None:
    check_finite(np.zeros((3, 2)), np.array([4, 5, 6]), "score")
    with pytest.raises(RunError, match=r"a score that is not a number for 2 of 3 images, first row 5"):
        check_finite(np.array([[0, 0], [0, np.nan], [np.inf, 0]]), np.array([4, 5, 6]), "score")
