"""The option `recompute`: what of a layer is computed again when gradients are taken, so that it is not kept until
then."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.layers.errors import LayerError

RecomputeSpec = Literal["none", "all"] | list[str] | dict[str, Any]
WHAT_IT_IS = (
    "what is computed again for gradients, not kept: none, all, a list of layers inside, or auto: {memory: 4GB}"
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?i?)B", re.IGNORECASE)
_POWERS = " KMGT"


@dataclass(frozen=True)
class Recomputed:
    """What an option says: all layers inside, those of the names, or as many as are needed so that no more than
    `memory` bytes are kept."""

    all: bool = False
    names: tuple[str, ...] = ()
    memory: int | None = None

    def has(self, name: str) -> bool:
        """Whether it is said of a layer inside."""
        return self.all or name in self.names


def recomputed(given: object, inside: Collection[str], option: str = "recompute") -> Recomputed:
    """What the value of an option says; `inside` are the layers that it may name. Raises LayerError."""
    if given == "none" or given == "all":
        return Recomputed(given == "all")
    if isinstance(given, Mapping):
        return Recomputed(memory=_memory(given, option))
    if not isinstance(given, list | tuple):
        hint = "Give none, all, a list of names, or auto: {memory: 4GB}."
        raise LayerError(f"{option} can't be {given!r}", hint, option)
    for place, name in enumerate(given):
        if name not in inside:
            known = f"There are {', '.join(inside)}." if inside else "There is none."
            hint = nearest_hint(str(name), list(inside)).strip() or known
            raise LayerError(f"there is no layer '{name}' inside that could be recomputed", hint, option, place)
    return Recomputed(names=tuple(given))


def _memory(given: Mapping[Any, Any], option: str) -> int:
    """The bytes of `auto: {memory: 4GB}`. Raises LayerError."""
    hint = "Write auto: {memory: 4GB}."
    wrong = next((key for key in given if key != "auto"), None)
    if wrong is not None:
        raise LayerError(f"{option} has no '{wrong}'", hint, option, (wrong,))
    auto = given.get("auto")
    if not isinstance(auto, Mapping) or set(auto) != {"memory"}:
        raise LayerError(f"{option}: auto needs the memory that may be kept, and nothing else", hint, option)
    memory = auto["memory"]
    found = _SIZE.fullmatch(memory) if isinstance(memory, str) else None
    if found is None:
        raise LayerError(f"{memory!r} is no size of memory", "Write a number and B, KB, MB, GB or GiB.", option)
    prefix = found[2].upper()
    return int(float(found[1]) * (1024 if prefix.endswith("I") else 1000) ** _POWERS.index(prefix[:1] or " "))
