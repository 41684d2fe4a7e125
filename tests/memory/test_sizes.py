"""How long dims are in a batch, and amounts of memory in words."""

from typing import Any

import pytest

from returnn_lite.compiler import check
from returnn_lite.ir import Graph, walk
from returnn_lite.memory.amounts import shown
from returnn_lite.memory.batches import largest_batch, largest_lengths
from returnn_lite.memory.sizes import SizeError, batch_sizes


def graph(**layers: Any) -> Graph:
    extern = {"data": {"dim": 4}, "classes": {"dim": 3, "sparse": True}}
    net = {name: {**layer, "is_output_layer": True} for name, layer in layers.items()}
    return check({"network": net, "extern_data": extern, "behavior_version": 21, "target": "classes"})


def test_lengths_are_given_by_data_key_and_others_follow() -> None:
    made = graph(
        output={"class": "conv", "from": "data", "filter_size": [3], "padding": "valid", "strides": 2, "n_out": 5}
    )
    type_ = made.outputs["layer:output"].type
    sizes = batch_sizes(made, 6, {"data": 9})
    assert [sizes.size(dim) for dim in type_.dims] == [6, 4, 5]  # (9 - 2) / 2, rounded up
    assert sizes.bytes_of(type_) == 6 * 4 * 5 * 4


def test_a_history_counts_with_its_mean_length() -> None:
    unit = {
        "query": {"class": "linear", "from": ["data:source", "prev:output"], "n_out": 4, "activation": "tanh"},
        "seen": {"class": "cum_concat", "from": "query"},
        "output": {"class": "reduce", "mode": "sum", "axis": "stag:history", "from": "seen"},
    }
    made = graph(output={"class": "rec", "from": "data", "unit": unit})
    (history,) = {dim for node in walk(made.nodes) for dim in node.op.created_dims()}
    assert batch_sizes(made, 2, {"data": 7}).size(history) == 4  # of 1 to 7 frames


@pytest.mark.parametrize(
    ("batch", "lengths", "message"),
    [
        (2, {}, "nothing says how long 'data:time' is; give the longest sequence: --lengths data=N"),
        (None, {"data": 5}, "nothing says how many sequences a batch has; give --batch N"),
        (2, {"dat": 5}, "there is no data key or dim 'dat' with a length. Did you mean 'data'?"),
    ],
)
def test_what_is_missing_is_named(batch: int | None, lengths: dict[str, int], message: str) -> None:
    made = graph(output={"class": "linear", "from": "data", "n_out": 2})
    with pytest.raises(SizeError) as raised:
        batch_sizes(made, batch, lengths).bytes_of(made.inputs[0].type)
    assert str(raised.value) == message


def test_amounts_are_shown() -> None:
    assert [shown(n) for n in (999, 1000, 1_250_000, 3 * 10**9)] == ["999 B", "1.0 kB", "1.2 MB", "3.0 GB"]


@pytest.mark.parametrize(
    ("config", "sequences"),
    [
        ({"batch_size": 400}, 4),
        ({"batch_size": 400, "max_seqs": 3}, 3),
        ({"batch_size": {"classes": 300}}, 6),
        ({"batch_size": 50}, 1),
        ({"max_seqs": 8}, 8),
        ({"max_seqs": -1}, None),
        ({}, None),
    ],
    ids=str,
)
def test_the_largest_batch_is_what_the_limits_let(config: dict[str, Any], sequences: int | None) -> None:
    assert largest_batch(config, {"data": 100, "classes": 50}) == sequences


def test_max_seq_length_is_the_longest_sequence() -> None:
    assert largest_lengths({"max_seq_length": 9}, ["data", "classes"]) == {"data": 9, "classes": 9}
    assert largest_lengths({"max_seq_length": {"data": 9}}, ["data", "classes"]) == {"data": 9}
    assert largest_lengths({}, ["data"]) == {}
