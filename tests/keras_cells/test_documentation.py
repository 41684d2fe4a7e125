"""The examples of docs/keras.rst with our cells in Keras, run one after the other."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "keras.rst"


@pytest.mark.one_in(3)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")  # of a model not trained
def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    ours, _, _ = PAGE.read_text().partition("What differs, and what to write")
    examples = re.findall(r"code-block:: python\n\n((?:    .*\n|\n)+)", ours)
    assert len(examples) == 3
    for example in examples:
        exec(textwrap.dedent(example), known)
    frames = np.random.default_rng(0).normal(size=(2, 5, 16)).astype("float32")
    found = known["network"].run({"data": frames}, {"data": [5, 5]}).layers["output"].value  # type: ignore[attr-defined]
    decoder = known["model"].get_layer("decoder")  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.asarray(decoder(frames)), found[:, -1], 1e-5, 1e-6)
