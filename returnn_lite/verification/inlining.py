"""A network dict without one of its subnetworks: the inner layers stand in its place, and what reads them is rewired.

The inner `output` takes the name of the subnetwork, `x` in it becomes `NAME_x`; several joined sources, or dropout on
them, become a copy layer `NAME_data`. As in all of a reduction, references are found as strings, whatever option they
stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from returnn_lite.config.decode import option_names
from returnn_lite.config.options import is_network as is_network
from returnn_lite.layers.registry import LAYERS

NETWORKS = ("unit", "subnetwork")
"""Options that have a network, or a layer, in them."""
PREFIXES = ("prev:", "layer:", "")
DROPOUT = ("dropout", "dropout_noise_shape")


def inlined(network: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The network with the layers of the subnetwork `name` in place of it.

    Common options of the subnetwork, such as a loss, are those of its output.
    """
    layer = network[name]
    inner = dict(layer["subnetwork"])
    sources = _sources(layer)
    joined = layer.get("concat_sources", True)
    data = {"data": sources[0]} if sources else {}
    if not joined:
        data |= {f"data:{key}": source for index, source in enumerate(sources) for key in (index, source)}
    names = _names(network, name, [*inner, "data"])
    before = {}
    if joined and (len(sources) > 1 or layer.get("dropout")):
        dropout = {key: layer[key] for key in DROPOUT if key in layer}
        before = {names["data"]: {"class": "copy", "from": sources, **dropout}}
        data = {"data": names["data"]}
    del names["data"]
    own = {"class", "from", *option_names(LAYERS["subnetwork"])}
    common = {key: value for key, value in layer.items() if key not in own}
    found: dict[str, Any] = {}
    for other, options in network.items():
        if other != name:
            found[other] = _rewritten(options, "", lambda text: _below(text, name, names))
            continue
        moved = {
            names[key]: _rewritten(inside, "", lambda text: _of_inside(text, data, names))
            for key, inside in inner.items()
        }
        found |= {**before, **moved, name: {**common, **moved[name]}}
    return found


def _sources(layer: Mapping[str, Any]) -> list[str]:
    given = layer.get("from", ())
    return [given] if isinstance(given, str) else list(given or ())


def _names(network: Mapping[str, Any], name: str, inner: Sequence[str]) -> dict[str, str]:
    """The names of the inner layers in the network around."""
    names: dict[str, str] = {}
    for own in inner:
        new = name if own == "output" else f"{name}_{own}"
        while own != "output" and (new in network or new in names.values()):
            new += "_"
        names[own] = new
    return names


def _of_inside(text: str, data: Mapping[str, str], names: Mapping[str, str]) -> str:
    """What an inner layer refers to, seen from around. `data`: the sources by what they are inside."""
    if text.startswith("base:"):
        return text.removeprefix("base:")
    text = "data" if text == "data:data" else text
    return data[text] if text in data else _named(text, names)


def _below(text: str, name: str, names: Mapping[str, str]) -> str:
    """`name/x` by the new name of x."""
    for prefix in PREFIXES:
        if text.startswith(f"{prefix}{name}/"):
            return prefix + _named(text.removeprefix(f"{prefix}{name}/"), names)
    return text


def _named(text: str, names: Mapping[str, str]) -> str:
    """A reference to an inner layer, or to a part of one, by the layer's new name."""
    prefix = next(prefix for prefix in PREFIXES if text.startswith(prefix))
    head, slash, parts = text.removeprefix(prefix).partition("/")
    return f"{prefix}{names.get(head, head)}{slash}{parts}"


def _rewritten(value: Any, scope: str, rewrite: Callable[[str], str]) -> Any:
    """The options of a layer with every reference rewritten; in networks inside, those with `base:` in front."""
    if isinstance(value, str):
        return f"{scope}{rewrite(value.removeprefix(scope))}" if value.startswith(scope) else value
    if isinstance(value, list | tuple):
        return [_rewritten(item, scope, rewrite) for item in value]
    if not isinstance(value, Mapping):
        return value
    found = {}
    for key, item in value.items():
        inside = f"{scope}base:" if key in NETWORKS and is_network(item) else scope
        found[key] = item if key == "class" else _rewritten(item, inside, rewrite)
    return found
