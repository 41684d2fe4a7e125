"""Graphs as functions of NumPy arrays or tensors: one trace each, whatever the lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from returnn_lite.dims import Dim, DimKind, display_order
from returnn_lite.dims.names import numbered
from returnn_lite.ir import Graph
from returnn_lite.tf.checks import Checks
from returnn_lite.tf.context import Context, Fed
from returnn_lite.tf.devices import require_devices
from returnn_lite.tf.feeds import define_sizes, made_again, trimmed
from returnn_lite.tf.kernels.language_models import require_language_models
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.lowering import Lowered, lower_graph
from returnn_lite.tf.outputs import Results, RunOutput, length_order, shown, shows_lengths
from returnn_lite.tf.parameters import Parameters
from returnn_lite.tf.sizes import Sizes

ArrayLike: TypeAlias = "np.ndarray | tf.Tensor | Sequence[float] | float"


class Executable:
    """A graph that runs. Compilations of the same network for several modes share their `parameters`.

    Feeds are named by the graph's inputs and have their axes in the order of `display_order`. Lengths are given for the
    ragged dims in `length_dims`; where one is missing all sequences are as long as the array. With
    dtype="float64" every float32 of the graph is one.
    """

    def __init__(
        self,
        graph: Graph,
        batch: Dim,
        dtype: str = "float32",
        seed: int = 42,
        parameters: Parameters | None = None,
        draws_by_step: bool = False,
    ) -> None:
        self.graph = graph
        self.batch = batch
        self.dtype = dtype
        self.parameters = parameters if parameters is not None else Parameters(dtype, seed)
        if self.parameters.dtype != dtype:
            raise ValueError(f"parameters are {self.parameters.dtype}, so the graph cannot run in {dtype}")
        self._seed = seed
        require_language_models(graph)
        require_devices(graph)
        self.create_parameters(graph)
        self.length_dims = input_length_dims(graph)
        self.checks = Checks()
        self._draws_by_step = draws_by_step
        self._runs = 0
        self._functions: dict[str | None, tf.types.experimental.ConcreteFunction] = {}
        self._length_layouts: dict[Dim, tuple[Dim, ...]] = {}

    def create_parameters(self, graph: Graph) -> None:
        """Makes the variables of a graph that do not exist yet."""
        self.parameters.create(graph, self._value_without_data)

    def _value_without_data(self, graph: Graph) -> np.ndarray:
        """The output "value" of a graph without inputs."""
        return Executable(graph, self.batch, self.dtype, self._seed, self.parameters).run({})["value"].value

    @property
    def params(self) -> dict[str, tf.Variable]:
        """The variables by name."""
        return self.parameters.variables

    def feed_signature(self) -> dict[str, tf.TensorSpec]:
        """The type of every feed: unknown sizes wherever a dim is dynamic."""
        return {
            value.name: tf.TensorSpec([dim.size for dim in display_order(value.type)], self._dtype(value.type.dtype))
            for value in self.graph.inputs
        }

    def length_signature(self) -> dict[str, tf.TensorSpec]:
        """The type of every dim's lengths, int32, by the dim's name."""
        return {
            name: tf.TensorSpec([over.size for over in dim.over], tf.int32) for name, dim in self.length_names().items()
        }

    def length_names(self) -> dict[str, Dim]:
        """The dims whose lengths are fed, by name; a name that occurs twice gets a number."""
        return dict(zip(numbered(dim.name for dim in self.length_dims), self.length_dims, strict=True))

    def call(
        self,
        feed: Mapping[str, tf.Tensor],
        lengths: Mapping[str, tf.Tensor],
        seed: tf.Tensor,
        gradients_of: str | None = None,
    ) -> Results:
        """Builds the computation into the TensorFlow graph at hand: for the engine's own `tf.function`.

        `lengths` by the names of `length_names`. `gradients_of` names a scalar output. Gradients are made by
        `tf.gradients`: a GradientTape does not see what loops put in front of themselves. Assignments of parameters
        are left to the caller: `assign`.
        """
        sizes = Sizes()
        parameters = {name: tf.convert_to_tensor(variable) for name, variable in self.params.items()}
        parameters |= {name: kept.read() for name, kept in self.parameters.kept.items()}
        given = {dim: lengths[name] for name, dim in self.length_names().items()}
        raws = {value: Tensor(feed[value.name], display_order(value.type)) for value in self.graph.inputs}
        define_sizes(sizes, raws.values(), given)
        context = Context(
            sizes,
            self.dtype,
            parameters,
            seed,
            checks=self.checks,
            differentiable=gradients_of is not None,
            fed={value: Fed(tensor.raw, partial(made_again, sizes, tensor.dims)) for value, tensor in raws.items()},
            draws_by_step=self._draws_by_step,
        )
        inputs = {value: trimmed(sizes, self.checks, value, tensor) for value, tensor in raws.items()}
        lowered = lower_graph(self.graph, inputs, context)
        gradients: dict[str, tf.Tensor] = {}
        if gradients_of is not None:
            gradients = self._gradients(lowered, parameters, gradients_of)
        return Results(lowered, gradients)

    def assign(self, results: Results) -> None:
        """Assigns what `AssignParameter` asked for; to be built after everything that reads parameters."""
        for assignment in results.lowered.assignments:
            kept = self.parameters.kept.get(assignment.name)
            (self.params[assignment.name] if kept is None else kept).assign(assignment.value)

    def run(
        self, feed: Mapping[str, ArrayLike], lengths: Mapping[Dim, ArrayLike] | None = None, seed: int | None = None
    ) -> dict[str, RunOutput]:
        """All outputs for a batch of arrays. Parameters that the graph assigns are changed."""
        outputs, _ = self._execute(None, feed, lengths or {}, seed)
        return outputs

    def run_with_gradients(
        self,
        feed: Mapping[str, ArrayLike],
        lengths: Mapping[Dim, ArrayLike] | None = None,
        *,
        of: str,
        seed: int | None = None,
    ) -> tuple[dict[str, RunOutput], dict[str, np.ndarray]]:
        """All outputs, and the gradient of the scalar one `of` for every trainable parameter, zeros where it has none.
        Parameters that the graph assigns stay."""
        return self._execute(of, feed, lengths or {}, seed)

    def trace_count(self) -> int:
        """How many TensorFlow functions there are: at most one for `run`, and one for each `of` otherwise."""
        return len(self._functions)

    def _dtype(self, name: str) -> tf.DType:
        return tf.as_dtype(self.dtype if name == "float32" else name)

    def _gradients(self, lowered: Lowered, parameters: Mapping[str, tf.Tensor], of: str) -> dict[str, tf.Tensor]:
        target = lowered.outputs[of]
        if target.dims or not target.dtype.is_floating:
            raise ValueError(f"gradients need a scalar output, but {of} is {target.dtype.name} over {target.dims}")
        names = [name for name, variable in self.params.items() if variable.trainable]
        sources = [parameters[name] for name in names]
        found = tf.gradients(target.raw, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return {name: tf.convert_to_tensor(gradient) for name, gradient in zip(names, found, strict=True)}

    def _function(self, of: str | None) -> tf.types.experimental.ConcreteFunction:
        if of not in self._functions:

            def body(feed: dict[str, tf.Tensor], lengths: dict[str, tf.Tensor], seed: tf.Tensor) -> Any:
                results = self.call(feed, lengths, seed, of)
                if of is None:
                    self.assign(results)
                self._note_length_layouts(results)
                return shown(self.graph, results), results.gradients

            signature = (self.feed_signature(), self.length_signature(), tf.TensorSpec([], tf.int32))
            function = tf.function(body, input_signature=signature, autograph=False)
            self._functions[of] = function.get_concrete_function()
        return self._functions[of]

    def _note_length_layouts(self, results: Results) -> None:
        for value in self.graph.outputs.values():
            for dim in filter(shows_lengths, value.type.dims):
                self._length_layouts[dim] = length_order(results.sizes, dim)

    def _execute(
        self, of: str | None, feed: Mapping[str, ArrayLike], lengths: Mapping[Dim, ArrayLike], seed: int | None
    ) -> tuple[dict[str, RunOutput], dict[str, np.ndarray]]:
        if seed is None:
            self._runs += 1
            seed = (self._seed * 1_000_003 + self._runs) % 2**31
        feeds, fed_lengths = self._fed(feed, lengths)
        function = self._function(of)
        try:
            outputs, gradients = function(feeds, fed_lengths, tf.constant(seed, tf.int32))
        except tf.errors.OpError as error:
            raise self.checks.told(error) from error
        found = {}
        for name, (raw, raw_lengths) in outputs.items():
            dims = self.graph.axes(name)
            by_dim = {dims[int(axis)]: length.numpy() for axis, length in raw_lengths.items()}
            found[name] = RunOutput(raw.numpy(), dims, by_dim, {dim: self._length_layouts[dim] for dim in by_dim})
        return found, {name: gradient.numpy() for name, gradient in gradients.items()}

    def _fed(
        self, feed: Mapping[str, ArrayLike], lengths: Mapping[Dim, ArrayLike]
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Arrays as tensors of the declared types. Raises KeyError or ValueError if one is missing or does not fit."""
        feeds = {
            name: tf.cast(tf.convert_to_tensor(feed[name]), spec.dtype) for name, spec in self.feed_signature().items()
        }
        fed = {}
        for name, dim in self.length_names().items():
            if dim in lengths:
                fed[name] = tf.cast(tf.convert_to_tensor(lengths[dim]), tf.int32)
                continue
            value = next(v for v in self.graph.inputs if dim in v.type.dims)
            shape = feeds[value.name].shape
            order = display_order(value.type)
            fed[name] = tf.fill([shape[order.index(over)] for over in dim.over], shape[order.index(dim)])
        return feeds, fed


def input_length_dims(graph: Graph) -> tuple[Dim, ...]:
    """The ragged dims of inputs that are not computed from others, and those that others are computed from."""
    found: dict[Dim, None] = {}

    def visit(dim: Dim) -> None:
        if not dim.operands() and dim.is_ragged and dim.kind is not DimKind.BATCH:
            found[dim] = None
        for operand in dim.operands():
            visit(operand)

    for value in graph.inputs:
        for dim in value.type.dims:
            visit(dim)
    return tuple(found)
