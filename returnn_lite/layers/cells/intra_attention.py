"""A cell that attends to its own last outputs (Cheng et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, DimKind, MarkedType, Symbol, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit
from returnn_lite.layers.cells.wrapping import Wrapper, below


@dataclass(frozen=True)
class _Memory:
    """The last outputs, oldest first: `rows` of `of` features, which are one dim, `flat`, in the state."""

    flat: Dim
    rows: Dim
    of: Dim

    @property
    def width(self) -> int:
        assert self.of.size is not None
        return self.of.size

    def rows_of(self, b: CellBuilder, state: View) -> View:
        return b.with_feature(b.split_dim(state, self.flat, (self.rows, self.of)), self.of)

    def with_output(self, b: CellBuilder, state: View, output: View) -> View:
        """The memory without its oldest row, and with an output as the last one."""
        assert self.rows.size is not None
        if self.rows.size == 1:
            return b.with_feature(b.relabel(output, self.of, self.flat, "a memory of one output"), self.flat)
        newer = b.dim("newer", (self.rows.size - 1) * self.width)
        kept = b.slice(state, self.flat, self.width, newer)
        return b.with_feature(b.concat([(kept, newer), (output, self.of)], self.flat), self.flat)


class IntraAttention(Wrapper, names=("intraattention", "attentioncellwrapper", "tf.attention")):
    """The cell reads [x, a] kernel + bias, where a is what the step before found in the memory of the last outputs.

    With the cell's new states q, joined by the order of their names (c, then h), the rows M_l of the memory before this
    step have the scores sum(attn_v * tanh(M_l attn_w + q kernel + bias)), and a' is their mean by the softmax of these;
    rows that no step has filled yet are zeros, and count. The output, [y, a'] kernel + bias, goes into the memory.
    """

    paper = "Cheng et al. 2016"

    attn_length: int = option("how many outputs the memory has", least=1)
    attn_size: int | None = option("size of the output; default: that of the cell inside", default=None, least=1)
    attn_vec_size: int | None = option("size of what scores are made of; default: attn_size", default=None, least=1)
    input_size: int | None = option("how many features the cell reads; default: as the source", default=None, least=1)
    state_is_tuple: bool = option("has no influence on results: states have names", default=True)

    def state_keys(self) -> tuple[str, ...]:
        return (*super().state_keys(), "context", "memory")

    def out_size(self) -> int | None:
        return self.attn_size or self.cell.out_size()

    def out_size_on(self, x: MarkedType) -> int | None:
        return self.attn_size or self._size_inside(x)

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        return {**self._dims_inside(b, x, out), "context": (out,), "memory": (self._memory(b, out).flat,)}

    def _dims_inside(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        """Those of the states of the cell inside."""
        return below("cell", self.cell.states(b.inside("cell"), self._read(b, x), self._hidden(b, x, out)))

    def output(self, b: CellBuilder, x: MarkedType, out: Dim) -> tuple[Dim, ...]:
        return (*b.places(x), out)

    def _read(self, b: CellBuilder, x: MarkedType) -> MarkedType:
        """What the cell inside reads."""
        source = self._source(b, x.sparse or x.feature)
        return MarkedType((*(dim for dim in x.dims if dim is not x.feature), source), feature=source)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        if b.places(x.type):
            b.fail(f"the memory is of outputs without spatial dims, not of {x.type}", "Merge the dims of the source.")
        source, hidden, memory = self._source(b, b.source(x)), self._hidden(b, x.type, out), self._memory(b, out)
        context = b.dim("context", memory.width)
        dims = self._dims_inside(b, x.type, out)
        if unsized := [key for key, own in dims.items() if any(dim.size is None for dim in own)]:
            b.fail(f"the memory is asked with all states, but how long '{unsized[0]}' is differs", "")
        of_x, of_context = b.kernel_parts("kernel", (b.source(x), context), source)
        projected = b.input_product(x, of_x, b.param("bias", (source,), b.inits.bias))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            found = _along(b, before["context"], context)
            read = b.add(now[0], b.dot(found, of_context, context))
            y, after = self.inner_step(b, b.with_feature(read, source), hidden, before)
            found = self._found(b, memory.rows_of(b, before["memory"]), memory, after, dims)
            output = self._output(b, y, hidden, found, out)
            return output, {**after, "context": found, "memory": memory.with_output(b, before["memory"], output)}

        return Unit((projected,), step)

    def _found(self, b: CellBuilder, rows: View, memory: _Memory, states: States, dims: DimsOfStates) -> View:
        """The mean of the rows by how well they fit the states, which have these dims."""
        vectors, remembered = b.dim("vectors", self.attn_vec_size or memory.width), b.dim("remembered", memory.width)
        weights = b.param("attention/attn_w", (remembered, vectors), b.inits.input)
        keys = b.dot(_along(b, rows, remembered), weights, remembered)
        fit = b.unary("tanh", b.add(keys, self._query(b, states, dims, vectors)))
        scores = b.dot(fit, b.param("attention/attn_v", (vectors,), b.inits.input), vectors)
        return b.with_feature(b.dot(b.softmax(scores, memory.rows), rows, memory.rows), memory.of)

    def _query(self, b: CellBuilder, states: States, dims: DimsOfStates, vectors: Dim) -> View:
        """All states of the cell inside, joined, through a linear layer."""
        parts = [_flat(b, states[key], dims[key]) for key in sorted(states, key=_place)]
        queries = [b.dim(f"query{i}", b.feature_of(part).size or 0) for i, part in enumerate(parts)]
        named = [(_along(b, part, dim), dim) for part, dim in zip(parts, queries, strict=True)]
        return _linear(b, "attention", named, vectors)

    def _output(self, b: CellBuilder, y: View, hidden: Dim, found: View, out: Dim) -> View:
        context = b.dim("found", b.feature_of(found).size or 0)
        both = [(y, hidden), (_along(b, found, context), context)]
        return b.with_feature(_linear(b, "attn_output_projection", both, out), out)

    def _source(self, b: CellBuilder, of: Dim | None) -> Dim:
        return b.dim("source", self.input_size or (of.size if of is not None else None))

    def _hidden(self, b: CellBuilder, x: MarkedType, out: Dim) -> Dim:
        size = self._size_inside(x) or out.size
        assert size is not None
        return b.dim("hidden", size)

    def _size_inside(self, x: MarkedType) -> int | None:
        """How many features the output of the cell inside has; None if the layer says it."""
        of = x.sparse or x.feature
        source = Symbol("source", DimKind.FEATURE, self.input_size or (of.size if of is not None else None))
        return self.cell.out_size_on(MarkedType((source,), feature=source))

    def _memory(self, b: CellBuilder, out: Dim) -> _Memory:
        assert out.size is not None
        flat, rows = b.dim("memory", self.attn_length * out.size), b.dim("outputs", self.attn_length)
        return _Memory(flat, rows, out)


def _along(b: CellBuilder, value: View, dim: Dim) -> View:
    """A value with another name for its feature dim: a product or a matrix can't have a dim twice."""
    return b.relabel(value, b.feature_of(value), dim, "what a cell attends with")


def _flat(b: CellBuilder, state: View, dims: tuple[Dim, ...]) -> View:
    """A state with these dims as one vector: a cell may have one at each step along frequency."""
    if len(dims) == 1:
        return state
    flat = linear_dim([(dims[-1], prod(dim.size or 0 for dim in dims[:-1]))], 0)
    return b.with_feature(b.merge_dims(state, dims, flat), flat)


def _linear(b: CellBuilder, name: str, parts: Sequence[tuple[View, Dim]], out: Dim) -> View:
    """Joined parts through a linear layer with parameters of its own."""
    joined = linear_dim([(dim, 1) for _, dim in parts], 0)
    weights = b.param(f"{name}/kernel", (joined, out), b.inits.input)
    return b.add(b.dot(b.concat(parts, joined), weights, joined), b.param(f"{name}/bias", (out,), b.inits.bias))


def _place(key: str) -> tuple[tuple[bool, int, str], ...]:
    """The place of a state in the order of names, those that are numbers by their size."""
    return tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in key.split("/"))


CELLS = (IntraAttention,)
