"""Rules on what an image is when a model sees it, and how it is varied in training."""

import re

from medcnn.cohort import Fingerprint
from medcnn.config import Modality
from medcnn.errors import InputError
from medcnn.model.decisions import Decision
from medcnn.model.machine import Machine
from medcnn.plan import ImagePlan

TINY_PX = 48  # a smaller source carries no detail that a large backbone was trained for
CPU_PX, GPU_PX = 128, 224
SMALLEST_PX, SMALLEST_PRETRAINED_PX = 32, 64
MULTIPLE_PX = 32


def short_side(found: Fingerprint) -> int:
    """Median of the shorter side, in pixels."""
    return int(min(found.height_px[2], found.width_px[2]))


def size_px(found: Fingerprint, machine: Machine, name: str, pretrained: bool) -> Decision:
    """The images' own size as far as the machine can train on it, in what the network can take."""
    short = short_side(found)
    cap = GPU_PX if machine.device != "cpu" else CPU_PX
    step = _patch_px(name) or MULTIPLE_PX
    if pretrained and short < SMALLEST_PRETRAINED_PX:
        size = -(-SMALLEST_PRETRAINED_PX // step) * step if _patch_px(name) else SMALLEST_PRETRAINED_PX
        return size, f"the images are {short} px; a pretrained backbone needs about 64 px to keep a feature map"
    if short <= TINY_PX and not _patch_px(name):
        return max(8, short), f"the images' own size: {short} px"
    unit = f"patches of {step} px" if _patch_px(name) else f"a multiple of {step}"
    if short <= cap:
        return max(step, SMALLEST_PX // step * step, short // step * step), f"the median short side is {short} px, rounded down to {unit}"
    reach = "a GPU" if cap == GPU_PX else "a CPU"
    return cap // step * step, f"the median short side is {short} px; {cap // step * step} px is what {reach} trains in reasonable time"


def _patch_px(name: str) -> int:
    """Patch size of a transformer whose patches must tile the image; 0 for others."""
    match = re.search(r"patch(\d+)", name)
    return int(match[1]) if match and not name.startswith("swin") else 0


def channels(found: Fingerprint, pretrained: bool) -> Decision:
    """1 for grey images without pretrained weights, else 3."""
    if pretrained:
        return 3, "the pretrained weights expect three channels"
    if set(found.channels) <= {"1"}:
        return 1, "every image is grey"
    if found.intensity.get("grey_in_colour") == 1:
        return 1, f"images are stored in colour, but all {found.intensity['n_colour']:.0f} that were looked at are grey"
    return 3, "some images have colour"


def fit(found: Fingerprint) -> Decision:
    """Padding keeps everything."""
    low, _, median, _, high = found.aspect_ratio
    if high / low < 1.02 and abs(median - 1) < 0.02:
        return "pad", "the images are square, so nothing is padded"
    return "pad", f"aspect ratios go from {low:.2f} to {high:.2f}: padding keeps all of each image and its proportions"


def stain(modality: Modality | str) -> Decision:
    """None, as measured."""
    if modality != "histology":
        return "none", "stains are of histology"
    return "none", (
        "no gain was shown where it was measured, with pretrained features on oral mucosa (446 groups): AUROC .877 with colours as they are, "
        ".849 with macenko (difference -.059 to .003), .864 with reinhard (-.031 to .007); there stain goes with the class, so a shortcut may "
        "have been lost: for slides of another scanner try both"
    )


def check_stain(plan: ImagePlan) -> None:
    """Raise InputError for grey images whose stains are to be normalised."""
    if plan.stain != "none" and plan.channels != 3:
        raise InputError(
            f"image.stain is {plan.stain}, but image.channels is {plan.channels}: grey has no stains; set channels 3 or stain none"
        )


def policy(modality: Modality | str) -> Decision:
    """The modality's own."""
    if modality != "auto":
        return modality, f"changes that leave the label true for the modality {modality}"
    return "generic", "the modality is not given: only changes that suit any image; set modality to have its own policy"
