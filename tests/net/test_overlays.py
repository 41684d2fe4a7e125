"""Overlay networks, `extra.search:x`: what is built again, with which parameters, and a search beside training.

Against RETURNN: `tests/oracle/references.json`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build
from returnn_lite.config.diagnostics import ConfigError
from tools.oracle.cases.references import BEST, CASES, SEARCHED, STUDENT
from tools.oracle.compare import TOLERANCE, deviations
from tools.oracle.records import Record, find_record, load_suite

EXTERN_DATA = {"data": {"dim": 2}, "classes": {"dim": 5, "sparse": True}}
LINEAR = {"class": "linear", "activation": None, "n_out": 3}
BOTH = pytest.mark.parametrize("optimize", [True, False])


def built(network: dict[str, Any], mode: Any = "train") -> Any:
    return build({"network": network, "extern_data": EXTERN_DATA, "behavior_version": 21}, mode)


def copy(*sources: str) -> dict[str, Any]:
    return {"class": "copy", "from": list(sources)}


def mistakes(network: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        built(network)
    return [str(found) for found in raised.value.diagnostics]


def test_only_what_is_asked_for_is_built_again() -> None:
    network = {"a": {**LINEAR, "from": "data"}, "b": {**LINEAR, "from": "a"}, "output": copy("b", "extra:b")}
    made = built(network)
    layers = {name for name in made.graph.outputs if name.startswith("layer:")}
    assert layers == {"layer:a", "layer:b", "layer:extra:b", "layer:output"}
    assert set(made.parameters) == {"a/W", "a/b", "b/W", "b/b"}


def test_a_layer_only_of_an_overlay_is_no_unused_one() -> None:
    network = {"a": {**LINEAR, "from": "data"}, "output": copy("extra:a"), "extra.x:c": {**LINEAR, "from": "a"}}
    assert built(network).unused == ("extra.x:c",)


def test_what_the_config_marks_is_built_in_each_overlay() -> None:
    """A layer of an overlay is a root for the same reasons as any other."""
    network = {"a": {**LINEAR, "from": "data"}, "output": copy("a")}
    network["extra.x:a"] = {**LINEAR, "from": "data", "is_output_layer": True}
    network["extra.y:output"] = copy("a")
    assert set(built(network).root_names) == {"output", "extra.x:a", "extra.y:output"}


def test_a_tag_without_search_does_not_search() -> None:
    network = {**SEARCHED, "found": {**copy("extra:output"), "is_output_layer": True}}
    config = {"network": network, "extern_data": {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}}
    made = build({**config, "behavior_version": 21}, "search")
    assert {result.scores.name for result in made.hypotheses} != set()
    assert not any(name.startswith("scores:extra:") for name in made.graph.outputs)
    assert any(name.startswith("scores:extra.search:") for name in made.graph.outputs)


def test_only_on_search_is_there_where_the_overlay_searches() -> None:
    network = {"a": {**LINEAR, "from": "data", "only_on_search": True}, "output": copy("extra.search:a")}
    assert "layer:extra.search:a" in built(network).graph.outputs
    (message,) = mistakes({**network, "output": copy("extra:a")})
    assert "there is no layer 'a' in the overlay 'extra'" in message and "only in search" in message


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({"output": copy("extra:aa")}, "no layer 'aa' in the overlay 'extra' of the network. Did you mean 'a'?"),
        ({"output": copy("extra.x:extra.y:a")}, "'extra.x:extra.y:a' is not a layer"),
        ({"output": copy("extra:base:a")}, "'extra:base:a' is not a layer"),
        ({"output": copy("extrafoo:a")}, "there is no layer 'extrafoo:a' in the network"),
        ({"output": copy("extra:a"), "extra:a": {**LINEAR, "n_out": 7, "from": "data"}, "b": copy("a")}, None),
        ({"output": copy("extra:a"), "extra:a": {**LINEAR, "from": "a"}}, "need each other in the same step"),
        ({"output": copy("a", "extra:a"), "extra:a": {**LINEAR, "n_out": 7, "from": "data"}}, "parameter a/W"),
        ({"output": copy("a", "extra:a"), "extra:a": {"class": "linaer"}}, "Did you mean 'linear'?"),
    ],
)
def test_mistakes(layers: dict[str, Any], expected: str | None) -> None:
    network = {"a": {**LINEAR, "from": "data"}, **layers}
    if expected is None:
        assert built(network)
        return
    (message,) = mistakes(network)
    assert expected in message


def test_overlays_lie_over_the_outermost_network_only() -> None:
    inside = {"a": {**LINEAR, "from": "data"}, "output": copy("extra:a")}
    for outer in (
        {"class": "subnetwork", "from": "data", "subnetwork": inside},
        {"class": "rec", "from": "data", "unit": inside},
    ):
        (message,) = mistakes({"output": outer})
        assert "overlays are those of the outermost network. Write 'base:extra:...'" in message
    inside = {"extra:a": {**LINEAR, "from": "data"}, "output": copy("data")}
    (message,) = mistakes({"output": {"class": "subnetwork", "from": "data", "subnetwork": inside}})
    assert message.startswith("network.output.subnetwork.extra:a:") and "Move it to the outermost network" in message


def test_a_long_chain_below_an_overlay() -> None:
    """Layers of the network below are built in order, not from within the overlay."""
    network: dict[str, Any] = {"x0": {**LINEAR, "from": "data"}}
    network |= {f"x{n + 1}": copy(f"x{n}") for n in range(1500)}
    network["output"] = copy("extra:x1500")
    assert "layer:x1499" in built(network).graph.outputs


@BOTH
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_search_beside_training_is_the_same_in_any_padding(mode: Any, optimize: bool) -> None:
    net = rl.compile(
        {**SEARCHED, **BEST, **STUDENT},
        extern_data={
            "data": {"dim": 4},
            "frames": {"dim": 4},
            "classes": {"dim": 5, "sparse": True, "same_dim_tags_as": {"t": "frames"}},
        },
        mode=mode,
        behavior_version=21,
        optimize=optimize,
    )
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(2, 6, 4)).astype("float32"), np.array([[1, 2, 3, 4], [2, 1, 0, 0]], "int32")
    frames = np.zeros((2, 4, 4), "float32")
    whole = net.run(
        {"data": x, "classes": labels, "frames": frames}, {"data": [6, 3], "classes": [4, 2], "frames": [4, 2]}
    )
    short = net.run(
        {"data": x[1:, :3], "classes": labels[1:, :2], "frames": frames[1:, :2]},
        {"data": [3], "classes": [2], "frames": [2]},
    )
    for name, length in (("best", 2), ("student", 3)):
        rows = [
            np.moveaxis(np.asarray(run.layers[name].value), run.layers[name].dims.index("B"), 0)
            for run in (whole, short)
        ]
        np.testing.assert_allclose(rows[0][1, :length], rows[1][0, :length], rtol=1e-5, atol=1e-6)


RECORDED = [case for case in CASES if case.name.startswith("overlay") and not case.differs]


@BOTH
@pytest.mark.parametrize("case", RECORDED[::3], ids=lambda case: case.name)
def test_recorded(case: Any, optimize: bool, suite: dict[str, Record]) -> None:
    record = find_record(case, [], suite)
    assert record is not None
    for key, run in itertools.islice(record.runs.items(), 1):
        found = dict(deviations(record, run, key.partition("/")[0], optimize))
        assert found and {what: far for what, far in found.items() if far > TOLERANCE} == {}


@pytest.fixture(scope="module")
def suite() -> dict[str, Record]:
    return dict(load_suite(Path(__file__).parents[1] / "oracle"))
