"""Config files: read strictly, overridden from the command line, refused with file, key and the nearest known name; written back."""

import copy
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from medcnn.config import Config, EvaluationConfig
from medcnn.errors import InputError


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config and apply `section.key=value` overrides (values are YAML).

    Relative paths in the file start at the file's folder, relative paths in overrides at the current folder.
    Raises InputError with every problem: file, key, what came, what was expected, the nearest known name.
    """
    tree = read_yaml(path)
    tree = _anchor(tree, path.parent)
    for override in overrides:
        _apply(tree, override)
    return build_config(tree, source=str(path))


def build_config(tree: Mapping[str, Any], *, source: str) -> Config:
    """Validate a nested dict into a Config; raises InputError naming `source`."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise InputError(explain_problems(error, Config, source=source)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping strictly: a repeated key is an error. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a YAML config (`medcnn init DIR` writes one)")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader subclass
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected a mapping of sections at the top, got {type(tree).__name__}")
    return tree


def write_config(config: Config, path: Path) -> None:
    """Write the whole tree as YAML; reading it gives the same Config."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True), encoding="utf-8")


def config_schema() -> str:
    """JSON schema of the config, for editors."""
    return json.dumps(Config.model_json_schema(), indent=1)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys in which two dumped config trees differ, as `key: old -> new`."""
    changes = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changes += changed_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            changes.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return changes


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.1 loader that refuses a repeated key, which PyYAML would let pass in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_PATH_KEYS = {("data", "path"), ("data", "image_root"), ("data", "label_table"), ("model", "weights"), ("data", "slides", "annotations")}


def _anchor(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    anchored = copy.deepcopy(tree)
    for *sections, key in _PATH_KEYS:
        values: Any = anchored
        for section in sections:
            values = values.get(section) if isinstance(values, dict) else None
        if isinstance(values, dict) and isinstance(values.get(key), str):
            values[key] = str((folder / str(values[key])).resolve())
    if isinstance(anchored.get("cohort"), str):
        anchored["cohort"] = str((folder / str(anchored["cohort"])).resolve())
    return anchored


def _apply(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise InputError(f"override {override!r}: expected section.key=value, for instance training.epochs=5")
    *sections, key = dotted.split(".")
    place = tree
    for section in sections:
        below = place.setdefault(section, {})
        if not isinstance(below, dict):
            raise InputError(f"override {override!r}: {section} is a value, not a section")
        place = below
    try:
        place[key] = yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: the value is not valid YAML") from None


def explain_problems(error: ValidationError, root: type[BaseModel], *, source: str) -> str:
    """One sentence for each key that does not fit: file, key, what was expected, what came, the nearest known name."""
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for problem in error.errors():
        key = ".".join(_field_path(problem["loc"], root))
        by_key.setdefault(key, []).append(problem)
    return "; ".join(f"{source}: {_explain(key, problems, root)}" for key, problems in by_key.items())


def _explain(key: str, problems: Sequence[Mapping[str, Any]], root: type[BaseModel]) -> str:
    first = problems[0]
    *sections, name = key.split(".")
    if first["type"] == "extra_forbidden":
        known = _known_keys(sections, root)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {'.'.join([*sections, near[0]])}?" if near else f"known here: {', '.join(known)}"
        return f"{key} is not a known key; {hint}"
    if first["type"] == "missing":
        return f"{key} is required and missing"
    expected = " or ".join(dict.fromkeys(_expected(problem["msg"]) for problem in problems)).replace(" or expected ", " or ")
    came = first.get("input")
    shown = f", got {came!r}" if isinstance(came, str | int | float | bool | list | None) else ""
    return f"{key + ': ' if key else ''}{expected}{shown}"


def _expected(message: str) -> str:
    return (
        message.removeprefix("Value error, ").replace("Input should be ", "expected ").replace(", unable to parse string as an integer", "")
    )


def _field_path(location: Iterable[int | str], root: type[BaseModel]) -> list[str]:
    """The part of pydantic's location that a user wrote: without its names for the branches of a union."""
    path: list[str] = []
    model: type[BaseModel] | None = root
    for part in location:
        if isinstance(part, int):
            path.append(str(part))
        elif model is not None:
            path.append(part)
            field = model.model_fields.get(part)
            model = _section_of(field.annotation) if field else None
    return path


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _known_keys(location: Iterable[str], root: type[BaseModel]) -> list[str]:
    model: type[BaseModel] | None = root
    for part in location:
        field = model.model_fields.get(part) if model else None
        if field is not None:
            model = _section_of(field.annotation)
    return list(model.model_fields) if model else []


def build_evaluation(given: Mapping[str, Any], settings: Sequence[str] = ()) -> EvaluationConfig:
    """The evaluation section alone, for predictions without a run; settings: `key=value`, over `given`. Raises InputError."""
    tree: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for setting in settings:
        _apply(tree, setting)
    try:
        return EvaluationConfig.model_validate(tree)
    except ValidationError as error:
        raise InputError(explain_problems(error, EvaluationConfig, source="evaluation settings")) from None
