"""How systems keep the weights of an LSTM, GRU or multiplicative LSTM: names, orders of gates, rows or columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.weights.gates import WeightsError

CELL_LAST = ("input", "forget", "output", "cell")
CELL_THIRD = ("input", "forget", "cell", "output")
CELL_SECOND = ("input", "cell", "forget", "output")
CELL_FIRST = ("cell", "input", "forget", "output")
RESET_FIRST = ("reset", "update", "candidate")
UPDATE_FIRST = ("update", "reset", "candidate")


@dataclass(frozen=True)
class Group:
    """Arrays that hold some gates as blocks in this order: the matrices of the input and of the state, or one with the
    rows of both; and no, one or two biases."""

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

    def names(self, *, with_bias: bool = True) -> tuple[str, ...]:
        """The arrays that are always there, of a cell with or without a bias."""
        kernels = [name for group in self.groups for name in group.kernels]
        own = self.more.values() if self.kind == "milstm" else ()
        found = dict.fromkeys((*kernels, *self.biases, *own))
        return tuple(name for name in found if with_bias or name not in self.biases)

    def optional(self) -> tuple[str, ...]:
        """The arrays that may be there."""
        return () if self.kind == "milstm" else tuple(self.more.values())

    def has_two(self, group: Group) -> bool:
        """Whether there is a bias of the input's product and one of the state's."""
        return self.stacked or len(group.biases) == 2

    @property
    def biases(self) -> tuple[str, ...]:
        """The names of all: those of products, and of a multiplicative LSTM that of the sum."""
        own = [self.more["shift"]] if "shift" in self.more else []
        return (*(name for group in self.groups for name in group.biases), *own)


def _lstm(order: tuple[str, ...], kernels: Sequence[str], biases: Sequence[str], **options: object) -> Layout:
    return Layout("lstm", (Group(order, tuple(kernels), tuple(biases)),), **options)  # type: ignore[arg-type]


def _gru(folder: str) -> Layout:
    gates = Group(("reset", "update"), (f"{folder}gates/kernel",), (f"{folder}gates/bias",))
    candidate = Group(("candidate",), (f"{folder}candidate/kernel",), (f"{folder}candidate/bias",))
    return Layout("gru", (gates, candidate))


def _gru_reset_after(folder: str) -> Layout:
    gates = Group(("reset", "update"), (f"{folder}gates/kernel",), (f"{folder}gates/bias",))
    parts = [f"{folder}candidate/{part}_projection/" for part in ("input", "hidden")]
    kernels, biases = (tuple(part + name for part in parts) for name in ("kernel", "bias"))
    return Layout("gru", (gates, Group(("candidate",), kernels, biases)), reset_after=True)


PEEPHOLES = ("peephole_input", "peephole_forget", "peephole_output")
DIAGONALS = dict(zip(PEEPHOLES, ("w_i_diag", "w_f_diag", "w_o_diag"), strict=True))
OF_BLOCKS = dict(zip(PEEPHOLES, ("wci", "wcf", "wco"), strict=True))
PROJECTED = {**DIAGONALS, "projection": "projection/kernel"}
PYTORCH = (("weight_ih_l0", "weight_hh_l0"), ("bias_ih_l0", "bias_hh_l0"))
KERAS = ("kernel", "recurrent_kernel")
MULTIPLICATIVE = {"alpha": "alpha", "beta_recurrent": "beta1", "beta_input": "beta2", "shift": "b"}
LAYOUTS: Mapping[str, Mapping[str, Layout]] = {
    "lstm": {
        "returnn": _lstm(CELL_FIRST, ("W", "W_re"), ("b",), more=PROJECTED),
        "returnn_low_memory": _lstm(CELL_FIRST, ("W",), ("b",), more=PROJECTED),
        "tensorflow": _lstm(CELL_SECOND, ("kernel",), ("bias",), forget_bias=1.0, more=PROJECTED),
        "tensorflow_block": _lstm(CELL_SECOND, ("w",), ("b",), forget_bias=1.0, more=OF_BLOCKS),
        "tensorflow_block_v2": _lstm(CELL_THIRD, ("w",), ("b",), more=OF_BLOCKS),
        "keras": _lstm(CELL_THIRD, KERAS, ("bias",)),
        "pytorch": _lstm(CELL_THIRD, *PYTORCH, by_rows=True, more={"projection": "weight_hr_l0"}),
        "caffe2": _lstm(CELL_LAST, ("i2h_w", "gates_t_w"), ("i2h_b", "gates_t_b"), by_rows=True),
    },
    "gru": {
        "returnn": _gru("gru_cell/"),
        "returnn_reset_after": _gru_reset_after("gru_cell/"),
        "tensorflow": _gru(""),
        "tensorflow_reset_after": _gru_reset_after(""),
        "tensorflow_block": Layout(
            "gru", (Group(("reset", "update"), ("w_ru",), ("b_ru",)), Group(("candidate",), ("w_c",), ("b_c",)))
        ),
        "keras": Layout("gru", (Group(UPDATE_FIRST, KERAS, ("bias",)),), stacked=True, reset_after=True),
        "keras_reset_before": Layout("gru", (Group(UPDATE_FIRST, KERAS, ("bias",)),)),
        "pytorch": Layout("gru", (Group(RESET_FIRST, *PYTORCH),), by_rows=True, reset_after=True),
    },
    "milstm": {
        "returnn": Layout("milstm", (Group(CELL_FIRST, ("W", "W_re"), ()),), more=MULTIPLICATIVE),
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
        known, hint = ", ".join(LAYOUTS[kind]), nearest_hint(system, list(LAYOUTS[kind]))
        raise WeightsError(f"a {kind} has no layout '{system}'; it has {known}.{hint}")
    return LAYOUTS[kind][system]


def variants(kind: str, system: str) -> tuple[str, ...]:
    """The layouts of a kind that are a system's: a GRU may have one for each place of its reset gate."""
    of_system = (system, f"{system}_reset_after", f"{system}_reset_before")
    return tuple(name for name in of_system if name in LAYOUTS.get(kind, ()))


def layout_for(kind: str, system: str, *, reset_after: bool) -> Layout:
    """The layout of a system for a cell; of a GRU that where the reset gate is in the same place, if there is one.
    Raises WeightsError."""
    names = variants(kind, system) or (system,)
    found = [layout_of(kind, name) for name in names]
    return next((layout for layout in found if layout.reset_after == reset_after), found[0])
