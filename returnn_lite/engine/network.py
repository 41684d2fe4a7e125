"""The compiled network of a config as the engine sees it: `Runnable` of `runnable.py`, made by the compiler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from returnn_lite.compiled import Compiled
from returnn_lite.compiler import Locate, ModeName, build, nowhere, optimized
from returnn_lite.config.diagnostics import ConfigError, Diagnostic, nearest
from returnn_lite.dims import Dim, DimKind
from returnn_lite.engine.checkpoints import CheckpointError
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.runnable import Classes, DecodedLabels, LayerArray, StepResult, Tensors
from returnn_lite.ir import Value
from returnn_lite.ir.batches import BatchError
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.net.outputs import LossParts, NetworkOutputs
from returnn_lite.tf.devices import DeviceError, default_device
from returnn_lite.tf.kernels.language_models import LanguageModelError
from returnn_lite.tf.outputs import Results, shown
from returnn_lite.tf.parameters import Parameters
from returnn_lite.tf.stored_values import StoredValueError

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

    def __call__(self, mode: ModeName, layers: Sequence[str] = ()) -> CompiledNetwork:
        """The network in a mode. `layers` are those whose hypotheses or outputs are wanted, in search and forward.

        Raises ConfigError for a mistake in the network, or a layer that does not exist.
        """
        config = _with_outputs(self._config, layers)
        built = build(config, mode, targets=mode != "search", locate=self._locate, functions=self._functions)
        if mode == "train":
            built.require_objective()
        has_totals = mode in ("train", "eval")
        keep = built.outputs.with_layers(())
        if not has_totals:
            keep = _outputs_of(built, layers, f"{mode}_output_layer", config.get("network"))
        graph = optimized(built, self._optimize, keep, device=default_device())
        try:
            return CompiledNetwork(Compiled(built, graph, seed=self._parameters.seed, parameters=self._parameters))
        except StoredValueError as error:
            raise CheckpointError(str(error)) from error
        except (DeviceError, LanguageModelError) as error:
            raise EngineError(str(error)) from error


def _with_outputs(config: Mapping[str, Any], layers: Sequence[str]) -> Mapping[str, Any]:
    """The config with the wanted layers marked as outputs, so that they are built whether or not they have a loss."""
    network = config.get("network")
    if not isinstance(network, Mapping):
        return config
    changed = {
        name: {**network[name], "is_output_layer": True} for name in layers if isinstance(network.get(name), Mapping)
    }
    return {**config, "network": {**network, **changed}}


def _outputs_of(built: BuiltNetwork, layers: Sequence[str], option: str, described: object) -> NetworkOutputs[Value]:
    """These layers, and the scores of hypotheses. `described`: the layers of the config, of which a search has only
    those that need no targets."""
    known = list(built.outputs.layers)
    for layer in layers:
        if layer not in known:
            found = nearest(layer, known)
            hint = f"Did you mean '{found}'?" if found else f"There are {', '.join(known)}."
            message = f"the network has no layer '{layer}' that could be output"
            if isinstance(described, Mapping) and layer in described and not built.mode.targets:
                message, hint = f"'{layer}' can't be output: it needs targets, which a search has not", ""
            raise ConfigError([Diagnostic(None, (option,), message, hint)])
    kept = built.outputs.with_layers(layers)
    return NetworkOutputs(kept.layers, scores=kept.scores, beyond=kept.beyond)


class CompiledNetwork:
    """A compiled network for the engine; see `engine.runnable.Runnable` for what the members mean."""

    def __init__(self, compiled: Compiled) -> None:
        self._outputs, self._graph, self._executable = compiled.outputs, compiled.graph, compiled.executable
        params = self._executable.params
        self.trainable = sorted(name for name in compiled.built.parameters if name in params and params[name].trainable)
        self.updater_opts = compiled.built.updater_opts
        self._length_names = {dim: name for name, dim in self._executable.length_names().items()}
        times = ((value.name, _time(value.type.dims)) for value in self.inputs)
        keys = {key: time for key, time in times if time in self._length_names}
        others = {name: dim for dim, name in self._length_names.items() if dim not in keys.values()}
        self.length_dims: Mapping[str, Dim] = {**keys, **others}

    @property
    def params(self) -> Mapping[str, tf.Variable]:
        return self._executable.params

    @property
    def states(self) -> Mapping[str, tf.Variable]:
        return self._executable.parameters.saved_states()

    @property
    def unsaved(self) -> Collection[str]:
        return [name for name, storage in self._executable.parameters.storage.items() if not storage.saved]

    @property
    def optional(self) -> Collection[str]:
        stored = self._executable.parameters.storage.items()
        return [name for name, storage in stored if not storage.critical or storage.source is not None]

    @property
    def forget_biases(self) -> Mapping[str, float]:
        return {name: storage.forget_bias for name, storage in self._executable.parameters.storage.items()}

    def begin_epoch(self) -> None:
        self._executable.parameters.begin_epoch()

    @property
    def data_signature(self) -> Mapping[str, tf.TensorSpec]:
        return self._executable.feed_signature()

    @property
    def lengths_signature(self) -> Mapping[str, tf.TensorSpec]:
        types = self._executable.length_signature()
        return {name: types[self._length_names[dim]] for name, dim in self.length_dims.items()}

    @property
    def inputs(self) -> Sequence[Value]:
        return self._graph.inputs

    def told(self, error: tf.errors.OpError) -> BatchError:
        return self._executable.checks.told(error)

    def classes(self, layer: str) -> Classes | None:
        sparse = self._outputs.layers[layer].type.sparse
        return None if sparse is None or sparse.size is None else Classes(sparse.size)

    def run_train(self, data: Tensors, seq_lens: Tensors, seed: tf.Tensor) -> StepResult:
        results = self._call(data, seq_lens, seed, "objective")
        found = self._raw(results)
        assert found.objective is not None, "training has an objective"
        return StepResult(found.objective, found.losses, results.gradients)

    def run_eval(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, LossParts[tf.Tensor]]:
        return self._raw(self._call(data, seq_lens)).losses

    def run_search(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, DecodedLabels]:
        found = self._outputs.of(shown(self._graph, self._call(data, seq_lens)))
        return {
            path: DecodedLabels(labels, _only(path, lengths), self._scores(path, found))
            for path, (labels, lengths) in found.layers.items()
        }

    def run_forward(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, LayerArray]:
        found = self._outputs.of(shown(self._graph, self._call(data, seq_lens)))
        return {path: LayerArray(array, lengths.get("1")) for path, (array, lengths) in found.layers.items()}

    def _scores(self, path: str, found: NetworkOutputs[tuple[tf.Tensor, Any]]) -> tf.Tensor | None:
        """The scores of the beam that a layer's value still has."""
        beams = {dim for dim in self._outputs.layers[path].type.dims if dim.kind is DimKind.BEAM}
        of_beam = (loop for loop, value in self._outputs.scores.items() if beams & set(value.type.dims))
        loop = next(of_beam, None)
        return None if loop is None else found.scores[loop][0]

    def _call(
        self, data: Tensors, seq_lens: Tensors, seed: tf.Tensor | None = None, gradients_of: str | None = None
    ) -> Results:
        lengths = {self._length_names[dim]: seq_lens[name] for name, dim in self.length_dims.items()}
        seed = tf.constant(_NO_SEED, tf.int32) if seed is None else seed
        results = self._executable.call(data, lengths, seed, gradients_of)
        self._executable.assign(results)
        return results

    def _raw(self, results: Results) -> NetworkOutputs[tf.Tensor]:
        return self._outputs.of({name: tensor.raw for name, tensor in results.outputs.items()})


def _time(dims: Sequence[Dim]) -> Dim | None:
    """The first dim of an input that is ragged over the batch."""
    return next((dim for dim in dims if dim.is_ragged and dim.kind is not DimKind.BATCH), None)


def _only(path: str, lengths: Mapping[str, tf.Tensor]) -> tf.Tensor:
    if len(lengths) != 1:
        message = f"'{path}' has {len(lengths)} dynamic dims, so it is no sequence of labels"
        raise ConfigError([Diagnostic(None, ("search_output_layer",), message, "Name the decide layer.")])
    return next(iter(lengths.values()))
