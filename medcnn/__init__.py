"""medcnn: from a folder of clinical images to an AUROC, calibration and comparison report.

The Python interface is what the commands call; it is imported when first used, so `import medcnn` is quick:

    from medcnn import read_config, finetune
    run = finetune(read_config(Path("configs/pneumoniamnist.yaml")))
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "read_config": "medcnn.config_file",
    "build_config": "medcnn.config_file",
    "finetune": "pipelines.finetune",
    "evaluate": "pipelines.evaluate",
    "compare": "pipelines.compare",
    "apply_run": "pipelines.external",
    "read_records": "medcnn.tables",
    "read_table": "medcnn.tables",
    "InputError": "medcnn.errors",
    "RunError": "medcnn.errors",
}
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module medcnn has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(import_module(_HOMES[name]), name)
