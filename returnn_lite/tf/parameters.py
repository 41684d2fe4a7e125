"""The variables of a network, under their names, started by rules that do not depend on TensorFlow's random state."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from returnn_lite.ir import Graph, Node, walk
from returnn_lite.ir.ops.sources import Initializer, Parameter, Storage
from returnn_lite.tf.context import lengths_of
from returnn_lite.tf.stored_values import stored_value

# The standard deviation of a standard normal distribution that is cut off at 2.
TRUNCATED_STDDEV = 0.87962566103423978


class Kept:
    """What one batch leaves for the next: an array with an entry for each sequence, none before the first batch.

    It is stored as bytes: of a variable whose shape changes, TensorFlow's graph optimiser takes the shape for a
    constant.
    """

    def __init__(self, dtype: tf.DType, sizes: list[int | None], of_epoch: bool, saved: bool = False) -> None:
        self._dtype, self._sizes = dtype, sizes
        self.of_epoch, self.saved = of_epoch, saved
        self.serialized = tf.Variable(self._empty(), trainable=False)

    def read(self) -> tf.Tensor:
        """The array [sequences before, ..]."""
        return tf.ensure_shape(tf.io.parse_tensor(self.serialized, self._dtype), [None, *self._sizes])

    def assign(self, value: tf.Tensor) -> None:
        """Replaces the array."""
        self.serialized.assign(tf.io.serialize_tensor(value))

    def clear(self) -> None:
        """Forgets the array."""
        self.serialized.assign(self._empty())

    def _empty(self) -> tf.Tensor:
        return tf.io.serialize_tensor(tf.zeros([0, *(size or 0 for size in self._sizes)], self._dtype))


class Parameters:
    """The variables of all compilations of one network. Equal seeds give equal values, whatever the order of layers."""

    def __init__(self, dtype: str = "float32", seed: int = 42) -> None:
        self.dtype = dtype
        self.seed = seed
        self.variables: dict[str, tf.Variable] = {}
        self.kept: dict[str, Kept] = {}
        self.storage: dict[str, Storage] = {}

    def create(self, graph: Graph, evaluate: Callable[[Graph], np.ndarray]) -> None:
        """Makes the variables of a graph that do not exist yet. Raises ValueError if one exists in another shape.

        `evaluate` computes a graph without inputs, for initial values that are computed; its own variables are made.
        """
        for node in parameter_nodes(graph.nodes):
            assert isinstance(node.op, Parameter)
            if node.op.kept:
                self._create_kept(node.op)
                continue
            shape = parameter_shape(node.op)
            existing = self.variables.get(node.op.name)
            if existing is None:
                computed = node.op.initializer.value
                value = None if computed is None else evaluate(computed.graph)
                if (source := node.op.storage.source) is not None:
                    stored = stored_value(source, node.op.name, shape, node.op.storage.forget_bias)
                    value = value if stored is None else stored
                self.variables[node.op.name] = self._variable(node.op, value)
                self.storage[node.op.name] = node.op.storage
            elif tuple(existing.shape) != shape:
                raise ValueError(f"parameter {node.op.name} has shape {existing.shape}, but is asked for as {shape}")

    def begin_epoch(self) -> None:
        """Forgets what is kept over the batches of an epoch."""
        for kept in self.kept.values():
            if kept.of_epoch:
                kept.clear()

    def saved_states(self) -> dict[str, tf.Variable]:
        """What one batch left for the next and checkpoints have, as bytes, by name."""
        return {name: kept.serialized for name, kept in self.kept.items() if kept.saved}

    def _create_kept(self, op: Parameter) -> None:
        if op.name not in self.kept:
            dtype = tf.as_dtype(self.dtype if op.dtype == "float32" else op.dtype)
            sizes = [dim.size for dim in op.dims[1:]]
            self.kept[op.name] = Kept(dtype, sizes, op.kept == "epoch", op.storage.saved)
            if op.created_dims():
                self.kept[lengths_of(op.name)] = Kept(tf.int32, [], op.kept == "epoch")

    def _variable(self, op: Parameter, value: np.ndarray | None) -> tf.Variable:
        if value is None:
            generator = np.random.default_rng([self.seed, zlib.crc32(op.name.encode())])
            value = initial_value(op.initializer, op, generator)
        dtype = self.dtype if op.dtype == "float32" else op.dtype
        name = re.sub(r"[^A-Za-z0-9_./-]", "_", op.name)
        return tf.Variable(value.astype(dtype), trainable=op.trainable, name=name)


def parameter_nodes(nodes: Iterable[Node]) -> list[Node]:
    """All nodes that read a parameter, those in loops too."""
    return [node for node in walk(nodes) if isinstance(node.op, Parameter)]


def parameter_shape(op: Parameter) -> tuple[int, ...]:
    """The shape of the array. Raises ValueError if a dim is dynamic."""
    sizes = [dim.size for dim in op.dims]
    if None in sizes:
        dims = ", ".join(str(dim) for dim in op.dims)
        raise ValueError(f"parameter {op.name} needs static dims, but has [{dims}]")
    return tuple(size for size in sizes if size is not None)


def initial_value(initializer: Initializer, op: Parameter, generator: np.random.Generator) -> np.ndarray:
    """The array that a parameter starts with. Raises ValueError for a rule that does not exist."""
    shape = parameter_shape(op)
    arguments = dict(initializer.arguments)

    def number(name: str, default: float) -> float:
        return float(arguments.get(name, default))

    match initializer.rule:
        case "constant":
            return np.full(shape, number("value", 0.0))
        case "normal":
            return generator.normal(number("mean", 0.0), number("stddev", 0.05), shape)
        case "truncated_normal":
            return number("mean", 0.0) + number("stddev", 0.05) * truncated_normal(generator, shape)
        case "uniform":
            return generator.uniform(number("minval", -0.05), number("maxval", 0.05), shape)
        case "variance_scaling":
            mode, distribution = str(arguments.get("mode", "fan_in")), str(arguments.get("distribution", "normal"))
            variance = number("scale", 1.0) / max(1.0, fan(mode, initializer, shape))
            return scaled(generator, distribution, variance, shape)
        case "orthogonal":
            return number("gain", 1.0) * orthogonal(generator, shape)
        case "identity":
            if len(shape) != 2:
                raise ValueError(f"parameter {op.name}: the initialiser identity needs two dims, not {len(shape)}")
            return number("gain", 1.0) * np.eye(*shape)
        case "blocks":
            values = [float(value) for value in arguments.values()]
            return np.broadcast_to(np.repeat(values, shape[-1] // len(values)), shape)
        case "given":
            assert initializer.given is not None
            return initializer.given.array(generator)
        case rule:
            raise ValueError(f"parameter {op.name}: there is no initialiser {rule!r}")


def fan(mode: str, initializer: Initializer, shape: tuple[int, ...]) -> float:
    """Fan in, fan out or their mean (Glorot and Bengio 2010). Without declared dims by Keras' rule: the last two axes
    are in and out, those before multiply both."""
    if initializer.in_dims or initializer.out_dims:
        fan_in = float(math.prod(dim.size or 1 for dim in initializer.in_dims))
        fan_out = float(math.prod(dim.size or 1 for dim in initializer.out_dims))
    elif len(shape) < 2:
        fan_in = fan_out = float(math.prod(shape))
    else:
        field = math.prod(shape[:-2])
        fan_in, fan_out = float(shape[-2] * field), float(shape[-1] * field)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    if mode not in fans:
        raise ValueError(f"variance scaling has the modes {', '.join(fans)}, not {mode!r}")
    return fans[mode]


def scaled(generator: np.random.Generator, distribution: str, variance: float, shape: tuple[int, ...]) -> np.ndarray:
    """Draws with mean 0 and the given variance. "normal" is cut off at two standard deviations, as in Keras."""
    match distribution:
        case "normal" | "truncated_normal":
            return math.sqrt(variance) / TRUNCATED_STDDEV * truncated_normal(generator, shape)
        case "untruncated_normal":
            return generator.normal(0.0, math.sqrt(variance), shape)
        case "uniform":
            limit = math.sqrt(3 * variance)
            return generator.uniform(-limit, limit, shape)
    raise ValueError(f"variance scaling has no distribution {distribution!r}")


def truncated_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers; those beyond 2 are drawn again."""
    values = np.asarray(generator.standard_normal(shape))
    while (far := np.abs(values) > 2).any():
        values[far] = generator.standard_normal(int(far.sum()))
    return values


def orthogonal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A random matrix with orthonormal rows or columns (Saxe et al. 2014); the last axis is its columns."""
    columns = shape[-1] if shape else 1
    rows = math.prod(shape) // max(columns, 1)
    q, r = np.linalg.qr(generator.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return np.reshape(q if rows >= columns else q.T, shape)
