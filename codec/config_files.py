"""Reading and writing run descriptions: YAML, `base:`, overrides, and errors in one line."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from codec.atomic import replacing
from codec.config import Config
from codec.config_model import HALVES
from codec.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 3e-4 as a number (YAML 1.1 calls it a string) and refuses twins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} is no name", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Reads a run description.

    Args:
        path: a YAML file. Its key `base` names another YAML, relative to it, whose keys it varies.
        overrides: `section.key=value` strings, the value in YAML, applied last.

    Raises:
        ConfigError: naming the file, the key, the value and what would do.
    """
    path = Path(path)
    values = _read_with_base(path, seen=())
    for override in overrides:
        _apply_override(values, override)
    return parse_config(values, source=str(path))


def parse_config(values: dict[str, Any], *, source: str) -> Config:
    """Checks a mapping of keys; `source` names it in errors (ConfigError)."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(problems)) from None


def save_config(config: Config, path: Path) -> None:
    """Writes the resolved config as YAML: every key, defaults included."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `base` leads back to a file that is already being read")
    values = _read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: {base!r} is not the path of a YAML file")
    if not (path.parent / base).exists():
        raise ConfigError(f"{path}: base: there is no file {path.parent / base}")
    return _merge(_read_with_base(path.parent / base, (*seen, path.resolve())), values)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, _yaml_names(path.parent), n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: there is no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a YAML text file ({error})") from None
    try:
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: holds a {type(values).__name__}, not sections of keys such as "
            "'training: {steps: 1000}'"
        )
    return values


def _yaml_names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.glob("*.yaml")] if folder.is_dir() else []


def _merge(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{override!r}: write an override as section.key=value")
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{override}: the value is not valid YAML ({reason})") from None
    for key in keys[:-1]:
        inner = values.get(key)
        values[key] = dict(inner) if isinstance(inner, dict) else {}
        values = values[key]
    values[keys[-1]] = value


def _explain(problem: Any) -> str:
    # Pydantic names the kind that a half was taken for as if it were a key: it is none.
    parts = [str(part) for part in problem["loc"]]
    kinds: Mapping[str, type[BaseModel]] = next((HALVES[p] for p in parts if p in HALVES), {})
    kind = next((part for part in parts if part in kinds), None)
    location = [part for part in parts if part != kind]
    name = ".".join(location) or "the run"
    if problem["type"] == "union_tag_invalid":
        return f"{name}.kind: {problem['ctx']['tag']}: choose {' or '.join(map(repr, kinds))}"
    if problem["type"] == "extra_forbidden":
        known = list(kinds[kind].model_fields) if kind else _keys_at(Config, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = (
            f"did you mean {'.'.join([*location[:-1], *near])}?"
            if near
            else "known keys: " + ", ".join(known)
        )
        return f"{name}: {problem['input']!r}: unknown key; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "model_type":
        message = "is a section; its keys go below it, such as {key: value}"
    if problem["type"] == "value_error" and isinstance(problem["input"], BaseModel | dict):
        prefix = ".".join(location)
        return f"{prefix}: {message}" if prefix else message
    return f"{name}: {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _keys_at(section: type[BaseModel], location: list[str]) -> list[str]:
    """Keys of the section that `location` leads to."""
    for part in location:
        field = section.model_fields.get(part)
        if field is None:
            break
        inner = [t for t in _types_of(field.annotation) if issubclass(t, BaseModel)]
        if not inner:
            break
        section = inner[0]
    return list(section.model_fields)


def _types_of(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [inner for inner in getattr(annotation, "__args__", ()) if isinstance(inner, type)]
