"""Defaults of options that depend on the config's behavior_version: one table, so that no layer asks for versions.

Source: SEMANTICS 1.7. A published config has behaviour version 0 as a rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from returnn_lite.config.options import Unspecified, UnspecifiedType

T = TypeVar("T")


@dataclass(frozen=True)
class Change:
    """A default that became another in a behaviour version."""

    version: int
    before: object
    since: object


DEFAULTS: Mapping[str, Change] = {
    "batch_norm.delay_sample_update": Change(12, False, True),
    "batch_norm.momentum": Change(12, 0.99, 0.1),
    "batch_norm.param_version": Change(12, 0, 2),
    "batch_norm.update_sample_only_in_training": Change(12, False, True),
    "conv.with_bias": Change(10, False, True),
    "dot.add_var2_if_empty": Change(3, True, False),
    "dot.red1": Change(3, -1, "auto"),
    "dot.red2": Change(3, -2, "auto"),
    "dot.var1": Change(3, -2, "auto"),
    "dot.var2": Change(3, -1, "auto"),
    "merge_dims.keep_order": Change(6, False, True),
    "pad.handle_dynamic_dims": Change(21, False, True),
    "rnn_cell.use_zoneout_output": Change(17, False, True),
    "sources.broadcast_all": Change(4, True, False),
}


class Versioned(Protocol):
    """What has a behaviour version: a LayerBuilder."""

    def behavior(self, version: int) -> bool: ...


def default(b: Versioned, name: str, given: T | UnspecifiedType = Unspecified) -> T:
    """The value that was given, or else the default under the config's behaviour version."""
    if given is not Unspecified:
        return given
    change = DEFAULTS[name]
    return change.since if b.behavior(change.version) else change.before  # type: ignore[return-value]
