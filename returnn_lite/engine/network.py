"""The compiled network of a config as the engine sees it: `Executable` of `executable.py`, made by the compiler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from returnn_lite.compiler import Locate, build, nowhere, optimized
from returnn_lite.config.diagnostics import ConfigError, Diagnostic, nearest
from returnn_lite.dims import Dim, DimKind
from returnn_lite.engine.checkpoints import CheckpointError
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.executable import Classes, Hypotheses, LayerArray, LossSums, Mode, StepResult, Tensors
from returnn_lite.ir import Graph, Value
from returnn_lite.ir.batches import BatchError
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.tf.executable import Executable, Results, shown
from returnn_lite.tf.kernels.language_models import LanguageModelError
from returnn_lite.tf.parameters import Parameters
from returnn_lite.tf.stored_values import StoredValueError

_TOTALS = ("loss:", "objective")
_NO_SEED = 0


class NetworkCompiler:
    """Compiles the network of a config for one mode after the other; all share their parameters.

    `functions` are those that a Python config defines and its network may call; `locate` finds the place of a config
    path for messages. The config's `random_seed` decides the initial parameters.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        optimize: bool = True,
        functions: Mapping[str, Callable[..., object]] | None = None,
        locate: Locate = nowhere,
    ) -> None:
        self._config, self._optimize, self._functions, self._locate = config, optimize, functions, locate
        self._parameters = Parameters(seed=int(config.get("random_seed", 42)))

    def __call__(self, mode: Mode, layers: Sequence[str] = ()) -> CompiledNetwork:
        """The network in a mode. `layers` are those whose hypotheses or outputs are wanted, in search and forward.

        Raises ConfigError for a mistake in the network, or a layer that does not exist.
        """
        config = _with_outputs(self._config, layers)
        targets = mode != "search"
        built = build(config, mode, targets=targets, locate=self._locate, functions=self._functions)
        if mode == "train":
            built.require_objective()
        keep = [name for name in built.graph.outputs if mode in ("train", "eval") and name.startswith(_TOTALS)]
        if mode in ("search", "forward"):
            keep = _outputs_of(built, layers, f"{mode}_output_layer")
        graph = optimized(built, self._optimize, keep)
        seed = self._parameters.seed
        try:
            executable = Executable(graph, built.extern_data.batch, seed=seed, parameters=self._parameters)
        except StoredValueError as error:
            raise CheckpointError(str(error)) from error
        except LanguageModelError as error:
            raise EngineError(str(error)) from error
        return CompiledNetwork(built, graph, executable)


def _with_outputs(config: Mapping[str, Any], layers: Sequence[str]) -> Mapping[str, Any]:
    """The config with the wanted layers marked as outputs, so that they are built whether or not they have a loss."""
    network = config.get("network")
    if not isinstance(network, Mapping):
        return config
    changed = {
        name: {**network[name], "is_output_layer": True} for name in layers if isinstance(network.get(name), Mapping)
    }
    return {**config, "network": {**network, **changed}}


def _outputs_of(built: BuiltNetwork, layers: Sequence[str], option: str) -> list[str]:
    known = [name.removeprefix("layer:") for name in built.graph.outputs if name.startswith("layer:")]
    for layer in layers:
        if layer not in known:
            found = nearest(layer, known)
            hint = f"Did you mean '{found}'?" if found else f"There are {', '.join(known)}."
            message = f"the network has no layer '{layer}' that could be output"
            raise ConfigError([Diagnostic(None, (option,), message, hint)])
    return [f"layer:{layer}" for layer in layers] + [name for name in built.graph.outputs if name.startswith("scores:")]


class CompiledNetwork:
    """One compilation; see `engine.executable.Executable` for what the members mean."""

    def __init__(self, built: BuiltNetwork, graph: Graph, executable: Executable) -> None:
        self._built, self._graph, self._executable = built, graph, executable
        self.trainable = sorted(
            name for name in built.parameters if name in executable.params and executable.params[name].trainable
        )
        self.updater_opts = built.updater_opts
        self._times = {value.name: _time(value.type.dims) for value in graph.inputs}

    @property
    def params(self) -> Mapping[str, tf.Variable]:
        return self._executable.params

    @property
    def unsaved(self) -> Collection[str]:
        return [name for name, storage in self._executable.parameters.storage.items() if not storage.saved]

    @property
    def optional(self) -> Collection[str]:
        return [name for name, storage in self._executable.parameters.storage.items() if not storage.critical]

    def begin_epoch(self) -> None:
        self._executable.parameters.begin_epoch()

    @property
    def data_signature(self) -> Mapping[str, tf.TensorSpec]:
        return self._executable.feed_signature()

    @property
    def lengths_signature(self) -> Mapping[str, tf.TensorSpec]:
        return {key: tf.TensorSpec([None], tf.int32) for key, time in self._times.items() if time is not None}

    @property
    def inputs(self) -> Sequence[Value]:
        return self._graph.inputs

    def told(self, error: tf.errors.OpError) -> BatchError:
        return self._executable.checks.told(error)

    def classes(self, layer: str) -> Classes | None:
        sparse = self._graph.outputs[f"layer:{layer}"].type.sparse
        return None if sparse is None or sparse.size is None else Classes(sparse.size)

    def run_train(self, data: Tensors, seq_lens: Tensors, seed: tf.Tensor) -> StepResult:
        results = self._call(data, seq_lens, seed, "objective")
        self._executable.assign(results)
        objective = results.outputs["objective"].raw
        return StepResult(objective, self._losses(results), results.gradients)

    def run_eval(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, LossSums]:
        results = self._call(data, seq_lens, tf.constant(_NO_SEED, tf.int32), None)
        self._executable.assign(results)
        return self._losses(results)

    def run_search(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, Hypotheses]:
        results = self._call(data, seq_lens, tf.constant(_NO_SEED, tf.int32), None)
        self._executable.assign(results)
        arrays = shown(self._graph, results)
        found = {}
        for name, (labels, lengths) in arrays.items():
            if name.startswith("layer:"):
                scores = self._scores(name, arrays)
                found[name.removeprefix("layer:")] = Hypotheses(labels, _only(name, lengths), scores)
        return found

    def run_forward(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, LayerArray]:
        results = self._call(data, seq_lens, tf.constant(_NO_SEED, tf.int32), None)
        self._executable.assign(results)
        found = {}
        for name, (array, lengths) in shown(self._graph, results).items():
            if name.startswith("layer:"):
                found[name.removeprefix("layer:")] = LayerArray(array, lengths.get("1"))
        return found

    def _scores(self, name: str, arrays: Mapping[str, tuple[tf.Tensor, Any]]) -> tf.Tensor | None:
        """The scores of the beam that a layer's value still has."""
        beams = {dim for dim in self._graph.outputs[name].type.dims if dim.kind is DimKind.BEAM}
        for other, (scores, _) in arrays.items():
            if other.startswith("scores:") and beams & set(self._graph.outputs[other].type.dims):
                return scores
        return None

    def _call(self, data: Tensors, seq_lens: Tensors, seed: tf.Tensor, gradients_of: str | None) -> Results:
        names = {dim: name for name, dim in self._executable.length_names().items()}
        lengths = {names[time]: seq_lens[key] for key, time in self._times.items() if time in names}
        return self._executable.call(data, lengths, seed, gradients_of)

    def _losses(self, results: Results) -> dict[str, LossSums]:
        def part(name: str, kind: str) -> tf.Tensor | None:
            found = results.outputs.get(f"loss:{name}:{kind}")
            return None if found is None else tf.cast(found.raw, tf.float32)

        found = {}
        for name in self._built.loss_names:
            count = part(name, "count")
            assert count is not None, name
            found[name] = LossSums(part(name, "sum"), count, part(name, "error"))
        return found


def _time(dims: Sequence[Dim]) -> Dim | None:
    """The first dim of an input that is ragged over the batch."""
    return next((dim for dim in dims if dim.is_ragged and dim.kind is not DimKind.BATCH), None)


def _only(name: str, lengths: Mapping[str, tf.Tensor]) -> tf.Tensor:
    if len(lengths) != 1:
        message = f"'{name.removeprefix('layer:')}' has {len(lengths)} dynamic dims, so it is no sequence of labels"
        raise ConfigError([Diagnostic(None, ("search_output_layer",), message, "Name the decide layer.")])
    return next(iter(lengths.values()))
