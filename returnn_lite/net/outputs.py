"""What a network gives, whatever stands for it: values of the IR, tensors, or arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class LossParts(Generic[T]):
    """Scalars of a loss in a batch: the number of its real frames, its sum over them, and the sum of its errors. The
    sums are None where the loss has no such part."""

    count: T
    sum: T | None = None
    error: T | None = None

    def map(self, function: Callable[[T], S]) -> LossParts[S]:
        """The function of each part that there is."""
        total, error = (None if part is None else function(part) for part in (self.sum, self.error))
        return LossParts(function(self.count), total, error)


@dataclass(frozen=True)
class NetworkOutputs(Generic[T]):
    """Layers by path, losses by name, the scores of the hypotheses by the path of the search's loop, what training
    minimises, and the part of it that is about parameters and activations alone; and what stands `beyond` the ends of
    shorter sequences of a layer, by its path, if that is not zero."""

    layers: Mapping[str, T] = field(default_factory=dict)
    losses: Mapping[str, LossParts[T]] = field(default_factory=dict)
    constraints: T | None = None
    objective: T | None = None
    scores: Mapping[str, T] = field(default_factory=dict)
    beyond: Mapping[str, T] = field(default_factory=dict)

    def named(self) -> dict[str, T]:
        """All of them under the names that a graph gives them."""
        found: dict[str, T | None] = {_layer(path): value for path, value in self.layers.items()}
        for name, loss in self.losses.items():
            found |= {_loss(name, "count"): loss.count, _loss(name, "error"): loss.error, _loss(name, "sum"): loss.sum}
        found |= {"constraints": self.constraints, "objective": self.objective}
        found |= {_scores(path): value for path, value in self.scores.items()}
        found |= {_beyond(path): value for path, value in self.beyond.items()}
        return {name: value for name, value in found.items() if value is not None}

    def map(self, function: Callable[[T], S]) -> NetworkOutputs[S]:
        """The function of each of them."""
        constraints, objective = (
            None if total is None else function(total) for total in (self.constraints, self.objective)
        )
        return NetworkOutputs(
            {path: function(value) for path, value in self.layers.items()},
            {name: loss.map(function) for name, loss in self.losses.items()},
            constraints,
            objective,
            {path: function(value) for path, value in self.scores.items()},
            {path: function(value) for path, value in self.beyond.items()},
        )

    def of(self, found: Mapping[str, S]) -> NetworkOutputs[S]:
        """What is found of these under the names of `named`."""
        return NetworkOutputs(
            {path: found[name] for path in self.layers if (name := _layer(path)) in found},
            {
                name: LossParts(found[count], found.get(_loss(name, "sum")), found.get(_loss(name, "error")))
                for name in self.losses
                if (count := _loss(name, "count")) in found
            },
            found.get("constraints"),
            found.get("objective"),
            {path: found[name] for path in self.scores if (name := _scores(path)) in found},
            {path: found[name] for path in self.beyond if (name := _beyond(path)) in found},
        )

    def with_layers(self, paths: Collection[str]) -> NetworkOutputs[T]:
        """These, but of the layers only some."""
        layers, beyond = (
            {path: value for path, value in values.items() if path in paths} for values in (self.layers, self.beyond)
        )
        return replace(self, layers=layers, beyond=beyond)

    def ends(self) -> dict[str, str]:
        """By the name of a layer's value in a graph, that of what stands beyond the ends of its sequences."""
        return {_layer(path): _beyond(path) for path in self.beyond}


def layers_of(outputs: Mapping[str, T]) -> dict[str, T]:
    """The layers by path among the outputs of a graph."""
    prefix = _layer("")
    return {name.removeprefix(prefix): value for name, value in outputs.items() if name.startswith(prefix)}


def _layer(path: str) -> str:
    return f"layer:{path}"


def _loss(name: str, part: str) -> str:
    return f"loss:{name}:{part}"


def _beyond(path: str) -> str:
    return f"beyond:{path}"


def _scores(path: str) -> str:
    return f"scores:{path}"
