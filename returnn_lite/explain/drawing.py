"""Draws pictures of networks as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from returnn_lite.explain.layered import Point
from returnn_lite.explain.layout import Edge, Item, Layout, Rectangle, layered_layout
from returnn_lite.explain.picture import Arrow, Figure, Picture, box_title
from returnn_lite.explain.placement import Place

LETTER = {12: 7.3, 10: 6.1}
"""How wide a letter of the fonts is, by their size, with a little to spare."""
HEIGHT, LONGEST = 52.0, 30
STYLE = """
.network { --page: #fff; --text: #1c1e21; --soft: #5b626b; --line: #7d8590; --box: #8a929c;
  --boxfill: rgba(90,100,120,.05);
  --outside: #eceff2; --before: #d5e6fb; --loop: #ffe1bd; --after: #d3efd6; --input: #fff; --mark: #c2272d;
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; background: var(--page); }
@media (prefers-color-scheme: dark) { .network { --page: #16181c; --text: #e7e9ec; --soft: #a3abb5; --line: #828b96;
  --box: #6d7681; --boxfill: rgba(200,210,230,.05); --outside: #2b2f36; --before: #1f3c5c; --loop: #5e3d15;
  --after: #1f4a2a; --input: #16181c; --mark: #ff7b72; } }
.network text { fill: var(--text); font-size: 10px; }
.network .title { font-size: 12px; font-weight: 600; }
.network .soft, .network .boxtitle { fill: var(--soft); }
.network .box { fill: var(--boxfill); stroke: var(--box); }
.network .boxtitle { paint-order: stroke; stroke: var(--page); stroke-width: 3px; }
.network .box.mask { stroke-dasharray: 2 3; } .network .box.subnet { stroke-dasharray: 8 3; }
.network .layer rect { stroke: var(--line); } .network .layer.input rect { stroke-dasharray: 3 2; }
.network .outside rect { fill: var(--outside); } .network .before rect { fill: var(--before); }
.network .loop rect { fill: var(--loop); } .network .after rect { fill: var(--after); }
.network .input rect { fill: var(--input); }
.network .edge { fill: none; stroke: var(--line); stroke-width: 1.2; } .network .edge.prev { stroke-dasharray: 5 3; }
.network .head { fill: var(--line); stroke: none; }
.network .edge.marked { stroke: var(--mark); stroke-width: 2.2; }
.network .layer.marked rect { stroke: var(--mark); stroke-width: 2.4; }
"""


def svg_file(picture: Picture, places: Mapping[str, Place]) -> str:
    """A whole SVG file, with its style."""
    drawn = svg(picture, places, "after", namespace=' xmlns="http://www.w3.org/2000/svg"', style=STYLE)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{drawn}\n'


def svg(picture: Picture, places: Mapping[str, Place], side: str, *, namespace: str = "", style: str = "") -> str:
    """The picture as an SVG element. Each layer is a group with its path in `data-layer`."""
    layout = lay_out(picture)
    arrows = picture.arrows
    margin = 10
    width, height = math.ceil(layout.width) + 2 * margin, math.ceil(layout.height) + 2 * margin
    parts = [
        f'<svg{namespace} class="network" data-side="{side}" width="{width}" height="{height}" '
        f'viewBox="{-margin} {-margin} {width} {height}">'
    ]
    parts += [f"<style>{style}</style>"] if style else []
    parts.append(
        f'<defs><marker id="head-{side}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse" markerUnits="userSpaceOnUse">'
        '<path class="head" d="M0 0 L8 4 L0 8 z"/></marker></defs>'
    )
    boxes = sorted(layout.boxes.items(), key=lambda one: len(one[0]))
    parts += [_box(path, rectangle) for path, rectangle in boxes]
    parts += [
        _edge(arrow, route, layout.nodes[arrow.end], side) for arrow, route in zip(arrows, layout.routes, strict=True)
    ]
    parts += [_title(path, rectangle) for path, rectangle in boxes]
    parts += [_figure(figure, layout.nodes[figure.path], places.get(figure.path)) for figure in picture.figures]
    return "\n".join([*parts, "</svg>"])


def lay_out(picture: Picture) -> Layout:
    """Where the nodes, boxes and edges of a picture are."""
    items = [Item(figure.path, _width(figure), HEIGHT, figure.boxes) for figure in picture.figures]
    edges = [Edge(arrow.start, arrow.end, arrow.previous) for arrow in picture.arrows]
    paths = {figure.boxes[:depth] for figure in picture.figures for depth in range(1, len(figure.boxes) + 1)}
    return layered_layout(items, edges, {path: len(box_title(path)) * LETTER[10] for path in paths})


def shortened(text: str) -> str:
    """At most LONGEST letters of a text."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _width(figure: Figure) -> float:
    title = len(shortened(figure.title)) * LETTER[12]
    rest = max(len(shortened(figure.kind)), len(shortened(figure.dims))) * LETTER[10]
    return max(title, rest, 50.0) + 18


def _figure(figure: Figure, place: Rectangle, known: Place | None) -> str:
    middle = place.x + place.width / 2
    lines = [("title", figure.title, 18.0), ("soft", figure.kind, 32.0), ("", figure.dims, 45.0)]
    if not figure.dims:
        lines = [("title", figure.title, 24.0), ("soft", figure.kind, 38.0)]
    texts = "".join(
        f'<text class="{name}" x="{middle:.1f}" y="{place.y + dy:.1f}" text-anchor="middle">'
        f"{escape(shortened(text))}</text>"
        for name, text, dy in lines
    )
    reason = "" if known is None else "; ".join(filter(None, (known.reason, known.to_leave)))
    tip = "\n".join(filter(None, (figure.path, f"{figure.kind} {known.dims if known else ''}".strip(), reason)))
    return (
        f'<g class="layer {figure.place}" data-layer="{escape(figure.path)}"><title>{escape(tip)}</title>'
        f'<rect x="{place.x:.1f}" y="{place.y:.1f}" width="{place.width:.1f}" height="{place.height:.1f}" rx="6"/>'
        f"{texts}</g>"
    )


def _box(path: Sequence[object], place: Rectangle) -> str:
    names = tuple(str(part) for part in path)
    kind = names[-1].partition(":")[0]
    return (
        f'<rect class="box {kind}" data-box="{escape(" ".join(names))}" x="{place.x:.1f}" y="{place.y:.1f}" '
        f'width="{place.width:.1f}" height="{place.height:.1f}" rx="9"/>'
    )


def _title(path: Sequence[object], place: Rectangle) -> str:
    text = escape(box_title(tuple(str(part) for part in path)))
    return f'<text class="boxtitle" x="{place.x + 12:.1f}" y="{place.y + 17:.1f}">{text}</text>'


def _edge(arrow: Arrow, route: Sequence[Point], end: Rectangle, side: str) -> str:
    path = _curve(route) if route else _to_itself(end)
    name = "edge prev" if arrow.previous else "edge"
    return (
        f'<path class="{name}" data-from="{escape(arrow.start)}" data-to="{escape(arrow.end)}" '
        f'marker-end="url(#head-{side})" d="{path}"/>'
    )


def _curve(route: Sequence[Point]) -> str:
    """A line through the points that leaves and reaches each one vertically."""
    (x, y), *rest = route
    parts = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        if abs(to_x - x) < 0.5:
            parts.append(f"L{to_x:.1f} {to_y:.1f}")
        else:
            half = (y + to_y) / 2
            parts.append(f"C{x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return " ".join(parts)


def _to_itself(node: Rectangle) -> str:
    """From the lower part of a node's right side to the upper one."""
    x, low, high = node.x + node.width, node.y + node.height * 0.75, node.y + node.height * 0.25
    return f"M{x:.1f} {low:.1f} C{x + 20:.1f} {low:.1f} {x + 20:.1f} {high:.1f} {x + 1:.1f} {high:.1f}"
