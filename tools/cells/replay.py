"""Replays recorded cases of other systems' cells, and compares outputs, final states and all gradients.

    python -m tools.cells.replay DIRECTORY [--through rec|rnn_cell|plain|keras] [--match REGEX]

Prints a line for each case with the largest deviation of outputs, states and gradients. The exit code is 0 if all are
within the tolerance of the records: outputs and states 5e-6 + 1e-5 of the value, gradients 2e-5 + 1e-4; or differ by a
documented rule, which the line says; or if Keras' layers can't run the case, and the line says why.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from returnn_lite.compiled import Compiled
from returnn_lite.compiler import build, optimized
from returnn_lite.config.diagnostics import ConfigError
from tools.cells.case import Array, Case, cases_in, read_case
from tools.cells.keras_network import KerasNetwork, NotInKerasError
from tools.cells.networks import THROUGH, NoDriverError, plan_of
from tools.cells.plan import Plan
from tools.cells.rules import Rule, rule_of
from tools.cells.run import CompiledNetwork, Network, results

OUTPUTS, GRADIENTS = (5e-6, 1e-5), (2e-5, 1e-4)
"""Absolute and relative tolerance."""


@dataclass(frozen=True)
class Deviations:
    """The largest ones, as parts of what is allowed: up to 1 is equal."""

    outputs: float = 0.0
    states: float = 0.0
    gradients: float = 0.0
    missing: str = ""
    """Why there is nothing to compare."""
    inapplicable: str = ""
    """Why the case is not for this way."""
    rule: Rule | None = None
    """Which parts differ on purpose."""

    @property
    def is_equal(self) -> bool:
        """Whether all is, but what the rule leaves out."""
        parts = {"outputs": self.outputs, "states": self.states, "gradients": self.gradients}
        differing = {name for name, deviation in parts.items() if deviation > 1.0}
        return not self.missing and differing <= (self.rule.parts if self.rule else set())


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.cells.replay", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--through", choices=THROUGH, action="append", help="default: all")
    parser.add_argument("--match", default="", help="only cases whose name this regular expression finds")
    options = parser.parse_args(argv)
    paths = [path for path in cases_in(options.directory) if re.search(options.match, path.stem)]
    if not paths:
        print(f"{options.directory}: there are no cases", file=sys.stderr)
        return 2
    bad = 0
    for path in paths:
        case = read_case(path)
        for through in options.through or THROUGH:
            found = replayed(case, through)
            bad += not found.is_equal
            print(line_of(case, through, found), flush=True)
    print(f"{len(paths)} cases, {bad} not equal")
    return 1 if bad else 0


def line_of(case: Case, through: str, found: Deviations) -> str:
    """A line of the report; deviations are parts of the tolerance."""
    state = "n/a" if found.inapplicable else "ok " if found.is_equal else "OFF"
    head = f"{state} {case.name} {through}:"
    if found.inapplicable:
        return f"{head} does not apply: {found.inapplicable}"
    if found.missing:
        return f"{head} {found.missing}"
    said = f" ({found.rule.reason})" if found.rule else ""
    return f"{head} outputs {found.outputs:.2g} states {found.states:.2g} gradients {found.gradients:.2g}{said}"


def replayed(case: Case, through: str) -> Deviations:
    """What a case gives here, against what was recorded."""
    try:
        return _compared(case, through)
    except NotInKerasError as error:
        return Deviations(inapplicable=str(error))
    except (ConfigError, NoDriverError) as error:
        return Deviations(missing=str(error))
    except (LookupError, TypeError, ValueError, tf.errors.OpError) as error:  # a layout or driver that does not fit
        return Deviations(missing=f"{type(error).__name__}: {str(error).splitlines()[0]}")


def _compared(case: Case, through: str) -> Deviations:
    plan = plan_of(case, through)
    network = KerasNetwork.of(plan, case.arrays) if through == "keras" else _compiled(plan, through != "plain")
    found, gradients = results(case, plan, network)
    outputs = [key for key in found if key.startswith("out")]
    recorded = case.arrays
    return Deviations(
        max(_largest(found[key], recorded[key], OUTPUTS, plan.shown[key].real) for key in outputs),
        max([_largest(found[key], recorded[key], OUTPUTS) for key in found if key not in outputs], default=0.0),
        max([_largest(array, recorded[f"grad/{key}"], GRADIENTS) for key, array in gradients.items()], default=0.0),
        rule=rule_of(case),
    )


def _compiled(plan: Plan, optimize: bool) -> Network:
    built = build(plan.config, "train")
    return CompiledNetwork.of(plan, Compiled(built, optimized(built, optimize)))


def _largest(mine: Array, theirs: Array, tolerance: tuple[float, float], real: Array | None = None) -> float:
    """The largest deviation of ours from theirs, as a part of the tolerance; of the frames that count."""
    if mine.shape != theirs.shape:
        return float("inf")
    off = np.abs(mine - theirs) / (tolerance[0] + tolerance[1] * np.abs(theirs))
    if real is not None:
        off = np.where(real.reshape(real.shape + (1,) * (off.ndim - 2)), off, 0.0)
    worst = float(np.max(off, initial=0.0))
    return worst if np.isfinite(worst) else float("inf")


if __name__ == "__main__":
    sys.exit(main())
