"""What shows only once all layers are built: types through `prev:`, values that go with whole sequences, and whether an
input says how many sequences there are.

A layer that reads `prev:` is built before the layer that it reads. So the dims of the latter, where it has more than
its options tell, come to it late, and it may turn out that it has no meaning on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from returnn_lite.dims import Declared, Dim, DimKind, TensorType, Unknown
from returnn_lite.ir import Graph, Loop, Node, Value, walk
from returnn_lite.ir.body import BodyGraph, is_clocked
from returnn_lite.ir.ops.histories import CumConcatStep
from returnn_lite.ir.ops.search import Choose
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.ir.rewrite import RetypeError, Rewriter
from returnn_lite.layers.builder import dynamic_parameter
from returnn_lite.net.context import NetworkContext
from returnn_lite.net.made_frames import outside_of_mask
from returnn_lite.net.outputs import LossParts


def with_types_of_loops(context: NetworkContext, rewriter: Rewriter, graph: Graph) -> Graph | None:
    """The graph with the types of all states solved; None, and a mistake reported, if a primitive does not fit them."""
    try:
        return rewriter.graph(graph)
    except RetypeError as error:
        hint = "A 'prev:' reference adds dims from step to step; give the layer it reads those of the first step."
        _report(context, error.origin.layer, str(error), hint)
        return None


def report_values_of_single_positions(context: NetworkContext, graph: Graph) -> None:
    """Reports masks, ends and choices that differ along more than the batch: they are made for whole sequences."""
    for node in walk(graph.nodes):
        for mask in node.clock:
            others = _positions(mask.value.type)
            if others:
                message = f"the mask '{mask.value.name}' differs along {others}, but a frame is there for all of these"
                _report(context, node.origin.layer, message, "Give one bool for each sequence: reduce it.")
        if isinstance(node.op, Loop):
            _report_steps(context, node, node.op)


def report_dims_that_nothing_makes(context: NetworkContext, graph: Graph) -> None:
    """Reports layers along a dim that the config declares, where neither the data nor a layer before has it."""
    if any(isinstance(dim, Declared) and dim.is_dynamic for dim in _dims_measured(graph)):
        _report_unmade(context, graph.nodes, {dim for value in graph.inputs for dim in value.type.dims})


def _dims_measured(graph: Graph) -> set[Dim]:
    found: set[Dim] = set()
    for node in walk(graph.nodes):
        found |= node.op.over.leaves if isinstance(node.op, Loop) else node.op.measured_dims()
    return found


def _report_unmade(context: NetworkContext, nodes: Iterable[Node], made: set[Dim]) -> None:
    for node in nodes:
        loop = node.op if isinstance(node.op, Loop) else None
        measured = node.op.measured_dims() if loop is None else loop.over.leaves.difference(loop.created_dims())
        unmade = {dim for dim in measured if isinstance(dim, Declared) and dim.is_dynamic and dim not in made}
        if unmade:
            unmade -= {dim for value in node.inputs for dim in value.type.dims}
        for dim in sorted(unmade, key=str):
            message = f"nothing before it says how long {dim} is"
            _report(context, node.origin.layer, message, "Give the dim to the layer that makes it, or to the data.")
        if loop is not None:
            _report_unmade(context, loop.body, made)
        for value in node.outputs:
            made.update(value.type.dims)


def report_parameters_without_size(context: NetworkContext, graph: Graph) -> None:
    """Reports parameters of which a dim, read by `prev:`, turns out to differ from batch to batch."""
    for node in walk(graph.nodes):
        if isinstance(node.op, Parameter) and not node.op.kept:
            for dim in node.op.dims:
                if dim.is_dynamic and not any(isinstance(leaf, Unknown) for leaf in dim.leaves):
                    _report(context, node.origin.layer, *dynamic_parameter(node.op.name.rpartition("/")[2], dim))


def report_states_of_other_frames(context: NetworkContext, graph: Graph) -> None:
    """Reports states along a dim that each step makes anew; but for those of the frames so far, which grow with it."""
    for node in walk(graph.nodes):
        if not isinstance(node.op, Loop):
            continue
        made = BodyGraph(node.op).made_anew
        growing = {value for inner in node.op.body if isinstance(inner.op, CumConcatStep) for value in inner.inputs}
        for state in node.op.states:
            dim = next((dim for dim in state.now.type.dims if made and not dim.leaves.isdisjoint(made)), None)
            if dim is not None and state.now not in growing:
                message = f"the source has other frames in each step ({dim}), but a state is as large in all steps"
                _report(context, state.origin.layer, message, "Reduce or pick frames before.")


def report_frames_of_masks(context: NetworkContext, graph: Graph) -> None:
    """Reports what reads frames that each step makes anew from under a mask that it is not under itself."""
    for node in walk(graph.nodes):
        if not isinstance(node.op, Loop) or not is_clocked(node.op):
            continue
        made = BodyGraph(node.op).made_anew
        clocks = {value: inner.clock for inner in node.op.body if inner.clock for value in inner.outputs}
        for reader in node.op.body if made else ():
            for value in reader.inputs:
                clock = clocks.get(value, ())
                dim = next((dim for dim in value.type.dims if not dim.leaves.isdisjoint(made)), None)
                if dim is not None and reader.clock[: len(clock)] != clock:
                    _report(context, reader.origin.layer, *outside_of_mask(dim, clock))


def report_losses_with_dims(context: NetworkContext, losses: Mapping[str, LossParts[Value]]) -> None:
    """Reports losses that are no numbers: what a state has from its initial value alone, no layer has summed."""
    for name, loss in losses.items():
        dims = dict.fromkeys(dim for part in (loss.sum, loss.error) if part is not None for dim in part.type.dims)
        if dims:
            message = (
                f"the loss has {', '.join(map(str, dims))} left over, which it has only from a state's initial value"
            )
            _report(context, name, message, "Begin with a value of each sequence: reduce its frames.")


def _report_steps(context: NetworkContext, node: Node, loop: Loop) -> None:
    if loop.ending is not None and (others := _positions(loop.ending.ended.type)):
        message = f"'end' differs along {others}, but a sequence ends for all of these"
        _report(context, f"{node.origin.layer}/end", message, "Give one bool for each sequence: reduce it.")
    for choice in _choices(loop):
        if others := _positions(choice.outputs[0].type):
            message = f"a choice among classes is made for each sequence, but the scores differ along {others} too"
            _report(context, choice.origin.layer, message, "Reduce or merge these dims before.")


def _choices(loop: Loop) -> Iterator[Node]:
    return (inner for inner in loop.body if isinstance(inner.op, Choose))


def _positions(type_: TensorType) -> str:
    """The dims other than those of sequences and hypotheses, for a message."""
    kinds = (DimKind.BATCH, DimKind.BEAM)
    return ", ".join(str(dim) for dim in type_.dims if dim.kind not in kinds)


def _report(context: NetworkContext, layer: str, message: str, hint: str) -> None:
    path = layer
    while path and path not in context.layers.config_paths:
        path = path.rpartition("/")[0]
    context.report_at(context.layers.config_paths.get(path, ("network",)), message, hint)


def require_batch(context: NetworkContext) -> None:
    """Makes a data key with a batch an input where the network needs one, as when it only generates; or reports it.

    Keys that are there when targets are not known come first.
    """
    batch = context.extern_data.batch
    if any(batch in value.type for value in context.data_values.values()):
        return
    nodes = [node for node in walk(context.builder.outermost_nodes) if not isinstance(node.op, Loop)]
    first = next((node for node in nodes if any(batch in output.type for output in node.outputs)), None)
    if first is None and context.data_values:
        return
    entries = context.extern_data.entries
    batched = [key for key, entry in entries.items() if batch in entry.type]
    if first is not None and not batched:
        _report_no_batch(context, first)
    elif entries:
        context.data(min(batched or entries, key=lambda key: not entries[key].available_for_inference))


def _report_no_batch(context: NetworkContext, node: Node) -> None:
    layer = node.origin.layer
    context.report_at(
        context.layers.config_paths.get(layer, ("network",)),
        f"'{layer}' has the batch dim, but no key of extern_data has one, so nothing says how many sequences there are",
        "Declare a data key with a batch, or leave the batch dim out here.",
    )
