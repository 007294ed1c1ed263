"""The main job on made-up images: one cohort, a SimpleCNN and a pretrained EfficientNet, and their comparison.

`make demo` calls this.
"""

import sys
from pathlib import Path

from medcnn.config_file import read_config
from pipelines.compare import compare
from pipelines.finetune import finetune

CONFIGS = ("configs/demo/simple_cnn.yaml", "configs/demo/efficientnet.yaml")


def demo(out: Path) -> list[Path]:
    """Run both models on one shared cohort and compare them; returns the reports."""
    runs = [finetune(read_config(Path(config), [f"cohort={(out / 'cohort').resolve()}"]), out / Path(config).stem) for config in CONFIGS]
    compared, sentences = compare([run.folder for run in runs], out / "comparison")
    print("\n".join(sentences))
    return [*(run.folder / "report.html" for run in runs), compared / "report.html"]


if __name__ == "__main__":
    for report in demo(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("reports/demo")):
        print(f"report: {report}")
