"""How long the compiler itself takes, without TensorFlow, and how that grows with the network.

    python -m tools.bench.compiler [KIND ...] [--sizes 1000,5000,20000,50000] [--passes] [--plain] [--seconds N]
                                   [--json FILE] [--write docs/benchmarks.rst]

For each kind of network CPU milliseconds a layer of `rl.check`, in training, and in search where the kind has one, and
how many times as long a layer takes in the largest network as in the smallest: 1 is linear. `--passes` adds the seconds
of building and of each pass for the largest. A network is left out where the next smaller one says that it would take
more than `--seconds`. Each measurement has a process of its own, so that none pays for the garbage of another.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from returnn_lite.garbage import all_is_old
from returnn_lite.passes.pipeline import PassRun
from tools.bench import page

Net = dict[str, Any]
TOP = pathlib.Path(__file__).parents[2]
SIZES = (1_000, 5_000, 20_000, 50_000)
FEATURES = 3
DATA = {"data": {"dim": FEATURES}, "classes": {"dim": FEATURES, "sparse": True, "available_for_inference": False}}
DEEP = 10_000
"""How many subnetworks inside of each other are measured at most: no Python program nests its data deeper."""


def _tanh(source: str) -> Net:
    return {"class": "activation", "activation": "tanh", "from": source}


def _linear(*sources: str) -> Net:
    return {"class": "linear", "activation": None, "from": list(sources), "n_out": FEATURES}


def _tanh_chain(layers: int, first: str, name: str = "l") -> Net:
    """`layers` layers, each reading the one before; the last one is called after `name` alone."""
    names = [*(f"{name}{i}" for i in range(layers - 1)), name]
    return {own: _tanh(source) for own, source in zip(names, [first, *names], strict=False)}


def chain(layers: int) -> Net:
    """Each layer reads the one before."""
    return {**_tanh_chain(layers - 1, "data"), "output": {"class": "copy", "from": "l", "loss": "as_is"}}


def losses(layers: int) -> Net:
    """A chain whose layers all have losses."""
    found = _tanh_chain(layers - 1, "data")
    return {name: {**layer, "loss": "as_is"} for name, layer in {**found, "output": _tanh("l")}.items()}


def wide(layers: int) -> Net:
    """Products with parameters of their own, summed in the end."""
    found: Net = {f"l{i}": _linear("data") for i in range(layers - 1)}
    return {**found, "output": {"class": "combine", "kind": "add", "from": list(found), "loss": "as_is"}}


def regularized(layers: int) -> Net:
    """Products with L2 of their parameters, half of them alone in a subnetwork."""
    half = {f"l{i}": {**_linear("data"), "L2": 0.01} for i in range((layers - 1) // 4)}
    inner = {name: {"class": "subnetwork", "from": "data", "subnetwork": {"output": one}} for name, one in half.items()}
    found: Net = half | {f"s{name}": one for name, one in inner.items()}
    return {**found, "output": {"class": "combine", "kind": "add", "from": list(found), "loss": "as_is"}}


def _rec(unit: Net, **options: object) -> Net:
    return {"output": {"class": "rec", "from": "data", "unit": unit, "loss": "as_is", **options}}


def cycles(layers: int) -> Net:
    """Cells in a loop, each a cycle of its own, reading the one before."""
    names = [f"c{i}" for i in range(layers - 2)]
    cells = {own: _linear(x, f"prev:{own}") for own, x in zip(names, ["data:source", *names], strict=False)}
    return _rec({**cells, "output": {"class": "copy", "from": names[-1]}})


def one_cycle(layers: int) -> Net:
    """A long chain in a loop that `prev:` closes, so that it stays one."""
    chained = _tanh_chain(layers - 3, "in")
    return _rec({**chained, "in": _linear("data:source", "prev:l"), "output": {"class": "copy", "from": "l"}})


def previous(layers: int) -> Net:
    """Each layer reads the one before of the step before."""
    names = [f"p{i}" for i in range(layers - 2)]
    sources = ["data:source", *(f"prev:{name}" for name in names)]
    return _rec({own: _tanh(x) for own, x in zip(names, sources, strict=False)} | {"output": _tanh(names[-1])})


def leaving(layers: int) -> Net:
    """A loop that nothing needs: all of it leaves."""
    return _rec({**_tanh_chain(layers - 2, "data:source"), "output": {"class": "copy", "from": "l"}})


def masked(layers: int) -> Net:
    """Masked chains and others that read them, in a loop."""
    parts = max(1, (layers - 3) // 10)
    unit: Net = {"m": {"class": "compare", "from": "data:source", "kind": "greater", "value": 0.0}}
    unit["mask"] = {"class": "reduce", "mode": "any", "axis": "F", "from": "m"}
    source = "data:source"
    for i in range(parts):
        inner = {**_tanh_chain(5, "data"), "output": _linear("l", "prev:output")}
        unit[f"k{i}"] = {"class": "masked_computation", "mask": "mask", "from": source, "unit": {
            "class": "subnetwork", "from": "data", "subnetwork": inner}}  # fmt: skip
        unit[f"u{i}"] = {"class": "unmask", "from": f"k{i}", "mask": "mask"}
        unit[f"v{i}"] = _linear(f"u{i}", f"prev:v{i}")
        source = f"v{i}"
    return _rec({**unit, "output": {"class": "copy", "from": source}})


def searching(layers: int) -> Net:
    """A decoder: a chain that a choice needs, and as long a one behind it that scores what was chosen."""
    half = max(2, (layers - 7) // 2)
    unit = {
        "e": {"class": "linear", "activation": None, "n_out": FEATURES, "from": "prev:output"},
        "in": _linear("e", "prev:l"),
        **_tanh_chain(half, "in"),
        "p": {"class": "softmax", "from": "l", "target": "classes", "loss": "ce"},
        "output": {"class": "choice", "target": "classes", "beam_size": 3, "from": "p", "initial_output": 0},
        **_tanh_chain(half, "e", "x"),
        "y": {"class": "copy", "from": "x", "is_output_layer": True},
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    return {"output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 20, "unit": unit}}


def subnetworks(layers: int) -> Net:
    """Subnetworks of ten layers, one behind the other."""
    parts = max(1, layers // 11)
    sources = ["data", *(f"s{i}" for i in range(parts))]
    inner = {**_tanh_chain(9, "data"), "output": {"class": "copy", "from": "l"}}
    found = {f"s{i}": {"class": "subnetwork", "from": sources[i], "subnetwork": inner} for i in range(parts)}
    return {**found, "output": {"class": "copy", "from": sources[-1], "loss": "as_is"}}


def nested(layers: int) -> Net:
    """Subnetworks inside of each other."""
    inner: Net = {"output": _tanh("data")}
    for _ in range(layers - 1):
        inner = {"output": {"class": "subnetwork", "from": "data", "subnetwork": inner}}
    inner["output"]["loss"] = "as_is"
    return inner


def convolutions(layers: int) -> Net:
    """Convolutions in a chain, every second one with a stride: the length of each is computed from the one before."""
    conv = {"class": "conv", "n_out": FEATURES, "filter_size": [3], "padding": "valid", "activation": None}
    names = [*(f"c{i}" for i in range(layers - 2)), "output"]
    found = {
        own: {**conv, "from": x, "strides": 1 + i % 2}
        for i, (own, x) in enumerate(zip(names, ["data", *names], strict=False))
    }
    found["output"]["loss"] = "as_is"
    return found


KINDS: Mapping[str, Callable[[int], Net]] = {
    kind.__name__: kind
    for kind in (
        chain,
        losses,
        wide,
        regularized,
        cycles,
        one_cycle,
        previous,
        leaving,
        masked,
        searching,
        subnetworks,
        nested,
        convolutions,
    )
}
SEARCHED = ("searching",)
"""The kinds that have a search."""


def measured(kind: str, mode: str, size: int, plain: bool, passes: bool) -> dict[str, float]:
    """CPU seconds by part: `check`, or building and each pass; of `check` the megabytes of the process, too. Everything
    happens in this process."""
    config = {"network": KINDS[kind](size), "extern_data": DATA, "behavior_version": 21}
    all_is_old()
    gc.set_threshold(50_000)  # as the command line does
    found: dict[str, float] = {}
    start = time.process_time()
    if not passes:
        rl.check(config, mode, optimize=not plain)
        seconds = time.process_time() - start
        return {"check": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    def log(run: PassRun) -> None:
        found[run.name] = found.get(run.name, 0.0) + run.seconds

    built = build(config, mode)
    found["building"] = time.process_time() - start
    optimized(built, not plain, verify_each=False, log=log)
    return found


def in_own_process(*arguments: object, limit: float) -> dict[str, float]:
    """`measured` in a process of its own. Raises RuntimeError with its last line if it fails, or takes longer."""
    code = f"from tools.bench import compiler; import json; print(json.dumps(compiler.measured(*{arguments!r})))"
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, check=False, timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"took more than {limit:.0f} s") from error
    if done.returncode:
        raise RuntimeError(next(iter(done.stderr.strip().splitlines()[-1:]), f"exit {done.returncode}")[:200])
    result = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result


@dataclass
class Figures:
    """Those of one kind of network in one mode: CPU milliseconds a layer by number of layers, the megabytes that the
    largest took, and why there are no more."""

    kind: str
    mode: str
    a_layer: dict[int, float] = field(default_factory=dict)
    megabytes: float = 0.0
    ended: str = ""

    @property
    def ratio(self) -> float:
        """How many times as long a layer takes in the largest network as in the smallest."""
        return self.a_layer[max(self.a_layer)] / self.a_layer[min(self.a_layer)]

    def cells(self, sizes: Sequence[int]) -> list[str]:
        """A row of a table."""
        times = [f"{self.a_layer[size]:.3f}" if size in self.a_layer else "–" for size in sizes]
        rest = [f"{self.ratio:.2f}", f"{self.megabytes:.0f}"] if self.a_layer else ["–", "–"]
        return [self.kind, self.mode, *times, *rest]


def figures(kind: str, mode: str, sizes: Sequence[int], options: argparse.Namespace) -> Figures:
    """Measures one kind in one mode, from the smallest network on."""
    found = Figures(kind, mode)
    for size in sizes:
        if found.a_layer and max(found.a_layer.values()) * size / 1000 > options.seconds:
            found.ended = f"{size} layers would take more than {options.seconds:.0f} s"
            break
        layers = min(size, DEEP) if kind == "nested" else size
        try:
            parts = in_own_process(kind, mode, layers, options.plain, False, limit=4 * options.seconds)
        except RuntimeError as error:
            found.ended = f"{size} layers: {error}"
            break
        found.a_layer[size] = 1000 * parts["check"] / layers
        found.megabytes = parts["megabytes"]
        if layers < size:
            break
    return found


def head(sizes: Sequence[int]) -> list[str]:
    """The first row of a table."""
    return ["network", "mode", *(f"{size:,}" for size in sizes), "ratio", "MB"]


def page_section(rows: Sequence[Sequence[str]]) -> str:
    """The section of the page."""
    measured = (
        f"{datetime.date.today()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} in the end, 1 being the "
        f"benchmark itself; Python {platform.python_version()}."
    )
    text = f"""\
What ``check`` takes, without TensorFlow: CPU milliseconds a layer by number of layers. ``ratio`` is how many times as
long a layer takes in the largest network as in the smallest; ``MB`` what the process of the largest had at most. At
most {DEEP:,} subnetworks are inside of each other. The networks are in ``tools/bench/compiler.py``."""
    return page.section("compiler", "The compiler", text, page.table(rows), measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all without any")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of layers, growing")
    parser.add_argument("--passes", action="store_true", help="the seconds of each pass, for the largest network")
    parser.add_argument("--plain", action="store_true", help="without optimisation")
    parser.add_argument("--seconds", type=float, default=120.0, help="leave out what would take longer")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="writes the figures there")
    parser.add_argument(
        "--write", type=pathlib.Path, metavar="PAGE", help="writes the table to its section of the page"
    )
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    if options.write is not None and (options.kinds or options.plain):
        parser.error("--write needs all kinds, as they are compiled")
    found = []
    print(" ".join(cell.rjust(13) for cell in head(sizes)), "  (CPU ms a layer)", flush=True)
    for kind in options.kinds or KINDS:
        for mode in ("train", "search") if kind in SEARCHED else ("train",):
            one = figures(kind, mode, sizes, options)
            found.append(one)
            print(" ".join(cell.rjust(13) for cell in one.cells(sizes)), one.ended, flush=True)
            if options.passes and one.a_layer:
                parts = in_own_process(kind, mode, max(one.a_layer), options.plain, True, limit=8 * options.seconds)
                for name, seconds in parts.items():
                    print(f"    {name:<18} {seconds:8.2f} s", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    if options.write is not None:
        page.write(options.write, "compiler", page_section([head(sizes), *(one.cells(sizes) for one in found)]))


if __name__ == "__main__":
    main()
