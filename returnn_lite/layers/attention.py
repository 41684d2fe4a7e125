"""Attention over a layer's own frames (SEMANTICS 4, 8.1).

It is composed: in a loop the keys and values so far are a history (`CumConcatStep`), whose whole-sequence form is the
sequence itself with frame t seeing the first t + 1; so causality is the length of the history dim, and there is no
mask.
"""

from __future__ import annotations

from typing import Any, Literal

from returnn_lite.config.options import Init, LayerRef, option
from returnn_lite.dims import Dim, DimKind, Symbol, linear_dim, product_dim
from returnn_lite.ir.ops.axes import AllSteps
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.histories import seen_so_far
from returnn_lite.layers.kept import KEPT, kept_parameter
from returnn_lite.layers.loop_axis import for_each_sequence
from returnn_lite.layers.search import of_the_best

NOT_SEEN = -1e30
"""The energy of a key that a query does not see: less than any real one, but no infinity."""


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


LAYERS = (SelfAttention,)
