"""The states that recurrent layers end with, as layers."""

from __future__ import annotations

from typing import Literal

from returnn_lite.config.options import option
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder


class GetLastHiddenState(Layer, names=("get_last_hidden_state",)):
    """The state of recurrent layers after their last frame; `key` picks one, else all of a layer are joined."""

    source_count = (1, None)

    combine: Literal["concat", "add"] = option("what is done with several layers", default="concat")
    key: str | int | None = option("c, h, or * for all", default="*")

    def build(self, b: LayerBuilder, *sources: View) -> View:
        parts: list[View] = []
        for reference in b.source_names:
            state = b.layer_outputs(reference).state
            if not state:
                b.fail(f"'{reference}' has no state", "Give recurrent layers.", "from")
            if self.key in ("*", None):
                own = [state[name] for name in sorted(state)]
                parts.append(b.concat_features(own) if len(own) > 1 else own[0])
            elif self.key in state:
                parts.append(state[str(self.key)])
            else:
                b.fail(f"'{reference}' has no state '{self.key}'", f"It has {', '.join(state)}.", "key")
        if self.combine == "concat":
            return b.concat_features(parts)
        total = parts[0]
        for part in parts[1:]:
            total = b.add(
                total, b.relabel(part, b.feature_of(part), b.feature_of(total), f"states added by '{b.name}'")
            )
        return total


LAYERS = (GetLastHiddenState,)
