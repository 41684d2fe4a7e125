"""What a pass makes true is verified behind it: without the pass, verification fails there."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import Any

import pytest

from returnn_lite.compiler import build
from returnn_lite.ir import Graph
from returnn_lite.ir.verify import InternalError
from returnn_lite.passes import pipeline
from tests.passes.test_mutations import DECODER, MASK, MASKED, config_of, linear

AROUND = {"__init__", "pipeline", "errors", "presentation"}
STATISTICS = {"class": "batch_norm", "from": "data:source", "force_sample": True, "use_sample": 0.5}
UNITS: dict[str, dict[str, Any]] = {
    "search": {**DECODER, "mask": MASK, "masked": {**MASKED, "from": "x"}, "x": linear("embed", "prev:masked")},
    "eval": {
        "norm": STATISTICS,
        "free": linear("norm"),
        "mask": {"class": "compare", "from": "sum", "kind": "greater", "value": 0.0, "initial_output": False},
        "sum": {"class": "reduce", "mode": "sum", "axis": "F", "from": "free"},
        "masked": MASKED,
        "output": linear("masked", "prev:output"),
    },
}
CASES = [
    ("eval", True, "clocks"),
    ("eval", True, "distribute_loops"),
    ("eval", False, "clocks"),
    ("eval", False, "guard"),
    ("eval", False, "distribute_loops"),
    ("search", True, "guard_search"),
    ("search", True, "beams"),
    ("search", False, "beams"),
]


def graph_of(mode: str) -> Graph:
    source: str | list[str] = [] if mode == "search" else "data"
    return build(config_of(UNITS[mode], source), mode, targets=mode != "search").graph  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "enabled", "name"), CASES)
def test_a_pass_that_does_nothing_is_found(
    mode: str, enabled: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "OPTIMIZED" if enabled else "PLAIN"
    idle = [
        replace(stage, run=lambda graph: graph) if stage.name == name and stage.makes else stage
        for stage in getattr(pipeline, table)
    ]
    graph = graph_of(mode)
    assert pipeline.optimize(graph, enabled=enabled)
    monkeypatch.setattr(pipeline, table, tuple(idle))
    with pytest.raises(InternalError, match=f"after {name}: "):
        pipeline.optimize(graph, enabled=enabled)


def test_without_verification_after_each_pass_it_is_found_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [replace(x, run=lambda graph: graph) if x.name == "beams" else x for x in pipeline.PLAIN]
    monkeypatch.setattr(pipeline, "PLAIN", tuple(idle))
    with pytest.raises(InternalError, match="after all passes: "):
        pipeline.optimize(graph_of("search"), enabled=False, verify_each=False)


def test_every_stage_that_makes_something_true_is_tried() -> None:
    tables = {True: pipeline.OPTIMIZED, False: pipeline.PLAIN}
    wanted = {(enabled, stage.name) for enabled, table in tables.items() for stage in table if stage.makes}
    assert {(enabled, name) for _, enabled, name in CASES} == wanted


def test_a_loop_that_needs_no_step_before_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only right behind the pass: later ones may leave such a loop, which is slow but right."""
    required = next(x for x in pipeline.PLAIN if x.name == "distribute_loops" and x.makes)
    lazy = [replace(x, run=required.run) if x.leaves else x for x in pipeline.OPTIMIZED]
    monkeypatch.setattr(pipeline, "OPTIMIZED", tuple(lazy))
    unit = {"output": linear("data:source")}
    with pytest.raises(InternalError, match="after distribute_loops: no step needs the one before"):
        pipeline.optimize(build(config_of(unit), "eval").graph)


def test_every_module_beside_the_table_is_a_pass_of_it() -> None:
    """But for `device_kernels`, which follows them for a GPU. What passes are made of has rooms of its own: `loops`,
    `hypotheses`, `kernels` and `rules`."""
    names = {path.stem for path in pathlib.Path(pipeline.__file__).parent.glob("*.py")}
    stages = {stage.name for stage in (*pipeline.OPTIMIZED, *pipeline.PLAIN)} - {"guard_search"}  # which is in guard
    assert stages | {"device_kernels"} == names - AROUND
