"""The command line of `rnn.py params`."""

from __future__ import annotations

import argparse

ACTIONS = {
    "list": "names, shapes and dtypes, and which layers are LSTMs, GRUs or multiplicative LSTMs",
    "export": "write parameters to an .npz file, recurrent layers as another system has them if asked",
    "import": "make a new checkpoint with parameters from an .npz file",
    "convert": "from the layout of one system to that of another, without a network",
}
_SOURCE = (
    "a config (its model, as its tasks use it), a run's folder or model (the last epoch), a checkpoint or .npz file"
)
_RUN_TIME = "what is added to the forget gate at run time %s, if not what is usual (TensorFlow 1, others 0)"


def params_parser(text: str, layouts: tuple[str, ...], kinds: tuple[str, ...]) -> argparse.ArgumentParser:
    """The parser: an action and its options. `layouts` are the systems, `kinds` the cells that have weights by gate."""
    made = argparse.ArgumentParser(
        prog="rnn.py params",
        description=text,
        epilog="After a config there may be overrides, as for all verbs. No file is ever replaced.",
    )
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    actions = made.add_subparsers(dest="action", metavar="ACTION", required=True)
    parsers = {name: actions.add_parser(name, help=what, description=what) for name, what in ACTIONS.items()}
    for one in parsers.values():
        one.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    for name in ("import", "convert"):
        parsers[name].add_argument("archive", metavar="IN.npz", help="the parameters")
    for name in ("list", "export", "import"):
        parsers[name].add_argument("source", metavar="SOURCE", help=_SOURCE)
    parsers["import"].add_argument("out", metavar="OUT", help="the new checkpoint without endings, or an .npz file")
    for name in ("export", "convert"):
        parsers[name].add_argument("out", metavar="OUT.npz", help="the new file")
    for name in ("list", "export", "import"):
        layer = "only this layer's parameters: its path, or the beginning of their names"
        parsers[name].add_argument("--layer", metavar="PATH", help=layer)
    for name in ("export", "import"):
        system = "recurrent layers as this system has them"
        parsers[name].add_argument("--layout", choices=layouts, help=system)
        parsers[name].add_argument("--forget-bias", type=float, metavar="X", help=_RUN_TIME % "there")
    _add_conversion(parsers["convert"], layouts, kinds)
    return made


def _add_conversion(made: argparse.ArgumentParser, layouts: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    made.add_argument("--from", dest="source_layout", choices=layouts, required=True, help="the system they are from")
    made.add_argument("--to", dest="layout", choices=layouts, required=True, help="the system they are for")
    made.add_argument("--cell", choices=kinds, help="which cell, where names and shapes leave it open")
    made.add_argument("--layer", metavar="PREFIX", help="only the arrays whose names begin so, up to / or .")
    made.add_argument("--from-forget-bias", type=float, metavar="X", help=_RUN_TIME % "where they are from")
    made.add_argument("--to-forget-bias", type=float, metavar="X", help=_RUN_TIME % "where they go")
    sizes = made.add_argument_group("sizes", "of a vector of cuDNN")
    sizes.add_argument("--units", type=int, metavar="N", help="of each cell")
    sizes.add_argument("--layers", type=int, metavar="N", help="one on top of the other; default 1")
    sizes.add_argument("--directions", type=int, choices=(1, 2), help="default 1")
    sizes.add_argument("--projection", type=int, metavar="N", help="size of the projection; default: there is none")
