"""A network dict as typed layer specifications: classes picked, options decoded, references listed. Nothing is
built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from returnn_lite.config.decode import option_names
from returnn_lite.config.diagnostics import AnyPath, InnerPath, nearest, nearest_hint
from returnn_lite.config.kinds import options_of_kind
from returnn_lite.config.options import AxisSpec
from returnn_lite.dims import Dim
from returnn_lite.layers.base import Layer, LayerError, Mode
from returnn_lite.layers.old_recurrences import recurrence_instead
from returnn_lite.layers.unsupported import unsupported
from returnn_lite.net.context import NetworkContext
from returnn_lite.net.decoding import GROUPS, CommonOptions, decode_layer
from returnn_lite.net.links import Link, links_of
from returnn_lite.net.references import NESTED_OVERLAY, overlay_of


@dataclass(frozen=True)
class LayerSpec:
    """One layer of a network dict. `target` is its own or, where it has a loss, the default target."""

    name: str
    path: AnyPath
    class_name: str
    layer: Layer
    common: CommonOptions
    sources: tuple[str, ...]
    target: str | None
    links: tuple[Link, ...]
    """All that its options refer to, and nested networks to layers of this one."""
    needed_layers: tuple[str, ...]
    """Those of the same network that it needs in the same step; in an overlay of it with the overlay's tag."""
    source_axes: tuple[AxisSpec, ...] = ()
    """The axis of each source, where `from` has pairs."""

    def option_that_says(self, reference: str) -> str:
        """The option that refers to a layer; empty if none does by itself (a nested network may)."""
        return next((link.option for link in self.links if link.text == reference), "")

    def option_of_axis(self, description: object) -> str:
        """The option that describes an axis so; empty if there is none."""
        common = self.common
        for group in (self.layer, common.output, common.parameters, common.loss, common.inputs):
            for option, value in options_of_kind(group, "axis"):
                if any(item is description for item in (value if isinstance(value, list | tuple) else [value])):
                    return option
        return ""


@dataclass(frozen=True)
class NetworkSpec:
    """The layers that are right, and the names of those with mistakes, which are reported already."""

    path: AnyPath
    layers: dict[str, LayerSpec]
    broken: frozenset[str]
    absent: Mapping[str, LayerSpec] = field(default_factory=dict)
    """Layers that are only there in search or in evaluation, where the mode is another."""
    overrides: Mapping[str, Mapping[str, LayerSpec]] = field(default_factory=dict)
    """By the tag of an overlay network (`extra.search`), the layers that are others in it."""

    @cached_property
    def publishers(self) -> Mapping[str, str]:
        """The layers that register their output as data, by the key."""
        keys = {name: layer.common.output.register_as_extern_data for name, layer in self.layers.items()}
        return {key: name for name, key in keys.items() if key is not None}

    @cached_property
    def named_frames(self) -> Mapping[Dim, Sequence[str]]:
        """The layers that pick frames, by the dim under which others know these."""
        found: dict[Dim, list[str]] = {}
        for name, spec in self.layers.items():
            dim = spec.layer.named_frames()
            if dim is not None:
                found.setdefault(dim, []).append(name)
        return found


def read_network(context: NetworkContext, layers: Mapping[Any, Any], path: AnyPath, mode: Mode) -> NetworkSpec:
    """Decodes every layer of a network dict; mistakes go to the context's diagnostics, all of them at once."""
    specs: dict[str, LayerSpec] = {}
    broken: set[str] = set()
    absent: dict[str, LayerSpec] = {}
    overrides: dict[str, dict[str, LayerSpec]] = {}
    for name, options in layers.items():
        if not isinstance(name, str):
            context.report_at((*path, name), f"{name!r} is no name for a layer", "Write it in quotes.")
            continue
        if name.startswith("#"):
            continue
        if options is None:
            context.report_at((*path, name), f"there is no layer '{name}' that null could remove", "Leave it out.")
            continue
        overlay = overlay_of(name)
        if overlay is not None and len(path) > 1:
            context.report_at((*path, name), f"'{name}': {NESTED_OVERLAY}", "Move it to the outermost network.")
            continue
        tag, inside = overlay or ("", name)
        spec = _read_layer(context, inside, options, InnerPath(path, name))
        if spec is None:
            broken.add(name)
        elif tag:
            overrides.setdefault(tag, {})[inside] = spec
        elif _present(spec.common, mode):
            specs[name] = spec
        else:
            absent[name] = spec
    return NetworkSpec(path, specs, frozenset(broken), absent, overrides)


def overlaid(spec: NetworkSpec, tag: str, mode: Mode) -> NetworkSpec:
    """The network of an overlay, whose mode may be another: its own layers in place of those of the same names."""
    layers = {**spec.layers, **spec.absent, **spec.overrides.get(tag, {})}
    present = {name: layer for name, layer in layers.items() if _present(layer.common, mode)}
    absent = {name: layer for name, layer in layers.items() if name not in present}
    prefix = f"{tag}:"
    broken = {name.removeprefix(prefix) for name in spec.broken if name.startswith(prefix)}
    return NetworkSpec(spec.path, present, frozenset(broken | (spec.broken - set(present))), absent)


def _present(common: CommonOptions, mode: Mode) -> bool:
    if common.output.only_on_search and not mode.search:
        return False
    return not (common.output.only_on_eval and not mode.losses)


def _read_layer(context: NetworkContext, name: str, options: Any, path: AnyPath) -> LayerSpec | None:
    if not isinstance(options, Mapping):
        context.report_at(path, f"expected the options of a layer, a dict, got {options!r}", "")
        return None
    class_name = options.get("class")
    if not isinstance(class_name, str):
        known = {option for group in GROUPS for option in option_names(group)}
        misspelt = nearest("class", [key for key in options if isinstance(key, str) and key not in known])
        hint = "Add 'class: linear' or another class."
        if misspelt is not None:
            hint = f"Did you mean 'class' by '{misspelt}'?"
        context.report_at((*path, misspelt) if misspelt else path, f"the layer '{name}' has no class", hint)
        return None
    if class_name not in context.layer_classes:
        instead = unsupported(class_name)
        if instead is not None:
            context.report_at((*path, "class"), f"RETURNN's layer class '{class_name}' is not supported", instead)
            return None
        hint = recurrence_instead(class_name) or nearest_hint(class_name, list(context.layer_classes)).strip()
        context.report_at(
            (*path, "class"), f"there is no layer class '{class_name}'", hint or "'rnn.py schema' has all classes."
        )
        return None
    cls = context.layer_classes[class_name]
    groups = decode_layer(context, cls, options, path)
    if groups is None:
        return None
    layer, common = groups
    axes: tuple[AxisSpec, ...] = ()
    if cls.sources_have_axes:
        pairs = _pairs(context, options.get("from"), (*path, "from"))
        if pairs is None:
            return None
        axes = tuple(axis for _, axis in pairs)
        options = {**options, "from": [name for name, _ in pairs]}
    sources = _sources(context, cls, options, path)
    if sources is None or not _source_count_fits(context, cls, class_name, sources, path):
        return None
    target = _target(common, context.default_target)
    try:
        links = links_of(layer, common, sources, target, options, context.layer_classes, context.outward)
    except LayerError as error:
        context.report_at((*path, *error.path), error.message, error.hint)
        return None
    read = links if layer.reads_sources(context.mode) else links[len(sources) :]
    needed = tuple(dict.fromkeys(link.layer for link in read if link.layer is not None))
    return LayerSpec(name, path, class_name, layer, common, sources, target, links, needed, axes)


def _pairs(context: NetworkContext, given: Any, path: AnyPath) -> list[tuple[str, AxisSpec]] | None:
    """The sources of a layer that wants an axis with each."""
    if isinstance(given, list | tuple) and all(_is_pair(item) for item in given):
        return [(item[0], item[1]) for item in given]
    context.report_at(
        path, f"expected pairs of a layer and an axis, got {given!r}", "Write 'from: [[layer, T], [other, T]]'."
    )
    return None


def _is_pair(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str)


def _sources(
    context: NetworkContext, cls: type[Layer], options: Mapping[str, Any], path: AnyPath
) -> tuple[str, ...] | None:
    by_default = ("data",) if context.behavior_version < 1 and cls.source_count[1] != 0 else None
    given = options.get("from", by_default)
    if given is None:
        given = ()
    if isinstance(given, str):
        return (given,)
    if isinstance(given, Sequence) and all(isinstance(item, str) for item in given):
        return tuple(given)
    context.report_at((*path, "from"), f"expected the name of a layer or a list of names, got {given!r}", "")
    return None


def _source_count_fits(
    context: NetworkContext, cls: type[Layer], class_name: str, sources: Sequence[str], path: AnyPath
) -> bool:
    least, most = cls.source_count
    count = sum(1 for source in sources if source != "none")
    if count >= least and (most is None or count <= most):
        return True
    wanted = f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
    context.report_at((*path, "from"), f"'{class_name}' takes {wanted} sources, not {count}", "Give 'from'.")
    return False


def _target(common: CommonOptions, default: str | None) -> str | None:
    given = common.loss.target
    if isinstance(given, str):
        return given
    if isinstance(given, Sequence) and given and isinstance(given[0], str):
        return given[0]
    return default if given is None and common.loss.loss is not None else None


def root_layers(spec: NetworkSpec, in_loop: bool) -> list[str]:
    """The layers that are built although nothing may need them (SEMANTICS 1.1), published data first."""
    layers = dict(spec.layers)
    for tag, others in spec.overrides.items():
        layers |= {f"{tag}:{name}": layer for name, layer in others.items()}
    published = [name for name, layer in layers.items() if layer.common.output.register_as_extern_data]
    roots = []
    for name, layer in sorted(layers.items()):
        output = layer.common.output
        has_loss = layer.common.loss.loss is not None
        wanted = output.is_output_layer or (in_loop and output.need_last)
        if name == "output" or name.endswith(":output") or has_loss or wanted:
            roots.append(name)
    return list(dict.fromkeys([*published, *roots]))
