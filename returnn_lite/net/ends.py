"""What stands beyond the ends of shorter sequences where a layer's output leaves the network: `beyond_the_end`.

Inside of the network such frames do not exist.
"""

from __future__ import annotations

from returnn_lite.ir.ops.reduction import Last
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder, LayerError, Outputs
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec

OPTION = "beyond_the_end"


def add_end(scope: Scope, b: LayerBuilder, spec: LayerSpec, outputs: Outputs, value: View) -> None:
    """Notes what stands beyond the ends of the sequences of a layer with this `value`, which the options may have made
    of its `outputs`. Raises LayerError where there is no end, or no state that could be held."""
    if scope.parent is not None or scope.below is not None:
        hint = "Give the option to a layer of the network itself: copy this one there."
        raise LayerError("frames beyond the end are only where an output leaves the network", hint, OPTION)
    time = value.type.default_time
    if time is None or not time.is_ragged:
        raise LayerError(f"the output has no sequences that could end: {value.type}", "Leave it out.", OPTION)
    how = spec.common.output.beyond_the_end
    if how == "repeat":
        zero = b.constant(False if value.type.dtype == "bool" else 0, value.type.dtype)
        scope.context.layers.beyond[scope.path_of(spec)] = b.apply(Last(time), value, zero)
    elif how == "hold":
        scope.context.layers.beyond[scope.path_of(spec)] = _held(b, outputs, value, bool(spec.common.inputs.batch_norm))


def _held(b: LayerBuilder, outputs: Outputs, value: View, has_norm: bool) -> View:
    """The state after the last step with the dims of the output."""
    state, feature = outputs.held, value.type.feature
    if state is None or feature is None or outputs.value.type.dtype != value.type.dtype or has_norm:
        hint = "Use repeat, or give the option to a recurrent layer whose output is h as it is."
        raise LayerError("the output is no state that could be held", hint, OPTION)
    return b.relabel(state, b.feature_of(state), feature, f"the state of '{b.name}'")
