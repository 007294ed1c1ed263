"""What accumulation saves and what low-rank adapters cost: bytes that a step keeps for its gradient, and CPU seconds of a step.

    python -m benchmarks.ablations_cost

Accumulation: tf_efficientnet_lite0 at 64 px, a step of 32 images whole and in pieces. Adapters: vit_tiny_patch16_224 at 96 px from
random weights, 32 images. Bytes are those of the tensors that autograd keeps, each storage once, without the weights; the largest piece.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from medcnn.model.backbones import build_model
from medcnn.model.optimisation import make_optimiser, set_training_mode
from medcnn.plan import ModelPlan, TrainingPlan

N_IMAGES, N_STEPS, N_WARM = 32, 5, 1


def kept_bytes(model: nn.Module, images: torch.Tensor, y: torch.Tensor) -> int:
    """Bytes that autograd keeps between the forward and the backward pass."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # else a freed address could be counted for another tensor

    def note(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        functional.cross_entropy(model(images), y)
    return sum(kept.values())


def step_seconds(step: Callable[[], None]) -> float:
    """Median CPU seconds of a step."""
    seconds = []
    for _ in range(N_WARM + N_STEPS):
        started = time.process_time()
        step()
        seconds.append(time.process_time() - started)
    return sorted(seconds[N_WARM:])[N_STEPS // 2]


def measured(name: str, size_px: int, *, pieces: int = 1, lora_rank: int = 0, freeze: bool = False) -> str:
    """One line of the table."""
    model = build_model(ModelPlan(name=name, pretrained=False, dropout=0.0, lora_rank=lora_rank), channels=3, n_outputs=2, size_px=size_px)
    plan = TrainingPlan(
        epochs=1, batch_size=N_IMAGES, learning_rate=1e-3, backbone_lr_factor=1.0, head_epochs=0, imbalance="none", precision="float32",
        n_workers=0, freeze_backbone=freeze,
    )  # fmt: skip
    optimiser: Any = make_optimiser(model, plan)
    set_training_mode(model, backbone_learns=not freeze)
    torch.manual_seed(0)
    images, y = torch.randn(N_IMAGES, 3, size_px, size_px), torch.randint(0, 2, (N_IMAGES,))

    def step() -> None:
        for some, of_some in zip(images.tensor_split(pieces), y.tensor_split(pieces), strict=True):
            (functional.cross_entropy(model(some), of_some, reduction="sum") / N_IMAGES).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()

    n_learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    kept = kept_bytes(model, images.tensor_split(pieces)[0], y.tensor_split(pieces)[0])
    return (
        f"| {name}, {size_px} px | {pieces} | {lora_rank} | {freeze} | {n_learning:,} | {kept / 2**20:.0f} MiB | {step_seconds(step):.3f} |"
    )


def main() -> None:
    torch.set_num_threads(1)
    print("| network | pieces | LoRA rank | backbone frozen | weights that learn | kept for the gradient | CPU s a step |")
    print("|---|---|---|---|---|---|---|")
    for pieces in (1, 2, 4):
        print(measured("tf_efficientnet_lite0", 64, pieces=pieces), flush=True)
    for rank, freeze in ((0, False), (8, False), (0, True)):
        print(measured("vit_tiny_patch16_224", 96, lora_rank=rank, freeze=freeze), flush=True)


if __name__ == "__main__":
    main()
