"""The states that recurrent layers end with, as layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from returnn_lite.config.options import option
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.cells.given_states import listed_states


class GetLastHiddenState(Layer, names=("get_last_hidden_state",)):
    """The state of recurrent layers after their last frame; `key` picks one, else all of a layer are joined, in the
    order of their names."""

    source_count = (1, None)

    combine: Literal["concat", "add"] = option("what is done with several layers", default="concat")
    key: str | int | None = option(
        "the name of a state: c, h, of a cell inside with its path (forward/0/h); that of a cell (forward/0) for all "
        "that it has; a number: its place in a list for initial_state; * for all",
        default="*",
    )

    def build(self, b: LayerBuilder, *sources: View) -> View:
        parts: list[View] = []
        for reference in b.source_names:
            own = self._states(b, reference)
            parts.append(b.concat_features(own) if len(own) > 1 else own[0])
        if self.combine == "concat":
            return b.concat_features(parts)
        total = parts[0]
        for part in parts[1:]:
            total = b.add(
                total, b.relabel(part, b.feature_of(part), b.feature_of(total), f"states added by '{b.name}'")
            )
        return total

    def _states(self, b: LayerBuilder, reference: str) -> list[View]:
        """Those of a layer that the key names. Raises LayerError."""
        state = b.layer_outputs(reference).state
        if not state:
            hint = (
                "Give recurrent layers. Of a cell in a loop take the state there, with need_last, and rec_last_output."
            )
            b.fail(f"'{reference}' has no state", hint, "from")
        key = self.key
        if key in ("*", None):
            return [state[name] for name in sorted(state)]
        if isinstance(key, int):
            listed = listed_states(list(state))
            if not 0 <= key < len(listed):
                b.fail(f"'{reference}' has {len(listed)} states, none with the number {key}", _known(state), "key")
            key = listed[key]
        found = [name for name in sorted(state) if f"{name}/".startswith(f"{key}/")]
        if not found:
            b.fail(f"'{reference}' has no state '{key}'", _known(state), "key")
        return [state[name] for name in found]


def _known(state: Mapping[str, View]) -> str:
    return f"It has {', '.join(state)}."


LAYERS = (GetLastHiddenState,)
