"""The whole pipeline in one place: config → per-step graph → optimised graph → TensorFlow.

`check` stops before TensorFlow and never imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from returnn_lite.compiled import Compiled, RunResult, SeqLens
from returnn_lite.config.diagnostics import AnyPath, ConfigError, Diagnostic, Position, nearest_hint
from returnn_lite.explain.placement import placement
from returnn_lite.garbage import garbage_stays
from returnn_lite.ir import Graph, Value
from returnn_lite.ir.verify import verify
from returnn_lite.layers.base import Mode
from returnn_lite.memory.automatic import MemoryLimitError, within
from returnn_lite.net.network import BuiltNetwork, build_network
from returnn_lite.net.outputs import NetworkOutputs
from returnn_lite.passes.dead_nodes import dead_nodes
from returnn_lite.passes.device_kernels import device_kernels
from returnn_lite.passes.errors import PassError
from returnn_lite.passes.kernels.choice import Device
from returnn_lite.passes.pipeline import Log
from returnn_lite.passes.pipeline import optimize as run_passes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from returnn_lite.tf.parameters import Parameters

ModeName = Literal["train", "eval", "search", "forward"]
MODES: Mapping[str, Mode] = {
    "train": Mode(train=True, losses=True, search=False),
    "eval": Mode(train=False, losses=True, search=False),
    "search": Mode(train=False, losses=True, search=True),
    "forward": Mode(train=False, losses=False, search=False),
}
Locate = Callable[[AnyPath], Position | None]


def nowhere(path: AnyPath) -> Position | None:
    """For configs that are not from a file: no position."""
    return None


@garbage_stays()
def build(
    config: Mapping[str, Any],
    mode: ModeName = "train",
    *,
    targets: bool = True,
    locate: Locate = nowhere,
    functions: Mapping[str, Callable[..., object]] | None = None,
) -> BuiltNetwork:
    """The per-step graph of a config. Raises ConfigError."""
    if mode not in MODES:
        raise ConfigError([Diagnostic(None, (), f"there is no mode '{mode}'", f"Give one of {', '.join(MODES)}.")])
    chosen = MODES[mode]
    if not targets:
        chosen = replace(chosen, losses=False, targets=False)
    return build_network(config, chosen, locate=locate, functions=functions)


@garbage_stays()
def check(
    config: Mapping[str, Any], mode: ModeName = "train", *, locate: Locate = nowhere, optimize: bool = True
) -> Graph:
    """Types and optimises the network of a config without TensorFlow; the graph. Raises ConfigError."""
    return optimized(build(config, mode, locate=locate), optimize, verify_each=False)


@garbage_stays()
def optimized(
    built: BuiltNetwork,
    enabled: bool = True,
    keep: NetworkOutputs[Value] | None = None,
    *,
    verify_each: bool = True,
    log: Log | None = None,
    device: Device = "cpu",
) -> Graph:
    """The graph after the passes, verified after each (`verify_each`) or after the last. `keep` are the outputs that
    are wanted; by default all. `log` is told what each pass took. On a "gpu" it has the kernels of that.

    Raises ConfigError for a network that has no meaning: a layer in a cycle that needs the whole sequence at once;
    for values of more dims than TensorFlow takes; and for a limit of memory that nothing fits into.
    """
    graph = built.graph if keep is None else replace(built.graph, outputs=keep.named())
    try:
        found = run_passes(graph, enabled=enabled, verify_each=verify_each, log=log)
    except PassError as error:
        raise ConfigError([built.refused(error)]) from error
    if keep is not None and not keep.layers:
        found = _within_memory(built, found)
    elif built.memory_limits:
        _within_memory(built, _training_part(built, found))  # only whether something fits: what trains is that part
    return verify(device_kernels(found), "device_kernels") if enabled and device == "gpu" else found


def _training_part(built: BuiltNetwork, graph: Graph) -> Graph:
    """What is left of an optimised graph where no layer's value is kept for others."""
    return dead_nodes(replace(graph, outputs=built.outputs.of(graph.outputs).with_layers(()).named()))


def _within_memory(built: BuiltNetwork, graph: Graph) -> Graph:
    """The graph where layers are recomputed as far as limits of memory need it. Raises ConfigError if none helps."""
    for limit in built.memory_limits if "objective" in graph.outputs else ():
        try:
            graph = within(graph, limit, built.layers, built.batches)
        except MemoryLimitError as error:
            path = (*(built.config_paths[limit.around] if limit.around else ()), "recompute")
            raise ConfigError([Diagnostic(built.locate(path), path, str(error), error.hint)]) from error
    return graph


class Network:
    """A compiled network. NumPy in, NumPy out; parameters under RETURNN's names in `params`.

    `draws_by_step`: random numbers that are new in each step of a loop are the same whether layers left the loop or
    not. It makes them slower, and is for comparisons. `locate` finds the place of a config path for messages.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        mode: ModeName,
        optimize: bool,
        dtype: str,
        functions: Mapping[str, Any],
        seed: int,
        draws_by_step: bool = False,
        locate: Locate = nowhere,
    ) -> None:
        self.draws_by_step = draws_by_step
        self.config = config
        self.mode = mode
        self.optimize = optimize
        self.dtype = dtype
        self.functions = functions
        self.seed = seed
        self._locate = locate
        self._variants: dict[tuple[bool, WantedLayers], Compiled] = {}
        self._parameters: Parameters | None = None
        self._main = self._compiled(targets=True, kept="needed")

    @property
    def params(self) -> Mapping[str, Any]:
        """The variables, by RETURNN's names."""
        return self._main.executable.params

    @property
    def graph(self) -> Graph:
        """The optimised graph; prints as IR text."""
        return self._main.graph

    @property
    def placement(self) -> Mapping[str, str]:
        """For each layer, where it is computed: "outside", "before", "loop" or "after"."""
        everything = self._compiled(targets=True, kept="all")
        return {path: place.where for path, place in placement(everything.built.graph, everything.graph).items()}

    def run(self, data: Mapping[str, ArrayLike], seq_lens: SeqLens, layers: Sequence[str] | None = None) -> RunResult:
        """Computes the layers and losses of one batch. The network is compiled for just these layers; by default for
        all, of which then each is computed whole.

        `data`: for each key an array, batch first. `seq_lens`: for each key with time the lengths [B]; for one with
        more dynamic dims a dict of them, {"data": {"T": [7, 5], "spatial:1": [3, 4]}}, by their names (as those in
        results, "data:time1") or as layers' options call axes. Names of dims and `rl.Dim` objects are keys of
        `seq_lens`, too. Where lengths of further dims are not given, all sequences are as long as the array.
        Raises BatchError for what the network cannot take, and ValueError if there is no such layer.
        """
        if layers is None:
            return self._compiled(self._has_targets(data), "all").run(data, seq_lens)
        kept = frozenset(layers)
        compiled = self._compiled(True, kept)  # these layers may need no targets, or not all
        if not self._has_targets(data) and any(value.name not in data for value in compiled.graph.inputs):
            with suppress(ConfigError, ValueError):  # not there without targets: running says what it lacks
                compiled = self._compiled(False, kept)
        return compiled.run(data, seq_lens)

    def gradients(self, data: Mapping[str, ArrayLike], seq_lens: SeqLens) -> Mapping[str, NDArray[Any]]:
        """The gradient of the objective for each trainable parameter. Raises ConfigError if there is no objective, and
        BatchError for what the network cannot take."""
        self._main.built.require_objective()
        return self._main.gradients(data, seq_lens)

    def _has_targets(self, data: Mapping[str, ArrayLike]) -> bool:
        entries = self._main.built.extern_data.entries
        keys = [value.name for value in self._main.built.graph.inputs]
        return all(key in data for key in keys if not entries[key].available_for_inference)

    def _compiled(self, targets: bool, kept: WantedLayers) -> Compiled:
        from returnn_lite.tf.devices import default_device

        key = (targets, kept)
        if key not in self._variants:
            built = build(self.config, self.mode, targets=targets, locate=self._locate, functions=self.functions)
            graph = optimized(built, self.optimize, _kept_outputs(built, kept), device=default_device())
            compiled = Compiled(built, graph, self.dtype, self.seed, self._parameters, self.draws_by_step)
            # What training and the root layers need has parameters, whatever is computed now.
            roots = _at_roots(built)
            compiled.executable.create_parameters(dead_nodes(replace(built.graph, outputs=roots.named())))
            self._parameters = compiled.executable.parameters
            self._variants[key] = compiled
        return self._variants[key]


def _at_roots(built: BuiltNetwork) -> NetworkOutputs[Value]:
    """The totals, and the root layers with what they show of their insides."""
    roots = set(built.root_names)
    return built.outputs.with_layers([path for path in built.outputs.layers if path.split("/")[0] in roots])


WantedLayers = frozenset[str] | Literal["needed", "all"]
"""The layers whose values are kept: these; what training and decoding need, not every layer's value; or all."""


def needed_outputs(built: BuiltNetwork) -> NetworkOutputs[Value]:
    """What training and decoding need, not every layer's value."""
    return built.outputs.with_layers(() if built.mode.train else built.root_names)


def _kept_outputs(built: BuiltNetwork, kept: WantedLayers) -> NetworkOutputs[Value]:
    """The values of these layers, and always the losses, the objective and the scores.

    Raises ValueError for a layer that is not there.
    """
    if kept == "all":
        return built.outputs
    if kept == "needed":
        return needed_outputs(built)
    known = list(built.outputs.layers)
    for name in sorted(kept.difference(known)):
        raise ValueError(f"the network has no layer '{name}' in this mode.{nearest_hint(name, known)}")
    return built.outputs.with_layers(kept)


def compile(
    network: Mapping[str, Any],
    extern_data: Mapping[str, Any],
    mode: ModeName = "train",
    *,
    optimize: bool = True,
    behavior_version: int | None = None,
    dtype: str = "float32",
    functions: Mapping[str, Callable[..., object]] | None = None,
    target: str | None = None,
    seed: int = 42,
) -> Network:
    """Compiles a network dict for one mode. Raises ConfigError.

    `functions` are names that expressions in the network may call; `dtype` is that of all real numbers.
    """
    config: dict[str, Any] = {"network": network, "extern_data": extern_data}
    if behavior_version is not None:
        config["behavior_version"] = behavior_version
    if target is not None:
        config["target"] = target
    return Network(config, mode, optimize, dtype, functions or {}, seed)
