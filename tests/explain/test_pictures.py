"""The pictures of `explain --html` and `graph`: whole, well-formed, self-contained, and nothing over anything else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from returnn_lite.cli.loading import load
from returnn_lite.cli.main import main
from returnn_lite.compiler import build, optimized
from returnn_lite.explain.drawing import lay_out, svg_file
from returnn_lite.explain.layered import Block, Layered, Link
from returnn_lite.explain.layout import Edge, Item, Rectangle, layered_layout
from returnn_lite.explain.page import page
from returnn_lite.explain.picture import picture, short_dims
from returnn_lite.explain.placement import Place, placement
from returnn_lite.net.network import BuiltNetwork

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
CASES = [
    (name, mode) for name in ("g2p_attention", "g2p_transformer", "g2p_transducer") for mode in ("train", "search")
]
NAMESPACE = "http://www.w3.org/2000/svg"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def built_of(name: str, mode: str) -> tuple[BuiltNetwork, dict[str, Place]]:
    loaded = load(str(CONFIGS / f"{name}.yaml"), [])
    built = build(loaded.data, mode, locate=loaded.locate)  # type: ignore[arg-type]
    return built, placement(built.graph, optimized(built), built.layers)


def linear(*sources: str) -> dict[str, Any]:
    return {"class": "linear", "from": list(sources), "n_out": 3}


def network_of(layers: dict[str, Any]) -> tuple[BuiltNetwork, dict[str, Place]]:
    config = {"network": layers, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21}
    built = build(config)
    return built, placement(built.graph, optimized(built), built.layers)


class Page(HTMLParser):
    """What a page has: its layers by side, its scripts, and whether tags are closed."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.side = ""
        self.layers: dict[str, list[str]] = {}
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.side = values.get("data-side") or self.side
        if "data-layer" in values:
            self.layers.setdefault(self.side, []).append(str(values["data-layer"]))
        self.addresses += [str(values[key]) for key in ("src", "href", "xlink:href", "action") if key in values]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def overlap(one: Rectangle, other: Rectangle) -> bool:
    across = one.x < other.x + other.width and other.x < one.x + one.width
    return across and one.y < other.y + other.height and other.y < one.y + one.height


def holds(outer: Rectangle, inner: Rectangle) -> bool:
    across = outer.x <= inner.x and inner.x + inner.width <= outer.x + outer.width
    return across and outer.y <= inner.y and inner.y + inner.height <= outer.y + outer.height


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_the_page_is_whole(name: str, mode: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    assert main(["explain", str(CONFIGS / f"{name}.yaml"), "--mode", mode, "--html", str(file)]) == 0
    text = file.read_text()
    built, places = built_of(name, mode)
    found = Page(text)
    assert found.open == []
    assert set(places) == set(built.layers)
    for side in ("before", "after"):
        layers = [path for path in found.layers[side] if not path.startswith("data:")]
        assert sorted(layers) == sorted(built.layers)
    assert found.addresses == []
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    facts = json.loads(found.scripts[0])
    assert set(facts) == set(built.layers)
    for path, place in places.items():
        shown = dict(facts[path])
        assert shown["dims"] == place.dims
        assert shown.get("why", "") == place.reason


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_nothing_lies_over_anything_else(name: str, mode: str, side: str) -> None:
    built, places = built_of(name, mode)
    shown = picture(built.layers, places, side)  # type: ignore[arg-type]
    layout = lay_out(shown)
    page_of = Rectangle(0, 0, layout.width, layout.height)
    nodes = list(layout.nodes.items())
    for index, (key, node) in enumerate(nodes):
        assert holds(page_of, node)
        assert [other for other, place in nodes[:index] if overlap(node, place)] == [], key
    boxes_of = {figure.path: figure.boxes for figure in shown.figures}
    for path, box in layout.boxes.items():
        assert holds(layout.boxes[path[:-1]] if path[:-1] else page_of, box)
        for key, node in nodes:
            inside = boxes_of[str(key)][: len(path)] == path
            assert holds(box, node) if inside else not overlap(box, node), (path, key)
    for arrow, route in zip(shown.arrows, layout.routes, strict=True):
        assert arrow.start == arrow.end or {route[0][1], route[-1][1]} <= {
            y
            for place in (layout.nodes[arrow.start], layout.nodes[arrow.end])
            for y in (place.y, place.y + place.height)
        }


def test_boxes_are_where_the_passes_put_layers() -> None:
    built, places = built_of("g2p_attention", "train")
    before, after = ({f.path: f for f in picture(built.layers, places, side).figures} for side in ("before", "after"))
    assert before["output/output_prob"].boxes == ("loop:output",)
    assert (after["output/output_prob"].boxes, after["output/output_prob"].place) == ((), "after")
    assert after["output/s"].boxes == ("loop:output",)
    assert after["output/embed"].place == "before"
    masked, places = built_of("g2p_transducer", "train")
    after = {figure.path: figure for figure in picture(masked.layers, places, "after").figures}
    assert after["output/label_model0/unit"].boxes == ("mask:prev:emitted",)


def test_arrows_are_what_layers_read() -> None:
    built, places = built_of("g2p_attention", "train")
    arrows = {(arrow.start, arrow.end, arrow.previous) for arrow in picture(built.layers, places, "after").arrows}
    assert ("output/att", "output/s", True) in arrows
    assert ("output/att", "output/readout_in", False) in arrows
    assert ("data:data", "source_embed", False) in arrows
    assert ("output/output", "output", False) in arrows


def test_nested_networks_and_names_of_any_kind(tmp_path: Path) -> None:
    unit = {
        "<b>&'\"": linear("data:source", "prev:<b>&'\""),
        "sub": {
            "class": "subnetwork",
            "from": "<b>&'\"",
            "subnetwork": {"h": linear("data", "prev:h"), "output": linear("h")},
        },
        "output": {**linear("sub"), "loss": "as_is"},
    }
    built, places = network_of({"output": {"class": "rec", "from": "data", "unit": unit}})
    text = page("<i>", built.layers, places)
    found = Page(text)
    assert "output/<b>&'\"" in found.layers["after"]
    assert "<b>" not in text
    assert "<i>" not in text
    assert json.loads(found.scripts[0])["output/<b>&'\""][1][0] == "where"
    tree = ElementTree.fromstring(svg_file(picture(built.layers, places, "after"), places).split("\n", 1)[1])
    assert "output/<b>&'\"" in {group.get("data-layer") for group in tree.iter(f"{{{NAMESPACE}}}g")}
    figures = {figure.path: figure for figure in picture(built.layers, places, "before").figures}
    assert figures["output/sub/h"].boxes == ("loop:output", "subnet:output/sub")


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_the_graph_is_an_svg_file(name: str, mode: str, tmp_path: Path) -> None:
    file = tmp_path / "net.svg"
    assert main(["graph", str(CONFIGS / f"{name}.yaml"), str(file), "--mode", mode]) == 0
    tree = ElementTree.parse(file).getroot()
    layers = [group.get("data-layer") or "" for group in tree.iter(f"{{{NAMESPACE}}}g")]
    built, _ = built_of(name, mode)
    assert sorted(path for path in layers if not path.startswith("data:")) == sorted(built.layers)
    assert re.findall(r"https?:[^\"]*", file.read_text()) == [NAMESPACE]


def test_a_picture_that_cannot_be_written_is_a_usage_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = tmp_path / "none" / "net.svg"
    assert main(["graph", str(CONFIGS / "g2p_attention.yaml"), str(missing)]) == 2
    assert "can't be written: No such file or directory" in capsys.readouterr().err


def test_a_hundred_layers_in_several_loops() -> None:
    unit = {f"a{i}": linear("data:source" if i == 0 else f"a{i - 1}", f"prev:a{(i * 7) % 100}") for i in range(100)}
    built, places = network_of(
        {"output": {"class": "rec", "from": "data", "unit": {**unit, "output": {**linear("a99"), "loss": "as_is"}}}}
    )
    layout = lay_out(picture(built.layers, places, "before"))
    nodes = list(layout.nodes.values())
    assert len(nodes) == 103
    assert not any(overlap(one, other) for index, one in enumerate(nodes) for other in nodes[:index])


def test_ranks_go_down_along_links_and_back_links_may_go_up() -> None:
    blocks = {name: Block(10.0, 10.0) for name in "abcd"}
    links = [Link("a", "b"), Link("b", "c"), Link("a", "d"), Link("c", "a", back=True), Link("c", "d", back=True)]
    made = Layered(dict(blocks), links)
    assert made.rank["a"] < made.rank["b"] < made.rank["c"] < made.rank["d"]
    assert made.way(links[3])[0][1] > made.way(links[3])[-1][1]
    assert made.way(links[4])[0][1] < made.way(links[4])[-1][1]


def test_blocks_that_are_linked_both_ways_have_two_lines() -> None:
    links = [Link("a", "b"), Link("b", "a", back=True)]
    made = Layered({name: Block(40.0, 10.0) for name in "ab"}, links)
    there, back = (made.way(link) for link in links)
    assert {x for x, _ in there}.isdisjoint({x for x, _ in back})
    assert there[0][1] == back[-1][1] == made.y["a"] + 10.0


def test_a_cycle_of_boxes_is_laid_out() -> None:
    items = [Item("a", 20, 10, ("x",)), Item("b", 20, 10, ("y",)), Item("c", 20, 10, ("x",)), Item("d", 20, 10, ("y",))]
    layout = layered_layout(items, [Edge("a", "b"), Edge("d", "c"), Edge("a", "a", True), Edge("c", "b", True)], {})
    assert not overlap(layout.boxes["x",], layout.boxes["y",])
    assert [len(route) > 1 for route in layout.routes] == [True, True, False, True]


def test_short_dims() -> None:
    assert short_dims("[B, data:time, enc:feature(256)] int32 of x(3)") == "B, data:time, 256"
    assert short_dims("[B, output/output:beam(8)]") == "B, beam 8"
    assert short_dims("[B, mask(data:time,output/prev:m)]") == "B, masked data:time"
    assert short_dims("[]") == ""


def test_pictures_import_no_tensorflow(tmp_path: Path) -> None:
    config = str(CONFIGS / "g2p_attention.yaml")
    code = (
        "import sys; from returnn_lite.cli.main import main\n"
        f"assert main(['graph', {config!r}, {str(tmp_path / 'a.svg')!r}]) == 0\n"
        f"assert main(['explain', {config!r}, '--html', {str(tmp_path / 'a.html')!r}]) == 0\n"
        "sys.exit(sorted(name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'keras')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr in ("", "[]\n")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """The script runs: what the address names is marked and described, on both sides."""
    file = tmp_path / "page.html"
    assert main(["explain", str(CONFIGS / "g2p_attention.yaml"), "--html", str(file)]) == 0
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --dump-dom"
    command = [str(CHROMIUM), *options.split(), f"--user-data-dir={tmp_path / 'profile'}", f"{file.as_uri()}#output/s"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert len(re.findall(r'class="layer \w+ marked" data-layer="output/s"', done.stdout)) == 2
    details = done.stdout.partition('<aside id="details">')[2].partition("</aside>")[0]
    assert "it could leave if s did not read prev:att" in details
