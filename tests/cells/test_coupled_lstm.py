"""The LSTM with coupled gates, against its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cells.probing import SIZE, Weights, assert_is, compiled, first_values, output_of, shapes, sigmoid

N, P = 5, 3


def coupled(weights: Weights, xs: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Greff et al. 2015."""

    def norm(name: str, v: np.ndarray) -> np.ndarray:
        if not options.get("layer_norm"):
            return v
        scaled = (v - v.mean()) / np.sqrt(v.var() + 1e-12)
        return np.asarray(scaled * weights[f"{name}/gamma"] + weights[f"{name}/beta"])

    act = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[options.get("activation", "tanh")]
    seen = {name: weights.get(f"w_{name}_diag", np.zeros(N)) for name in "fo"}
    projection = weights.get("projection/kernel")
    c, h, found = np.zeros(N), np.zeros(N if projection is None else P), []
    for x in xs:
        j, f, o = np.split(np.concatenate([x, h]) @ weights["kernel"] + weights.get("bias", 0), 3)
        f = sigmoid(norm("forget", f) + options.get("forget_bias", 1.0) + seen["f"] * c)
        c = norm("state", f * c + (1 - f) * act(norm("transform", j)))
        h = sigmoid(norm("output", o) + seen["o"] * c) * act(c)
        if projection is not None:
            h = np.clip(h @ projection, *np.array([-1, 1]) * (options.get("projection_clip") or np.inf))
        found.append(h)
    return np.stack(found)


OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "forget bias": {"forget_bias": -0.5, "activation": "relu"},
    "peepholes": {"peephole": True},
    "projection": {"projection": P, "projection_clip": 0.3},
    "norm": {"layer_norm": True},
    "all": {"layer_norm": True, "peephole": True, "projection": P, "projection_clip": 0.2, "forget_bias": 0.2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    spec = {"class": "cifg", "units": N, **OPTIONS[name]}
    assert_is(spec, lambda weights, xs: coupled(weights, xs, OPTIONS[name]))


def test_as_tensorflow_calls_it() -> None:
    theirs = {"num_proj": P, "proj_clip": 0.2, "use_peepholes": True, "num_unit_shards": 2, "num_proj_shards": 3}
    found = compiled({"class": "tf.contrib.rnn.CoupledInputForgetGateLSTMCell", "num_units": N, **theirs})
    ours = compiled({"class": "cifg", "units": N, "projection": P, "projection_clip": 0.2, "peephole": True})
    np.testing.assert_array_equal(output_of(found), output_of(ours))


def test_parameters() -> None:
    found = shapes({"class": "cifg", "units": N, "projection": P, "peephole": True})
    assert found == {
        "kernel": (SIZE + P, 3 * N),
        "bias": (3 * N,),
        "w_f_diag": (N,),
        "w_o_diag": (N,),
        "projection/kernel": (N, P),
    }
    normed = first_values({"class": "cifg", "units": N, "layer_norm": True, "norm_gain": 0.5, "norm_shift": 0.1})
    folders = [f"{name}/{part}" for name in ("transform", "forget", "output", "state") for part in ("gamma", "beta")]
    assert set(normed) == {"kernel", *folders}
    assert all((normed[name] == np.float32(0.5 if "gamma" in name else 0.1)).all() for name in folders)
