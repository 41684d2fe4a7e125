"""Overlay networks: `extra.search:x` is layer x once more, with the same parameters, in a network that lies over the
outermost one (SEMANTICS 1.2).

Only what is asked for is built again. What it reads comes from the network below, but for layers that the config
defines for the overlay, `extra.search:y: {...}`. With `search` among the parts of its tag the overlay searches,
whatever the network below does; without, it does not. In training and evaluation its loops have the steps of their
targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.ir import Value
from returnn_lite.layers.base import LayerError, Mode, Outputs
from returnn_lite.net.references import Reference, ReferenceKind
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec, NetworkSpec, overlaid

if TYPE_CHECKING:
    from returnn_lite.net.context import NetworkContext
    from returnn_lite.net.parameters import ParameterScope
    from returnn_lite.net.tasks import Driver


class OutermostScope(Scope):
    """The layers of the network itself, with the overlays over it."""

    def __init__(self, context: NetworkContext, spec: NetworkSpec, parameters: ParameterScope, driver: Driver) -> None:
        super().__init__(context, spec, "", parameters, None, {}, driver)
        self.overlays: dict[str, OverlayScope] = {}

    def overlay(self, tag: str) -> OverlayScope:
        """The overlay of a tag; the same one each time."""
        if tag not in self.overlays:
            self.overlays[tag] = OverlayScope(self, tag)
        return self.overlays[tag]

    @property
    def all_built(self) -> frozenset[str]:
        """The names of the layers that are built, those of overlays with their tags."""
        tagged = {f"{tag}:{name}" for tag, overlay in self.overlays.items() for name in overlay.built}
        return frozenset(self.built) | tagged

    @property
    def unused(self) -> list[str]:
        """The layers that no output needs, neither here nor in an overlay; those with mistakes are not counted."""
        rebuilt = {name for overlay in self.overlays.values() for name in (*overlay.built, *overlay.failed)}
        found = set(self.spec.layers) - set(self.built) - self.failed - rebuilt
        for tag, layers in self.spec.overrides.items():
            overlay = self.overlays.get(tag)
            tried = {*overlay.built, *overlay.failed} if overlay is not None else set()
            found |= {f"{tag}:{name}" for name in layers if name not in tried}
        return sorted(found)


class OverlayScope(Scope):
    """The layers of one overlay. Data, targets and losses are those of the network below."""

    def __init__(self, below: OutermostScope, tag: str) -> None:
        mode = _mode_of_overlay(below.mode, "search" in tag.split("."))
        spec = overlaid(below.spec, tag, mode)
        super().__init__(below.context, spec, "", below.parameters, None, {}, below.driver)
        self.below = below
        self.tag = tag
        self.overridden: Mapping[str, LayerSpec] = below.spec.overrides.get(tag, {})
        self.mode = mode

    def path_of(self, spec: LayerSpec) -> str:
        """The path of a layer, with the tag."""
        return f"{self.tag}:{spec.name}"

    def overlay(self, tag: str) -> OverlayScope:
        """Another overlay of the same network."""
        return self.below.overlay(tag)

    def owner(self, reference: Reference) -> Scope:
        """This overlay for what it has itself, else another one or the network below."""
        own = reference.kind is not ReferenceKind.LAYER or self._has_own(reference.name)
        return super().owner(reference) if own else self.below

    def part(self, reference: Reference) -> Outputs:
        """What a layer of the overlay reads: what the overlay defines itself, else the network below."""
        return super().part(reference) if self._has_own(reference.name) else self.below.part(reference)

    def rebuilt(self, reference: Reference) -> Outputs:
        """What the overlay is asked for from outside."""
        return super().part(reference)

    def rebuilt_spec(self, reference: str) -> tuple[Scope, LayerSpec]:
        """The layer that a reference in `reuse_params` names with this overlay's tag."""
        return super().find_spec(reference)

    def find_spec(self, reference: str) -> tuple[Scope, LayerSpec]:
        """The layer whose parameters a layer of the overlay shares."""
        own = self._has_own(reference.partition("/")[0])
        return super().find_spec(reference) if own else self.below.find_spec(reference)

    def built_here(self, name: str) -> Outputs | None:
        """What a layer of the overlay would read of this name, if it is built."""
        return super().built_here(name) if self._has_own(name) else self.below.built_here(name)

    def publish(self, key: str, value: Value) -> None:
        """Publishes data under a key, unless the network below does so itself."""
        below = (layer.common.output.register_as_extern_data for layer in self.below.spec.layers.values())
        if key not in below:
            super().publish(key, value)

    def _has_own(self, name: str) -> bool:
        return name in self.overridden or f"{self.tag}:{name}" in self.below.spec.broken

    def no_such_layer(self, name: str) -> LayerError:
        """What is said of a reference to a layer that is neither in the overlay nor in the network below."""
        hint = nearest_hint(name, list(self.spec.layers)).strip()
        if name in self.spec.absent:
            hint = "It is there only in search or in evaluation."
        return LayerError(f"there is no layer '{name}' in the overlay '{self.tag}' of the network", hint)


def _mode_of_overlay(below: Mode, search: bool) -> Mode:
    """Beside losses, a search takes as many steps as the target: the results of both can be compared."""
    return replace(below, search=search, steps_of_target=search and below.losses and not below.search)
