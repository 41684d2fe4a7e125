"""From the arrays of a layout to weights gate by gate, and back.

What is read and written with one layout is the same, bit for bit. From one to another only what has to be a sum is
rounded: a forget bias that one adds at run time and the other not, two biases where the other has one, and the biases
of a multiplicative LSTM's products, which are parts of its vectors elsewhere. `sums` says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from returnn_lite.lazy_numpy import np
from returnn_lite.weights.gates import Gates, WeightsError, blocks, joined, transposed
from returnn_lite.weights.layouts import Group, Layout, layout_of

if TYPE_CHECKING:
    from returnn_lite.weights.gates import Array, ByGate


def read(arrays: Mapping[str, Array], layout: Layout, forget_bias: float | None = None) -> Gates:
    """The weights gate by gate. `forget_bias` is what is added at run time, if not what the layout says. A cell may
    have no bias.

    Raises WeightsError if an array is missing, or does not fit.
    """
    found: dict[str, dict[str, Array]] = {"input": {}, "recurrent": {}, "bias": {}, "recurrent_bias": {}}
    has_bias = any(name in arrays for name in layout.biases)
    for group in layout.groups:
        biases = [_array(arrays, name) for name in group.biases if has_bias]
        if layout.stacked and has_bias:
            biases = _rows(biases[0], group.biases[0])
        for part, bias in zip(("bias", "recurrent_bias"), biases, strict=False):
            found[part] |= blocks(bias, group.order)
        kernels = [_matrix(arrays, name) for name in group.kernels]
        if len(kernels) == 1:
            units = kernels[0].shape[-1] // len(group.order)
            rows = kernels[0].shape[0] - _state_size(arrays, layout, units)
            kernels = [kernels[0][:rows], kernels[0][rows:]]
        for part, kernel in zip(("input", "recurrent"), kernels, strict=True):
            found[part] |= _by_gate(kernel, group, layout)
    required = layout.names(with_bias=has_bias)
    more = {ours: _array(arrays, name) for ours, name in layout.more.items() if name in arrays or name in required}
    if layout.by_rows and "projection" in more:
        more["projection"] = more["projection"].T
    added = layout.forget_bias if forget_bias is None else forget_bias
    gates = Gates(layout.kind, **found, forget_bias=added, reset_after=layout.reset_after, more=_of_gates(more, layout))
    gates.check()
    return gates


def write(gates: Gates, layout: Layout, forget_bias: float | None = None) -> dict[str, Array]:
    """The arrays of a layout. `forget_bias` is what will be added at run time, if not what the layout says. A cell
    without a bias has none there, unless something is added to it.

    Raises WeightsError for what the layout can't hold.
    """
    _check(gates, layout)
    added = gates.forget_bias - (layout.forget_bias if forget_bias is None else forget_bias)
    gates = gates.with_bias() if added else gates
    gates = _integrated(gates, layout, added) if gates.kind == "milstm" and gates.has_bias else gates
    found: dict[str, Array] = {}
    for group in layout.groups:
        kernels = [_in_blocks(part, group, layout) for part in (gates.input, gates.recurrent)]
        whole = [np.concatenate(kernels)] if len(group.kernels) == 1 else kernels
        found |= dict(zip(group.kernels, whole, strict=True))
        if group.biases and gates.has_bias:
            vectors = [joined(bias, group.order) for bias in _biases(gates, group, layout, added)]
            vectors = [np.stack(vectors)] if layout.stacked else vectors
            found |= dict(zip(group.biases, vectors, strict=True))
    for ours, array in _in_one(gates.more, layout).items():
        found[layout.more[ours]] = array.T if layout.by_rows and ours == "projection" else array
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def convert(arrays: Mapping[str, Array], kind: str, source: str, target: str) -> dict[str, Array]:
    """The arrays of one system as those of another. Raises WeightsError."""
    return write(read(arrays, layout_of(kind, source)), layout_of(kind, target))


def sums(gates: Gates, layout: Layout, forget_bias: float | None = None) -> list[str]:
    """What `write` adds up, so that it is rounded and can't be taken apart again."""
    added = gates.forget_bias - (layout.forget_bias if forget_bias is None else forget_bias)
    if not gates.has_bias:
        return []
    if gates.kind == "milstm":
        biases = [bias for part in (gates.bias, gates.recurrent_bias) for bias in part.values()]
        is_folded = not layout.groups[0].biases and any(bias.any() for bias in biases)
        found = ["the biases of the products are parts of beta1, beta2 and b"] if is_folded else []
        return [*found, f"the forget gate's part of b has {added:g} added"] if added else found
    two = {gate: bias for gate, bias in gates.recurrent_bias.items() if bias.any()}
    single = [gate for group in layout.groups if not layout.has_two(group) for gate in group.order]
    at_run_time = added if "forget" in gates.input else 0.0
    found = []
    if any((two[gate] + (at_run_time if gate == "forget" else 0.0)).any() for gate in single if gate in two):
        found.append("both biases are one sum")
    if at_run_time and ("forget" in two) == ("forget" not in single):
        found.append(f"the forget gate's bias has {added:g} added, as what is added to it at run time differs")
    return found


def _array(arrays: Mapping[str, Array], name: str) -> Array:
    if name not in arrays:
        raise WeightsError(f"there is no '{name}'; there are {', '.join(arrays)}")
    return np.asarray(arrays[name])


def _matrix(arrays: Mapping[str, Array], name: str) -> Array:
    found = _array(arrays, name)
    if found.ndim != 2:
        raise WeightsError(f"'{name}' has shape {list(found.shape)} and is no matrix")
    return found


def _rows(bias: Array, name: str) -> list[Array]:
    """Both biases of one array."""
    if bias.ndim != 2 or len(bias) != 2:
        raise WeightsError(f"'{name}' has shape {list(bias.shape)}, not a row for the input and one for the state")
    return list(bias)


def _state_size(arrays: Mapping[str, Array], layout: Layout, units: int) -> int:
    """The size of h, whose rows are the last of a joint kernel: that of the projection, if there is one."""
    projection = layout.more.get("projection", "")
    return int(arrays[projection].shape[-1]) if projection in arrays else units


def _by_gate(kernel: Array, group: Group, layout: Layout) -> dict[str, Array]:
    return transposed(blocks(kernel, group.order, 0)) if layout.by_rows else blocks(kernel, group.order)


def _in_blocks(gates: ByGate, group: Group, layout: Layout) -> Array:
    return joined(transposed(gates), group.order, 0) if layout.by_rows else joined(gates, group.order)


def _check(gates: Gates, layout: Layout) -> None:
    if gates.kind != layout.kind:
        raise WeightsError(f"weights of a {gates.kind} are none of a {layout.kind}")
    if gates.reset_after != layout.reset_after:
        when, other = ("after", "before") if gates.reset_after else ("before", "after")
        raise WeightsError(
            f"a GRU that resets {when} the product is another function than one of this layout, which resets {other} it"
        )
    lacking = {name.partition("/")[0] for name in gates.more} - set(layout.more)
    if lacking:
        raise WeightsError(f"the layout has no place for {', '.join(sorted(lacking))}")


def _biases(gates: Gates, group: Group, layout: Layout, added: float) -> list[dict[str, Array]]:
    """The biases of a group, as many as it has; with what is `added` to the forget gate at run time, in the second one
    if that is 0, so that nothing is rounded."""
    zeros = {gate: np.zeros_like(gates.input[gate][0]) for gate in group.order}
    first = {gate: gates.bias.get(gate, zeros[gate]) for gate in group.order}
    second = {gate: gates.recurrent_bias.get(gate, zeros[gate]) for gate in group.order}
    if added and "forget" in group.order and gates.kind == "lstm":
        into = first if layout.has_two(group) and second["forget"].any() else second
        into["forget"] = into["forget"] + np.asarray(added, into["forget"].dtype)
    if layout.has_two(group):
        return [first, second]
    if layout.reset_after and "candidate" in first:
        raise WeightsError("a GRU that resets after the product has two biases")
    # Adding 0 would make another number of -0.
    return [{gate: bias + second[gate] if second[gate].any() else bias for gate, bias in first.items()}]


def _integrated(gates: Gates, layout: Layout, added: float) -> Gates:
    """A multiplicative LSTM without biases of its products, where the layout has none, and with what is `added` at run
    time in its own bias:

    (alpha (u+s) + beta1) (p+t) + beta2 (u+s) + b
    = alpha u p + (beta1 + alpha s) p + (beta2 + alpha t) u + (b + alpha s t + beta1 t + beta2 s).
    """
    more = dict(gates.more)
    for gate in gates.input:
        alpha, one, two, b = (f"{name}/{gate}" for name in ("alpha", "beta_recurrent", "beta_input", "shift"))
        if not layout.groups[0].biases:
            s, t = (part.get(gate, np.zeros_like(more[b])) for part in (gates.bias, gates.recurrent_bias))
            if s.any() or t.any():
                old = gates.more
                more[one] = old[one] + old[alpha] * s
                more[two] = old[two] + old[alpha] * t
                more[b] = old[b] + old[alpha] * s * t + old[one] * t + old[two] * s
        if added and gate == "forget":
            more[b] = more[b] + np.asarray(added, more[b].dtype)
    return Gates(gates.kind, gates.input, gates.recurrent, gates.bias, gates.recurrent_bias, more=more)


def _of_gates(more: ByGate, layout: Layout) -> dict[str, Array]:
    """The cell's own parameters, those of all gates cut into each: `alpha/forget`."""
    if layout.kind != "milstm":
        return dict(more)
    order = layout.groups[0].order
    return {f"{name}/{gate}": block for name, whole in more.items() for gate, block in blocks(whole, order).items()}


def _in_one(more: ByGate, layout: Layout) -> dict[str, Array]:
    """The same as the system keeps them."""
    if layout.kind != "milstm":
        return dict(more)
    order = layout.groups[0].order
    names = dict.fromkeys(name.partition("/")[0] for name in more)
    return {name: joined({gate: more[f"{name}/{gate}"] for gate in order}, order) for name in names}
