"""A network compiled for one mode, and what a run of it gives: NumPy in, NumPy out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from returnn_lite.dims.names import numbered
from returnn_lite.ir import Graph, Value
from returnn_lite.ir.batches import Batch, checked_batch
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.net.outputs import LossParts, NetworkOutputs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from returnn_lite.tf.executable import Executable
    from returnn_lite.tf.outputs import RunOutput
    from returnn_lite.tf.parameters import Parameters

SeqLens = Mapping[Any, "ArrayLike | Mapping[Any, ArrayLike]"]


@dataclass(frozen=True)
class LayerOutput:
    """A layer's result. `value`: batch first, then the beam in search, then the dims in declaration order, feature
    last. `seq_lens` has the lengths of the ragged ones of `dims`, `seq_lens_dims` the dims that they vary over."""

    value: NDArray[Any]
    dims: tuple[str, ...]
    seq_lens: Mapping[str, NDArray[Any]]
    seq_lens_dims: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, out: RunOutput) -> LayerOutput:
        """With the names of dims in place of dims; a name that occurs twice gets a number."""
        names = dict(zip(out.dims, numbered(dim.name for dim in out.dims), strict=True))
        lengths = {names[dim]: length for dim, length in out.lengths.items()}
        over = {
            names[dim]: tuple(names.get(other, other.name) for other in dims) for dim, dims in out.length_dims.items()
        }
        return cls(out.value, tuple(names.values()), lengths, over)


@dataclass(frozen=True)
class RunResult:
    """What `Network.run` computed."""

    layers: Mapping[str, LayerOutput]
    losses: Mapping[str, LossParts[float]]
    objective: float | None


class Compiled:
    """A network compiled for one mode: its graph, what the graph's `outputs` are, and what runs it."""

    def __init__(
        self,
        built: BuiltNetwork,
        graph: Graph,
        dtype: str = "float32",
        seed: int = 42,
        parameters: Parameters | None = None,
        draws_by_step: bool = False,
    ) -> None:
        from returnn_lite.tf.executable import Executable

        self.built = built
        self.graph = graph
        self.outputs: NetworkOutputs[Value] = built.outputs.of(graph.outputs)
        self.executable: Executable = Executable(graph, built.extern_data.batch, dtype, seed, parameters, draws_by_step)

    def checked_batch(self, data: Mapping[str, ArrayLike], seq_lens: SeqLens) -> Batch:
        """The arrays by input, and the lengths by dim. Raises BatchError."""
        known = self.built.extern_data
        seen = {key: entry.type for key, entry in known.entries.items()}
        return checked_batch(self.graph.inputs, data, seq_lens, known.declared_dims, seen)

    def run(self, data: Mapping[str, ArrayLike], seq_lens: SeqLens) -> RunResult:
        """Runs one batch. Raises BatchError."""
        batch = self.checked_batch(data, seq_lens)
        found = self.outputs.of(self.executable.run(batch.arrays, batch.lengths))
        return RunResult(
            {path: LayerOutput.of(out) for path, out in found.layers.items()},
            {name: loss.map(lambda out: float(out.value)) for name, loss in found.losses.items()},
            None if found.objective is None else float(found.objective.value),
        )

    def gradients(self, data: Mapping[str, ArrayLike], seq_lens: SeqLens) -> Mapping[str, NDArray[Any]]:
        """The gradients of the objective. Raises BatchError."""
        batch = self.checked_batch(data, seq_lens)
        return self.executable.run_with_gradients(batch.arrays, batch.lengths, of="objective")[1]
