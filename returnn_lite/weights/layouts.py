"""How systems keep the weights of an LSTM, GRU or multiplicative LSTM: names, orders of gates, rows or columns.

What is read and written with one layout is the same, bit for bit. From one to another only what has to be a sum is
rounded: a forget bias that one adds at run time and the other not, and two biases where the other has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from returnn_lite.lazy_numpy import np
from returnn_lite.weights.gates import Gates, WeightsError, blocks, joined, transposed

if TYPE_CHECKING:
    from returnn_lite.weights.gates import Array

CELL_LAST = ("input", "forget", "output", "cell")
CELL_THIRD = ("input", "forget", "cell", "output")
CELL_SECOND = ("input", "cell", "forget", "output")
CELL_FIRST = ("cell", "input", "forget", "output")
RESET_FIRST = ("reset", "update", "candidate")
UPDATE_FIRST = ("update", "reset", "candidate")


@dataclass(frozen=True)
class Group:
    """Arrays that hold some gates as blocks in this order: the matrices of the input and of the state, or one with the
    rows of both; and one or two biases."""

    order: tuple[str, ...]
    kernels: tuple[str, ...]
    biases: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """One way to keep a cell's weights. `more` has the names of a cell's own parameters (`Gates.more`).

    `by_rows`: gates are blocks of rows [k n, in], not of columns [in, k n]. `stacked`: both biases are the rows of one
    array. `forget_bias` is what the system adds at run time unless told otherwise.
    """

    kind: str
    groups: tuple[Group, ...]
    by_rows: bool = False
    stacked: bool = False
    forget_bias: float = 0.0
    reset_after: bool = False
    more: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """The arrays that are always there."""
        return tuple(name for group in self.groups for name in (*group.kernels, *group.biases))


def _lstm(order: tuple[str, ...], kernels: Sequence[str], biases: Sequence[str], **options: object) -> Layout:
    return Layout("lstm", (Group(order, tuple(kernels), tuple(biases)),), **options)  # type: ignore[arg-type]


PEEPHOLES = ("peephole_input", "peephole_forget", "peephole_output")
DIAGONALS = dict(zip(PEEPHOLES, ("w_i_diag", "w_f_diag", "w_o_diag"), strict=True))
TF_GATES = Group(("reset", "update"), ("gates/kernel",), ("gates/bias",))
PYTORCH = (("weight_ih_l0", "weight_hh_l0"), ("bias_ih_l0", "bias_hh_l0"))
KERAS = ("kernel", "recurrent_kernel")
MULTIPLICATIVE = {"alpha": "alpha", "beta_recurrent": "beta1", "beta_input": "beta2", "shift": "b"}
LAYOUTS: Mapping[str, Mapping[str, Layout]] = {
    "lstm": {
        "returnn": _lstm(CELL_FIRST, ("W", "W_re"), ("b",)),
        "returnn_low_memory": _lstm(CELL_FIRST, ("W",), ("b",)),
        "tensorflow": _lstm(
            CELL_SECOND,
            ("kernel",),
            ("bias",),
            forget_bias=1.0,
            more={**DIAGONALS, "projection": "projection/kernel"},
        ),
        "tensorflow_block": _lstm(
            CELL_SECOND, ("w",), ("b",), forget_bias=1.0, more=dict(zip(PEEPHOLES, ("wci", "wcf", "wco"), strict=True))
        ),
        "tensorflow_block_v2": _lstm(
            CELL_THIRD, ("w",), ("b",), more=dict(zip(PEEPHOLES, ("wci", "wcf", "wco"), strict=True))
        ),
        "keras": _lstm(CELL_THIRD, KERAS, ("bias",)),
        "pytorch": _lstm(CELL_THIRD, *PYTORCH, by_rows=True, more={"projection": "weight_hr_l0"}),
        "caffe2": _lstm(CELL_LAST, ("i2h_w", "gates_t_w"), ("i2h_b", "gates_t_b"), by_rows=True),
    },
    "gru": {
        "tensorflow": Layout("gru", (TF_GATES, Group(("candidate",), ("candidate/kernel",), ("candidate/bias",)))),
        "tensorflow_reset_after": Layout(
            "gru",
            (
                TF_GATES,
                Group(
                    ("candidate",),
                    ("candidate/input_projection/kernel", "candidate/hidden_projection/kernel"),
                    ("candidate/input_projection/bias", "candidate/hidden_projection/bias"),
                ),
            ),
            reset_after=True,
        ),
        "keras": Layout("gru", (Group(UPDATE_FIRST, KERAS, ("bias",)),), stacked=True, reset_after=True),
        "keras_reset_before": Layout("gru", (Group(UPDATE_FIRST, KERAS, ("bias",)),)),
        "pytorch": Layout("gru", (Group(RESET_FIRST, *PYTORCH),), by_rows=True, reset_after=True),
    },
    "milstm": {
        "caffe2": Layout(
            "milstm",
            (Group(CELL_LAST, ("i2h_w", "prev_t_w"), ("i2h_b", "prev_t_b")),),
            by_rows=True,
            more=MULTIPLICATIVE,
        ),
    },
}
"""By kind of cell and system."""


def layout_of(kind: str, system: str) -> Layout:
    """Raises WeightsError for one that does not exist."""
    if kind not in LAYOUTS:
        raise WeightsError(f"there is no kind of cell '{kind}'; there are {', '.join(LAYOUTS)}")
    if system not in LAYOUTS[kind]:
        raise WeightsError(f"a {kind} has no layout '{system}'; it has {', '.join(LAYOUTS[kind])}")
    return LAYOUTS[kind][system]


def read(arrays: Mapping[str, Array], layout: Layout, forget_bias: float | None = None) -> Gates:
    """The weights gate by gate. `forget_bias` is what is added at run time, if not what the layout says.

    Raises WeightsError if an array is missing, or does not fit.
    """
    found: dict[str, dict[str, Array]] = {"input": {}, "recurrent": {}, "bias": {}, "recurrent_bias": {}}
    for group in layout.groups:
        biases = [_array(arrays, name) for name in group.biases]
        if layout.stacked:
            biases = list(biases[0])
        for part, bias in zip(("bias", "recurrent_bias"), biases, strict=False):
            found[part] |= blocks(bias, group.order)
        units = biases[0].shape[-1] // len(group.order)
        kernels = [_array(arrays, name) for name in group.kernels]
        if len(kernels) == 1:
            rows = kernels[0].shape[0] - _state_size(arrays, layout, units)
            kernels = [kernels[0][:rows], kernels[0][rows:]]
        for part, kernel in zip(("input", "recurrent"), kernels, strict=True):
            found[part] |= _by_gate(kernel, group, layout)
    more = {ours: _array(arrays, name) for ours, name in layout.more.items() if name in arrays}
    if layout.by_rows and "projection" in more:
        more["projection"] = more["projection"].T
    added = layout.forget_bias if forget_bias is None else forget_bias
    return Gates(layout.kind, **found, forget_bias=added, reset_after=layout.reset_after, more=_of_gates(more, layout))


def write(gates: Gates, layout: Layout, forget_bias: float | None = None) -> dict[str, Array]:
    """The arrays of a layout. `forget_bias` is what will be added at run time, if not what the layout says.

    Raises WeightsError for what the layout can't hold.
    """
    _check(gates, layout)
    added = gates.forget_bias - (layout.forget_bias if forget_bias is None else forget_bias)
    found: dict[str, Array] = {}
    for group in layout.groups:
        kernels = [_in_blocks(part, group, layout) for part in (gates.input, gates.recurrent)]
        whole = [np.concatenate(kernels)] if len(group.kernels) == 1 else kernels
        found |= dict(zip(group.kernels, whole, strict=True))
        vectors = [joined(bias, group.order) for bias in _biases(gates, group, layout, added)]
        if layout.stacked:
            vectors = [np.stack(vectors)]
        found |= dict(zip(group.biases, vectors, strict=True))
    for ours, array in _in_one(gates.more, layout).items():
        found[layout.more[ours]] = array.T if layout.by_rows and ours == "projection" else array
    return found


def convert(arrays: Mapping[str, Array], kind: str, source: str, target: str) -> dict[str, Array]:
    """The arrays of one system as those of another. Raises WeightsError."""
    return write(read(arrays, layout_of(kind, source)), layout_of(kind, target))


def _array(arrays: Mapping[str, Array], name: str) -> Array:
    if name not in arrays:
        raise WeightsError(f"there is no '{name}'; there are {', '.join(arrays)}")
    return np.asarray(arrays[name])


def _state_size(arrays: Mapping[str, Array], layout: Layout, units: int) -> int:
    """The size of h, whose rows are the last of a joint kernel: that of the projection, if there is one."""
    projection = layout.more.get("projection", "")
    return int(arrays[projection].shape[-1]) if projection in arrays else units


def _by_gate(kernel: Array, group: Group, layout: Layout) -> dict[str, Array]:
    return transposed(blocks(kernel, group.order, 0)) if layout.by_rows else blocks(kernel, group.order)


def _in_blocks(gates: Mapping[str, Array], group: Group, layout: Layout) -> Array:
    return joined(transposed(gates), group.order, 0) if layout.by_rows else joined(gates, group.order)


def _check(gates: Gates, layout: Layout) -> None:
    if gates.kind != layout.kind:
        raise WeightsError(f"weights of a {gates.kind} are none of a {layout.kind}")
    if gates.reset_after != layout.reset_after:
        when = "after" if gates.reset_after else "before"
        raise WeightsError(f"a GRU that resets {when} the product is another function than one of this layout")
    lacking = {name.partition("/")[0] for name in gates.more} - set(layout.more)
    if lacking:
        raise WeightsError(f"the layout has no place for {', '.join(sorted(lacking))}")


def _biases(gates: Gates, group: Group, layout: Layout, added: float) -> list[dict[str, Array]]:
    """The biases of a group, as many as it has; with what is `added` to the forget gate at run time, in the second one
    if that is 0, so that nothing is rounded."""
    first = {gate: gates.bias[gate] for gate in group.order}
    second = {gate: gates.recurrent_bias.get(gate, np.zeros_like(bias)) for gate, bias in first.items()}
    if not layout.stacked and len(group.biases) == 1:
        if layout.reset_after and "candidate" in first:
            raise WeightsError("a GRU that resets after the product has two biases")
        first = {gate: bias + second[gate] if gate in gates.recurrent_bias else bias for gate, bias in first.items()}
        second = {}
    if added and "forget" in first:
        into = second if second and not second["forget"].any() else first
        into["forget"] = into["forget"] + np.asarray(added, into["forget"].dtype)
    return [first, second] if second else [first]


def _of_gates(more: Mapping[str, Array], layout: Layout) -> dict[str, Array]:
    """The cell's own parameters, those of all gates cut into each: `alpha/forget`."""
    if layout.kind != "milstm":
        return dict(more)
    order = layout.groups[0].order
    return {f"{name}/{gate}": block for name, whole in more.items() for gate, block in blocks(whole, order).items()}


def _in_one(more: Mapping[str, Array], layout: Layout) -> dict[str, Array]:
    """The same as the system keeps them."""
    if layout.kind != "milstm":
        return dict(more)
    order = layout.groups[0].order
    names = dict.fromkeys(name.partition("/")[0] for name in more)
    return {name: joined({gate: more[f"{name}/{gate}"] for gate in order}, order) for name in names}
