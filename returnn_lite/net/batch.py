"""The batch dim: some input must say how many sequences there are, even if the network reads none that has them."""

from __future__ import annotations

from returnn_lite.ir import Loop, Node, walk
from returnn_lite.net.context import NetworkContext


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
        _report(context, first)
    elif entries:
        context.data(min(batched or entries, key=lambda key: not entries[key].available_for_inference))


def _report(context: NetworkContext, node: Node) -> None:
    layer = node.origin.layer
    context.report_at(
        context.config_paths.get(layer, ("network",)),
        f"'{layer}' has the batch dim, but no key of extern_data has one, so nothing says how many sequences there are",
        "Declare a data key with a batch, or leave the batch dim out here.",
    )
