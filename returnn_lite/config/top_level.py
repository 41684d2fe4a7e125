"""The keys of a config besides the network: what there is, and what is made of the rest (SEMANTICS 7, 8.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from returnn_lite.config.diagnostics import AnyPath, Diagnostic, Position, nearest

NETWORK_KEYS: Mapping[str, str] = {
    "task": "what to do: train, eval, search or forward",
    "network": "the layers",
    "extern_data": "the data that comes from outside",
    "num_inputs": "the same in RETURNN's older form: the size of the input",
    "num_outputs": "the same in RETURNN's older form: sizes by key",
    "default_input": "the key of the input, 'data' if not set",
    "target": "the default target",
    "behavior_version": "which of RETURNN's defaults apply; later ones than 21 change nothing here",
    "recompute": "which layers are computed again for gradients, not kept: none, all, a list, or auto: {memory: 4GB}",
    "extends": "files that this one builds on",
}
"""Keys that the compiler reads."""

WITHOUT_EFFECT: Mapping[str, str] = {
    "use_tensorflow": "there is only TensorFlow",
    "device": "TensorFlow picks it",
    "multiprocessing": "of RETURNN's Theano backend",
    "update_on_device": "of RETURNN's Theano backend",
    "cache_size": "data is read as it is needed",
    "truncation": "of RETURNN's Theano backend",
    "log": "every run logs into its directory",
    "log_verbosity": "every run logs into its directory",
    "log_batch_size": "every run logs into its directory",
    "tf_log_memory_usage": "every run logs into its directory",
    "tf_session_opts": "there are no sessions",
    "debug_mode": "use --debug",
    "debug_print_layer_output_template": "use rnn.py summary",
    "debug_add_check_numerics_on_output": "scores that are not finite stop a run",
    "debug_add_check_numerics_ops": "scores that are not finite stop a run",
    "EpochSplit": "a helper of published configs",
    "use_learning_rate_control_always": "of pretraining, which is not supported",
    "config": "Python's own",
}
"""Keys of published configs that mean nothing here, and why."""


def check_top_level(
    data: Mapping[str, Any],
    known: Iterable[str],
    unsupported: Mapping[str, str],
    is_set: Callable[[str], bool],
    locate: Callable[[AnyPath], Position | None],
    *,
    is_code: bool,
) -> Iterator[Diagnostic]:
    """Keys of a config that are not known, or not supported and have a value that would do something (`is_set`).

    In a Python config (`is_code`) any name may be a variable of its own, so that only a name close to a key is told.
    """
    names = {*known, *NETWORK_KEYS, *WITHOUT_EFFECT}
    for key in data:
        path = (key,)
        if key in unsupported and not is_set(key):
            continue
        if key in unsupported:
            yield Diagnostic(locate(path), path, f"'{key}' is not supported", f"{unsupported[key].rstrip('.')}.")
        elif key not in names:
            near = nearest(str(key), sorted(names))
            if near is None and is_code:
                continue
            if is_code and not _almost(str(key), near or ""):
                continue
            hint = f"Did you mean '{near}'?" if near is not None else "Leave it out."
            yield Diagnostic(locate(path), path, f"unknown key '{key}'", hint)


def _almost(name: str, other: str) -> bool:
    """True if one letter is missing, added, wrong, or two neighbours are exchanged."""
    if len(name) < 5 or name.startswith("_"):
        return False
    same = next((i for i, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), min(len(name), len(other)))
    rest, wanted = name[same:], other[same:]
    return wanted in (rest[1:], rest[1::-1] + rest[2:]) or wanted[1:] in (rest, rest[1:])
