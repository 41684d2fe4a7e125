"""Recurrent cells that attend to an encoder in each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from returnn_lite.config.options import LayerRef, option
from returnn_lite.dims import Dim, MarkedType, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell, InnerCell
from returnn_lite.layers.cells.energies import Encoder, Kind, encoder_of, energy_of
from returnn_lite.layers.cells.lstm import Lstm
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit
from returnn_lite.layers.cells.wrapping import unit_on


class Attending(Cell):
    """Base of the cells that attend to the frames of an encoder.

    In a step the cell inside sees the context of the step before. Its new output is the query, as in Luong et al.
    2015; the context after the step is the sum of the frames by the softmax of their energies, and the coverage what
    these weights sum up to so far.
    """

    paper = "Bahdanau et al. 2014"
    old_options: ClassVar[Mapping[str, str]] = {
        **Cell.old_options,
        "attention_type": "kind",
        "decoder_state_dim": "units",
        "encoder_outputs": "encoder",
        "weighted_encoder_outputs": "encoder_keys",
        "keys": "encoder_keys",
    }
    folder: ClassVar[str] = ""
    """What the names of the states of the cell inside begin with."""

    encoder: LayerRef = option("the layer whose frames are attended to")
    encoder_keys: LayerRef | None = option("keys of the frames; default: a product, keys/W and keys/b", default=None)
    kind: Kind = option("what the energies are made of", default="regular")
    key_size: int | None = option("size of keys and query; default: that of the frames", default=None, least=1)
    with_context: bool = option("whether the output is [h; context], not h", default=False)

    @classmethod
    def renamed(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        found = super().renamed(options)
        if isinstance(kind := found.get("kind"), str):
            found["kind"] = {"softcoverage": "soft_coverage"}.get(kind.lower(), kind.lower())
        return found

    @property
    def inner(self) -> Cell:
        """The cell inside."""
        raise TypeError(f"{type(self).__name__} has no cell inside")

    def builder_of_inner(self, b: CellBuilder) -> CellBuilder:
        """What the cell inside makes its parameters with."""
        return b

    @property
    def context_is_beside_h(self) -> bool:
        """Whether the cell inside sees the context beside its h, else beside its source."""
        return True

    def state_keys(self) -> tuple[str, ...]:
        own = ("context", "coverage") if self.kind == "soft_coverage" else ("context",)
        return (*(self.folder + key for key in self.inner.state_keys()), *own)

    def input_names(self) -> tuple[str, ...]:
        return self.inner.input_names()

    def out_size(self) -> int | None:
        return None if self.with_context else self._size_of_h

    @property
    def _size_of_h(self) -> int | None:
        return self.inner.out_size() if self.units is None else self.units

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        encoder = self._encoder(b, x)
        seen = x if self.context_is_beside_h else _joined(x, encoder.features)
        of_inner = self.inner.states(self.builder_of_inner(b), seen, self._hidden(b, encoder, out))
        found = {self.folder + key: dims for key, dims in of_inner.items()} | {"context": (encoder.features,)}
        return found | ({"coverage": (encoder.frames,)} if self.kind == "soft_coverage" else {})

    def unit_of_inputs(self, b: CellBuilder, inputs: Sequence[View], out: Dim) -> Unit:
        x = inputs[-1]
        encoder = self._encoder(b, x.type)
        hidden, frames = self._hidden(b, encoder, out), encoder.frames
        if not self.context_is_beside_h and x.type.sparse is not None:
            hint = "Put a linear layer before it, or let the context be beside h: context: recurrent."
            b.fail(f"the context can't be joined to the source, which has labels: {x.type}", hint)
        energy = energy_of(b, self.kind, encoder, hidden, self.key_size)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            h, states = self._inner_step(b, now, hidden, before)
            weights = b.softmax(energy(h, before), frames)
            context = b.as_features(b.dot(weights, encoder.values, frames), encoder.features)
            after = {**states, "context": context}
            if self.kind == "soft_coverage":
                after["coverage"] = b.add(before["coverage"], weights)
            if not self.with_context:
                return h, after
            both = b.concat_features((h, context))
            return b.with_feature(b.relabel(both, b.feature_of(both), out, "h and context"), out), after

        return Unit(tuple(inputs), step)

    def _inner_step(self, b: CellBuilder, now: Sequence[View], hidden: Dim, before: States) -> tuple[View, States]:
        own = {key: before[self.folder + key] for key in self.inner.state_keys()}
        inside, context = self.builder_of_inner(b), before["context"]
        if self.context_is_beside_h:
            inside = inside.seeing(context)
        else:
            now = (*now[:-1], b.concat_features((now[-1], context)))
        unit = unit_on(inside, self.inner, now, hidden)
        h, after = unit.step(unit.inputs, own)
        return h, {self.folder + key: value for key, value in after.items()}

    def _encoder(self, b: CellBuilder, x: MarkedType) -> Encoder:
        if self.kind == "dot" and (self.encoder_keys or self.key_size):
            b.fail("dot: the frames themselves are the keys", "Leave out keys and key_size.")
        return encoder_of(b, self.encoder, self.encoder_keys, x)

    def _hidden(self, b: CellBuilder, encoder: Encoder, out: Dim) -> Dim:
        """The dim of h: the output's, or what is left of that without the context."""
        if not self.with_context:
            return out
        size, whole, of_context = self._size_of_h, out.size, encoder.features.size
        assert whole is not None and of_context is not None
        if whole <= of_context or size not in (None, whole - of_context):
            wanted = f"those of h and {of_context} of the context"
            b.fail(f"the output has {whole} features, not {wanted}", "Give n_out as the sum.")
        return b.dim("decoder", whole - of_context)


def _joined(x: MarkedType, context: Dim) -> MarkedType:
    """The type of a frame of the source and the context."""
    assert x.feature is not None
    both = linear_dim([(x.feature, 1), (context, 1)], 0)
    return MarkedType((both,), feature=both)


class LstmAttention(Attending, names=("lstmattention", "attentionlstm", "lstmwithattention")):
    """An LSTM with attention: its W_re [n+context, 4n] sees [h; context]. keys/W, query/W, v are the attention's."""

    forget_bias: float = option("what is added to the forget gate", default=0.0)

    @property
    def inner(self) -> Cell:
        return Lstm(forget_bias=self.forget_bias)


class Attention(
    Attending,
    names=("attention", "caffe2.attention", "milstmwithattention"),
    presets={
        "caffe2.attention": {"context": "recurrent"},
        "milstmwithattention": {"context": "recurrent", "cell": "milstm"},
    },
):
    """Any cell with attention; its states and parameters are below `cell/`. keys/W, query/W, v are the attention's."""

    folder = "cell/"

    units: int | None = option(
        "of the cell inside", default=None, unsupported="a wrapper has no size of its own. Say it of the cell inside"
    )
    cell: InnerCell = option("the cell")
    context: Literal["input", "recurrent"] = option(
        "what the cell sees the context beside: its source, or h, where it can", default="input"
    )

    @property
    def inner(self) -> Cell:
        return self.cell

    def builder_of_inner(self, b: CellBuilder) -> CellBuilder:
        return b.inside("cell")

    @property
    def context_is_beside_h(self) -> bool:
        return self.context == "recurrent"

    def unit_of_inputs(self, b: CellBuilder, inputs: Sequence[View], out: Dim) -> Unit:
        if self.context_is_beside_h and not self.cell.sees_beside_h:
            name = self.cell.called
            b.fail(f"context: {name} can't see it beside h", "Leave it out: it is beside the source then.")
        return super().unit_of_inputs(b, inputs, out)


CELLS = (LstmAttention, Attention)
