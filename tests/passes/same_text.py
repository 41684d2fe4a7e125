"""Prints the IR text of networks of many kinds as compiled: `test_same_text` runs it in several processes."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

from returnn_lite.compiler import ModeName, build, optimized
from returnn_lite.config.compose import read_composed

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
DATA = {"data": {"dim": 3}, "classes": {"dim": 3, "sparse": True, "available_for_inference": False}}
MODES: tuple[ModeName, ...] = ("train", "search")


def configs() -> Iterator[dict[str, Any]]:
    """The golden networks, and one with many cycles, masks, histories and dims that its steps make."""
    for path in sorted(GOLDEN.glob("*/net.yaml")):
        yield dict(read_composed(path).data)
    names = [f"c{i}" for i in range(12)]
    sources = ["data:source", *names]
    tanh = {"class": "linear", "activation": "tanh", "n_out": 3}
    unit: dict[str, Any] = {own: {**tanh, "from": [x, f"prev:{own}"]} for own, x in zip(names, sources, strict=False)}
    unit["sum"] = {"class": "reduce", "mode": "sum", "axis": "F", "from": "c3"}
    unit["mask"] = {"class": "compare", "from": "sum", "value": 0.0, "kind": "greater"}
    for name, source in (("k", "c5"), ("l", "c7")):
        inner = {"class": "self_attention", "num_heads": 1, "total_key_dim": 2, "n_out": 3, "attention_left_only": True}
        unit[name] = {"class": "masked_computation", "mask": "mask", "from": source, "unit": {**inner, "from": "data"}}
    unit["output"] = {"class": "combine", "kind": "add", "from": ["k", "l", "c11"]}
    network = {"output": {"class": "rec", "from": "data", "unit": unit, "loss": "as_is"}}
    yield {"network": network, "extern_data": DATA, "behavior_version": 21}


def texts() -> Iterator[str]:
    """The text of each network in each mode, with and without optimisation."""
    for config in configs():
        for mode in MODES:
            built = build(config, mode)
            yield from (str(optimized(built, enabled)) for enabled in (True, False))


if __name__ == "__main__":
    for text in texts():
        print(text)
