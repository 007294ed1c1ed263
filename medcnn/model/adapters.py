"""Low-rank adapters (LoRA, doi:10.48550/arXiv.2106.09685): beside each frozen linear layer W of a transformer, a product B A learns.

The layer computes W x + 2 B A x; A starts at random and B at zero, so training starts from the network as it was. In
the end 2 B A is added to W, and the network is a plain one again. Needs the extra lora.
"""

import copy
import re

import torch
from torch import nn

from medcnn.errors import InputError, MissingExtra
from medcnn.model.backbones import head_modules

ATTENTION_INPUTS = {"qkv", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj"}
ADAPTED = ATTENTION_INPUTS | {"proj", "fc1", "fc2", "w1", "w2", "w3", "w12"}  # last part of a layer's name in timm's transformers
SCALE = 2  # of B A, whatever the rank: alpha = 2 rank


def add_adapters(model: nn.Module, rank: int, *, channels: int, size_px: int) -> None:
    """Put an adapter at each linear layer of attention and of the blocks' perceptrons; weights come from torch's generator.

    All other weights of the backbone lose their gradient. Raises InputError for a network without linear attention
    layers, one that reaches for their weights past any adapter, or a rank above a layer's width; MissingExtra.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtra("peft", "lora", "model.lora_rank") from error
    layers = _linear_layers(model)
    if not any(_last(name) in ATTENTION_INPUTS for name in layers):
        raise InputError(
            f"model.lora_rank is {rank}, but {type(model).__name__} has no linear attention layers to adapt; choose a vision transformer, "
            "or set model.lora_rank=0"
        )
    if passed_by := sorted(set(layers) - _called(model, layers, channels, size_px)):
        raise InputError(
            f"model.lora_rank is {rank}, but {type(model).__name__} uses the weights of {passed_by[0]} without calling the layer, so an adapter "
            "would do nothing; choose another transformer (vit, deit, swin), or set model.lora_rank=0"
        )
    narrowest = min(min(layer.in_features, layer.out_features) for layer in layers.values())
    if rank > narrowest:
        raise InputError(f"model.lora_rank is {rank}, but the narrowest layer of {type(model).__name__} is {narrowest} wide; use less")
    config = LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules="|".join(map(re.escape, layers)))
    inject_adapter_in_model(config, model)
    for module in head_modules(model):
        module.requires_grad_(True)


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The weights of the adapters; none in a plain network."""
    return [parameter for name, parameter in model.named_parameters() if ".lora_A." in name or ".lora_B." in name]


def merge_adapters(model: nn.Module) -> None:
    """Add what the adapters learnt to the layers they sit at, and take them out; a plain network is left alone."""
    if not adapter_parameters(model):
        return
    from peft.tuners.lora import LoraLayer

    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, module in adapted:
        module.merge()
        model.set_submodule(name, module.get_base_layer(), strict=True)


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    heads = {id(part) for module in head_modules(model) for part in module.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and _last(name) in ADAPTED and id(module) not in heads
    }


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _called(model: nn.Module, names: dict[str, nn.Linear], channels: int, size_px: int) -> set[str]:
    """Which of the layers a forward pass really calls, found on meta tensors."""
    shadow = copy.deepcopy(model).to("meta").eval()
    called: set[str] = set()
    for name in names:
        shadow.get_submodule(name).register_forward_hook(lambda _module, _inputs, _output, name=name: called.add(name))
    with torch.no_grad():
        shadow(torch.empty(1, channels, size_px, size_px, device="meta"))
    return called
