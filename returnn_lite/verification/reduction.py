"""The smallest network that still shows something: delta debugging on a config's network dict.

After Zeller and Hildebrandt (2002): halves of what is there are left out, then quarters, down to single layers, options
and sources, as long as the rest still shows it. Each step is in `reduction_steps.py`; what a smaller config must
show, a function says. So the result is the smallest in this sense: none of the steps makes it smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from returnn_lite.verification import reduction_steps as steps
from returnn_lite.verification.reduction_steps import Config, Item

Shows = Callable[[Config], bool]
"""Whether a config still shows what is looked for. Configs that are wrong in any other way do not."""
MOST_STARTS = 8
"""How many layers are tried as the only output of the network."""


@dataclass(frozen=True)
class Step:
    """One way to make a config smaller: what could go, and the config without some of it."""

    items: Callable[[Config], Sequence[Item]]
    without: Callable[[Config, Sequence[Item]], Config]


STEPS = (
    Step(steps.layers, steps.bypassed),
    Step(steps.layers, steps.bypassed_to_last),
    Step(steps.subnetworks, steps.without_subnetworks),
    Step(steps.layers_with_sources, steps.reading_data),
    Step(steps.several_sources, steps.without_sources),
    Step(steps.units, steps.with_copies),
    Step(steps.options, steps.without_options),
    Step(steps.sizes, steps.with_small_sizes),
    Step(steps.data_keys, steps.without_options),
)


@dataclass
class Reduction:
    """A search for a smaller config. `is_over` says that the time is used up; `observe` sees each one that was found,
    with the number of configs tried."""

    shows: Shows
    is_over: Callable[[], bool] = lambda: False
    observe: Callable[[Config, int], None] = lambda config, tried: None
    tried: int = 0
    _seen: set[str] = field(default_factory=set)

    def smallest(self, config: Mapping[str, Any], suspects: Sequence[str] = ()) -> Config:
        """The config, made smaller until no step makes it smaller any more, or the time is over.

        `suspects` are layers, by their paths in the network, that are probably enough with what they need.
        """
        found: Config = dict(config)
        found = self._first(found, [steps.only_network(found)])
        found = self._first(found, steps.starts(found, suspects)[:MOST_STARTS])
        size = -1
        while size != (size := steps.size(found)) and not self.is_over():
            for step in STEPS:
                found = self._halved(found, step)
        return found

    def _halved(self, config: Config, step: Step) -> Config:
        """The config without as many items of the step as can go, tried in halves, quarters and so on."""
        count = len(step.items(config))
        width = max(1, count // 2)
        while count:
            at = 0
            while items := step.items(config)[at : at + width]:
                smaller = self._first(config, [step.without(config, items)])
                at += width if smaller is config or len(step.items(smaller)) >= len(step.items(config)) else 0
                config = smaller
            if width == 1:
                return config
            width //= 2
        return config

    def _first(self, config: Config, candidates: Sequence[Config]) -> Config:
        """The first of the candidates that shows it; else the config itself."""
        for candidate in candidates:
            text = repr(candidate)
            if text in self._seen or self.is_over() or candidate == config:
                continue
            self._seen.add(text)
            self.tried += 1
            if self.shows(candidate):
                self.observe(candidate, self.tried)
                return candidate
        return config
