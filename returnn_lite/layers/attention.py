"""Attention over a layer's own frames, and positions (SEMANTICS 4, 8.1).

Self-attention is composed: in a loop the keys and values so far are a history (`CumConcatStep`), whose whole-sequence
form is the sequence itself with frame t seeing the first t + 1; so causality is the length of the history dim, and
there is no mask.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from returnn_lite.config.options import AxisSpec, DimSpec, Init, LayerRef, Unspecified, UnspecifiedType, option
from returnn_lite.dims import Dim, DimKind, Symbol, linear_dim, product_dim
from returnn_lite.ir.ops.axes import AllSteps
from returnn_lite.ir.ops.recurrence import CumConcat, CumConcatStep, EmptyHistory
from returnn_lite.ir.ops.sources import RandomDraw, StepIndex
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.kept import KEPT, kept_parameter
from returnn_lite.layers.loop_axis import axis_or_loop, for_each_sequence
from returnn_lite.layers.search import of_the_best

NOT_SEEN = -1e30
"""The energy of a key that a query does not see: less than any real one, but no infinity."""


def seen_so_far(b: LayerBuilder, x: View, key: str, history: Dim, time: Dim | None) -> View:
    """The frames of x up to this one, along `history`: in a loop those of the steps so far, else those of `time`."""
    zero = False if x.type.dtype == "bool" else 0.0 if x.type.is_float else 0
    if time is not None:
        init = b.apply(EmptyHistory(history), b.constant(zero, x.type.dtype))
        frames, _ = b.emit(CumConcat(time, history), x, init, b.constant(0, "int32"))
        return b.with_time(frames, history)
    example = b.constant_outside(zero, x.type.dtype, tuple(d for d in x.type.dims if d.size is not None))
    with b.ir.at_outer():
        init = b.apply(EmptyHistory(history), example)
    before = b.delay(key, x.type.with_dims(history), init)
    count = b.delay(f"{key}:count", b.constant_outside(0, "int32", ()).type, b.constant_outside(0, "int32", ()))
    frames, after = b.emit(CumConcatStep(history), x, before.now, count.now)
    before.next, count.next = frames, after
    return frames


class SelfAttention(Layer, names=("self_attention",)):
    """Multi-head attention of a sequence to itself (Vaswani et al. 2017, section 3.2), without output projection.

    The parameter QKV has for each head its query, key and value columns in a row. In a loop that goes on step by step
    it needs `attention_left_only`.

    With `initial_state: keep_over_epoch` all see the frames of the batches before in this epoch, too, of the sequence
    in the same place of the batch; with `restrict_state_to_last_seq` of the last batch only (Dai et al. 2019,
    section 3.2).
    """

    joins_sources = True
    to_need_one_step = "Set attention_left_only: true."

    num_heads: int = option("number of heads", least=1)
    total_key_dim: int = option("size of all heads' keys together", least=1)
    key_shift: LayerRef | None = option("relative positions, added to the keys", default=None)
    forward_weights_init: Init = option("initialiser of QKV", default="glorot_uniform")
    attention_dropout: float = option("dropout on the attention weights", default=0.0)
    attention_left_only: bool = option("each frame sees itself and those before only", default=False)
    initial_state: Literal["zeros", "ones", 0, 1, "keep_over_epoch", "keep_over_epoch_no_init"] | None = option(
        "the keys and values before the first step: none, but for what is kept of the batches before", default=None
    )
    restrict_state_to_last_seq: bool = option("what is kept is of the last batch only", default=False)
    state_var_lengths: Any = option(
        "of kept states", default=None, unsupported="it is a tensor of TensorFlow; lengths are known here"
    )

    def build(self, b: LayerBuilder, x: View) -> View:
        out = b.out_feature()
        heads, key, value = self._sizes(b, out)
        query, keys, values = self._projected(b, x, heads, key, value)
        time = x.type.default_time if b.loop is None or x.type.default_time is not None else None
        if time is None and b.loop is None:
            b.fail(f"there is no time axis to attend over: {x.type}", option="from")
        first: View | None = None
        if self.initial_state in KEPT:
            keys, values, history, first = self._with_kept(b, keys, values, time)
        elif self.restrict_state_to_last_seq:
            b.fail("nothing is kept", "Give initial_state: keep_over_epoch.", "restrict_state_to_last_seq")
        elif self.attention_left_only:
            over = (b.loop,) if time is None and b.loop is not None else (time,)
            history = Symbol(f"{b.name}:history", DimKind.SPATIAL, None, tuple(dim for dim in over if dim is not None))
            keys = seen_so_far(b, keys, "keys", history, time)
            values = seen_so_far(b, values, "values", history, time)
        elif time is None:
            if self.key_shift is not None:
                b.fail(
                    "in a loop there are no relative positions of steps that follow",
                    "Set attention_left_only: true, or put the layer outside of the loop.",
                    "key_shift",
                )
            assert b.loop is not None
            history = b.copy_of_dim(b.ir.clock[-1].dim if b.ir.clock else b.loop)
            keys, values = (b.apply(AllSteps(history), for_each_sequence(b, frames)) for frames in (keys, values))
        else:
            history = b.copy_of_dim(time)
            keys, values = (b.relabel(frames, time, history) for frames in (keys, values))
        weights = self._weights(b, query, keys, key, history, time, first)
        attended = b.dot(weights, values, history)
        merged = b.merge_dims(attended, (heads, value), heads_and(heads, value))
        merged = b.relabel(merged, heads_and(heads, value), out)
        return b.marked(merged, out, x.type.time)

    def _sizes(self, b: LayerBuilder, out: Dim) -> tuple[Dim, Dim, Dim]:
        assert out.size is not None
        for size, what in ((self.total_key_dim, "total_key_dim"), (out.size, "n_out")):
            if size % self.num_heads:
                b.fail(f"{what} is {size}, which does not divide by {self.num_heads} heads", "", "num_heads")
        heads = b.new_dim("heads", self.num_heads)
        key = b.new_feature(self.total_key_dim // self.num_heads, "key")
        return heads, key, b.new_feature(out.size // self.num_heads, "value")

    def _projected(self, b: LayerBuilder, x: View, heads: Dim, key: Dim, value: Dim) -> tuple[View, View, View]:
        """Query, keys and values, each with heads and its own feature dim; the query scaled by key size ** -0.5."""
        assert key.size is not None and value.size is not None
        source = b.feature_of(x)
        each = b.new_feature(2 * key.size + value.size, "qkv")
        columns = heads_and(heads, each)
        weights = b.param("QKV", (source, columns), self.forward_weights_init)
        split = b.split_dim(b.dot(x, weights, source), columns, (heads, each))
        keys_dim = b.new_feature(key.size, "key2")
        query, keys, values = b.split(split, each, (key, keys_dim, value))
        query = b.mul(b.with_feature(query, key), key.size**-0.5)
        return query, b.with_feature(b.relabel(keys, keys_dim, key), key), b.with_feature(values, value)

    def _with_kept(self, b: LayerBuilder, keys: View, values: View, time: Dim | None) -> tuple[View, View, Dim, View]:
        """Keys and values after those of the batches before, their dim, and how many there are of the latter."""
        if time is None or b.loop is not None:
            b.fail(f"in a loop there is no {self.initial_state} of keys and values", "Leave it out.", "initial_state")
        if self.key_shift is not None:
            b.fail("there are no relative positions of what is kept", "Leave out one of them.", "key_shift")
        assert isinstance(self.initial_state, str)
        parts = (b.feature_of(keys), b.feature_of(values))
        frames = b.concat_features((keys, values))
        past = b.new_dim("past", over=(b.batch,))
        type_ = frames.type.substitute({time: past})
        parameter = kept_parameter("keep_state", b.batch, type_, self.initial_state)
        before = b.surroundings.parameter(parameter)
        feature, history = b.feature_of(frames), linear_dim([(past, 1), (time, 1)], 0)
        whole = b.concat([(b.marked(before, feature, past), past), (frames, time)], history)
        last, over = of_the_best(b, *((frames, time) if self.restrict_state_to_last_seq else (whole, history)))
        assert over is not None
        b.ir.assign(before, last, over)
        keys, values = (
            b.with_feature(part, dim) for part, dim in zip(b.split(whole, feature, parts), parts, strict=True)
        )
        return keys, values, history, b.length(past)

    def _weights(
        self,
        b: LayerBuilder,
        query: View,
        keys: View,
        key: Dim,
        history: Dim,
        time: Dim | None,
        first: View | None,
    ) -> View:
        """The attention weights. `first` is how many of the keys come before the first query, where some are kept."""
        energy = b.dot(query, keys, key)
        if first is not None and time is not None and self.attention_left_only:
            seen = b.binary("less_equal", b.iota(history), b.add(b.iota(time), first))
            energy = b.select(seen, energy, NOT_SEEN)
        if self.key_shift is not None:
            energy = b.add(energy, self._shift(b, query, key, history, time))
        weights = b.softmax(energy, history)
        if not 0.0 <= self.attention_dropout < 1.0:
            b.fail(f"a dropout rate is at least 0 and below 1, not {self.attention_dropout}", "", "attention_dropout")
        if not self.attention_dropout or not b.mode.train:
            return weights
        draw = RandomDraw(
            "uniform", 0.0, 1.0, weights.type.dims, f"{b.name}:attention_dropout", fresh=b.loop is not None
        )
        keep = 1.0 - self.attention_dropout
        mask = b.select(b.binary("less", b.apply(draw), keep), 1.0 / keep, 0.0)
        return b.mul(weights, mask)

    def _shift(self, b: LayerBuilder, query: View, key: Dim, history: Dim, time: Dim | None) -> View:
        """The query times the encoding of each relative position."""
        assert self.key_shift is not None
        shift = b.layer(self.key_shift)
        feature = b.feature_of(shift)
        if feature.size != key.size:
            b.fail(
                f"key_shift is {shift.type}, but keys have {key}",
                "Its n_out must be the key size of a head.",
                "key_shift",
            )
        dims = [dim for dim in shift.type.dims if dim is not feature]
        own = [dim for dim in dims if dim is not time]
        if len(own) != 1:
            b.fail(f"key_shift needs the dims of query and keys and a feature: {shift.type}", "", "key_shift")
        shift = b.relabel(shift, feature, key)
        if time is not None and self.attention_left_only:
            shift = b.slice(shift, own[0], 0, history)  # frame t sees the first t + 1 keys
        else:
            shift = b.relabel(shift, own[0], history, f"the keys of '{b.name}' and of its key_shift")
        return b.dot(query, shift, key)


def heads_and(heads: Dim, feature: Dim) -> Dim:
    """Heads and a head's features as one feature dim."""
    return product_dim((heads, feature))


def sinusoids(b: LayerBuilder, position: View, feature: Dim) -> View:
    """sin and cos of position / timescale; timescales from 1 to 10,000, geometric; an odd last feature is 0."""
    assert feature.size is not None
    half = feature.size // 2
    if half == 0:
        return b.expand(b.constant(0.0), feature, *position.type.dims)
    scales = b.new_dim("scales", half)
    step = math.log(1e4) / max(half - 1, 1)
    rate = b.unary("exp", b.mul(b.cast(b.iota(scales), "float32"), -step))
    angle = b.mul(b.cast(position, "float32"), rate)
    parts = [(b.unary("sin", angle), scales), (b.unary("cos", angle), scales)]
    if feature.size % 2:
        rest = b.new_dim("rest", 1)
        parts.append((b.expand(b.constant(0.0), rest), rest))
    return b.concat(parts, feature)


class RelativePositionalEncoding(Layer, names=("relative_positional_encoding",)):
    """A vector for each distance between two frames, clipped (Shaw et al. 2018, section 3.2): the rows of a parameter,
    or sinusoids of their numbers (`fixed`).

    Outside of loops it has the source's time twice (queries, keys); in a loop the keys are the steps so far.
    """

    source_count = (1, 1)

    n_out: int | None = option("size of a vector", default=None)
    out_dim: Dim | int | None = option("the feature dim", default=None)
    forward_weights_init: Init = option("initialiser", default="glorot_uniform")
    clipping: int = option("the largest distance that has a vector of its own", default=16, least=0)
    fixed: bool = option("sinusoids instead of a parameter", default=False)
    query_spatial_dim: AxisSpec | UnspecifiedType | None = option("the queries' axis", default=Unspecified)
    key_value_spatial_dim: AxisSpec | UnspecifiedType | None = option("the keys' axis", default=Unspecified)
    query_offset: int | UnspecifiedType = option(
        "the position of the first query; default 0, in a loop the number of the step", default=Unspecified
    )

    def build(self, b: LayerBuilder, x: View) -> View:
        size = self.out_dim if self.out_dim is not None else self.n_out
        if size is None:
            b.fail("the size of the vectors is missing", "Give n_out.", "n_out")
        feature = size if isinstance(size, Dim) else b.new_feature(size)
        rows = b.new_dim("distances", 2 * self.clipping + 1)
        if self.fixed:
            matrix = sinusoids(b, b.iota(rows), feature)
        else:
            matrix = b.param("encoding_matrix", (rows, feature), self.forward_weights_init)
        query, keys = self._positions(b, x)
        distance = b.sub(keys, query)
        row = b.add(b.binary("maximum", b.binary("minimum", distance, self.clipping), -self.clipping), self.clipping)
        return b.with_feature(b.gather(matrix, row, rows, clip=True), feature)

    def _positions(self, b: LayerBuilder, x: View) -> tuple[View, View]:
        """The positions of queries and of keys."""
        time = x.type.default_time
        if self.query_spatial_dim is not Unspecified and self.query_spatial_dim is not None:
            time = b.axis(self.query_spatial_dim, x)
        if time is not None:
            given = self.key_value_spatial_dim
            query = b.iota(time)
            keys = b.iota(given) if isinstance(given, Dim) else b.relabel(query, time, b.copy_of_dim(time))
            return (query if self.query_offset is Unspecified else b.add(query, self.query_offset)), keys
        if b.loop is None:
            b.fail(f"the source has no time: {x.type}", "", "from")
        history = Symbol(f"{b.name}:history", DimKind.SPATIAL, None, (b.loop,))
        step = b.apply(StepIndex())
        keys = seen_so_far(b, step, "positions", history, None)
        return (step if self.query_offset is Unspecified else b.constant(self.query_offset, "int32")), keys


class PositionalEncoding(Layer, names=("positional_encoding",)):
    """Sinusoids of the position (Vaswani et al. 2017, section 3.5): first all sines, then all cosines.

    In a loop the position is the number of the executed step.
    """

    joins_sources = True
    keeps_type_of = "from"

    axis: AxisSpec | UnspecifiedType = option("the axis that is counted; default the time axis", default=Unspecified)
    add_to_input: bool = option("adds the source", default=False)
    constant: int | LayerRef = option("the same position everywhere, if not negative", default=-1)
    offset: LayerRef | int | None = option("added to the position", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        feature = b.feature_of(x)
        if not self.add_to_input:
            feature = b.surroundings.out_feature() or feature
        if feature.size is None:
            b.fail(f"the number of features is not known: {x.type}", "Give n_out on the source.", "from")
        table = sinusoids(b, self._position(b, x), feature)
        if not self.add_to_input:
            return b.with_feature(table, feature)
        return b.add(x, b.cast(table, x.type.dtype))

    def _position(self, b: LayerBuilder, x: View) -> View:
        if isinstance(self.constant, str):
            position = b.layer(self.constant)
        elif self.constant >= 0:
            position = b.constant(self.constant, "int32")
        else:
            position = self._counted(b, x)
        if self.offset is None:
            return position
        offset = b.layer(self.offset) if isinstance(self.offset, str) else self.offset
        return b.add(position, offset)

    def _counted(self, b: LayerBuilder, x: View) -> View:
        time = x.type.default_time if self.axis is Unspecified else axis_or_loop(b, self.axis, x)
        if time is not None and time is not b.loop:
            return b.iota(time)
        if b.loop is None:
            b.fail(f"the source has no time axis: {x.type}", "Give 'axis' or 'constant'.", "axis")
        return b.apply(StepIndex())


class CumConcatLayer(Layer, names=("cum_concat",)):
    """The frames of all steps so far along a new axis."""

    joins_sources = True

    out_spatial_dim: DimSpec | None = option("the new axis (a dynamic Dim)", default=None)
    axis: AxisSpec | None = option("the axis that is counted; default the time axis, or the loop", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        found = x.type.default_time if self.axis is None else axis_or_loop(b, self.axis, x)
        time = found if found in x.type.dims else None
        if time is None and b.loop is None:
            b.fail(f"the source has no time axis: {x.type}", "", "axis")
        over = time if time is not None else b.loop
        assert over is not None
        given = self.out_spatial_dim
        if given is not None and not (isinstance(given, Dim) and given.size is None):
            b.fail(f"the new axis is dynamic, so it can't be {given}", "give a dynamic Dim", "out_spatial_dim")
        history = given if isinstance(given, Dim) else Symbol(f"{b.name}:history", DimKind.SPATIAL, None, (over,))
        history.settle((over,))
        return seen_so_far(b, x, "frames", history, time)


LAYERS = (SelfAttention, RelativePositionalEncoding, PositionalEncoding, CumConcatLayer)
