"""The networks that measured RETURNN's loop optimiser (SEMANTICS 4.1), a row a test, and the examples E and G of 3.10.

One layer that has broken the optimiser, `probe`, stands between the embedding of a decoder and its softmax: two
sequences of 4 and 3 labels, an encoder of 5 and 3 frames, wild numbers in the padding. Each row is optimised = plain =
step by step, in training and in search, and each sequence gets what it gets alone; or it is refused, with the reason.
What RETURNN made of a row is its comment. tests/oracle has its numbers for most (`golden.probe.*`, the same networks).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import ModeName, build, optimized
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.explain.placement import placement
from tests.properties.running import Feed, assert_equal, part_of, run, sequence_of
from tests.reference.named import Named, union
from tools.oracle.cases.golden import ATTENTION, CASES, CHOICE, ENERGY, LINEAR, decoder, prob

RECORDED = {case.name: case for case in CASES}
LENGTHS = {"data": np.array([5, 3]), "frames": np.array([4, 3]), "classes": np.array([4, 3])}
CROSS = {"class": "generic_attention", "weights": "w", "base": "base:encoder", "from": []}
Outputs = Mapping[str, Named]
MODES: tuple[ModeName, ...] = ("train", "eval")
FLOAT = {"class": "cast", "dtype": "float32"}


@dataclass(frozen=True)
class Row:
    """A network; the layers of its loop that stay there in training; why search refuses it, if it does.

    `sees_batch`: a step sees the other sequences. `no_step`: in training it has no meaning for one step.
    """

    network: Mapping[str, Any]
    stays: frozenset[str] = frozenset()
    no_search: str = ""
    sees_batch: bool = False
    no_step: bool = False
    behavior_version: int = 21


def recorded(name: str, *stays: str, **options: Any) -> Row:
    """A network of which tests/oracle has RETURNN's numbers."""
    case = RECORDED[f"golden.{name}"]
    return Row(case.network, frozenset(stays), behavior_version=case.behavior_version, **options)


def probe(layers: Mapping[str, Any], *stays: str, **options: Any) -> Row:
    """Layers between the embedding and the softmax; the last one is `probe`."""
    unit = {**ENERGY, **layers, "output_prob": prob("probe")}
    return Row(decoder("", unit).network, frozenset(stays), **options)


def of_embed(cls: str, **options: Any) -> dict[str, Any]:
    return {"class": cls, "from": "embed", **options}


def over_encoder(layer: Mapping[str, Any]) -> Row:
    """A layer over the encoder's frames of each step, and their mean."""
    return probe({"y": {"from": "x", **layer}, "probe": {"class": "reduce", "mode": "mean", "axis": "T", "from": "y"}})


HISTORY = rl.Dim("history", rl.DimKind.SPATIAL, None)
WINDOW = of_embed("window", window_size=3)
MERGED = {"class": "merge_dims", "axes": ["dim:3", "F"], "from": "y"}
SELF = of_embed("self_attention", num_heads=2, total_key_dim=4, n_out=4)
AHEAD = "needs all steps of the loop at once"
ALWAYS = {"class": "compare", "kind": "less", "value": 5, "from": "prev:output"}
LSTM = {"class": "rec", "unit": "lstm", "n_out": 4, "from": "data"}
MASKED = of_embed("masked_computation", mask="mask", unit=LSTM)
UNMASK = {"class": "unmask", "mask": "mask", "from": "y"}
LM_WINDOW = {
    "embed": {**LINEAR, "n_out": 4, "from": "prev:output"},
    "lstm": of_embed("rec", unit="nativelstm2", n_out=4),
    "window": {"class": "window", "window_size": 3, "window_right": 0, "from": "lstm"},
    "merged": {**MERGED, "from": "window"},
    "sum": {"class": "cumsum", "from": "merged"},
    "output_prob": prob("sum"),
}
ROWS: dict[str, Row] = {
    "attention decoder (example A)": recorded("A_attention", "att", "e", "e_in", "e_tanh", "s", "s_tr", "w"),
    "transformer-like decoder (B)": recorded("B_transformer"),
    "LM: nativelstm2, window, merge_dims, cumsum": Row(decoder("", LM_WINDOW).network),
    "masked LSTM and unmask (D)": recorded("D_transducer"),
    # The optimised one crashes: the count of masked frames runs past them.
    "mask that is true in padding": probe({"mask": ALWAYS, "y": MASKED, "probe": UNMASK}),
    "cum_concat, dot auto, softmax, dot": probe(
        {
            "k": of_embed("cum_concat", out_spatial_dim=HISTORY),
            "energy": {"class": "dot", "red1": "F", "red2": "F", "var1": "auto", "var2": "auto", "from": ["k", "q"]},
            "w": {"class": "softmax_over_spatial", "axis": HISTORY, "from": "energy"},
            "probe": {"class": "dot", "reduce": HISTORY, "from": ["w", "k"]},
        }
    ),
    "causal self-attention, relative positions as key_shift": probe(
        {
            "shift": of_embed("relative_positional_encoding", n_out=2, clipping=2),
            "probe": {**SELF, "attention_left_only": True, "key_shift": "shift"},
        }
    ),
    "softmax_over_spatial": recorded("probe.softmax_over_spatial"),
    "reduce mean over T": recorded("probe.reduce_mean"),
    "reduce max over T": recorded("probe.reduce_max"),
    "slice over T": recorded("probe.slice"),
    "conv over the encoder's T": recorded("probe.conv"),
    "pool over the encoder's T": recorded("probe.pool"),
    "length": recorded("probe.length"),
    ":i in eval": probe(
        {
            "i": {**FLOAT, "from": ":i"},
            "probe": of_embed("eval", eval="source(0) * source(1)", **{"from": ["embed", "i"]}),
        }
    ),
    ":i in combine": recorded("probe.step_index"),
    "expand_dims spatial, squeeze dim:1": recorded("probe.expand_squeeze"),
    "norm F": probe({"probe": of_embed("norm", axes="F")}),
    "need_last linear": probe({"probe": of_embed("linear", activation="tanh", n_out=4, need_last=True)}),
    # Of sequences that have not ended; RETURNN counts padding in both of its modes.
    "reduce over B": recorded("probe.reduce_B", sees_batch=True),
    # Silently another axis.
    "eval with literal axis=1": recorded("probe.eval_axis"),
    # Stops while it is built: the time is merged in.
    "split_dims F, merge_dims except_batch": recorded("probe.merge_except_batch"),
    "merge_dims static": probe(
        {
            "y": of_embed("split_dims", axis="F", dims=(2, 2)),
            "probe": {"class": "merge_dims", "axes": "static", "from": "y"},
        }
    ),
    "softmax_over_spatial over spatial": over_encoder({"class": "softmax_over_spatial", "axis": "spatial"}),
    # These three train outside of the loop and stop with an assertion inside.
    "window size 3 without left/right": recorded("probe.window_symmetric", no_search=AHEAD),
    "self_attention without left_only": probe({"probe": SELF}, no_search=AHEAD),
    "batch_norm (defaults)": probe({"probe": of_embed("batch_norm")}, sees_batch=True, no_step=True),
    # Stops with an assertion: "cannot use both".
    "x and prev:x of an x that has left": recorded("probe.current_and_previous"),
    "x and prev:x in a cycle": recorded("probe.current_and_previous_in_cycle", "probe"),
}
LABEL_INT = {"class": "eval", "out_type": {"dtype": "int32", "sparse": False, "dim": None, "shape": ()}}
LOCAL = {
    "embed": {**LINEAR, "n_out": 4, "from": "prev:output"},
    "step": {**LABEL_INT, "eval": "tf.cast(source(0) > 1, 'int32')", "from": "prev:output"},
    "pos": {"class": "combine", "kind": "add", "from": ["prev:pos", "step"], "initial_output": 0},
    "size": {**LABEL_INT, "eval": "1 + tf.cast(source(0), 'int32') % 3", "from": "prev:output"},
    "k": {"class": "slice_nd", "from": "base:enc_ctx", "start": "prev:pos", "size": "size"},
    "s": {"class": "rnn_cell", "unit": "lstmblock", "n_out": 4, "from": ["embed", "prev:att"]},
    "energy": {"class": "dot", "reduce": "F", "from": ["k", "s"]},
    "w": {"class": "softmax_over_spatial", "axis": "stag:k", "from": "energy"},
    "att": {"class": "dot", "reduce": "stag:k", "from": ["w", "k"], "initial_output": 0},
    "output_prob": prob(["s", "att"]),
}
ROWS["local attention (example G)"] = Row(decoder("", LOCAL).network, frozenset({"att", "energy", "pos", "s", "w"}))


def config_of(row: Row) -> dict[str, Any]:
    shared = {"same_dim_tags_as": {"t": "frames"}}
    frames = {"dim": 4, "available_for_inference": True}
    classes = {"dim": 5, "sparse": True, "available_for_inference": False, **shared}
    return {
        "behavior_version": row.behavior_version,
        "network": row.network,
        "extern_data": {"data": {"dim": 4}, "frames": frames, "classes": classes},
    }


def feed() -> tuple[Feed, Feed]:
    generator = np.random.default_rng(4)
    arrays = {key: generator.normal(size=(2, max(LENGTHS[key]), 4)) for key in ("data", "frames")}
    return {**arrays, "classes": np.array([[1, 3, 2, 4], [2, 4, 1, 3]])}, LENGTHS


def left_in_loop(config: Mapping[str, Any], mode: ModeName = "train") -> set[str]:
    """The layers of the loop `output` that run in a loop after optimisation."""
    built = build(config, mode)
    places = placement(built.graph, optimized(built))
    return {
        path.removeprefix("output/")
        for path, place in places.items()
        if place.where == "loop" and path.startswith("output/")
    }


@pytest.mark.parametrize("name", ROWS)
def test_training(name: str) -> None:
    """Where the layers are, and that optimised = plain = step by step."""
    config = config_of(ROWS[name])
    assert left_in_loop(config) == ROWS[name].stays
    for mode in MODES:
        built = build(config, mode)
        fast, plain = (run(built, optimized(built, enabled), *feed()) for enabled in (True, False))
        assert fast["objective"].array > 1
        assert_equal(*same_sizes(fast, plain))
        if mode == "eval" or not ROWS[name].no_step:
            assert_equal(*same_sizes(plain, run(built, built.graph, *feed())))


def same_sizes(a: Outputs, b: Outputs) -> tuple[Outputs, Outputs]:
    """As much of each as both have; of a dim made in the steps there may be more outside, if all of that is padding."""
    one, other = {}, {}
    for name in a:
        dims = union([a[name], b[name]])
        arrays = [x.over(dims) for x in (a[name], b[name])]
        least = tuple(slice(0, min(sizes)) for sizes in zip(*(x.shape for x in arrays), strict=True))
        for x in arrays:
            rest = x.copy()
            rest[least] = 0
            assert not rest.any(), name
        one[name], other[name] = (Named(x[least], dims) for x in arrays)
    return one, other


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.sees_batch])
def test_a_sequence_alone(name: str) -> None:
    """Neither the padding nor the other sequence changes a layer of the loop."""
    built = build(config_of(ROWS[name]), "eval")
    together = run(built, optimized(built), *feed())
    seen = {key for key in together if key.startswith("layer:output")}
    assert seen
    for sequence in range(2):
        alone = run(built, optimized(built), *cut(sequence))
        for key in seen:
            whole, single = together[key], alone[key]
            part = part_of(whole, sequence, single)
            expected = part_of(Named(single.over(whole.dims), whole.dims), 0, single)
            assert part is not None and expected is not None
            np.testing.assert_allclose(*np.broadcast_arrays(part, expected), rtol=1e-7, atol=1e-7, err_msg=key)


def cut(sequence: int) -> tuple[Feed, Feed]:
    """A batch of one sequence without padding."""
    one, lengths = sequence_of(*feed(), sequence)
    return {key: value[:, : int(lengths[key][0])] for key, value in one.items()}, lengths


@pytest.mark.parametrize("name", ROWS)
def test_search(name: str) -> None:
    """Optimised = plain, or what can't be searched says so in both."""
    row = ROWS[name]
    built = build(config_of(row), "search", targets=False)
    if row.no_search:
        for enabled in (True, False):
            with pytest.raises(ConfigError, match=row.no_search):
                optimized(built, enabled)
        return
    found = [run(built, optimized(built, enabled), *feed()) for enabled in (True, False)]
    assert found[0]["layer:output"].array.any()
    assert_equal(*found)


RISK = {"class": "copy", "from": "output", "target": "classes", "loss": "expected_loss"}
RISK["loss_opts"] = {"loss": {"class": "edit_distance"}, "loss_kind": "error", "norm_scores": True}


@pytest.mark.parametrize(
    ("options", "more", "behind"),
    [({"scheduled_sampling": {"gold_mixin_prob": 0.3}}, {}, set()), ({"search": True}, {"risk": RISK}, {"embed"})],
    ids=["scheduled sampling", "expected loss"],
)
def test_labels_of_the_model_in_training(options: Any, more: Any, behind: set[str]) -> None:
    """Example E: the loop holds what search holds, but has the length of the target; its `end` does not matter."""
    unit = {**ATTENTION, "output": {**CHOICE, **options}, "end": {**LINEAR, "n_out": 1, "from": "readout"}}
    if more:
        unit["output_prob"] = {"class": "softmax", "n_out": 5, "from": "readout"}
    config = config_of(Row(decoder("", unit, more=more).network))
    held = {"output", "readout", "embed", "att", "s", "s_tr", "e_in", "e_tanh", "e", "w"}
    assert left_in_loop(config) == held
    built = build(config, "train")
    found = [run(built, optimized(built, enabled), *feed()) for enabled in (True, False)]
    assert_equal(*found)
    labels = found[0]["layer:output"]
    (beam,) = [size for dim, size in zip(labels.dims, labels.array.shape, strict=True) if "beam" in dim.name] or [0]
    assert (beam, labels.array.shape[-1]) == ((3, 4) if more else (0, 4))
    assert found[0]["objective"].array > 0
