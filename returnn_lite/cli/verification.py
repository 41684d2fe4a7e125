"""`rnn.py verify`: the promise checked on one config: optimised and unoptimised compilation give the same."""

from __future__ import annotations

import functools
import pathlib
import sys
import time
from collections.abc import Collection, Mapping

from returnn_lite.cli.checking import modes_of
from returnn_lite.cli.loading import LoadedConfig, UsageError, load
from returnn_lite.cli.tasks import RunError
from returnn_lite.compiler import ModeName, build
from returnn_lite.config.compose import to_yaml
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.explain.columns import columns
from returnn_lite.ir.batches import BatchError
from returnn_lite.ir.layer_reads import LayerRecord
from returnn_lite.ir.reachability import reachable
from returnn_lite.verification.comparison import Compare, Difference, Differences, compare
from returnn_lite.verification.reduction import Reduction
from returnn_lite.verification.reduction_steps import Config, layers

EQUAL_ROWS = 10
"""How many layers that are equal are shown beside those that are not."""


def verify(loaded: LoadedConfig, batch: int, every_row: bool, seconds: float, with_: Compare | None = None) -> int:
    """Compares outputs, losses and gradients of every mode in float64; 0 if they agree to 1e-5, else 1.

    Where they differ, the smallest network that still differs is searched for so many seconds, written as a config and
    compared again. `with_` compares, in place of both compilations on a random batch of `batch` sequences.
    """
    compared = with_ or functools.partial(compare, batch=batch, functions=loaded.functions, locate=loaded.locate)
    agree = True
    for mode in modes_of(loaded.data):
        try:
            differences = compared(loaded.data, mode)
        except BatchError as error:
            raise RunError(f"verify: the network does not take random data of all lengths: {error}") from error
        print(table(mode, differences, every_row))
        if differing(differences):
            agree = False
            print(_where_it_starts(differences, build(loaded.data, mode, functions=loaded.functions).layers))
            if seconds > 0:
                _print_smallest(loaded, mode, compared, differences, seconds)
        print()
    return 0 if agree else 1


def differing(differences: Differences) -> list[str]:
    """What differs, the worst first."""
    worst = sorted(differences, key=lambda name: -differences[name].size)
    return [name for name in worst if differences[name].is_one]


def table(mode: str, differences: Differences, every_row: bool) -> str:
    """What was compared, the worst first, with the values where it is worst; all that differ, and some that do not."""
    differs = differing(differences)
    shown = sorted(differences.items(), key=lambda item: -item[1].size)
    rows = shown if every_row else shown[: max(EQUAL_ROWS, len(differs))]
    lines = [columns((mode, "largest difference", "optimised", "not optimised", "at"), map(_row, rows))]
    if len(rows) < len(shown):
        lines.append(f"... and {len(shown) - len(rows)} more, none above {_number(shown[len(rows)][1].size)}")
    worst = shown[0][1].size if shown else 0.0
    verdict = f"{len(differs)} of them DIFFERENT" if differs else "equal"
    return "\n".join([*lines, f"{mode}: {len(shown)} values compared, {verdict} (largest difference {worst:.2e})"])


def _row(item: tuple[str, Difference]) -> tuple[str, ...]:
    name, difference = item
    if difference.size == 0:
        return (name, _number(0.0), "", "", "")
    where = ", ".join(map(str, difference.where))
    return (name, _number(difference.size), _value(difference.optimized), _value(difference.plain), f"[{where}]")


def _number(size: float) -> str:
    return f"{size:.2e}"


def _value(value: object) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _where_it_starts(differences: Differences, records: Mapping[str, LayerRecord]) -> str:
    """The layers that differ although nothing that they read does, but for layers that read them in turn."""
    wrong = {name for name in differing(differences) if name in records}
    needed = {name: _needed(name, wrong, records) for name in wrong}
    first = sorted(
        {tuple(sorted({name} | needed[name])) for name in wrong if all(name in needed[n] for n in needed[name])}
    )
    if not first:
        return "the difference starts in no layer, but in losses, in gradients or in what is decoded"
    return f"the difference starts in: {', '.join(' or '.join(names) for names in first)}"


def _needed(name: str, among: Collection[str], records: Mapping[str, LayerRecord]) -> set[str]:
    """The layers among these that the layer needs through others among these; a loop needs what is in it."""

    def needs(current: str) -> list[str]:
        reads = [read.path for read in records[current].reads]
        inside = [other for other in among if other.startswith(f"{current}/")]
        return [other for other in (*reads, *inside) if other in among]

    return set(reachable(needs(name), needs))


def _print_smallest(
    loaded: LoadedConfig, mode: ModeName, compared: Compare, differences: Differences, seconds: float
) -> None:
    start = time.monotonic()
    reduction = Reduction(
        functools.partial(_differs, mode=mode, compared=compared),
        lambda: time.monotonic() - start > seconds,
        lambda config, tried: _print_progress(config, tried, time.monotonic() - start),
    )
    smallest = reduction.smallest(loaded.data, differing(differences))
    in_time = "" if time.monotonic() - start <= seconds else f", in {seconds:g} s; --reduce SECONDS gives it more time"
    file = f"{pathlib.Path(loaded.file).stem}.smallest-{mode}.yaml"
    text = to_yaml(smallest)
    _write(file, text)
    print(
        f"\nthe smallest network found that differs in {mode} ({reduction.tried} compared{in_time}): {file}\n\n{text}"
    )
    print(_again(file, mode, compared))


def _again(file: str, mode: ModeName, compared: Compare) -> str:
    """What the written config gives when it is read back."""
    try:
        differences = compared(load(file, []).data, mode)
    except ConfigError as error:
        return f"it is not complete without what only a Python config has: {error.diagnostics[0]}"
    return table(mode, {name: differences[name] for name in differing(differences)}, every_row=True)


def _differs(config: Config, mode: ModeName, compared: Compare) -> bool:
    if mode not in modes_of(config):
        return False
    try:
        return bool(differing(compared(config, mode)))
    except Exception:  # noqa: BLE001 - a part of a network may be wrong in any way, which is not the one looked for
        return False


def _print_progress(config: Config, tried: int, seconds: float) -> None:
    line = f"{len(layers(config))} layers still differ ({tried} networks compared, {seconds:.0f} s)"
    print(line, file=sys.stderr, flush=True)


def _write(file: str, text: str) -> None:
    try:
        pathlib.Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{file}' can't be written: {error.strerror}") from error
