"""The layout of a graph with nested boxes: each is laid out for itself and then is a large block of what is around it.

An edge that leaves a box runs inside it to a port on its border, and from there on outside.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from returnn_lite.explain.layered import Block, Layered, Link, Point, reaches

Key = Hashable
Nesting = tuple[Key, ...]
"""The boxes around something, outermost first."""
PADDING, TITLE = 16.0, 24.0


@dataclass(frozen=True)
class Rectangle:
    """A place on the page; (x, y) is the upper left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Item:
    """A node: how large it is, and the boxes that it is in, outermost first."""

    key: Key
    width: float
    height: float
    boxes: Nesting = ()


@dataclass(frozen=True)
class Edge:
    """From one node to another. `back` edges may go up: they do not say who is above."""

    start: Key
    end: Key
    back: bool = False


@dataclass(frozen=True)
class Layout:
    """Where everything is. `routes` are those of the edges, in their order; that of a node to itself is empty."""

    nodes: Mapping[Key, Rectangle]
    boxes: Mapping[Nesting, Rectangle]
    routes: Sequence[tuple[Point, ...]]
    width: float
    height: float


def layered_layout(items: Sequence[Item], edges: Sequence[Edge], title_widths: Mapping[Nesting, float]) -> Layout:
    """The layout. `title_widths`: for boxes, how wide their titles are."""
    made = _Boxes(items, edges, title_widths)
    made.lay_out(())
    made.place((), 0.0, 0.0)
    whole = made.boxes.pop(())
    routes = [made.route(index) for index in range(len(edges))]
    return Layout(made.nodes, made.boxes, routes, whole.width, whole.height)


class _Boxes:
    """The recursion over boxes."""

    def __init__(self, items: Sequence[Item], edges: Sequence[Edge], title_widths: Mapping[Nesting, float]) -> None:
        self.items = items
        self.edges = edges
        self.title_widths = title_widths
        self.boxes_of = {item.key: item.boxes for item in items}
        self.inside: dict[Nesting, Layered] = {}
        self.links: dict[Nesting, dict[int, Link]] = {}
        self.shift: dict[Nesting, Point] = {}
        self.nodes: dict[Key, Rectangle] = {}
        self.boxes: dict[Nesting, Rectangle] = {}
        self._below: dict[Nesting, dict[Key, list[Key]]] = {}
        self.goes_up = [self._goes_up(edge) for edge in edges]

    def _goes_up(self, edge: Edge) -> bool:
        """True for a back edge that closes a cycle of what is next to each other where its ends are."""
        path = self._shared(edge)
        start, end = self._block(edge.start, path), self._block(edge.end, path)
        if path not in self._below:
            below: dict[Key, list[Key]] = {}
            for other in self.edges:
                ends = self._block(other.start, path), self._block(other.end, path)
                if not other.back and None not in ends:
                    below.setdefault(ends[0], []).append(ends[1])
                    below.setdefault(ends[1], [])
            self._below[path] = below
        return edge.back and start != end and end in self._below[path] and reaches(self._below[path], end, start)

    def _shared(self, edge: Edge) -> Nesting:
        """The boxes that both ends of an edge are in."""
        start, end = self.boxes_of[edge.start], self.boxes_of[edge.end]
        shared = 0
        while shared < min(len(start), len(end)) and start[shared] == end[shared]:
            shared += 1
        return start[:shared]

    # Sizes, from the inside out

    def lay_out(self, path: Nesting) -> Block:
        """Lays out a box; the box as a block of what is around it."""
        depth = len(path)
        blocks: dict[Key, Block] = {}
        for item in self.items:
            if item.boxes[:depth] != path:
                continue
            if len(item.boxes) == depth:
                blocks[item.key] = Block(item.width, item.height)
            elif item.boxes[: depth + 1] not in blocks:
                blocks[item.boxes[: depth + 1]] = self.lay_out(item.boxes[: depth + 1])
        links = self._links(path, blocks)
        content = Layered(blocks, list(links.values()))
        width = max(content.width, self.title_widths.get(path, 0.0)) + 2 * PADDING
        left = (width - content.width) / 2
        top = PADDING + (TITLE if path else 0.0)
        self.inside[path], self.links[path], self.shift[path] = content, links, (left, top)
        ports = {key: left + content.x[key] for key, block in content.blocks.items() if block.edge}
        return Block(width, content.height + top + PADDING, ports)

    def _links(self, path: Nesting, blocks: dict[Key, Block]) -> dict[int, Link]:
        """The edges between blocks of a box, and those to its ports, which become blocks, too."""
        links: dict[int, Link] = {}
        for index, edge in enumerate(self.edges):
            start, end = self._block(edge.start, path), self._block(edge.end, path)
            if start == end:
                continue
            up = self.goes_up[index]
            leaves, enters = ("out", edge.start, up), ("in", edge.start, up)
            if start is None:
                start = enters
                blocks.setdefault(start, Block(0.0, 0.0, edge="last" if up else "first"))
            if end is None:
                end = leaves
                blocks.setdefault(end, Block(0.0, 0.0, edge="first" if up else "last"))
            links[index] = Link(start, end, leaves, enters, edge.back)
        return links

    def _block(self, key: Key, path: Nesting) -> Key | None:
        """The block of a box that a node is or is in; None if it is outside of the box."""
        boxes = self.boxes_of[key]
        if boxes[: len(path)] != path:
            return None
        return key if len(boxes) == len(path) else boxes[: len(path) + 1]

    # Places, from the outside in

    def place(self, path: Nesting, x: float, y: float) -> None:
        """Places a box with all in it, its upper left corner at (x, y)."""
        content = self.inside[path]
        left, top = self.shift[path]
        width = max(content.width, self.title_widths.get(path, 0.0)) + 2 * PADDING
        self.boxes[path] = Rectangle(x, y, width, content.height + top + PADDING)
        self.shift[path] = (x + left, y + top)
        for key, block in content.blocks.items():
            corner = (x + left + content.x[key], y + top + content.y[key])
            if key in self.boxes_of:
                self.nodes[key] = Rectangle(*corner, block.width, block.height)
            elif key in self.inside and isinstance(key, tuple):
                self.place(key, *corner)

    # Routes

    def route(self, index: int) -> tuple[Point, ...]:
        """The points of an edge: out of the boxes of its start, across, into the boxes of its end."""
        edge = self.edges[index]
        if edge.start == edge.end:
            return ()
        start, end = self.boxes_of[edge.start], self.boxes_of[edge.end]
        shared = len(self._shared(edge))
        paths = [start[:depth] for depth in range(len(start), shared, -1)]
        paths += [end[:depth] for depth in range(shared, len(end) + 1)]
        return tuple(point for path in paths for point in self._way(path, index))

    def _way(self, path: Nesting, index: int) -> list[Point]:
        """The part of an edge in a box; a port on the border is where the border is."""
        content, link = self.inside[path], self.links[path][index]
        left, top = self.shift[path]
        box = self.boxes.get(path)
        way = [(x + left, y + top) for x, y in content.way(link)]
        if box is not None and path:
            border = {"first": box.y, "last": box.y + box.height}
            if side := content.blocks[link.start].edge:
                way[0] = (way[0][0], border[side])
            if side := content.blocks[link.end].edge:
                way[-1] = (way[-1][0], border[side])
        return way
