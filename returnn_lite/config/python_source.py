"""Python configs in RETURNN's style: a module whose globals are the config. They are code, and are run as such.

Inside, `config` is an object with `value`, `typed_value`, `bool`, `int`, `float`, `list` and `has`, which see the
overrides of the command line and what the module has set so far.
"""

from __future__ import annotations

import ast
import pathlib
import traceback
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from returnn_lite.config.diagnostics import COMMAND_LINE, ConfigError, ConfigPath, Diagnostic, Position, nearest_hint
from returnn_lite.config.source import Source

RETURNN_MODULES = ("returnn", "TFUtil", "TFNetwork", "Data", "Config", "Util", "Pretrain")


class ConfigAccess:
    """What a Python config knows as `config`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.asked: set[str] = set()
        """The keys that the config has asked for."""

    def _get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return self._values.get(key, default)

    def has(self, key: str) -> bool:
        """True if the key is set."""
        self.asked.add(key)
        return key in self._values

    def typed_value(self, key: str, default: Any = None) -> Any:
        """The value as it is."""
        return self._get(key, default)

    def value(self, key: str, default: Any = None) -> Any:
        """The value as text; the default as it is."""
        found = self._get(key)
        return default if found is None else str(found)

    def bool(self, key: str, default: Any = None) -> Any:
        """The value as a bool; text such as "true", "yes", "1" counts."""
        found = self._get(key)
        if isinstance(found, str):
            return found.lower() in ("1", "true", "yes", "on")
        return default if found is None else bool(found)

    def int(self, key: str, default: Any = None) -> Any:
        """The value as an int."""
        found = self._get(key)
        return default if found is None else int(found)

    def float(self, key: str, default: Any = None) -> Any:
        """The value as a float."""
        found = self._get(key)
        return default if found is None else float(found)

    def list(self, key: str, default: Any = None) -> Any:
        """The value as a list; text is split at commas."""
        found = self._get(key)
        if isinstance(found, str):
            return [item.strip() for item in found.split(",")]
        return default if found is None else list(found)


def read_python(path: str | pathlib.Path, overrides: Mapping[str, Any], new: Collection[str] = ()) -> Source:
    """Runs a Python config; overrides are set before, so that it can read them, and again after.

    Raises ConfigError, also for an override that is not in `new` and of a key that the code neither sets nor reads.
    """
    file = str(path)
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([Diagnostic(None, (), f"there is no file '{file}'")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Diagnostic(None, (), f"'{file}' can't be read: {error}")]) from None
    module = types.ModuleType("config")
    module.__dict__.update(overrides)
    module.__dict__["__file__"] = str(pathlib.Path(path).resolve())
    access = ConfigAccess(module.__dict__)
    module.__dict__["config"] = access
    try:
        tree = ast.parse(text, file)
        code = compile(tree, file, "exec")
    except SyntaxError as error:
        position = Position(file, error.lineno or 1, error.offset or 1)
        raise ConfigError([Diagnostic(position, (), f"Python: {error.msg}")]) from None
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; expressions nested too deep
        raise ConfigError([Diagnostic(Position(file, 1, 1), (), f"Python: {error}")]) from None
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        raise ConfigError([_failure(file, error)]) from error
    known = access.asked | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    known |= {key for key, value in module.__dict__.items() if value is not overrides.get(key)}
    _require_known([key for key in overrides if key not in new], known)
    data = {key: value for key, value in module.__dict__.items() if not _is_plumbing(key, value)}
    return Source(file, {**data, **overrides}, _positions(tree, file))


def _require_known(overrides: Iterable[str], known: Collection[str]) -> None:
    """Raises ConfigError for overrides of keys that are not known."""
    hints = {key: nearest_hint(key, sorted(known)).strip() for key in overrides if key not in known}
    message = "this override matches nothing in the config"
    if hints:
        raise ConfigError(
            Diagnostic(COMMAND_LINE, (key,), message, f"{hint} Write '+{key}=...' to add it.".strip())
            for key, hint in hints.items()
        )


def _is_plumbing(key: str, value: Any) -> bool:
    return key.startswith("__") or key == "config" or isinstance(value, types.ModuleType)


def _failure(file: str, error: BaseException) -> Diagnostic:
    """The line of the config at which it failed, also if the error was raised somewhere else."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    position = Position(file, lines[-1] or 1, 1) if lines else None
    message = f"{type(error).__name__}: {error}"
    name = getattr(error, "name", None) or ""
    if isinstance(error, ImportError) and str(name).split(".")[0] in RETURNN_MODULES:
        return Diagnostic(
            position, (), message, "RETURNN's own modules are not here; write what they gave into the config."
        )
    return Diagnostic(position, (), message, "The config is Python code and failed there.")


def _positions(tree: ast.Module, file: str) -> dict[ConfigPath, tuple[Position, Position]]:
    """Where module globals and the keys of dict literals below them are."""
    positions: dict[ConfigPath, tuple[Position, Position]] = {(): (Position(file, 1, 1), Position(file, 1, 1))}
    for target, value in _assignments(tree):
        path = _target_path(target)
        if path is not None:
            positions[path] = (_at(file, target), _at(file, value))
            _literal_positions(value, path, file, positions)
    return positions


def _assignments(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Targets and values of the assignments to globals: those in functions and classes are to names of their own."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Assign):
            yield from ((target, child.value) for target in child.targets)
        elif isinstance(child, ast.AnnAssign) and child.value is not None:
            yield child.target, child.value
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr):
            yield from _assignments(child)


def _target_path(target: ast.expr) -> ConfigPath | None:
    """`network` and `network["output"]`."""
    if isinstance(target, ast.Name):
        return (target.id,)
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        base = _target_path(target.value)
        key = target.slice.value
        return None if base is None or not isinstance(key, str | int) else (*base, key)
    return None


def _literal_positions(
    node: ast.expr, path: ConfigPath, file: str, positions: dict[ConfigPath, tuple[Position, Position]]
) -> None:
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str | int):
                below = (*path, key.value)
                positions[below] = (_at(file, key), _at(file, value))
                _literal_positions(value, below, file, positions)
    elif isinstance(node, ast.List | ast.Tuple):
        for index, item in enumerate(node.elts):
            positions[(*path, index)] = (_at(file, item), _at(file, item))
            _literal_positions(item, (*path, index), file, positions)


def _at(file: str, node: ast.expr) -> Position:
    return Position(file, node.lineno, node.col_offset + 1)
