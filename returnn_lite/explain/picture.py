"""What a picture of a network shows: layers as nodes, loops, masks and subnetworks as boxes, and what reads what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from returnn_lite.explain.placement import Place
from returnn_lite.ir.layer_reads import LayerRecord

BoxPath = tuple[str, ...]
Side = Literal["before", "after"]


@dataclass(frozen=True)
class Figure:
    """A node. `place` is "input", or where the layer is; in the network as built all of a loop is in it."""

    path: str
    title: str
    kind: str
    dims: str
    place: str
    boxes: BoxPath


@dataclass(frozen=True)
class Arrow:
    """From what is read to what reads it."""

    start: str
    end: str
    previous: bool


@dataclass(frozen=True)
class Picture:
    """One side: before or after the passes."""

    figures: tuple[Figure, ...]
    arrows: tuple[Arrow, ...]


def picture(layers: Mapping[str, LayerRecord], places: Mapping[str, Place], side: Side) -> Picture:
    """The picture of one side. The value of a `rec` layer is a node outside of its loop's box."""
    arrows = dict.fromkeys(_arrows(layers, places))
    figures = [_layer_figure(path, layers, places.get(path), side) for path in layers]
    keys = dict.fromkeys(arrow.start for arrow in arrows if arrow.start not in layers)
    inputs = [Figure(key, key, "input", "", "input", ()) for key in keys]
    return Picture((*inputs, *figures), tuple(arrows))


def box_title(box: BoxPath) -> str:
    """The title of the innermost box of a path."""
    kind, _, name = box[-1].partition(":")
    return f"{kind} {name}"


def short_dims(dims: str) -> str:
    """`[B, data:time, enc:feature(256)] int32` as `B, data:time, 256`: sizes in place of names where they are known."""
    found = re.match(r"\[(.*?)\]", dims)
    parts = found.group(1).split(", ") if found and found.group(1) else []
    return ", ".join(_short_dim(part) for part in parts)


def _short_dim(dim: str) -> str:
    size = re.search(r"\((\d+)\)$", dim)
    beam = "beam " if ":beam" in dim else ""
    if size:
        return beam + size.group(1)
    masked = re.match(r"mask\((.*?),.*\)$", dim)
    return f"masked {masked.group(1)}" if masked else dim


def _layer_figure(path: str, layers: Mapping[str, LayerRecord], place: Place | None, side: Side) -> Figure:
    kind = layers[path].kind
    if place is None:
        return Figure(path, path.rpartition("/")[2], kind, "", "outside", _boxes(path, layers, (), ()))
    loops = place.loops_as_built if side == "before" else place.loops
    where = "loop" if side == "before" and place.loops_as_built else place.where
    dims = place.dims_as_built if side == "before" else place.dims
    boxes = _boxes(path, layers, loops, place.masks)
    return Figure(path, _short_name(path, layers), kind, short_dims(dims), where, boxes)


def _short_name(path: str, layers: Mapping[str, LayerRecord]) -> str:
    """The name; of the unit of a masked computation with that of the layer around, which has no box of its own."""
    around, _, name = path.rpartition("/")
    return f"{around.rpartition('/')[2]}/{name}" if around and _is_masked(around, layers) else name


def _is_masked(path: str, layers: Mapping[str, LayerRecord]) -> bool:
    return path in layers and layers[path].kind == "masked_computation"


def _boxes(path: str, layers: Mapping[str, LayerRecord], loops: tuple[str, ...], masks: tuple[str, ...]) -> BoxPath:
    """The boxes around a layer, outermost first: loops and subnetworks in the order of the path, then masks."""
    boxes: list[str] = []
    rest = list(loops)
    parts = path.split("/")
    for depth in range(1, len(parts)):
        around = "/".join(parts[:depth])
        if rest and rest[0].partition("#")[0] == around:
            boxes.append(f"loop:{rest.pop(0)}")
        elif around in layers and not _is_masked(around, layers) and layers[around].kind != "rec":
            boxes.append(f"subnet:{around}")
    boxes += [f"loop:{name}" for name in rest]
    return (*boxes, *(f"mask:{mask}" for mask in masks))


def _arrows(layers: Mapping[str, LayerRecord], places: Mapping[str, Place]) -> Iterator[Arrow]:
    for path, record in layers.items():
        reads = list(record.reads)
        for read in reads:
            yield Arrow(read.path, path, read.previous)
        inner = f"{path}/output" if f"{path}/output" in layers else f"{path}/unit"
        if inner in layers:
            yield Arrow(inner, path, False)
