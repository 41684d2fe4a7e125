"""The config's dicts about checkpoints; free of TensorFlow, so that a config can be checked without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from returnn_lite.config.decode import decode, meant_options, option_names
from returnn_lite.config.diagnostics import ConfigError, ConfigPath, Diagnostic, nearest_hint
from returnn_lite.config.options import option

Options = TypeVar("Options")


@dataclass(frozen=True)
class Cleanup:
    """`cleanup_old_models`: which checkpoints stay."""

    keep_last_n: int = option("checkpoints of the last epochs", default=2, least=1)
    keep_best_n: int = option("checkpoints of the best epochs by each score", default=4, least=0)
    keep: list[int] = option("epochs that stay in any case", default=[])


@dataclass(frozen=True)
class Preload:
    """One entry of `preload_from_files`: parameters whose names begin with `prefix` are read from a checkpoint, where
    they stand without the prefix."""

    filename: str = option("the checkpoint, without the endings of its files")
    prefix: str = option("of the parameters to read", default="")
    init_for_train: bool = option("read when training begins, else for eval, search and forward", default=False)
    ignore_missing: bool = option("leave parameters that the checkpoint does not have", default=False)
    ignore_params: list[str] = option("parameters that are not read", default=[])
    ignore_params_prefixes: list[str] = option("beginnings of names of parameters that are not read", default=[])
    var_name_mapping: dict[str, str] = option("names in the checkpoint by names in the network", default={})


def cleanup_options(value: bool | Mapping[str, Any]) -> Cleanup | None:
    """`cleanup_old_models`; None to keep everything. Raises ConfigError."""
    if value is False:
        return None
    return _decoded(Cleanup, {} if value is True else value, ("cleanup_old_models",))


def preload_options(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Preload]:
    """The entries of `preload_from_files` by name. Raises ConfigError."""
    return {name: _decoded(Preload, values, ("preload_from_files", name)) for name, values in entries.items()}


def checkpoint_mistakes(config: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """What is wrong inside the dicts about checkpoints; a value that is no dict is reported where its type is."""
    cleanup, preload = config.get("cleanup_old_models"), config.get("preload_from_files")
    entries = preload.items() if isinstance(preload, Mapping) else ()
    named: list[tuple[type, Any, ConfigPath]] = [(Cleanup, cleanup, ("cleanup_old_models",))]
    named += [(Preload, values, ("preload_from_files", name)) for name, values in entries]
    for cls, values, path in named:
        if isinstance(values, Mapping):
            try:
                _decoded(cls, values, path)
            except ConfigError as error:
                yield from error.diagnostics


def _decoded(cls: type[Options], values: Mapping[str, Any], path: ConfigPath) -> Options:
    known = option_names(cls)
    wrong = [
        Diagnostic(
            None,
            (*path, key),
            f"there is no option '{key}'",
            nearest_hint(key, known).strip() or f"There are {', '.join(known)}.",
        )
        for key in values
        if key not in known
    ]

    def report(name: str, message: str, hint: str) -> None:
        wrong.append(Diagnostic(None, (*path, name), message, hint))

    found = decode(cls, values, report, meant_options(values, known))
    if found is None or wrong:
        raise ConfigError(wrong)
    return found
