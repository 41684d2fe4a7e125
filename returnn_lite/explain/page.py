"""The page that `explain --html` writes: the network before and after the passes, side by side, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from html import escape

from returnn_lite.explain.drawing import STYLE, svg
from returnn_lite.explain.picture import picture
from returnn_lite.explain.placement import Place
from returnn_lite.ir.layer_reads import LayerRecord

PAGE_STYLE = """
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
body { margin: 0; height: 100vh; display: flex; flex-direction: column; font: 14px/1.45 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: 6px 18px; align-items: center; padding: 8px 14px;
  border-bottom: 1px solid var(--box); }
h1 { font-size: 15px; margin: 0; } h2 { font-size: 13px; margin: 0; padding: 6px 14px; color: var(--soft); }
body.network { font-family: system-ui, sans-serif; color: var(--text); }
main { flex: 1; display: grid; grid-template-columns: 1fr 1fr; min-height: 0; }
section { display: flex; flex-direction: column; min-width: 0; min-height: 0; border-right: 1px solid var(--box); }
.pane { flex: 1; overflow: auto; cursor: grab; } .pane.dragged { cursor: grabbing; user-select: none; }
.pane svg { display: block; margin: 0 auto; } .layer { cursor: pointer; }
.key { display: inline-flex; align-items: center; gap: 5px; color: var(--soft); font-size: 12px; }
.key i { width: 14px; height: 14px; border-radius: 3px; border: 1px solid var(--line); }
aside { border-top: 1px solid var(--box); padding: 8px 14px; height: 8.6em; overflow: auto; }
aside code { font-size: 12.5px; } aside p { margin: 2px 0; } aside .soft { color: var(--soft); }
button { font: inherit; padding: 0 9px; }
@media (max-width: 800px) { main { grid-template-columns: 1fr; grid-template-rows: 1fr 1fr; } }
"""
SCRIPT = """
const facts = JSON.parse(document.getElementById("facts").textContent);
const panes = [...document.querySelectorAll(".pane")];
let chosen = null, zoom = 1;
function show(name) {
  document.querySelectorAll(".marked").forEach(e => e.classList.remove("marked"));
  const box = document.getElementById("details");
  box.replaceChildren();
  const fact = facts[name];
  if (!fact) { box.append("Point at a layer, or click on it."); return; }
  for (const e of document.querySelectorAll(".layer")) if (e.dataset.layer === name) e.classList.add("marked");
  for (const e of document.querySelectorAll(".edge"))
    if (e.dataset.from === name || e.dataset.to === name) e.classList.add("marked");
  for (const [label, text] of fact) {
    const [line, soft, code] = ["p", "span", "code"].map(tag => document.createElement(tag));
    soft.className = "soft"; soft.textContent = label + " "; code.textContent = text;
    line.append(soft, code); box.append(line);
  }
}
function scale(factor) {
  zoom = Math.min(4, Math.max(0.1, factor));
  for (const pane of panes) {
    const svg = pane.querySelector("svg"), [, , w, h] = svg.getAttribute("viewBox").split(" ").map(Number);
    const x = (pane.scrollLeft + pane.clientWidth / 2) / pane.scrollWidth;
    const y = (pane.scrollTop + pane.clientHeight / 2) / pane.scrollHeight;
    svg.setAttribute("width", w * zoom); svg.setAttribute("height", h * zoom);
    pane.scrollLeft = x * pane.scrollWidth - pane.clientWidth / 2;
    pane.scrollTop = y * pane.scrollHeight - pane.clientHeight / 2;
  }
}
function fit(whole) {
  scale(Math.min(1, ...panes.map(p => {
    const [, , w, h] = p.querySelector("svg").getAttribute("viewBox").split(" ").map(Number);
    return Math.min((p.clientWidth - 20) / w, whole ? (p.clientHeight - 20) / h : 9);
  })));
  for (const pane of panes) { pane.scrollTop = 0; pane.scrollLeft = (pane.scrollWidth - pane.clientWidth) / 2; }
}
for (const e of document.querySelectorAll(".layer")) {
  e.addEventListener("mouseenter", () => { if (!chosen) show(e.dataset.layer); });
  e.addEventListener("click", event => {
    chosen = chosen === e.dataset.layer ? null : e.dataset.layer; show(e.dataset.layer); event.stopPropagation(); });
}
for (const pane of panes) {
  let from = null;
  pane.addEventListener("click", () => { chosen = null; show(null); });
  pane.addEventListener("wheel", e => {
    if (e.ctrlKey) { e.preventDefault(); scale(zoom * (e.deltaY < 0 ? 1.15 : 1 / 1.15)); }
  }, { passive: false });
  pane.addEventListener("pointerdown", e => { from = [e.clientX + pane.scrollLeft, e.clientY + pane.scrollTop]; });
  window.addEventListener("pointermove", e => { if (from && e.buttons) { pane.classList.add("dragged");
    pane.scrollLeft = from[0] - e.clientX; pane.scrollTop = from[1] - e.clientY; } });
  window.addEventListener("pointerup", () => { from = null; pane.classList.remove("dragged"); });
}
document.getElementById("in").onclick = () => scale(zoom * 1.25);
document.getElementById("out").onclick = () => scale(zoom / 1.25);
document.getElementById("full").onclick = () => scale(1);
document.getElementById("fit").onclick = () => fit(true);
fit(false);
show(decodeURIComponent(location.hash.slice(1)) || null);
"""
KEYS = (
    ("outside", "outside of all loops"),
    ("before", "moved before its loop"),
    ("loop", "in a loop"),
    ("after", "moved after its loop"),
)


def page(title: str, layers: Mapping[str, LayerRecord], places: Mapping[str, Place]) -> str:
    """The page. It needs no network and no other file."""
    facts = {path: layer_facts(path, record, places.get(path)) for path, record in layers.items()}
    data = json.dumps(facts).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    before, after = (svg(picture(layers, places, side), places, side) for side in ("before", "after"))
    keys = "".join(f'<span class="key"><i style="background: var(--{name})"></i>{text}</span>' for name, text in KEYS)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}{PAGE_STYLE}</style></head>
<body class="network"><header><h1>{escape(title)}</h1>{keys}<span class="key">dashed: of the step before</span>
<span><button id="out" title="smaller">−</button> <button id="in" title="larger">+</button>
<button id="full">1:1</button> <button id="fit">all</button></span></header>
<main><section><h2>as written</h2><div class="pane">{before}</div></section>
<section><h2>as compiled</h2><div class="pane">{after}</div></section></main>
<aside id="details"></aside>
<script type="application/json" id="facts">{data}</script>
<script>{SCRIPT}</script></body></html>
"""


def layer_facts(path: str, record: LayerRecord, place: Place | None) -> list[tuple[str, str]]:
    """What the page says of a layer: pairs of a label and a text."""
    facts = [("layer", f"{path}  ({record.kind})")]
    if place is None:
        return facts
    known = asdict(place)
    where = f"in loop {place.loops[-1]} over {place.loop}" if place.loops else place.where
    facts.append(
        ("where", ", ".join([where, *(f"on mask {m}" for m in place.masks), *(f"on {b}" for b in place.beams)]))
    )
    facts += [(label, known[key]) for label, key in (("why", "reason"), ("change", "to_leave")) if known[key]]
    return [*facts, ("dims", place.dims), *([("as written", place.dims_as_built)] if place.loops_as_built else [])]
