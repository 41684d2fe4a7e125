"""What Keras' layers do with a cell: masks with gaps, both directions, stacks, batches that go on, unrolled loops."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.cells import GRU, LSTM, RNN, Cell, ConvLSTM2D

SOURCE = np.random.default_rng(3).normal(size=(2, 6, 3)).astype("float32")
GAPS = np.array([[1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 0]], bool)


def close(mine: Any, theirs: Any) -> None:
    np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), 1e-5, 1e-6)


def layer_of(cell: Cell, **options: Any) -> keras.layers.RNN:
    return keras.layers.RNN(cell, return_sequences=True, return_state=True, **options)


def test_masked_frames_hold_the_states() -> None:
    """Those of each sequence are what its other frames alone give."""
    layer = layer_of(LSTM(4))
    output, *states = layer(SOURCE, mask=GAPS)
    for i, real in enumerate(GAPS):
        alone, *ends = layer(SOURCE[i : i + 1, real])
        close(output[i][real], alone[0])
        for state, end in zip(states, ends, strict=True):
            close(state[i], end[0])
    close(output[0, 1], output[0, 0])  # Keras repeats the output before


def test_mask_of_a_layer_before() -> None:
    ids = np.array([[3, 1, 2, 0], [2, 0, 0, 0]])
    inputs = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(5, 3, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.RNN(GRU(4))(embedded))
    close(model(ids)[1], model(ids[:, :1])[1])


@pytest.mark.one_in(3)
@pytest.mark.parametrize("merge", ["concat", "sum", None])
def test_both_directions(merge: str | None) -> None:
    """As `direction: both`, with lengths: Keras turns round the padding with the frames."""
    both = keras.layers.Bidirectional(keras.layers.RNN(LSTM(4), return_sequences=True), merge_mode=merge)
    mask = np.arange(6) < np.array([[6], [4]])
    found = both(SOURCE, mask=mask)
    layer = {"class": "rec", "unit": {"class": "lstm", "units": 4}, "direction": "both", "from": "data"}
    net = rl.compile(
        {"output": {**layer, "merge": merge or "concat"}}, {"data": {"dim": 3}}, "eval", behavior_version=21
    )
    for name, one in (("forward", both.forward_layer), ("backward", both.backward_layer)):
        for parameter, value in one.cell.parameters().items():
            net.params[f"output/rec/{name}/{parameter.removeprefix('rec/')}"].assign(value)
    expected = net.run({"data": SOURCE}, {"data": [6, 4]}).layers["output"].value
    mine = np.asarray(found) if merge else np.concatenate([np.asarray(part) for part in found], -1)
    close(mine[mask], expected[mask])


def test_stacked_cells_of_keras_are_a_stack() -> None:
    cells = [LSTM(4), GRU(3)]
    stacked, whole = keras.layers.RNN(cells, return_sequences=True), Cell(cells)
    output = stacked(SOURCE)
    layer = keras.layers.RNN(whole, return_sequences=True)
    layer.build(SOURCE.shape)
    below = {f"rec/{i}/{name.removeprefix('rec/')}": value for i, cell in enumerate(cells)
             for name, value in cell.parameters().items()}  # fmt: skip
    whole.set_parameters(below)
    close(output, layer(SOURCE))
    assert whole.state_names == ("0/h", "0/c", "1/h")
    assert whole.state_size == [4, 4, 3]


def test_stateful_goes_on_where_the_batch_before_ended() -> None:
    cell = Cell({"class": "residual", "cell": {"class": "gru", "units": 3}})
    layer = keras.layers.RNN(cell, return_sequences=True, stateful=True)
    first, second = layer(SOURCE[:, :2]), layer(SOURCE[:, 2:])
    whole = keras.layers.RNN(cell, return_sequences=True)(SOURCE)
    close(np.concatenate([first, second], 1), whole)
    layer.reset_state()
    close(layer(SOURCE[:, :2]), first)


@pytest.mark.parametrize("options", [{"unroll": True}, {"go_backwards": True}], ids=["unroll", "go_backwards"])
def test_other_ways_to_run(options: dict[str, bool]) -> None:
    cell = LSTM(4, peephole=True)
    output, *states = layer_of(cell, **options)(SOURCE)
    source = SOURCE[:, ::-1] if options.get("go_backwards") else SOURCE
    for mine, theirs in zip((output, *states), layer_of(cell)(source), strict=True):
        close(mine, theirs)


def test_initial_states() -> None:
    layer = layer_of(LSTM(4))
    _, *middle = layer(SOURCE[:, :2])
    output, *_ = layer(SOURCE[:, 2:], initial_state=middle)
    close(output, layer(SOURCE)[0][:, 2:])


def test_spatial_states_in_a_functional_model() -> None:
    """`keras.layers.RNN` knows no such shapes, `RNN` of ours does."""
    inputs = keras.Input((3, 4, 5, 2))
    cell = ConvLSTM2D(filters=2, kernel_size=3, padding="same", input_shape=(4, 5, 2))
    outputs = keras.layers.Bidirectional(RNN(cell, return_sequences=True))(inputs)
    last, *states = RNN(cell, return_state=True)(inputs)
    assert outputs.shape == (None, 3, 4, 5, 4)
    assert [value.shape for value in (last, *states)] == 3 * [(None, 4, 5, 2)]
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2)).astype("float32")
    model = keras.Model(inputs, [outputs, last])
    frames, end = model(images)
    assert frames.shape == (2, 3, 4, 5, 4)
    close(end, keras.layers.RNN(cell)(images))
