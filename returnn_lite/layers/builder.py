"""What `build` of a layer works with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

from returnn_lite.config.options import AxisSpec, Init, LayerRef
from returnn_lite.dims import Dim, DimError, DimKind, Symbol, TensorType, Unknown
from returnn_lite.dims.axes import resolve_axes, resolve_axis
from returnn_lite.ir import Op, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.expressions import Expressions
from returnn_lite.ir.open_body import OpenState
from returnn_lite.ir.ops.recurrence import CumsumStep, Recurrence, Step
from returnn_lite.ir.ops.sources import IN_CHECKPOINTS, Initializer, Parameter, Storage
from returnn_lite.ir.views import View, result_types
from returnn_lite.layers.activations import apply_activation
from returnn_lite.layers.errors import UNKNOWN_SIZE, LayerError
from returnn_lite.layers.initializers import initializer
from returnn_lite.layers.surroundings import Mode, Outputs, Surroundings


class AxisError(DimError):
    """A description of an axis that means none of a value's."""

    def __init__(self, message: str, description: AxisSpec) -> None:
        super().__init__(message)
        self.description = description


@contextmanager
def _of_axis(description: AxisSpec) -> Iterator[None]:
    try:
        yield
    except DimError as error:
        raise AxisError(str(error), description) from error


class LayerBuilder(Expressions):
    """What `build` works with: the primitives (see `Expressions`), the layer's surroundings, parameters, axes."""

    def __init__(self, builder: Builder, surroundings: Surroundings, name: str, local_name: str) -> None:
        self.ir = builder
        self.surroundings = surroundings
        self.name = name
        self.local_name = local_name
        self.scope = ""
        """What the names of parameters begin with below the layer."""

    def emit(self, op: Op, *inputs: Value) -> tuple[View, ...]:
        return self.ir.emit(op, *inputs)

    def length(self, of: Dim, dtype: str = "int32") -> View:
        return self.ir.length(of, dtype)

    def fail(self, message: str, hint: str = "", option: str = "") -> NoReturn:
        """Reports a mistake in this layer."""
        raise LayerError(message, hint, option)

    # Mode

    @property
    def mode(self) -> Mode:
        """Train, eval, search or forward."""
        return self.surroundings.compilation.mode

    def behavior(self, version: int) -> bool:
        """True if the config's behavior_version is at least this one."""
        return self.surroundings.compilation.behavior_version >= version

    @property
    def batch(self) -> Dim:
        """The batch dim."""
        return self.surroundings.compilation.batch

    # Values around

    @property
    def source_names(self) -> Sequence[str]:
        """The references in `from`."""
        return self.surroundings.given.source_names

    def layer(self, reference: LayerRef) -> View:
        """The value of a hidden reference."""
        return self.surroundings.layer(reference).value

    def layer_outputs(self, reference: LayerRef) -> Outputs:
        """All that the layer of a hidden reference makes."""
        return self.surroundings.layer(reference)

    def operand(self, reference: LayerRef | float | int | bool, example: View) -> View:
        """The value of a reference, or a number as a value of the example's dtype."""
        return self.layer(reference) if isinstance(reference, str) else self.like(reference, example)

    # Dims

    def feature_of(self, value: View) -> Dim:
        """The feature dim of a value; an error if it has none."""
        if value.type.feature is None:
            self.fail(f"'{value.name}' has no feature dim: {value.type}")
        return value.type.feature

    def out_feature(self) -> Dim:
        """The feature dim of the output: of the size that n_out, out_dim or the target says."""
        found = self.surroundings.out_feature()
        if found is None:
            self.fail(*UNKNOWN_SIZE)
        return found

    def new_feature(self, size: int, suffix: str = "feature") -> Dim:
        """A new static feature dim of this layer."""
        return Symbol(f"{self.name}:{suffix}", DimKind.FEATURE, size)

    def new_dim(self, suffix: str, size: int | None = None, over: Sequence[Dim] = ()) -> Dim:
        """A new spatial dim of this layer: static, or dynamic with lengths that vary over dims."""
        return Symbol(f"{self.name}:{suffix}", DimKind.SPATIAL, size, tuple(over))

    def new_dim_of_step(self, suffix: str, over: Sequence[Dim], declared: Dim | None = None) -> Dim:
        """A new dynamic spatial dim whose length may differ from step to step of the loop that is being built: the one
        that the config declares, if nothing has made it before."""
        varies = (*(() if self.loop is None else (self.loop,)), *over)
        if declared is None or declared.is_settled:
            return self.new_dim(suffix, over=varies)
        declared.settle(varies)
        return declared

    def axis(self, description: AxisSpec, value: View) -> Dim:
        """The one dim that an axis description means for a value. Raises DimError that names the candidates."""
        with _of_axis(description):
            return resolve_axis(description, value.type, self.ir.layers_with)

    def axes(self, description: AxisSpec, value: View) -> tuple[Dim, ...]:
        """The dims that an axis description means for a value."""
        with _of_axis(description):
            return resolve_axes(description, value.type, self.ir.layers_with)

    # Parameters

    def param(
        self,
        name: str,
        dims: Sequence[Dim],
        init: Init | Initializer,
        *,
        in_dims: Sequence[Dim] = (),
        out_dims: Sequence[Dim] = (),
        trainable: bool = True,
        dtype: str = "float32",
        storage: Storage = IN_CHECKPOINTS,
    ) -> View:
        """A parameter `<layer>/<scope><name>` whose array has the dims in this order; `in_dims` and `out_dims` give fan
        in and out.

        Without them a matrix goes from its first to its last dim. Fails if a size is known only at run time.
        """
        name = self.scope + name
        for dim in dims:
            if dim.is_dynamic and not any(isinstance(part, Unknown) for part in dim.leaves):
                self.fail(*dynamic_parameter(name, dim))
        if not in_dims and not out_dims and len(dims) >= 2:
            in_dims, out_dims = dims[:-1], dims[-1:]
        rule = init if isinstance(init, Initializer) else initializer(init, tuple(in_dims), tuple(out_dims))
        parameter = Parameter(name, tuple(dims), rule, dtype, trainable, storage=storage)
        return self.surroundings.parameter(parameter)

    def activation(self, name: str | None, value: View, options: Mapping[str, float | int] | None = None) -> View:
        """The value with an activation function applied; softmax goes over the feature dim."""
        activated = apply_activation(self, name, value, options)
        if activated is not value:
            self.surroundings.compilation.preactivations.activated(value, activated)
        return activated

    def logits_of(self, value: View) -> View | None:
        """What went into the softmax over the features that made a value; None if none did."""
        return self.surroundings.compilation.preactivations.logits(self, value)

    # Loops

    @property
    def loop(self) -> Dim | None:
        """The dim of the innermost loop whose body is being built; None outside."""
        return self.ir.body.over if self.ir.body is not None else None

    def constant_outside(self, value: float, dtype: str, dims: Sequence[Dim]) -> View:
        """A constant around the innermost loop, for the initial value of a state."""
        if self.loop is None:
            return self.constant(value, dtype, dims)
        with self.ir.at_outer():
            return self.constant(value, dtype, dims)

    def recurrence(
        self, step: Step, *operands: View, over: Dim, reverse: bool = False, names: Sequence[str] = ("state",)
    ) -> tuple[View, ...]:
        """The results of a recurrence along `over`: of this step of the loop if that is its dim, with states of this
        layer by `names`; else of all frames, from the last to the first with `reverse`.

        Operands are the step's, the states those before the first, which must be from around the loop.
        """
        if over is not self.loop or any(over in operand.type for operand in operands):
            return self.emit(Recurrence(step, over, reverse), *operands)
        types, now = result_types(step, operands), list(operands)
        states = []
        for name, at, result in zip(names, step.state_inputs, step.state_outputs, strict=True):
            states.append(self.delay(name, types[result], operands[at]))
            now[at] = states[-1].now
        results = self.emit(step, *now)
        for state, result in zip(states, step.state_outputs, strict=True):
            state.next = results[result]
        return results

    def cumsum(self, x: View, over: Dim, init: View | None = None, reverse: bool = False) -> View:
        """The sums of the frames so far, with `init`."""
        first = self.constant_outside(0, x.type.dtype, ()) if init is None else init
        return self.recurrence(CumsumStep(), x, first, over=over, reverse=reverse)[0]

    def delay(self, key: str, type_: TensorType, init: View) -> OpenState:
        """A state of this layer in the loop: `.now` is its value before the step; set `.next`."""
        return self.ir.delay(f"{self.name}:{key}", type_, init)


def dynamic_parameter(name: str, dim: Dim) -> tuple[str, str]:
    """What is wrong with a parameter along a dim that is not static, and what to do."""
    return (
        f"the parameter '{name}' would have the dim {dim}, whose size differs from batch to batch",
        "Parameters need a static feature dim: reduce the frames, or give the layers below n_out.",
    )
