"""The 2D LSTM: a batch is its sequences, a row of the plane after the other is the plane, gradients included."""

from __future__ import annotations

import numpy as np
import pytest

from returnn_lite.dims import DimError, DimKind, Symbol, TensorType
from returnn_lite.ir import Graph
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.planes import PlaneLstmCell, PlaneLstmStep
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.ir.ops.sources import Initializer, Parameter
from returnn_lite.tf.executable import Executable
from tests.reference.planes import plane
from tests.tf import test_primitives as primitives
from tests.tf.cases import B, Case, H, R, S, T, floats

G = Symbol("5H", DimKind.FEATURE, 10)
CELL = PlaneLstmCell(H, R, G, S)
REST = (floats(R, G), floats(R, G), floats(B, S, H), floats(B, S, H))
CASES = [
    Case("row", PlaneLstmStep(CELL), (floats(B, S, G), floats(B, G), *REST), lambda z, r, *x: row(z + r, *x)),
    Case("plane", Recurrence(PlaneLstmStep(CELL), T), (floats(B, S, G), floats(B, T, G), *REST),
         lambda *x: by_frames(*x)),
    Case("each frame", Recurrence(PlaneLstmStep(CELL), T), (floats(B, T, S, G), floats(B, G), *REST),
         lambda z, r, *x: plane(z + r, *x)),
    Case("one start", Recurrence(PlaneLstmStep(CELL), T),
         (floats(S, G), floats(B, T, G), *REST[:2], floats(S, H), floats(B, S, H)),
         lambda z, r, *x: plane(z + r[:, None], *x)),
]  # fmt: skip


def by_frames(z: np.ndarray, r: np.ndarray, *rest: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(whole.transpose(1, 0, 2) for whole in plane(z + r[:, None], *rest))


def row(z: np.ndarray, *rest: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(whole[0] for whole in plane(z[None], *rest))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_primitive(case: Case) -> None:
    primitives.check(case)


SHAPES = [(1, 1), (1, 4), (4, 1), (2, 5), (5, 2), (0, 3), (3, 0), (3, 4), (4, 3)]
OVER, ALONG = Symbol("rows", DimKind.SPATIAL), Symbol("along", DimKind.SPATIAL)


def graph(in_loop: bool, each_frame: bool) -> Graph:
    """The plane at once, or as a loop over its rows: what both results are, and a sum that weights all frames.

    Each operand is weighted by a parameter, of which then there is a gradient.
    """
    operands = {
        "z_along": (OVER, ALONG, G) if each_frame else (ALONG, G),
        "z_row": (B, OVER, G),
        "w_left": (R, G),
        "w_above": (R, G),
        "h": (ALONG, H),
        "c": (ALONG, H),
    }
    b = Builder()
    x = {}
    for name, dims in operands.items():
        scale = b.apply(Parameter(name, dims[-1:], Initializer("constant", (("value", 1.0),))))
        x[name] = b.mul(b.input(name, TensorType(dims)), scale)
    if in_loop:
        b.open_loop(OVER)
        states = [b.delay(name, x[name].type.with_dims(B), x[name]) for name in ("h", "c")]
        along_row = b.element(x["z_along"]) if each_frame else x["z_along"]
        now = [along_row, b.element(x["z_row"]), x["w_left"], x["w_above"], *(s.now for s in states)]
        h, c = b.emit(PlaneLstmStep(PlaneLstmCell(H, R, G, ALONG)), *now)
        states[0].next, states[1].next = h, c
        stacks = b.close_loop([("outputs", h), ("states", c)])
        outputs, states_ = stacks["outputs"], stacks["states"]
    else:
        outputs, states_ = b.emit(Recurrence(PlaneLstmStep(PlaneLstmCell(H, R, G, ALONG)), OVER), *x.values())
    weights = b.input("weights", TensorType((B, OVER, ALONG, H)))
    total = b.mul(b.add(outputs, b.mul(states_, 0.3)), weights)
    return b.graph({"h": outputs, "c": states_, "total": b.apply(Reduce("sum", total.type.dims), total)})


def numbers(program: Executable, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Both results on random operands, and the gradients of all weights."""
    draw = np.random.default_rng(shape)
    sizes = dict(zip((OVER, ALONG), shape, strict=True)) | {B: 2}
    feed = {
        value.name: draw.standard_normal([dim.size if dim.size is not None else sizes[dim] for dim in value.type.dims])
        for value in program.graph.inputs
    }
    results = program.run(feed, {})
    arrays = {}
    for name in ("h", "c"):
        order = sorted(results[name].dims, key=str)
        arrays[name] = results[name].value.transpose([results[name].dims.index(dim) for dim in order])
    return arrays | {f"d {name}": d for name, d in program.run_with_gradients(feed, {}, of="total")[1].items()}


@pytest.mark.parametrize("each_frame", [False, True])
def test_rows_are_the_plane(each_frame: bool) -> None:
    programs = [Executable(graph(in_loop, each_frame), B, "float64") for in_loop in (False, True)]
    for shape in SHAPES:
        whole, rows = (numbers(program, shape) for program in programs)
        assert list(whole) == list(rows)
        assert len(whole) == 8
        for name, array in whole.items():
            np.testing.assert_allclose(array, rows[name], rtol=1e-9, atol=1e-12, err_msg=f"{name} of {shape}")
        if shape[0] > 1 and shape[1] > 1:
            assert all(np.abs(array).max() > 1e-3 for array in whole.values())


def test_types_are_checked() -> None:
    types = list(CASES[0].types())
    assert CASES[0].op.output_types(tuple(types))[0] == TensorType((B, S, H))
    with pytest.raises(DimError, match="what is the same for a row has no S"):
        CASES[0].op.output_types((types[0], types[0], *types[2:]))
    with pytest.raises(DimError, match="there is no dim S"):
        CASES[0].op.output_types((types[1], types[1], *types[2:]))
