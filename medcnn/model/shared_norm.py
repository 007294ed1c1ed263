"""Batch norm over the images of all processes. torch's own (SyncBatchNorm) needs a GPU; this one computes anywhere."""

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medcnn.errors import InputError
from medcnn.model.distributed import Team

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The model's batch-norm layers."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def moving_statistics(model: nn.Module) -> list[torch.Tensor]:
    """Running means and variances that the coming steps change: those of batch norms in training mode."""
    norms = [norm for norm in batch_norms(model) if norm.training and norm.running_mean is not None]
    return [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var) if statistic is not None]


@contextlib.contextmanager
def shared_batch_norm(model: nn.Module, *, shared: bool) -> Iterator[None]:
    """In this block batch norms in training mode take mean and variance over all processes (arXiv:1711.07240), if `shared`.

    The layers change their class for the time being, so weights and their names stay as they are. Raises InputError
    for a kind of batch norm that it does not know.
    """
    swapped = batch_norms(model) if shared else []
    strange = next((norm for norm in swapped if type(norm) not in KINDS), None)
    if strange is not None:
        raise InputError(f"training.sync_batch_norm is true, but this network has a {type(strange).__name__}, for which it is not written")
    for norm in swapped:
        norm.__class__ = _shared_twin(type(norm))  # type: ignore[arg-type]  # classes can be hashed
    try:
        yield
    finally:
        for norm in swapped:
            norm.__class__ = type(norm).__mro__[1]


@cache
def _shared_twin(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    class Shared(kind):  # type: ignore[misc, valid-type]
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if not self.training:
                plain: torch.Tensor = super().forward(images)
                return plain
            outputs = _normalise(self, images)
            if isinstance(self, BatchNormAct2d):
                outputs = self.act(self.drop(outputs))
            return outputs

    return Shared


def _normalise(norm: _BatchNorm, images: torch.Tensor) -> torch.Tensor:
    """images: (B, C, ...). Updates the running statistics, as torch does, with the unbiased variance."""
    mean, variance, n = _statistics(images.float(), Team.of_this_process())
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        rate = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean.detach(), rate)
        norm.running_var.lerp_(variance.detach() * n / (n - 1), rate)
    scale = torch.rsqrt(variance + norm.eps)
    shape = (1, -1, *[1] * (images.dim() - 2))
    outputs = (images.float() - mean.view(shape)) * scale.view(shape)
    if norm.affine:
        outputs = outputs * norm.weight.view(shape) + norm.bias.view(shape)
    return outputs.to(images.dtype)


def _statistics(images: torch.Tensor, team: Team) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, biased variance and number of values of each channel, (C,), over all processes.

    Each process's own mean and variance are put together as in Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115.
    """
    axes = [0, *range(2, images.dim())]
    means = images.mean(axes)
    own = torch.stack([means, images.var(axes, correction=0), torch.full_like(means, images.numel() / images.shape[1])])
    table = images.new_zeros(team.size, *own.shape).index_copy(0, torch.tensor([team.rank], device=images.device), own[None])
    means, variances, n = _Sum.apply(table, team).unbind(1)
    n_all = n.sum(0)
    mean = (n * means).sum(0) / n_all
    return mean, (n * (variances + (means - mean) ** 2)).sum(0) / n_all, n_all


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, team: Team) -> torch.Tensor:
        ctx.team = team
        return team.add_up(tensor.clone())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        team: Team = ctx.team
        return team.add_up(gradient.clone(memory_format=torch.contiguous_format)), None
