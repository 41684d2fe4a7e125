"""What is said of references that lead nowhere, or in a circle."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.layers.base import LayerError
from returnn_lite.net.options_at_fault import option_that_says
from returnn_lite.net.references import Reference

if TYPE_CHECKING:
    from returnn_lite.net.context import NetworkContext
    from returnn_lite.net.scope import Scope

NOT_DATA = {
    "seq_tag": "a network does not see the tags of its sequences",
    "seq_idx": "a network does not see where in the dataset its sequences are",
    "batch_dim": "a network computes on each sequence alone, whatever the batch",
}
"""Keys that RETURNN has without an entry in extern_data."""


def no_such_key(context: NetworkContext, key: str) -> LayerError:
    """A data key that nothing gives."""
    if key in NOT_DATA:
        return LayerError(f"'data:{key}' is not supported: {NOT_DATA[key]}", "Give it as an entry of extern_data.")
    known = [*context.extern_data.entries, *context.published]
    hint = nearest_hint(key, known).strip() or f"The keys are {', '.join(known)}."
    return LayerError(f"there is no data key '{key}'", hint)


def no_such_layer(scope: Scope, name: str) -> LayerError:
    """A layer that a network has not."""
    hint = nearest_hint(name, list(scope.spec.layers)).strip()
    if scope.parent is not None and name in scope.parent.spec.layers:
        hint = f"Write 'base:{name}' for the layer of the network around."
    elif name in scope.context.extern_data:
        hint = f"Write 'data:{name}' for the data key."
    network = f"the network of '{scope.path}'" if scope.path else "the network"
    return LayerError(f"there is no layer '{name}' in {network}", hint)


def no_such_part(scope: Scope, reference: Reference, parts: Sequence[str]) -> LayerError:
    """Something below a layer that has these parts."""
    wanted = "/".join(reference.parts)
    hint = nearest_hint(wanted, list(parts)).strip()
    child = scope.children.get(reference.name)
    if child is not None and reference.parts[0] in child.spec.layers:
        hint = f"Set is_output_layer: true on '{reference.parts[0]}' to see it from outside of the loop."
    return LayerError(f"layer '{reference.name}' has no part '{wanted}'", hint)


def report_cycle(scope: Scope, cycle: Sequence[str]) -> None:
    """Reports layers that need each other, at the one that reads what comes after it in the config: that is where the
    cycle closes for a reader."""
    order = {name: number for number, name in enumerate(scope.spec.layers)}
    pairs = list(itertools.pairwise(cycle))
    reader, read = next((pair for pair in pairs if order[pair[0]] <= order[pair[1]]), pairs[-1])
    spec = scope.spec.layers[reader]
    error = LayerError(
        f"the layers {' -> '.join(cycle)} need each other in the same step",
        "In a loop, read one of them from the step before with 'prev:'.",
        option_that_says(spec, read),
    )
    scope.context.report(spec, error)
