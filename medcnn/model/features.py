"""What a backbone makes of every image of a cohort, computed once and kept: the inputs of the model's last layer."""

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import nn

from medcnn.artifact import digest, write_file
from medcnn.errors import InputError, RunError
from medcnn.model.backbones import head_modules
from medcnn.model.batches import BatchSource
from medcnn.model.devices import choose_device, compute_settings
from medcnn.model.openvino_engine import weights_digest
from medcnn.model.scoring import Engine, check_finite, score_batches
from medcnn.model.signature import Signature
from medcnn.progress import Progress, silent

FEATURES, JOURNAL = "features.npy", "features.json"
BATCH_SIZE = 64
CHUNK = 4 * BATCH_SIZE  # images between two entries of the journal


def last_linear(model: nn.Module) -> nn.Linear:
    """The layer that turns features into scores. Raises InputError for a network that has no such single layer."""
    heads = head_modules(model)
    linears = [module for module in heads[0].modules() if isinstance(module, nn.Linear)]
    if len(heads) != 1 or not linears or linears[-1].bias is None:
        raise InputError(
            f"{type(model).__name__} does not end in one linear layer with a bias, which frozen features need; use another backbone"
        )
    return linears[-1]


def headless(model: nn.Module) -> nn.Module:
    """A copy of the model, in evaluation mode, that gives what its last linear layer takes."""
    end = last_linear(model)
    name = next(name for name, module in model.named_modules() if module is end)
    twin = copy.deepcopy(model).eval()
    parent, _, last = name.rpartition(".")
    setattr(twin.get_submodule(parent), last, nn.Identity())
    return twin


def write_features(  # noqa: PLR0913 - the room's front door
    model: nn.Module,
    images: BatchSource,
    n: int,
    *,
    signature: Signature,
    folder: Path,
    device: str = "auto",
    precision: str = "float32",
    engine: Engine = "torch",
    n_threads: int = 0,
    progress: Progress = silent,
) -> None:
    """Write `features.npy`, float32 (n, D): row i is what the last linear layer of the model takes for image i, not augmented.

    A killed run leaves a journal, `features.json`: called again with the same backbone and settings, finished chunks are
    kept, and the file ends with the same bytes (on a CPU with the same number of threads). The source's pixels are
    taken to be the same. Raises InputError for a network that does not end in a linear layer, RunError when a feature is not finite or
    the disk is full.
    """
    where = choose_device(device)
    width = last_linear(model).in_features
    model.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    trunk = headless(model)
    key = digest([weights_digest(trunk), signature.mean, signature.std, n, width, where.type, precision, engine, CHUNK])
    n_done = _n_done(folder, key, width)
    starts = range(n_done, n, BATCH_SIZE)
    asked = ((np.arange(start, min(start + BATCH_SIZE, n)), None) for start in progress(starts, "computing features", len(starts)))
    try:
        with _opened_at(folder / FEATURES, (n, width), n_done) as stream, compute_settings(where, n_threads=n_threads):
            if n_done < n:
                _check_trunk(model, trunk, images, signature, where)
            batches = score_batches(trunk, images, asked, signature=signature, device=where, precision=precision, engine=engine)
            for chunk in _chunks(batches):
                check_finite(chunk, np.arange(n_done, n_done + len(chunk)), "feature")
                stream.write(chunk.tobytes())
                stream.flush()
                os.fsync(stream.fileno())
                n_done += len(chunk)
                _note(folder, key, n_done, n)
    except OSError as error:
        raise RunError(f"{folder}: cannot write the features ({error.strerror or error}); free some disk space and run again") from error


def open_features(folder: Path) -> np.ndarray:
    """The features of a finished folder, float32 (N, D), mapped from disk. Raises RunError when they are not whole."""
    try:
        noted = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
        if noted["n_done"] != noted["n"]:
            raise RunError(f"{folder}: holds the features of {noted['n_done']} of {noted['n']} images; run again to finish them")
        features: np.ndarray = np.load(folder / FEATURES, mmap_mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: holds no finished features ({error}); delete the folder and run again") from error
    return features


def _check_trunk(model: nn.Module, trunk: nn.Module, images: BatchSource, signature: Signature, device: torch.device) -> None:
    """Is the last linear layer truly the last step? Some networks scale or add up what it gives."""
    inputs = signature.inputs(torch.from_numpy(images.batch(np.arange(1), None)), device)
    with torch.inference_mode():
        expected, scores = model(inputs), last_linear(model)(trunk(inputs))
    if expected.shape != scores.shape or not torch.allclose(expected, scores, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise InputError(
            f"{type(model).__name__}: its last linear layer is not its last step, so frozen features do not fit it; use another backbone"
        )


def _chunks(batches: Iterator[torch.Tensor]) -> Iterator[np.ndarray]:
    """The batches as float32 arrays of CHUNK rows; the last one may be shorter."""
    held: list[torch.Tensor] = []
    for batch in batches:
        held.append(batch)
        if len(held) * BATCH_SIZE == CHUNK:
            yield _on_cpu(held)
            held = []
    if held:
        yield _on_cpu(held)


def _on_cpu(batches: list[torch.Tensor]) -> np.ndarray:
    together: np.ndarray = torch.cat(batches).float().cpu().numpy()
    return together


# ---------------------------------------------------------------- the journal


def _n_done(folder: Path, key: str, width: int) -> int:
    """Images whose features are safely on disk."""
    path, file = folder / JOURNAL, folder / FEATURES
    if not path.is_file() or not file.is_file():
        return 0
    noted = json.loads(path.read_text(encoding="utf-8"))
    if noted["key"] != key:
        return 0
    with file.open("rb") as stream:
        held = file.stat().st_size - _skip_header(stream)
    return int(noted["n_done"]) if held >= noted["n_done"] * width * 4 else 0


def _note(folder: Path, key: str, n_done: int, n: int) -> None:
    write_file(folder / JOURNAL, (json.dumps({"key": key, "n_done": n_done, "n": n}) + "\n").encode())


def _opened_at(path: Path, shape: tuple[int, int], n_done: int) -> BinaryIO:
    """The .npy file, open for writing after its first n_done rows; plain writes, since a full disk kills a memory map's process."""
    stream = path.open("r+b" if n_done else "wb")
    if not n_done:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return stream
    _skip_header(stream)
    stream.seek(n_done * shape[1] * 4, os.SEEK_CUR)  # what an unfinished chunk left is written over
    return stream


def _skip_header(stream: BinaryIO) -> int:
    """Length of the .npy header, in bytes; the stream stands behind it."""
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    return stream.tell()
