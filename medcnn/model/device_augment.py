"""Augmentation of whole batches by torch, on whatever device trains: for GPUs that the cores cannot feed.

The source says what is to be done to each image (PreparingSource.prepare); here it is done, in the order of
`medcnn/data/augment.py`: symmetry and affine map, stain, colour, tone, blur, noise. The pixels are those of OpenCV to within a few
grey levels (it interpolates in steps of 1/32 pixel and rounds after each pass), the grain of the noise is another. Nothing is drawn
here, so a batch remains a function of (seed, epoch, image number). No matrix product is used: on CUDA it may run in TF32, which
would place pixels a fifth of a pixel off.
"""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch.nn import functional

N_OFFSETS = 1 << 20  # places where the bank of noise is entered
MIN_BLUR_PX = 0.25  # a narrower Gaussian changes nothing
READ_HERE = frozenset({"reflect", "offsets"})  # by Python: left in main memory, so that nothing waits for the device


@torch.no_grad()
def augmented(pixels: torch.Tensor, draws: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """uint8 (B, S, S, C) as `draws` say, on the device of `pixels`, as uint8 (B, S, S, C).

    draws, in main memory, each of them optional: matrices float32 (B, 2, 3), from a place (x, y, 1) in the new image to
    one in the old, pixels, with reflect bool (): mirrored beyond the border, or black; stains float32 (B, 3, 4) on optical
    density; colours float32 (B, 3, 3) on RGB; tables uint8 (B, 256); blurs float32 (B,), standard deviation in pixels;
    noises float32 (B,), standard deviation in grey levels, with offsets int64 (B,), where the bank of noise is entered.
    """
    if not draws:
        return pixels
    there = {name: tensor.to(pixels.device, non_blocking=True) for name, tensor in draws.items() if name not in READ_HERE}
    images = pixels.permute(0, 3, 1, 2).float()
    if "matrices" in there:
        images = _moved(images, there["matrices"], reflect=bool(draws["reflect"]))
    if "stains" in there:
        density = images.round().clamp_(0.5, 255).div_(255).log_().neg_()  # half a grey level: black comes back as black
        amounts = _combined(density, there["stains"][..., :3]) + there["stains"][..., 3, None, None]
        images = amounts.neg_().exp_().mul_(255).clamp_(0, 255)
    if "colours" in there:
        images = _combined(images, there["colours"]).clamp_(0, 255)
    if "tables" in there:
        places = images.round().clamp_(0, 255).long()
        images = there["tables"].gather(1, places.flatten(1)).view(places.shape).float()
    if "blurs" in there:
        images = _blurred(images, draws["blurs"], there["blurs"])
    if "noises" in there:
        images = images + there["noises"][:, None, None, None] * _grain(draws["offsets"], images)
    return images.round().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _moved(images: torch.Tensor, matrices: torch.Tensor, *, reflect: bool) -> torch.Tensor:
    """Each pixel of float32 (B, C, S, S) fetched from its place in the old image, bilinearly."""
    side = images.shape[-1]
    axis = torch.arange(side, dtype=torch.float32, device=images.device)
    rows = matrices[:, :, None, None, :]  # (B, 2, 1, 1, 3): broadcast over y and x
    places = rows[..., 0] * axis + rows[..., 1] * axis[:, None] + rows[..., 2]
    grid = (places * (2 / (side - 1)) - 1).permute(0, 2, 3, 1)  # corners of the pixels' centres at -1 and 1
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection" if reflect else "zeros", align_corners=True)


def _combined(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Channels (B, 3, S, S) recombined by matrices (B, 3, 3)."""
    factors = matrices[..., None, None]
    return factors[:, :, 0] * images[:, :1] + factors[:, :, 1] * images[:, 1:2] + factors[:, :, 2] * images[:, 2:3]


def _blurred(images: torch.Tensor, blurs: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Gaussian blur, each image with its own width: as wide and as cut off as OpenCV's on uint8. blurs: on the host; there: on the device."""
    reach = min(int(_radii(blurs).max()), images.shape[-1] - 1)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32, device=images.device)
    kernels = torch.exp(-0.5 * (steps / there.clamp(min=MIN_BLUR_PX)[:, None]) ** 2) * (steps.abs() <= _radii(there)[:, None])
    kernels = (kernels / kernels.sum(dim=1, keepdim=True))[:, :, None, None, None]
    for padding in ((reach, reach, 0, 0), (0, 0, reach, reach)):
        wide = functional.pad(images, padding, mode="reflect")
        dimension = 3 if padding[0] else 2
        views = (wide.narrow(dimension, start, images.shape[-1]) for start in range(2 * reach + 1))
        total = torch.zeros_like(images)
        for number, view in enumerate(views):
            total = torch.addcmul(total, kernels[:, number], view)
        images = total
    return images


def _radii(blurs: torch.Tensor) -> torch.Tensor:
    """Half the width of each kernel in pixels, 0 where the image stays as it is."""
    return torch.where(blurs >= MIN_BLUR_PX, ((6 * blurs + 1).round().long() | 1) // 2, 0)


def _grain(offsets: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers like float32 (B, C, S, S): for each image the run of the bank that its offset (B,), on the host, begins."""
    n_each = images[0].numel()
    bank = _bank(N_OFFSETS + n_each, images.device)
    return torch.stack([bank[start : start + n_each] for start in (offsets % N_OFFSETS).tolist()]).view(images.shape)


@lru_cache(maxsize=4)
def _bank(n: int, device: torch.device) -> torch.Tensor:
    """The same on every device, drawn once: float32 (n,)."""
    return torch.randn(n, generator=torch.Generator().manual_seed(0)).to(device)
