"""What systems call the arrays of a recurrent layer of several cells, one on top of the other and in one direction or
both: the names that they give, and the scopes of cells that are behind such names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

OF_PYTORCH = re.compile(r"((?:weight_(?:ih|hh|hr)|bias_(?:ih|hh))_l)(\d+)(_reverse)?$")
OF_STACKED_CELLS = re.compile(r"((?:recurrent_)?kernel|bias)(?:_(\d+))?$")
"""Of Keras' `StackedRNNCells` in TensorFlow 1: `kernel`, `kernel_1`."""
OF_CAFFE2 = re.compile(r"(.*?)layer_0/(.*)(?:gates|prev)_t_([wb])$")


@dataclass(frozen=True)
class Place:
    """Where a cell of a kind is in a stack."""

    kind: str
    reset_after: bool
    layer: int
    layers: int
    backward: bool
    both: bool

    @property
    def number(self) -> str:
        """As Keras numbers layers of one name."""
        return f"_{self.layer}" if self.layer else ""


def name_in_stack(name: str, system: str, place: Place) -> str:
    """The name of a cell's array where the cell is one of several."""
    if system == "pytorch":
        return name.removesuffix("0") + f"{place.layer}{'_reverse' if place.backward else ''}"
    family = next(one for one in NAMES if system.startswith(one))
    return NAMES[family](name, place)


def in_scopes(names: Iterable[str], system: str) -> dict[str, str]:
    """The names of a system, each by one that has the cell in its scope."""
    given = list(names)
    if system == "pytorch":
        return {_scoped_of_pytorch(name): name for name in given}
    if system.startswith("keras") and any((match := OF_STACKED_CELLS.search(name)) and match[2] for name in given):
        return {OF_STACKED_CELLS.sub(lambda match: f"cell_{match[2] or 0}/{match[1]}", name): name for name in given}
    if system == "caffe2":
        return {_scoped_of_caffe2(name, given): name for name in given}
    return {name: name for name in given}


def _scoped_of_pytorch(name: str) -> str:
    """`l1/backward/weight_ih_l0`."""
    match = OF_PYTORCH.search(name)
    if match is None:
        return name
    folder = f"l{match[2]}/{'backward' if match[3] else 'forward'}/"
    return f"{name[: match.start()]}{folder}{match[1]}0"


def _scoped_of_caffe2(name: str, names: Iterable[str]) -> str:
    """The lowest layer's product of the source stands outside of the layer's scope."""
    for other in names:
        match = OF_CAFFE2.fullmatch(other)
        if match is not None and name == f"{match[1]}{match[2]}i2h_{match[3]}":
            return f"{match[1]}layer_0/{match[2]}i2h_{match[3]}"
    return name


def _of_returnn(name: str, place: Place) -> str:
    direction = ("backward/" if place.backward else "forward/") if place.both else ""
    return direction + (f"{place.layer}/" if place.layers > 1 else "") + name


def _of_tensorflow(name: str, place: Place) -> str:
    """`dynamic_rnn`'s with a MultiRNNCell, and those of the bidirectional functions; a cell alone has no scope."""
    gru = "cudnn_compatible_gru_cell/" if place.reset_after else "gru_cell/"
    folder = gru if place.kind == "gru" else "lstm_cell/"
    direction = f"bidirectional_rnn/{'bw' if place.backward else 'fw'}/{folder}"
    if place.layers == 1:
        return (direction if place.both else "") + name
    if place.both:
        return f"stack_bidirectional_rnn/cell_{place.layer}/{direction}{name}"
    return f"multi_rnn_cell/cell_{place.layer}/{folder}{name}"


def _of_keras(name: str, place: Place) -> str:
    """Those of a Sequential of layers; a layer alone has no scope."""
    if place.layers == 1 and not place.both:
        return name
    layer = f"{place.kind}{place.number}/{place.kind}_cell/"
    if not place.both:
        return layer + name
    return f"bidirectional{place.number}/{'backward' if place.backward else 'forward'}_{layer}{name}"


def _of_caffe2(name: str, place: Place) -> str:
    """Those of a MultiRNNCell; Caffe2 has no names for both directions."""
    direction = ("bw/" if place.backward else "fw/") if place.both else ""
    is_outside = place.layers == 1 or (place.layer == 0 and name.startswith("i2h"))
    return direction + ("" if is_outside else f"layer_{place.layer}/") + name


NAMES: Mapping[str, Callable[[str, Place], str]] = {
    "returnn": _of_returnn,
    "tensorflow": _of_tensorflow,
    "keras": _of_keras,
    "caffe2": _of_caffe2,
}
