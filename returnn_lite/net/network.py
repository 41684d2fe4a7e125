"""A whole network: from the config's dict to one graph with all layers, losses and the objective as named outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from returnn_lite.config.decode import NAMES
from returnn_lite.config.diagnostics import AnyPath, ConfigError, Diagnostic, Position
from returnn_lite.dims import Dim, DimKind, Symbol, Unknown
from returnn_lite.ir import Graph, Value, walk
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.layer_reads import LayerRecord
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.ir.rewrite import Rewriter
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Hypotheses, LayerError, Mode
from returnn_lite.layers.preactivations import Preactivations
from returnn_lite.layers.registry import LAYERS
from returnn_lite.memory.automatic import MemoryLimit
from returnn_lite.memory.batches import batch_limits
from returnn_lite.net.building import TaskDriver
from returnn_lite.net.context import NetworkContext
from returnn_lite.net.declared_dims import own_dims
from returnn_lite.net.extern_data import ExternData, read_extern_data
from returnn_lite.net.objectives import totals
from returnn_lite.net.outputs import NetworkOutputs
from returnn_lite.net.overlays import built_in_all, unused
from returnn_lite.net.parameter_scope import ParameterScope
from returnn_lite.net.recomputation import NONE, Marks, limit_of, outermost_marks
from returnn_lite.net.scope import Scope, SomeLayers
from returnn_lite.net.specs import read_network, root_layers
from returnn_lite.net.whole_network import (
    report_dims_that_nothing_makes,
    report_frames_of_masks,
    report_losses_with_dims,
    report_parameters_without_size,
    report_states_of_other_frames,
    report_values_of_single_positions,
    require_batch,
    with_types_of_loops,
)
from returnn_lite.passes.errors import PassError


@dataclass(frozen=True)
class BuiltNetwork:
    """The per-step graph of one mode, and what is known of it."""

    graph: Graph
    outputs: NetworkOutputs[Value]
    """What the graph's outputs are."""
    mode: Mode
    extern_data: ExternData
    parameters: Mapping[str, Parameter]
    root_names: tuple[str, ...]
    unused: tuple[str, ...]
    hypotheses: tuple[Hypotheses, ...]
    updater_opts: Mapping[str, Mapping[str, Any]]
    locate: Callable[[AnyPath], Position | None]
    config_paths: Mapping[str, AnyPath]
    """Where in the config each layer is, by its path in the network."""
    layers: Mapping[str, LayerRecord]
    """Every layer, also inside of other layers, by its path."""
    memory_limits: tuple[MemoryLimit, ...] = ()
    """In training: what may be kept for gradients, where layers are recomputed by that..."""
    batches: Mapping[str, Any] = field(default_factory=dict)
    """...and the options that say how large a batch is."""

    def mistake(self, layer: str, message: str, hint: str = "") -> Diagnostic:
        """A mistake that shows only in the whole network, at the layer that it is about."""
        path = self.config_paths.get(layer, ("network",))
        return Diagnostic(self.locate(path), tuple(path), message, hint)

    def refused(self, error: PassError) -> Diagnostic:
        """What a pass refuses, at the layer that can't be where it is."""
        layer = next(iter(error.layers), "")
        return self.mistake(layer, str(error), self.to_need_one_step(layer))

    def to_need_one_step(self, layer: str) -> str:
        """What to set so that a layer that needs all steps of a loop at once can work step by step; "" if nothing."""
        record = self.layers.get(layer)
        cls = LAYERS.get(record.kind) if record is not None else None
        return "" if cls is None else cls.to_need_one_step

    def require_objective(self) -> None:
        """Raises ConfigError if there is nothing that training could minimise."""
        if self.outputs.objective is None:
            message = "there is nothing to train for: no layer has a loss with a value, or all have loss_scale 0"
            raise ConfigError([self.mistake("", message, "Give a layer a 'loss', such as ce.")])


def build_network(
    config: Mapping[str, Any],
    mode: Mode,
    *,
    locate: Callable[[AnyPath], Position | None] = lambda path: None,
    functions: Mapping[str, Callable[..., object]] | None = None,
) -> BuiltNetwork:
    """Builds the network of a config. Raises ConfigError with every independent mistake."""
    diagnostics: list[Diagnostic] = []
    batch = Symbol("B", DimKind.BATCH)
    config, declared = own_dims(config, batch)
    extern_data = read_extern_data(config, locate, diagnostics, batch, declared)
    network = config.get("network")
    if not isinstance(network, Mapping):
        diagnostics.append(
            Diagnostic(locate(("network",)), ("network",), "there is no network", "Give a dict of layers.")
        )
        raise ConfigError(diagnostics)
    for key, expected in (("behavior_version", int), ("target", str), ("default_input", str)):
        if config.get(key) is not None and not isinstance(config[key], expected):
            message = f"expected {NAMES[expected]}, got {config[key]!r}"
            diagnostics.append(Diagnostic(locate((key,)), (key,), message))
            raise ConfigError(diagnostics)
    preactivations = Preactivations()
    context = NetworkContext(
        builder=Builder(preactivations.follow),
        preactivations=preactivations,
        mode=mode,
        behavior_version=config.get("behavior_version") or 0,
        extern_data=extern_data,
        layer_classes=LAYERS,
        default_target=config.get(
            "target", "classes" if "classes" in {*extern_data.entries, *extern_data.broken} else None
        ),
        locate=locate,
        functions=functions or {},
        diagnostics=diagnostics,
        registered=tuple(dict.fromkeys(_registered(network))),
    )
    scope = _build_layers(context, network, config.get("recompute"))
    if diagnostics:
        raise ConfigError(sorted(diagnostics, key=_by_position))
    built = _finished(context, scope)
    if not mode.train:
        return built
    return replace(built, memory_limits=tuple(_memory_limits(context, scope)), batches=batch_limits(config))


def _memory_limits(context: NetworkContext, scope: Scope) -> Iterator[MemoryLimit]:
    """The limits that the config's own option `recompute`, and those of layers that were built, have in `auto`."""
    yield from limit_of(scope.marks.chosen, "")
    for path, recompute in context.layers.recomputed.items():
        yield from limit_of(recompute, path)


def _registered(network: Mapping[str, Any]) -> Iterator[str]:
    """The data keys that layers at any depth publish their outputs under."""
    waiting = [network]
    while waiting:
        inside = [value for value in waiting.pop().values() if isinstance(value, Mapping)]
        yield from (key for value in inside if isinstance(key := value.get("register_as_extern_data"), str))
        waiting += reversed(inside)


def _by_position(diagnostic: Diagnostic) -> tuple[str, int, int]:
    position = diagnostic.position
    return ("", 0, 0) if position is None else (position.file, position.line, position.col)


def _build_layers(context: NetworkContext, network: Mapping[str, Any], recompute: object) -> Scope:
    spec = read_network(context, network, ("network",), context.mode)
    marks = _marks(context, recompute, [*spec.layers, *spec.absent])
    scope = Scope(context, spec, "", ParameterScope(), TaskDriver(), context.mode, context.losses, marks=marks)
    roots = root_layers(spec, in_loop=False)
    if not roots and not spec.broken:
        context.report_at(
            ("network",), "no layer is an output", "Call one 'output', or give one a loss or is_output_layer."
        )
    scope.driver.build(SomeLayers(scope, roots, all_of_them=True))
    if not context.diagnostics:
        for user, error in list(context.parameters.borrowed.values())[:1]:
            context.report(user, error)
    return scope


def _marks(context: NetworkContext, recompute: object, names: list[str]) -> Marks:
    """Which layers the config itself has recomputed."""
    try:
        return outermost_marks(recompute, names)
    except LayerError as error:
        context.report_at(error.path, error.message, error.hint)
        return NONE


def _finished(context: NetworkContext, scope: Scope) -> BuiltNetwork:
    scores = {result.scores.name.removesuffix(":scores"): result.scores for result in context.hypotheses}
    seen = replace(totals(context), layers=_outermost_values(context), scores=scores, beyond=context.layers.beyond)
    require_batch(context)
    graph = context.builder.graph(seen.named())
    layers = {value.of: path for value, path in context.layers.names.items()}
    rewriter = Rewriter(_solved(context), layers, in_place=True)
    solved = with_types_of_loops(context, rewriter, graph)
    outputs = seen.map(lambda value: rewriter.value(value.of))
    if solved is not None:
        graph = replace(solved, shown=_shown(seen.named(), solved, rewriter.dims), beyond=seen.ends())
        report_values_of_single_positions(context, graph)
        report_dims_that_nothing_makes(context, graph)
        report_losses_with_dims(context, outputs.losses)
        report_parameters_without_size(context, graph)
        report_states_of_other_frames(context, graph)
        report_frames_of_masks(context, graph)
    if context.diagnostics:
        raise ConfigError(sorted(context.diagnostics, key=_by_position))
    _require_known_dims(context, graph)
    substituted, built = rewriter.dims, built_in_all(scope)
    return BuiltNetwork(
        graph,
        outputs,
        context.mode,
        context.extern_data,
        {name: parameter.substitute(substituted) for name, (parameter, _) in context.parameters.by_name.items()},
        tuple(name for name in root_layers(scope.spec, in_loop=False) if name in built),
        tuple(unused(scope)),
        tuple(context.hypotheses),
        dict(context.layers.updater_opts),
        context.locate,
        dict(context.layers.config_paths),
        _records(context),
    )


def _shown(seen: Mapping[str, View], graph: Graph, solved: Mapping[Dim, Dim]) -> dict[str, tuple[Dim, ...]]:
    """The order of the dims of each output of the solved graph, which layers saw without the dims that were unknown."""
    types = {name: value.type.substitute(solved) for name, value in seen.items()}
    return {name: type_.with_dims(*graph.outputs[name].type.dims).feature_last.dims for name, type_ in types.items()}


def _records(context: NetworkContext) -> dict[str, LayerRecord]:
    return {
        path: LayerRecord(
            context.layers.names[value],
            context.layers.kinds[path],
            tuple(context.layers.reads.get(path, ())),
            context.layers.cells[path],
        )
        for path, value in context.layers.of_step.items()
    }


def _outermost_values(context: NetworkContext) -> dict[str, View]:
    """The layers' values that exist outside of all loops; those inside are known by their stacks."""
    graph_values = {output for node in context.builder.outermost_nodes for output in node.outputs}
    graph_values |= set(context.data_values.values())
    return {path: value for path, value in context.layers.values.items() if value in graph_values}


def _solved(context: NetworkContext) -> dict[Dim, Dim]:
    """Unknown dims to what they are, chains followed to their end."""
    solved: dict[Dim, Dim] = {}
    for unknown, known in context.dims.solved.items():
        seen = {unknown}
        while known in context.dims.solved and known not in seen:
            seen.add(known)
            known = context.dims.solved[known]
        solved[unknown] = known
    return {unknown: known.substitute(solved) for unknown, known in solved.items()}


def _require_known_dims(context: NetworkContext, graph: Graph) -> None:
    for node in walk(graph.nodes):
        for output in node.outputs:
            for dim in output.type.dims:
                if isinstance(dim, Unknown):
                    spec = context.dims.assumed.get(dim)
                    path = (
                        context.layers.config_paths.get(node.origin.layer, ("network",)) if spec is None else spec.path
                    )
                    read = dim.name.removesuffix(":feature")
                    message = f"nothing says how many features '{read}' has: its layers only read each other"
                    context.report_at(path, message, "Give n_out or out_type here, or initial_output as a layer.")
                    raise ConfigError(context.diagnostics)
