"""Networks whose shapes have no meaning are refused before anything is compiled, with the layer and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

EXTERN = {"data": {"dim": 3}, "classes": {"dim": 4, "sparse": True, "available_for_inference": False}}
FLAT = {"class": "merge_dims", "from": "data", "axes": "except_batch"}


def refused(network: Mapping[str, Any], mode: Any = "train") -> str:
    """What `check` says; `compile` says the same."""
    with pytest.raises(rl.ConfigError) as found:
        rl.check({"network": network, "extern_data": EXTERN, "behavior_version": 21}, mode)
    with pytest.raises(rl.ConfigError) as compiled:
        rl.compile(network, EXTERN, mode, behavior_version=21)
    assert str(compiled.value) == str(found.value)
    return str(found.value)


PARAMETERS: Mapping[str, dict[str, Any]] = {
    "linear": {"n_out": 2, "activation": None},
    "softmax": {"n_out": 2},
    "layer_norm": {},
    "batch_norm": {},
}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_parameter_as_long_as_a_sequence(kind: str) -> None:
    said = refused({"flat": FLAT, "output": {"class": kind, "from": "flat", "loss": "as_is", **PARAMETERS[kind]}})
    assert "network.output" in said
    assert "would have the dim data:time*data:feature, whose size differs from batch to batch" in said


def test_a_parameter_as_long_as_a_sequence_in_a_loop() -> None:
    unit = {"x": {**FLAT, "from": "base:data"}, "output": {"class": "softmax", "from": "x", "loss": "ce"}}
    said = refused({"output": {"class": "rec", "from": [], "target": "classes", "unit": unit}})
    assert "network.output.unit.output" in said and "whose size differs" in said


def test_a_parameter_that_is_read_by_prev_as_long_as_a_sequence() -> None:
    """It shows only when the layer that is read is there."""
    unit = {
        "x": {"class": "linear", "n_out": 2, "activation": "tanh", "from": ["base:data", "prev:flat"]},
        "flat": {**FLAT, "from": "prev:x", "axes": ["T", "F"]},
        "output": {"class": "reduce", "mode": "sum", "axis": "except_batch", "from": "x"},
    }
    said = refused({"output": {"class": "rec", "from": "data", "unit": unit, "loss": "as_is"}})
    assert "network.output.unit.x: the parameter 'W' would have the dim" in said and "whose size differs" in said


def test_a_variable_of_a_dynamic_shape() -> None:
    assert "network.output" in refused({"output": {"class": "variable", "shape": [rl.Dim("D")], "loss": "as_is"}})


@pytest.mark.parametrize(
    "x",
    [
        {"class": "copy", "from": ["data:source", "prev:x"]},
        {"class": "slice", "from": "prev:x", "axis": "F", "slice_start": 1},
        {"class": "pad", "from": "prev:x", "axes": "F", "padding": 1},
    ],
    ids=["grow", "shrink", "padded"],
)
@pytest.mark.parametrize("reader", ["linear", "copy"])
def test_features_that_change_from_step_to_step(x: dict[str, Any], reader: str) -> None:
    options = {"n_out": 2, "activation": None} if reader == "linear" else {}
    unit = {"x": x, "output": {"class": reader, "from": ["data:source", "x"], "loss": "as_is", **options}}
    assert "network.output.unit." in refused({"output": {"class": "rec", "from": "data", "unit": unit}})


LSTM = {"class": "rec", "unit": "lstm", "n_out": 4}
CELL = {"class": "rnn_cell", "unit": "lstm", "n_out": 4, "from": "embed"}
FRAMES = {"class": "linear", "from": "data", "n_out": 4, "activation": None}


def decoder(cell: dict[str, Any], **more: Any) -> dict[str, Any]:
    unit = {
        "output": {"class": "choice", "from": "p", "beam_size": 2, "initial_output": 0, "target": "classes"},
        "embed": {"class": "linear", "from": "prev:output", "n_out": 3, "activation": None},
        "s": {**CELL, **cell},
        "p": {"class": "softmax", "from": "s", "target": "classes", "loss": "ce"},
        "end": {"class": "compare", "from": "output", "value": 0},
        **more,
    }
    return {"output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 4, "unit": unit}}


@pytest.mark.parametrize("mode", ["train", "search", "forward"])
@pytest.mark.parametrize(
    "state", ["base:frames", {"h": "base:frames", "c": "base:enc"}, ["base:frames", "base:frames"]], ids=str
)
def test_an_initial_state_with_frames(state: Any, mode: str) -> None:
    said = refused({"enc": {**LSTM, "from": "data"}, "frames": FRAMES, **decoder({"initial_state": state})}, mode)
    assert "network.output.unit.s.initial_state" in said
    assert "is one for each sequence, but 'base:frames' has frames: [B, data:time" in said


def test_an_initial_state_of_a_whole_sequence_with_its_frames() -> None:
    network = {"frames": FRAMES, "output": {**LSTM, "from": "data", "initial_state": "frames", "loss": "as_is"}}
    assert "network.output.initial_state: the state 'h' is one for each sequence" in refused(network)


def test_the_last_state_of_a_recurrent_layer_is_taken() -> None:
    network = {"enc": {**LSTM, "from": "data"}, **decoder({"initial_state": "base:enc"})}
    rl.check({"network": network, "extern_data": EXTERN, "behavior_version": 21}, "train")


def test_a_loss_with_a_dim_that_only_the_initial_value_has() -> None:
    state = {"class": "combine", "kind": "add", "from": ["prev:s", "embed"], "initial_output": "base:frames"}
    network = {"frames": {**FRAMES, "n_out": 3}, **decoder({})}
    network["output"]["unit"] |= {"s": state}
    said = refused(network)
    assert "network.output.unit.p: the loss has data:time left over" in said


def test_an_end_with_a_dim_that_only_the_initial_value_has() -> None:
    frames = {"class": "reduce", "mode": "max", "axis": "F", "from": "data"}
    more = {
        "sum": {"class": "eval", "eval": "source(0) + 1.", "from": "prev:sum", "initial_output": "base:frame"},
        "end": {"class": "compare", "from": "sum", "kind": "greater", "value": 3.0},
    }
    assert "'end' differs along data:time" in refused({"frame": frames, **decoder({}, **more)}, "search")


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ([1, -1], (2, 1, 3, 2)),
        ([1, 1, -1], (2, 1, 1, 3, 2)),
        ([1, -1, 1], (2, 1, 3, 1, 2)),
        ([1, -1, 2], (2, 1, 2, 2, 2)),
    ],
    ids=str,
)
def test_a_time_is_taken_apart_into_1_and_the_frames(dims: list[int], shape: tuple[int, ...]) -> None:
    x = np.arange(12.0).reshape(2, 3, 2)
    network = {"output": {"class": "split_dims", "axis": "T", "dims": dims, "from": "data"}}
    out = rl.compile(network, {"data": {"dim": 2}}, "forward", behavior_version=21).run({"data": x}, {"data": [3, 2]})
    assert out.layers["output"].value.shape == shape
    flat = out.layers["output"].value.reshape(2, -1, 2)
    np.testing.assert_array_equal(flat[0, :3], x[0])
    np.testing.assert_array_equal(flat[1, :2], x[1, :2])
    (lengths,) = out.layers["output"].seq_lens.values()
    assert lengths.tolist() == ([2, 1] if 2 in dims else [3, 2])


def test_a_time_is_not_taken_apart_into_more_rows_than_1() -> None:
    assert "Write dims: [-1, 2]." in refused(
        {"output": {"class": "split_dims", "axis": "T", "dims": [2, -1], "from": "data"}}
    )


STATIC = {"ones": {"class": "split_dims", "axis": "F", "dims": (1, 3), "from": "mean"}}


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ({"output": {"class": "conv", "from": "data", "filter_size": (2,), "n_out": 3, "padding": "same",
                     "in_spatial_dims": ["F"]}},
         "output.in_spatial_dims: the filter goes over data:feature(3), which are the features"),
        ({"output": {"class": "transposed_conv", "from": "data", "filter_size": (2,), "n_out": 3,
                     "in_spatial_dims": ["F"]}},
         "output.in_spatial_dims: the filter goes over data:feature(3), which are the features"),
        ({"output": {"class": "pool", "mode": "max", "from": "data", "pool_size": (2, 2),
                     "in_spatial_dims": ["T", "spatial:0"]}},
         "output.in_spatial_dims: the filter goes over one axis twice: data:time, data:time"),
        ({"mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}, **STATIC,
          "output": {"class": "self_attention", "num_heads": 1, "total_key_dim": 2, "n_out": 2,
                     "attention_left_only": True, "from": "ones"}},
         "output.from: there is no time axis to attend over"),
        ({"encoder": {"class": "subnetwork", "from": "data", "subnetwork": {
              "output": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data", "is_output_layer": True}}},
          "output": {"class": "rec_last_output", "rec_layer": "encoder", "sub_layer_name": "output"}},
         "output.rec_layer: 'encoder/output:reduce_mean' is [B, data:feature(3)], not all steps of a loop"),
    ],
    ids=["conv", "transposed_conv", "pool", "self_attention", "rec_last_output"],
)  # fmt: skip
def test_axes_that_mean_nothing(layers: dict[str, Any], wanted: str) -> None:
    assert wanted in refused({**layers, "loss": {"class": "copy", "from": "output", "loss": "as_is"}})


@pytest.mark.parametrize("unit", ["gru", "standardlstm"])
def test_a_state_of_frames_that_each_step_has_anew(unit: str) -> None:
    """There are more of them in each step."""
    layers = {
        "history": {"class": "cum_concat", "from": "data:source", "out_spatial_dim": rl.Dim("history")},
        "x": {"class": "rnn_cell", "unit": unit, "n_out": 2, "from": "history"},
        "output": {"class": "reduce", "mode": "sum", "axis": "except_batch", "from": "x"},
    }
    said = refused({"output": {"class": "rec", "from": "data", "unit": layers, "loss": "as_is"}})
    assert "output.unit.x: the source has other frames in each step (history)" in said
