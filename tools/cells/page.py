"""The page of the documentation about cells: their table, old calls beside what to write, and the replay of records.

python -m tools.cells.page [--records DIRECTORY] [--write docs/cells.rst]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from returnn_lite.config.decode import option_info, option_names
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.registry import all_cells
from returnn_lite.layers.old_recurrences import OLD_NAMES
from tools.cells.case import cases_in, read_case
from tools.cells.networks import THROUGH
from tools.cells.replay import replayed

HEAD = """\
Recurrent cells
===============

Written by ``python -m tools.cells.page --write docs/cells.rst``; do not edit.

A ``unit`` of ``rec`` (a whole sequence, or a step of the loop around) and of ``rnn_cell`` (a step) is the name of a
cell, a dict with its ``class`` and options, a list of cells (a stack), or the layers of a loop:

.. code-block:: yaml

    encoder: {class: rec, unit: lstm, n_out: 512, from: data}
    encoder: {class: rec, unit: {class: lstm, units: 512, projection: 64, peephole: true}, from: data}
    encoder: {class: rec, unit: [lstm, {class: residual, cell: {class: gru}}], n_out: 512, from: data}

Names are found whatever their capitals and underscores, with or without ``Cell``, and as other systems call them:
``BasicLSTMCell``, ``tf.contrib.rnn.NASCell``, ``keras.LSTMCell``. So are the options of other systems (``num_units``).
States and parameters of a cell inside of another have its name, or its number, before their own: ``1/cell/h``.
A cell is one step of primitives: the optimiser takes the product with the source out of the loop by itself. Frames
beyond a sequence's length do not exist, for all cells and in both directions.

A state after the last frame is a layer, ``{class: get_last_hidden_state, from: encoder, key: 1/cell/h}``; what it is
before the first one ``initial_state`` says, or ``stateful``: what the batch before left, for each stream (``streams``).
The steps are written out with ``unroll``.

In a Python config, and by entry points of installed packages, a unit may also be a cell of Keras, one's own too:
``keras.rst``.

"""

REPLAYED = """\
Compared with recorded numbers
------------------------------

Cells of TensorFlow 1.15 and Caffe2 on the same numbers: outputs, final states and all gradients. A number is the
largest deviation as a part of the tolerance (outputs 5e-6 + 1e-5 of the value, gradients 2e-5 + 1e-4): up to 1 is
equal.

.. csv-table::
   :header: "case", "through", "outputs", "states", "gradients", ""

"""


def page_of_cells(records: Path | None = None) -> str:
    """The whole page; with the replay of the cases in a folder."""
    parts = [HEAD, "".join(_table_of_cells()), "".join(_old_calls())]
    if records is not None:
        parts.append("".join(_replays(records)))
    return "".join(parts)


def _table_of_cells() -> Iterator[str]:
    yield "The cells\n---------\n\n"
    for cls in sorted(all_cells(), key=lambda cls: cls.cell_names[0]):
        yield "".join(_cell(cls))


def _cell(cls: type[Cell]) -> Iterator[str]:
    first, *others = cls.cell_names
    text = (cls.__doc__ or "").strip().replace("`", "``").split("\n\n")
    also_called = f" Also called {', '.join(f'``{name}``' for name in others)}." if others else ""
    yield f"``{first}``\n{'~' * (len(first) + 4)}\n\n"
    yield "\n\n".join(" ".join(line.strip() for line in part.splitlines()) for part in text) + "\n\n"
    yield f"*{cls.paper}.*{also_called}\n\n"
    old = {ours: name for name, ours in cls.old_options.items()}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name not in option_names(cls):
            continue
        info = option_info(cls, field.name)
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = "required" if is_required else f"default {field.default!r}"
        also = f"; also ``{old[field.name]}``" if field.name in old else ""
        yield f"- ``{field.name}``: {info.description.replace(chr(96), chr(96) * 2)} ({default}{also})\n"
    yield "\n"


def _old_calls() -> Iterator[str]:
    yield "What to write for old calls\n---------------------------\n\n.. list-table::\n   :header-rows: 1\n\n"
    yield "   * - There\n     - Here\n     - What differs\n"
    for old in OLD_NAMES:
        yield f"   * - {old.call}\n     - {old.here}\n     - {old.differs}\n"
    yield "\n"


def _replays(records: Path) -> Iterator[str]:
    yield REPLAYED
    for path in cases_in(records):
        case = read_case(path)
        for way in THROUGH:
            found = replayed(case, way)
            numbers = [f"{x:.2g}" for x in (found.outputs, found.states, found.gradients)]
            nothing = found.missing or (f"does not apply: {found.inapplicable}" if found.inapplicable else "")
            remark = nothing or (found.rule.reason if found.rule else "")
            cells = [case.name, way, *(["", "", ""] if nothing else numbers), remark]
            yield "   " + ", ".join('"' + cell.replace('"', "'") + '"' for cell in cells) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tools.cells.page", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--records", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(argv)
    page = page_of_cells(options.records)
    if options.write is None:
        print(page)
    else:
        options.write.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
