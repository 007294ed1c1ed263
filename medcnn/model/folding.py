"""Batch norm folded into the convolution before it: the same numbers to float32 rounding, with fewer passes over memory.

In evaluation mode batch norm is one product and one sum for each channel, which a convolution's weights can carry.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Pairs = tuple[tuple[str, str], ...]

# Exactly these kinds: a convolution that makes its weight anew in every pass (weight standardisation) cannot carry a norm.
_CONVOLUTIONS, _NORMS = (nn.Conv2d, Conv2dSame), (nn.BatchNorm2d, BatchNormAct2d)
_FOUND: WeakKeyDictionary[nn.Module, Pairs] = WeakKeyDictionary()  # finding costs a copy and a pass; the pairs outlive the weights


def folded(model: nn.Module, shape: Sequence[int]) -> nn.Module:
    """A copy in evaluation mode that gives the same scores (relative difference below 1e-5), faster on a CPU.

    shape: (C, H, W) of one input. The model itself is left alone. Convolutions whose output anything but one batch norm
    reads stay as they are. Without any to fold, the model itself comes back.
    """
    if model not in _FOUND:
        _FOUND[model] = foldable_pairs(model, shape)
    if not _FOUND[model]:
        return model
    twin = copy.deepcopy(model).eval()
    for conv_name, norm_name in _FOUND[model]:
        conv, norm = cast(nn.Conv2d, twin.get_submodule(conv_name)), cast(nn.BatchNorm2d, twin.get_submodule(norm_name))
        conv.weight, conv.bias = _carried(conv, norm)
        parent, _, last = norm_name.rpartition(".")
        setattr(twin.get_submodule(parent), last, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())
    return twin


def foldable_pairs(model: nn.Module, shape: Sequence[int]) -> Pairs:
    """(convolution, batch norm) by name, where the norm is all that reads the convolution's output.

    Found by watching every operation of one pass without data (meta tensors), so it holds however the model is written.
    """
    norms = [name for name, module in model.named_modules() if type(module) in _NORMS and _is_plain(module)]
    if not norms:
        return ()
    shadow = copy.deepcopy(model).eval().to("meta")
    outputs: list[tuple[str, int]] = []
    inputs: list[tuple[str, int]] = []
    for name, module in shadow.named_modules():
        if type(module) in _CONVOLUTIONS and _is_plain(module):
            module.register_forward_hook(lambda _module, _inputs, output, name=name: outputs.append((name, id(output))))
        elif type(module) in _NORMS and _is_plain(module):
            module.register_forward_pre_hook(lambda _module, args, name=name: inputs.append((name, id(args[0]))))
    with torch.no_grad(), _Readers() as readers:
        shadow(torch.empty(1, *shape, device="meta"))
    calls = Counter(name for name, _ in outputs + inputs)
    made_by = {tensor: name for name, tensor in outputs}
    pairs = [(made_by[tensor], name, tensor) for name, tensor in inputs if tensor in made_by]
    return tuple((conv, norm) for conv, norm, tensor in pairs if calls[conv] == calls[norm] == readers.n[tensor] == 1)


class _Readers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that read each tensor, by its id. Every tensor is kept, so that no id is given twice."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n: Counter[int] = Counter()
        self.kept: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n.update({id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)})
        result = func(*args, **(kwargs or {}))
        self.kept.append(result)
        return result


def _is_plain(module: nn.Module) -> bool:
    """No hooks (of weight or spectral norm, say), no weight that is computed; and a norm must have the statistics that are folded."""
    hooked = module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations")
    return not hooked and not (isinstance(module, nn.BatchNorm2d) and module.running_mean is None)


def _carried(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of convolution and norm together, computed in float64, in the convolution's type and memory layout."""

    parts = (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    weight, bias, mean, variance, gain, shift = (None if part is None else part.detach().double() for part in parts)
    fused = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, gain, shift)  # type: ignore[arg-type]  # _is_plain has seen that the statistics are there
    carried, carried_bias = (nn.Parameter(part.detach().to(conv.weight.dtype), requires_grad=False) for part in fused)
    return carried, carried_bias
