"""The same networks in TensorFlow: what the reference says, and its gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import tensorflow as tf

from returnn_lite.compiler import optimized
from returnn_lite.ir import Graph, Op, walk
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.search import Choose, ExpectedOverBeam
from returnn_lite.ir.ops.sources import AssignParameter, RandomDraw
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.passes.dead_nodes import dead_nodes
from returnn_lite.tf import lowering
from returnn_lite.tf.context import Context
from returnn_lite.tf.executable import Executable
from returnn_lite.tf.layout import Tensor, working_order
from returnn_lite.tf.outputs import RunOutput
from tests.properties.running import Feed, draws_of, interpreted, parameters_of
from tests.reference.named import Array, Lengths, Named, real, without_padding

STEP = 1e-5
"""Of the parameters, for a difference quotient."""
NOISES = 40
"""How often a search is moved to see whether hypotheses tie: two orders of one sum differ for about every third."""


def assert_same_in_tensorflow(
    built: BuiltNetwork, graph: Graph, feed: Feed, lengths: Feed, own_draws: bool = False
) -> None:
    """The outputs of a graph in TensorFlow are NumPy's, and its gradient is the slope of the objective in NumPy.

    TensorFlow is given NumPy's random numbers. With its own ones, `own_draws`, where these do not decide what
    hypotheses there are, and for an expected loss, whose gradient is no slope, what it gives is compared with the
    network without optimisation.
    """
    program = program_of(built, graph)
    if own_draws and _has(built.graph, RandomDraw) and not _has(built.graph, Choose):
        assert_same_as_plain(built, program, feed, lengths)
        return
    with given_draws(draws_of(built)):
        if _has(graph, ExpectedOverBeam):
            assert_same_as_plain(built, program, feed, lengths)
            return
        outputs, gradients = run_once(built, program, feed, lengths)
        is_infinite = not all(np.isfinite(gradient).all() for gradient in gradients.values())
        if is_infinite and has_no_frames(lengths):
            assert_same_as_plain(built, program, feed, lengths)
            gradients = {}
    expected, known = interpreted(built, graph, feed, lengths, parameters_of(built))
    for name, output in outputs.items():
        assert_same_output(output, expected[name], known, name)
    if gradients:
        assert_slope(built, gradients, feed, lengths)
    if not built.mode.train:
        _assert_same_kept(program, expected)


def _assert_same_kept(program: Executable, expected: Mapping[str, Named]) -> None:
    """What is left for the next batch is NumPy's."""
    for name, kept in program.parameters.kept.items():
        if (value := expected.get(f"assign {name}")) is not None:
            ops = [node.op for node in program.graph.nodes if isinstance(node.op, AssignParameter)]
            (dims,) = (op.dims for op in ops if op.name == name)
            left = np.broadcast_to(value.over(dims), kept.read().shape)
            np.testing.assert_allclose(kept.read().numpy(), left, rtol=1e-6, atol=1e-8, err_msg=name)


def _has(graph: Graph, primitive: type[Op]) -> bool:
    return any(isinstance(node.op, primitive) for node in walk(graph.nodes))


@contextmanager
def given_draws(draws: Mapping[str, Named]) -> Iterator[None]:
    """Graphs that are lowered meanwhile draw these numbers, in each step those of the step."""

    def given(c: Context, op: RandomDraw) -> Tensor:
        number, sizes = draws[op.seed], c.sizes
        raw, dims = tf.constant(number.array, c.dtype(op.dtype)), number.dims
        while sizes.parent is not None:
            if sizes._over in dims and sizes._over not in op.dims:
                raw = tf.gather(raw, sizes._step, axis=dims.index(sizes._over))
                dims = tuple(dim for dim in dims if dim is not sizes._over)
            sizes = sizes.parent
        cut = tuple(slice(0, c.size(dim)) for dim in dims)
        return Tensor(raw[cut], dims).laid_out(working_order(dims))

    with patch.object(lowering, "LOWERINGS", {**lowering.LOWERINGS, RandomDraw: given}):
        yield


@contextmanager
def rewriting(graphs: bool) -> Iterator[None]:
    """Whether TensorFlow rewrites graphs before it runs them, as it does for users: that takes it longer than to run
    them once."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not graphs})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def has_no_frames(lengths: Feed) -> bool:
    """Whether a sequence is empty. The largest of its frames is -inf, and 0 times that is no number in a gradient,
    though no loss depends on it (docs/testing.rst)."""
    return any((given == 0).any() for given in lengths.values())


def scores_are_no_numbers(built: BuiltNetwork, feed: Feed, lengths: Feed) -> bool:
    """Whether hypotheses have no order, as where one reads the largest of no frames, -inf, with weights of both
    signs."""
    outputs, _ = interpreted(built, built.graph, feed, lengths, parameters_of(built))
    return any(np.isnan(value.array).any() for name, value in outputs.items() if name.startswith("scores:"))


def rounding_decides(built: BuiltNetwork, graph: Graph, feed: Feed, lengths: Feed) -> bool:
    """Whether hypotheses tie, as the same labels in another order do where no score depends on the labels before:
    another form of the same arithmetic, or TensorFlow's, then chooses others, and so do slightly different
    parameters and data."""
    found: list[dict[str, Array]] = []
    for seed in range(NOISES):
        noise = np.random.default_rng(seed)
        moved, fed = (
            {
                name: x * (1 + 1e-9 * noise.normal(size=x.shape)) if x.dtype.kind == "f" else x
                for name, x in given.items()
            }
            for given in (parameters_of(built), feed)
        )
        outputs, known = interpreted(built, graph, fed, lengths, moved)
        labels = {name: value for name, value in outputs.items() if value.array.dtype.kind == "i"}
        found.append({name: without_padding(value, known).array for name, value in labels.items()})
    return any(not np.array_equal(labels[name], first) for labels in found[1:] for name, first in found[0].items())


@contextmanager
def unless_tied(built: BuiltNetwork, graph: Graph, feed: Feed, lengths: Feed) -> Iterator[None]:
    """Lets a comparison fail only where rounding does not decide which hypotheses there are."""
    try:
        yield
    except AssertionError:
        has_order = not _has(built.graph, Choose) or not (
            rounding_decides(built, graph, feed, lengths) or scores_are_no_numbers(built, feed, lengths)
        )
        if has_order:
            raise


def program_of(built: BuiltNetwork, graph: Graph) -> Executable:
    """A graph in TensorFlow with the parameters that the reference has."""
    program = Executable(graph, built.extern_data.batch, "float64", draws_by_step=True)
    for name, value in parameters_of(built).items():
        if name in program.params:
            program.params[name].assign(value)
        elif name in program.parameters.kept:
            program.parameters.kept[name].assign(tf.constant(value))
    return program


def run_once(
    built: BuiltNetwork, program: Executable, feed: Feed, lengths: Feed
) -> tuple[dict[str, RunOutput], dict[str, Array]]:
    """The outputs, and in training the gradients of the objective, of one trace."""
    batch = fed(program, feed, lengths)
    if "objective" in program.graph.outputs and built.mode.train:
        return program.run_with_gradients(*batch, of="objective", seed=1)
    return program.run(*batch, seed=1), {}


def fed(program: Executable, feed: Feed, lengths: Feed) -> tuple[Feed, dict[object, Array]]:
    """The batch as the backend takes it."""
    inputs = program.graph.inputs
    by_dim = {dim: lengths[value.name] for value in inputs for dim in value.type.dims if dim in program.length_dims}
    return {value.name: feed[value.name] for value in inputs}, by_dim


def there_for_any(value: Named, lengths: Lengths) -> Named:
    """Where frames are real; of a value that is the same for all hypotheses, for any of them: beyond the end of a
    sequence's longest one there is nothing to compare."""
    result = real(value, lengths)
    for dim in filter(lengths.is_ragged, value.dims):
        mask = lengths.mask(dim)
        lacking = [axis for axis, over in enumerate(mask.dims) if over not in value.dims]
        longest = Named(mask.array.any(axis=tuple(lacking)), tuple(d for d in mask.dims if d in value.dims))
        result = Named(result.array & longest.over(value.dims), value.dims)
    return result


def assert_same_output(output: RunOutput, expected: Named, known: Lengths, name: str) -> None:
    """The same at all real frames."""
    values = np.broadcast_to(expected.over(output.dims), output.value.shape)
    frames = np.broadcast_to(there_for_any(expected, known).over(output.dims), output.value.shape)
    both = (np.where(frames, x, 0) for x in (output.value, values))
    np.testing.assert_allclose(*both, rtol=1e-6, atol=1e-8, err_msg=name)


def assert_same_as_plain(built: BuiltNetwork, one: Executable, feed: Feed, lengths: Feed) -> None:
    """Both compilations give the same, as both draw by the step."""
    other = program_of(built, optimized(built, False))
    results, gradients = zip(*(run_once(built, program, feed, lengths) for program in (one, other)), strict=True)
    for name, output in results[0].items():
        order = [results[1][name].dims.index(dim) for dim in output.dims]
        same = output.value, results[1][name].value.transpose(order)
        np.testing.assert_allclose(*same, rtol=1e-6, atol=1e-8, err_msg=name)
    for name, gradient in gradients[0].items():
        plain = gradients[1][name]
        compared = (
            np.isfinite(gradient) & np.isfinite(plain) if has_no_frames(lengths) else np.ones(gradient.shape, bool)
        )
        np.testing.assert_allclose(gradient[compared], plain[compared], rtol=1e-6, atol=1e-8, err_msg=name)


def assert_slope(built: BuiltNetwork, gradients: Mapping[str, Array], feed: Feed, lengths: Feed) -> None:
    """The gradient along a random direction is how fast the objective changes without optimisation, unless gradients
    are stopped somewhere (phased LSTM). The per-step graph has no statistics of all steps, as batch_norm has in
    training."""
    start, slope = parameters_of(built), 0.0
    direction = {
        name: np.random.default_rng(i).normal(size=x.shape) if name in gradients else np.zeros(x.shape)
        for i, (name, x) in enumerate(start.items())
    }
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        slope += float((gradient * direction[name]).sum())
    plain = optimized(built, False)
    if any(node.op == Elementwise("stop_gradient") for node in walk(plain.nodes)):
        return
    graph = dead_nodes(replace(plain, outputs={"objective": plain.outputs["objective"]}, checks=()))

    def quotient(step: float) -> float:
        totals = [
            float(interpreted(built, graph, feed, lengths, moved)[0]["objective"].array)
            for moved in ({n: x + signed * direction[n] for n, x in start.items()} for signed in (step, -step))
        ]
        return (totals[0] - totals[1]) / (2 * step)

    found = quotient(STEP)
    if not np.isclose(slope, found, rtol=1e-4, atol=1e-5):  # where it is bent, the error falls with the square
        found = (4 * quotient(STEP / 2) - found) / 3
    np.testing.assert_allclose(slope, found, rtol=1e-4, atol=1e-5)
