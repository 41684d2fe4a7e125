"""Golden tests: what each pass makes of a small network, as IR text, and where its layers are then.

A change of the optimiser shows as a diff of these files; `pytest --update-golden` rewrites them.
"""

from __future__ import annotations

import pathlib
from dataclasses import replace

import pytest

from returnn_lite.compiler import build
from returnn_lite.config.compose import read_composed
from returnn_lite.explain.placement import placement
from returnn_lite.ir import Loop
from returnn_lite.passes.pipeline import optimize
from tools.pipeline import DOCUMENT, document

HERE = pathlib.Path(__file__).parent
CASES = sorted(path.parent.name for path in HERE.glob("*/net.yaml"))
WITHOUT_LOOP = ("transformer_decoder", "language_model", "masked_label_model")


@pytest.mark.parametrize("mode", ["train", "search"])
@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, mode: str, request: pytest.FixtureRequest) -> None:
    """The passes make of the network what the golden file says."""
    config = read_composed(HERE / case / "net.yaml").data
    built = build(config, mode, targets=mode == "train")  # type: ignore[arg-type]
    kept = ("loss:", "objective") if mode == "train" else ("layer:output", "scores:")
    outputs = {n: v for n, v in built.graph.outputs.items() if n.startswith(kept) and not n.startswith("layer:output/")}
    texts: list[str] = []
    graph = optimize(
        replace(built.graph, outputs=outputs), observe=lambda name, after: texts.append(f"# after {name}\n{after}\n")
    )
    assert not (mode == "train" and case in WITHOUT_LOOP and any(isinstance(n.op, Loop) for n in graph.nodes))
    everything = optimize(built.graph)
    places = [f"{path}: {place.where}" for path, place in placement(built.graph, everything).items()]
    found = "\n".join([*texts, "# placement", *places, ""])
    golden = HERE / case / f"{mode}.txt"
    if request.config.getoption("--update-golden"):
        golden.write_text(found)
    assert golden.exists(), "no golden file; run pytest --update-golden"
    assert found == golden.read_text()


def test_the_document_about_the_stages_is_current(request: pytest.FixtureRequest) -> None:
    """`docs/pipeline.rst` is what `python -m tools.pipeline` writes."""
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(document())
    assert DOCUMENT.read_text() == document()
