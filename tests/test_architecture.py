"""The house rules that can be read off the source: who imports whom, how large the rooms are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "medcnn"
FLOORS = {
    "errors": 0,
    "section": 1, "config": 1, "config_data": 1, "executors": 1, "energy": 1, "config_file": 1, "tables": 1, "artifact": 1, "plan": 1, "cohort": 1, "progress": 1, "evaluation": 1, "search_space": 1, "trials": 1,
    "data": 2, "model": 2, "report": 2,
    "runs": 3, "members": 3, "cohort_stages": 3, "audit_stages": 3, "finding_pictures": 3, "audit_page": 3, "new_images": 3, "train_stages": 3, "stain_stages": 3, "bag_stages": 3, "bag_pictures": 3, "predict_stages": 3, "model_stages": 3, "explanation": 3, "predictions": 3, "site": 3, "readout": 3, "inference": 3, "survey": 3, "search": 3,
    "cli": 5, "doctor": 5,
}  # fmt: skip
SIBLINGS = {"data", "model", "report"}
HEAVY = {"torch", "monai", "timm", "albumentations", "cv2", "sklearn", "matplotlib", "pandas", "scipy", "pydicom"}
LARGEST_FILE_LINES = 360
LONGEST_FUNCTION_LINES = 62


def package_files() -> list[Path]:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 25, "the glob lost the package"
    return files


def imported_modules(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else ""


def breaches(room: str, modules: set[str]) -> list[str]:
    """Imports that a room may not make."""
    wrong = []
    for module in modules:
        target = room_of(module) if module.startswith("medcnn.") else ""
        if target and target != room and (FLOORS[target] > FLOORS[room] or {target, room} <= SIBLINGS):
            wrong.append(f"{room} imports {module}")
        if room == "evaluation" and module.split(".")[0] in {"torch", "timm", "monai"}:
            wrong.append(f"evaluation imports {module}")
    return wrong


def test_imports_go_down() -> None:
    wrong = []
    for file in package_files():
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in {"__init__", "__main__"}:
            continue
        assert parts[0] in FLOORS, f"{file.name}: give this room a floor"
        wrong += breaches(parts[0], imported_modules(ast.parse(file.read_text())))
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("data", "from medcnn.model.training import train"),
        ("evaluation", "import torch"),
        ("config", "from medcnn.model_stages import train"),
        ("report", "from medcnn.data import cache"),
    ],
)
def test_a_breach_is_seen(room: str, line: str) -> None:
    assert breaches(room, imported_modules(ast.parse(line)))


def test_rooms_stay_small() -> None:
    large = {
        str(file.relative_to(PACKAGE)): n for file in package_files() if (n := len(file.read_text().splitlines())) > LARGEST_FILE_LINES
    }
    assert not large, large


def test_functions_tell_one_story() -> None:
    long = [
        f"{file.name}:{node.name}"
        for file in package_files()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION_LINES
    ]
    assert not long, long


def test_command_line_imports_nothing_heavy() -> None:
    code = f"import sys; import medcnn, medcnn.cli; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_evaluation_imports_no_torch() -> None:
    code = "import sys; import medcnn.evaluation.assessment, medcnn.evaluation.comparison; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
