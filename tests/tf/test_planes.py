"""The 2D LSTM: a batch is its sequences, a row of the plane after the other is the plane, gradients included."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from returnn_lite.dims import DimError, DimKind, Symbol, TensorType
from returnn_lite.ir import Graph
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.planes import PlaneLstm, PlaneLstmCell, PlaneLstmStep
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.ir.ops.sources import Initializer, Parameter
from returnn_lite.tf.executable import Executable
from tests.reference.planes import plane
from tests.tf import test_primitives as primitives
from tests.tf.cases import LENGTHS, B, Case, H, R, S, T, floats
from tests.tf.test_reference import assert_same

G = Symbol("5H", DimKind.FEATURE, 10)
CELL = PlaneLstmCell(H, R, G, S)
REST = (floats(R, G), floats(R, G), floats(B, S, H), floats(B, S, H))
CASES = [
    Case("row", PlaneLstmStep(CELL), (floats(B, S, G), floats(B, G), *REST), lambda z, r, *x: row(z + r, *x)),
    Case("plane", PlaneLstm(CELL, T), (floats(B, S, G), floats(B, T, G), *REST), lambda *x: by_frames(*x)),
    Case("each frame", PlaneLstm(CELL, T), (floats(B, T, S, G), floats(B, G), *REST),
         lambda z, r, *x: plane(z + r, *x)),
    Case("one start", PlaneLstm(CELL, T), (floats(S, G), floats(B, T, G), *REST[:2], floats(S, H), floats(B, S, H)),
         lambda z, r, *x: plane(z + r[:, None], *x)),
]  # fmt: skip


def by_frames(z: np.ndarray, r: np.ndarray, *rest: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(whole.transpose(1, 0, 2) for whole in plane(z + r[:, None], *rest))


def row(z: np.ndarray, *rest: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(whole[0] for whole in plane(z[None], *rest))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_batch_is_its_sequences(case: Case) -> None:
    primitives.test_batch_is_its_sequences(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_finite_and_right(case: Case) -> None:
    primitives.test_gradient_is_finite_and_right(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_what_the_reference_says(case: Case) -> None:
    assert_same(primitives.graph_of(case), primitives.random_feeds(case, 3), LENGTHS, len(LENGTHS[T]))


SHAPES = [(1, 1), (1, 4), (4, 1), (2, 5), (5, 2), (0, 3), (3, 0)]
PLANES = [*((shape, False) for shape in SHAPES), ((3, 4), True), ((4, 3), True)]


def graphs(height: int, width: int, each_frame: bool) -> Iterator[Graph]:
    """The plane at once, and as a loop over its rows: what both results are, and a sum that weights all frames."""
    over, along = Symbol("rows", DimKind.SPATIAL, height), Symbol("along", DimKind.SPATIAL, width)
    cell = PlaneLstmCell(H, R, G, along)
    shapes = {
        "z_along": (over, along, G) if each_frame else (along, G),
        "z_row": (over, G),
        "w_left": (R, G),
        "w_above": (R, G),
        "h": (along, H),
        "c": (along, H),
    }
    for in_loop in (False, True):
        b = Builder()
        x = {n: b.apply(Parameter(n, d, Initializer("constant", (("value", 0.0),)))) for n, d in shapes.items()}
        x["z_row"] = b.add(x["z_row"], b.input("x", TensorType((B, over, G))))
        if in_loop:
            b.open_loop(over)
            states = [b.delay(name, x[name].type.with_dims(B), x[name]) for name in ("h", "c")]
            along_row = b.element(x["z_along"]) if each_frame else x["z_along"]
            now = [along_row, b.element(x["z_row"]), x["w_left"], x["w_above"], *(s.now for s in states)]
            h, c = b.emit(PlaneLstmStep(cell), *now)
            states[0].next, states[1].next = h, c
            stacks = b.close_loop([("outputs", h), ("states", c)])
            outputs, states_ = stacks["outputs"], stacks["states"]
        else:
            outputs, states_ = b.emit(PlaneLstm(cell, over), *x.values())
        weights = b.input("weights", TensorType((B, over, along, H)))
        total = b.mul(b.add(outputs, b.mul(states_, 0.3)), weights)
        yield b.graph({"h": outputs, "c": states_, "total": b.apply(Reduce("sum", total.type.dims), total)})


@pytest.mark.parametrize(("shape", "each_frame"), PLANES, ids=str)
def test_rows_are_the_plane(shape: tuple[int, int], each_frame: bool) -> None:
    found = []
    for graph in graphs(*shape, each_frame):
        program = Executable(graph, B, "float64")
        draw = np.random.default_rng(shape)
        for variable in program.params.values():
            variable.assign(draw.standard_normal(variable.shape))
        feed = {"x": draw.standard_normal((2, shape[0], 10)), "weights": draw.standard_normal((2, *shape, 2))}
        results = program.run(feed, {})
        arrays = {}
        for name in ("h", "c"):
            value, output = graph.outputs[name], results[name]
            order = [output.dims.index(dim) for dim in sorted(value.type.dims, key=str)]
            arrays[name] = output.value.transpose(order)
        arrays |= {f"d {name}": d for name, d in program.gradients(feed, {}, of="total").items()}
        found.append(arrays)
    whole, rows = found
    assert list(whole) == list(rows)
    assert len(whole) == 8
    for name, array in whole.items():
        np.testing.assert_allclose(array, rows[name], rtol=1e-9, atol=1e-12, err_msg=name)
    if shape[0] > 1 and shape[1] > 1:
        assert all(np.abs(array).max() > 1e-3 for array in whole.values())


def test_types_are_checked() -> None:
    types = list(CASES[0].types())
    assert CASES[0].op.output_types(tuple(types))[0] == TensorType((B, S, H))
    with pytest.raises(DimError, match="what is the same for a row has no S"):
        CASES[0].op.output_types((types[0], types[0], *types[2:]))
    with pytest.raises(DimError, match="there is no dim S"):
        CASES[0].op.output_types((types[1], types[1], *types[2:]))
