"""A cell's weights with an array for each gate: what no system has, and what every system's weights are made of.

`input/forget` [in, n], `recurrent/forget` [m, n], `bias/forget` [n], and `recurrent_bias/..` of a cell with two
biases; `peephole_forget`, `projection`, `alpha/forget`, .. as in `Gates.more`; and two numbers, `forget_bias`, what is
added to the forget gate at run time, and `reset_after`, 1 for a GRU that resets after the product.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from returnn_lite.lazy_numpy import np
from returnn_lite.weights.gates import KINDS, Gates, WeightsError

if TYPE_CHECKING:
    from returnn_lite.weights.gates import Array

PARTS = ("input", "recurrent", "bias", "recurrent_bias")
NUMBERS = ("forget_bias", "reset_after")
OWN = ("alpha", "beta_input", "beta_recurrent", "shift")
ALONE = ("peephole_input", "peephole_forget", "peephole_output", "projection", *NUMBERS)
GATES = sorted({gate for gates in KINDS.values() for gate in gates})
NAME = re.compile(rf"(?:.*/)?((?:{'|'.join((*PARTS, *OWN))})/(?:{'|'.join(GATES)})|{'|'.join(ALONE)})")


def arrays_by_gate(gates: Gates) -> dict[str, Array]:
    """A cell's arrays."""
    found: dict[str, Any] = {f"{part}/{gate}": array for part in PARTS for gate, array in getattr(gates, part).items()}
    numbers = {"forget_bias": np.float64(gates.forget_bias), "reset_after": np.int64(gates.reset_after)}
    return {name: np.array(array) for name, array in {**found, **gates.more, **numbers}.items()}


def cells_by_gate(arrays: Mapping[str, Array]) -> dict[str, Gates]:
    """The cells by scope. Raises WeightsError for any other array, or if one is missing or does not fit."""
    scopes: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        match = NAME.fullmatch(name)
        if match is None:
            raise WeightsError(f"'{name}' {list(array.shape)} is no array of a gate, such as 'recurrent/forget'")
        scopes.setdefault(name[: match.start(1)], {})[match[1]] = array
    return {scope: _cell(scope, own) for scope, own in scopes.items()}


def _cell(scope: str, arrays: Mapping[str, Array]) -> Gates:
    kind = "gru" if "input/update" in arrays else "milstm" if "alpha/forget" in arrays else "lstm"
    present = {part: [gate for gate in KINDS[kind] if f"{part}/{gate}" in arrays] for part in (*PARTS, *OWN)}
    wanted = [part for part in present if present[part] or part in PARTS[:2] or (kind == "milstm" and part in OWN[:3])]
    named = {f"{part}/{gate}" for part in wanted for gate in KINDS[kind]}
    if kind == "gru":  # one that resets after the product may have a second bias of the candidate alone
        named -= {f"recurrent_bias/{gate}" for gate in ("reset", "update")}
    if missing := sorted(named - set(arrays)):
        raise WeightsError(f"there is no '{scope}{missing[0]}'")
    if unknown := sorted(set(arrays) - {f"{part}/{gate}" for part in present for gate in KINDS[kind]} - set(ALONE)):
        raise WeightsError(f"'{scope}{unknown[0]}' is no part of a {kind}")
    parts = {part: {gate: arrays[f"{part}/{gate}"] for gate in present[part]} for part in PARTS}
    more = {name: array for name, array in arrays.items() if name.partition("/")[0] in (*OWN, *ALONE[:4])}
    forget_bias, reset_after = (_number(scope, name, arrays) for name in NUMBERS)
    gates = Gates(kind, **parts, forget_bias=forget_bias, reset_after=bool(reset_after), more=more)
    gates.check()
    return gates


def _number(scope: str, name: str, arrays: Mapping[str, Array]) -> float:
    array = arrays.get(name, np.zeros(()))
    if array.shape:
        raise WeightsError(f"'{scope}{name}' has shape {list(array.shape)} and is one number")
    return float(array)
