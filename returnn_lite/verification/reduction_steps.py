"""The steps of a reduction: what could go from a config, and the config without it; nothing is changed in place.

References are found as strings, whatever option they stand in: a config in which that is wrong is refused or shows
nothing, so that a reduction drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from returnn_lite.ir.reachability import reachable
from returnn_lite.verification.inlining import NETWORKS, inlined, is_network

Config = dict[str, Any]
LayerPath = tuple[str, ...]
Item = Any
NETWORK_KEYS = (
    "behavior_version",
    "target",
    "default_input",
    "extern_data",
    "num_outputs",
    "num_inputs",
    "recompute",
    "network",
)
KEPT = ("class", "from", *NETWORKS)
SMALL = 3


def size(config: Config) -> int:
    """How much a reader has to read: a number for each layer, source, option, entry of data, and digits of sizes."""
    return sum(len(str(leaf)) for _, leaf in _leaves(config, ())) + sum(1 for _ in _leaves(config, ()))


def only_network(config: Config) -> Config:
    """The config without what has nothing to do with the network."""
    return {key: value for key, value in config.items() if key in NETWORK_KEYS}


# Layers


def layers(config: Config) -> list[LayerPath]:
    """All layers of nested networks and of the network itself, as ways in the config; insides first."""
    return [path for path, _ in _layers(config["network"], ("network",))]


def _layers(network: Mapping[str, Any], path: LayerPath) -> Iterator[tuple[LayerPath, Mapping[str, Any]]]:
    for name, layer in network.items():
        if isinstance(layer, Mapping):
            for option in NETWORKS:
                if is_network(layer.get(option)):
                    yield from _layers(layer[option], (*path, name, option))
            yield (*path, name), layer


def starts(config: Config, suspects: Sequence[str]) -> list[Config]:
    """The configs whose network is one outermost layer and what it needs, smallest first, suspects before others."""
    network = config["network"]
    roots = {suspect.split("/")[0] for suspect in suspects}
    found = []
    for name, layer in network.items():
        if isinstance(layer, Mapping):
            needed = _closure(network, name)
            output = {} if name == "output" else {"is_output_layer": True}
            only = {other: network[other] for other in network if other in needed}
            found.append((name not in roots, len(needed), {**config, "network": only | {name: {**layer, **output}}}))
    return [smaller for _, _, smaller in sorted(found, key=lambda entry: entry[:2])]


def _closure(network: Mapping[str, Any], name: str) -> set[str]:
    """The layer and all that it needs in its network."""

    def needs(current: str) -> list[str]:
        names = (_name_in(leaf) for _, leaf in _leaves(network[current], ()) if isinstance(leaf, str))
        return [other for other in names if other in network]

    return set(reachable([name], needs))


def _name_in(text: str) -> str:
    """The name of the layer that a string refers to if it is a reference."""
    return text.rpartition(":")[2].split("/")[0]


def bypassed(config: Config, paths: Sequence[LayerPath]) -> Config:
    """The config without these layers: what read one of them reads its sources."""
    return _each(config, paths, lambda found, path: _bypassed(found, path, _sources(_at(found, path))))


def bypassed_to_last(config: Config, paths: Sequence[LayerPath]) -> Config:
    """The config without these layers: what read one of them reads its last source."""
    return _each(config, paths, lambda found, path: _bypassed(found, path, _sources(_at(found, path))[-1:]))


def _each(config: Config, paths: Sequence[LayerPath], change: Callable[[Config, LayerPath], Config]) -> Config:
    for path in paths:
        if _at(config, path) is not None:
            config = change(config, path)
    return config


def _bypassed(config: Config, path: LayerPath, sources: list[str]) -> Config:
    *around, name = path
    network = dict(_at(config, tuple(around)))
    gone = network.pop(name)
    sources = [source for source in sources if source not in (name, f"prev:{name}")] or [_data_of(path)]
    if name == "output":
        local = next((source for source in sources if source in network), None)
        if local is not None:
            return _with(config, tuple(around), _renamed(network, local, "output"))
        copy = {"class": "copy", "from": sources[0]}
        return config if gone == copy else _with(config, tuple(around), {**network, name: copy})
    return _with(config, tuple(around), _redirected(network, name, sources))


def _renamed(network: dict[str, Any], name: str, wanted: str) -> Any:
    layer = network.pop(name)
    return _redirected({**network, wanted: layer}, name, [wanted])


def _redirected(value: Any, name: str, sources: Sequence[str]) -> Any:
    """A network, or an option, with the sources in place of every reference to a layer of this name."""
    if isinstance(value, Mapping):
        return {key: _in_option(key, item, name, sources) for key, item in value.items()}
    if isinstance(value, list | tuple):
        parts = [part for item in value for part in _parts(item, name, sources)]
        return [part for index, part in enumerate(parts) if not isinstance(part, str) or part not in parts[:index]]
    parts = _parts(value, name, sources) if isinstance(value, str) else [value]
    return parts if len(parts) > 1 else parts[0]


def _in_option(key: str, value: Any, name: str, sources: Sequence[str]) -> Any:
    if key in NETWORKS and is_network(value):
        return _redirected(value, f"base:{name}", [f"base:{source}" for source in sources])
    return value if key == "class" else _redirected(value, name, sources)


def _parts(item: Any, name: str, sources: Sequence[str]) -> list[Any]:
    if not isinstance(item, str):
        return [_redirected(item, name, sources)]
    for prefix in ("", "prev:", "layer:"):
        scope, _, last = name.rpartition("base:")
        base = f"{scope}base:" if "base:" in name else ""
        if item == f"{base}{prefix}{last}" or item.startswith(f"{base}{prefix}{last}/"):
            return [_before(source, base, prefix) for source in sources]
    for quote in "'\"":  # in an expression, which may be one of the network inside, such as max_seq_len
        for scope in (quote, f"{quote}base:"):
            item = item.replace(f"{scope}{name}{quote}", f"{scope}{sources[0]}{quote}")
    return [item]


def _before(source: str, base: str, prefix: str) -> str:
    """`base:prev:x` for a source `base:x` that is read under `prev:`; what is no layer has no step before."""
    name = source.removeprefix(base)
    return source if ":" in name or name == "data" else f"{base}{prefix}{name}"


# Subnetworks


def subnetworks(config: Config) -> list[LayerPath]:
    """The layers that are networks themselves, but for loops; insides first."""
    return [path for path in layers(config) if is_network(_at(config, path).get("subnetwork"))]


def without_subnetworks(config: Config, paths: Sequence[LayerPath]) -> Config:
    """The config with the layers of these subnetworks in place of them."""
    return _each(config, paths, lambda found, path: _with(found, path[:-1], inlined(_at(found, path[:-1]), path[-1])))


# Sources


def layers_with_sources(config: Config) -> list[LayerPath]:
    """The layers that read anything but data."""
    return [path for path in layers(config) if set(_sources(_at(config, path))) - {_data_of(path)}]


def reading_data(config: Config, paths: Sequence[LayerPath]) -> Config:
    """The config in which these layers read data."""
    return _each(config, paths, lambda found, path: _with(found, (*path, "from"), _data_of(path)))


def several_sources(config: Config) -> list[tuple[LayerPath, str]]:
    """Each source of the layers that have several."""
    every = ((path, _sources(_at(config, path))) for path in layers(config))
    return [(path, source) for path, sources in every if len(sources) > 1 for source in sources]


def without_sources(config: Config, items: Sequence[tuple[LayerPath, str]]) -> Config:
    """The config without these sources; the last one of a layer stays."""
    for path, source in items:
        left = [other for other in _sources(_at(config, path)) if other != source]
        if left:
            config = _with(config, (*path, "from"), left if len(left) > 1 else left[0])
    return config


def _sources(layer: Any) -> list[str]:
    given = layer.get("from", ()) if isinstance(layer, Mapping) else ()
    return [given] if isinstance(given, str) else [source for source in given or () if isinstance(source, str)]


def _data_of(path: LayerPath) -> str:
    """What a layer reads that reads nothing of its network: the source of the loop around it, or the data."""
    return "data" if len(path) <= 2 or path[-2] == "subnetwork" else "data:source"


# Options


def units(config: Config) -> list[LayerPath]:
    """The layers inside of others, such as those under a mask."""
    inside = ((*path, "unit") for path in layers(config) if isinstance(_at(config, (*path, "unit")), Mapping))
    return [path for path in inside if not is_network(_at(config, path)) and _at(config, path).get("class") != "copy"]


def with_copies(config: Config, paths: Sequence[LayerPath]) -> Config:
    """The config with layers that do nothing in these places."""
    return _each(config, paths, lambda found, path: _with(found, path, {"class": "copy", "from": "data"}))


def options(config: Config) -> list[LayerPath]:
    """The options of all layers but their classes, sources and networks, and those of the layers in them."""
    found = []
    for path in [*layers(config), *units(config)]:
        found += [(*path, key) for key in _at(config, path) if key not in KEPT]
    return found


def data_keys(config: Config) -> list[LayerPath]:
    """The entries of extern_data, their options, and the keys beside it."""
    keys: list[LayerPath] = [(key,) for key in config if key not in ("network", "extern_data")]
    for name, entry in (config.get("extern_data") or {}).items():
        keys += [("extern_data", name), *(("extern_data", name, key) for key in entry if isinstance(entry, Mapping))]
    return keys


def without_options(config: Config, paths: Sequence[LayerPath]) -> Config:
    """The config without these keys."""
    return _each(config, paths, lambda found, path: _without(found, path))


def sizes(config: Config) -> list[int]:
    """The numbers, most of them sizes of dims, that could be smaller."""
    numbers = (leaf for path, leaf in _leaves(config, ()) if path[0] != "behavior_version")
    return sorted({n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and n > SMALL})


def with_small_sizes(config: Config, numbers: Collection[int]) -> Config:
    """The config with a small number in place of each of these, wherever it stands."""
    return {key: value if key == "behavior_version" else _with_small(value, numbers) for key, value in config.items()}


def _with_small(value: Any, numbers: Collection[int]) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_small(item, numbers) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_small(item, numbers) for item in value]
    return SMALL if isinstance(value, int) and not isinstance(value, bool) and value in numbers else value


# Dicts in dicts


def _leaves(value: Any, path: LayerPath) -> Iterator[tuple[LayerPath, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, path)
    else:
        yield path, value


def _at(value: Any, path: LayerPath) -> Any:
    """What is at the end of a way; None if there is nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _with(config: Config, path: LayerPath, value: Any) -> Config:
    key, *rest = path
    return {**config, key: _with(config[key], tuple(rest), value) if rest else value}


def _without(config: Config, path: LayerPath) -> Config:
    key, *rest = path
    if rest:
        return {**config, key: _without(config[key], tuple(rest))}
    return {other: value for other, value in config.items() if other != key}
