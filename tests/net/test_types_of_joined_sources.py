"""What layers say of their type without being built is what they make when they are."""

from __future__ import annotations

from typing import Any

import pytest

import returnn_lite as rl
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer
from returnn_lite.layers.registry import LAYERS
from returnn_lite.net import layer_building
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec
from returnn_lite.net.trial import Trial

JOINED = {
    "one": ["data"],
    "several": ["data", "wide", "data"],
    "fewer dims first": ["vector", "data"],
    "labels": ["data:classes"],
    "time of its own": ["data:other", "vector"],
}


@pytest.mark.parametrize("sources", JOINED.values(), ids=JOINED)
@pytest.mark.parametrize("options", [{}, {"activation": "tanh"}, {"with_bias": False}], ids=str)
@pytest.mark.parametrize("name", sorted(n for n, c in LAYERS.items() if c.type_of_joined is not Layer.type_of_joined))
def test_what_a_layer_says_of_its_type_is_what_it_makes(
    monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], sources: list[str]
) -> None:
    """The same as its trial finds: dims in their order, dtype, and what dims mean."""
    if "activation" in options and name == "softmax":
        options = {}
    network = {
        "vector": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "wide": {"class": "linear", "activation": None, "n_out": 7, "from": "data"},
        "output": {"class": "copy", "from": ["x"], "loss": "as_is"},
        "x": {"class": name, "n_out": 5, "from": sources, **options},
    }
    found = []

    def both(trial: Trial) -> None:
        said = trial._typed(trial._sources())
        with monkeypatch.context() as without:
            without.setattr(Trial, "_typed", lambda self, sources: None)
            found.append((said, trial.outputs().value.type))

    original = layer_building.read_sources

    def trying(scope: Scope, spec: LayerSpec) -> list[View]:
        values = original(scope, spec)
        if spec.name == "x":
            both(Trial(scope.expected, spec))
        return values

    monkeypatch.setattr(layer_building, "read_sources", trying)
    extern_data = {
        "data": {"dim": 3},
        "other": {"dim": 3, "time_dim_axis": 2, "shape": (3, None), "feature_dim_axis": 1},
        "classes": {"dim": 3, "sparse": True},
    }
    rl.check({"network": network, "extern_data": extern_data})
    ((said, made),) = found
    assert said is not None
    parts = [(x.dims, x.dtype, x.sparse, x.feature, x.time) for x in (said, made)]
    assert parts[0] == parts[1]
