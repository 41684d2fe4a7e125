"""Layers that hold networks: subnetwork, and the loop of a rec layer; and what reads from loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from returnn_lite.config.options import AxisSpec, LayerRef, NetDict, option
from returnn_lite.ir.ops.reduction import Last
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Building, Layer, LayerBuilder, NetworkRequest, Outputs
from returnn_lite.layers.dropout import input_dropout
from returnn_lite.layers.recompute import WHAT_IT_IS, Recomputed, RecomputeSpec, recomputed


class LayersInside(Mapping[str, View]):
    """The layers of a network as parts, those of networks in it as `a/b`: looked up when one is asked for."""

    def __init__(self, built: Mapping[str, Outputs]) -> None:
        self._built = built

    def __getitem__(self, path: str) -> View:
        names, parts = path.split("/"), self
        for depth, name in enumerate(names[:-1]):
            inside = parts._built[name].parts
            if not isinstance(inside, LayersInside):
                return inside["/".join(names[depth + 1 :])]
            parts = inside
        return parts._built[names[-1]].value

    def __iter__(self) -> Iterator[str]:
        waiting = [("", self)]
        while waiting:
            prefix, inside = waiting.pop()
            for name, outputs in inside._built.items():
                yield prefix + name
                if isinstance(outputs.parts, LayersInside):
                    waiting.append((f"{prefix}{name}/", outputs.parts))
                else:
                    yield from (f"{prefix}{name}/{part}" for part in outputs.parts)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Subnetwork(Layer, names=("subnetwork",)):
    """A network as a layer: its `output` is the result; the others are seen as `name/layer`.

    Inside, `data` is the joined sources (`concat_sources`), or `data:0`, `data:1`, ... are the sources one by one,
    which also have their names, `data:NAME`.
    """

    source_count = (0, None)

    subnetwork: NetDict = option("the layers, with one called 'output'")
    concat_sources: bool = option("whether several sources are joined along the feature dim", default=True)
    dropout: float = option("dropout rate on the joined sources", default=0.0)
    dropout_noise_shape: dict[str, int | None] | list[int | None] | None = option(
        "axis to 1 (shared) or null (independent); '*' for all", default=None
    )
    load_on_init: Any = option(
        "checkpoint whose parameters these begin with, without the name of the layer: a file name, or a dict with "
        "filename and load_if_prefix, ignore_missing, ignore_params, ignore_params_prefixes, var_name_mapping; what a "
        "run saves goes before",
        default=None,
    )
    recompute: RecomputeSpec | None = option(f"{WHAT_IT_IS}; default as the layer around says", default=None)

    def recomputes(self) -> Recomputed | None:
        return None if self.recompute is None else recomputed(self.recompute, list(self.subnetwork))

    def build(self, b: LayerBuilder, *sources: View) -> Building:
        inputs: dict[str, View] = {}
        if self.concat_sources and sources:
            inputs["data"] = input_dropout(b, b.concat_features(sources), self.dropout, self.dropout_noise_shape)
        elif self.dropout:
            b.fail("dropout needs joined sources", "put dropout layers inside", "dropout")
        if not self.concat_sources:
            inputs = dict(zip(b.source_names, sources, strict=True))
            inputs |= {str(index): source for index, source in enumerate(sources)}
            if sources:
                inputs.setdefault("data", sources[0])
        built: Mapping[str, Outputs] = yield NetworkRequest(self.subnetwork, inputs, "subnetwork", self.load_on_init)
        return Outputs(built["output"].value, LayersInside(built), built["output"].state)

    def layers_inside(self) -> Mapping[str, Any]:
        return self.subnetwork


class RecUnstack(Layer, names=("rec_unstack",)):
    """The frame of the loop's step of a sequence from around the loop (`base:x`)."""

    source_count = (1, 1)

    axis: AxisSpec | None = option(
        "the axis of the source that the loop runs over; default the time axis", default=None
    )
    declare_rec_time: bool = option("whether that axis decides what the loop runs over", default=False)

    def axis_of_frames(self) -> AxisSpec | None:
        return self.axis if self.axis is not None else "T"

    def axis_of_loop(self) -> AxisSpec | None:
        return self.axis_of_frames() if self.declare_rec_time else None

    def build(self, b: LayerBuilder, x: View) -> View:
        loop = b.loop
        if loop is None:
            b.fail("there is no loop around", "Use it inside the unit of a rec layer.")
        if b.ir.varies_in_loop(x):
            b.fail("the source is computed in the loop, step by step", "Unstack a sequence from around it: 'base:x'.")
        dim = b.axis(self.axis if self.axis is not None else "T", x)
        if b.ir.takes_frames_of(dim):
            return b.ir.element(x)
        with b.ir.at_outer():
            whole = b.relabel(x, dim, loop, f"the axis that '{b.name}' unstacks and the loop")
        return b.ir.element(whole)


class RecLastOutput(Layer, names=("rec_last_output",)):
    """The last frame of a layer of a loop, for each sequence; its `initial_output` if the loop has no steps.

    The layer needs `need_last: true`.
    """

    source_count = (0, 0)

    rec_layer: LayerRef = option("the rec layer")
    sub_layer_name: str = option("the layer inside of it")

    def build(self, b: LayerBuilder) -> View:
        whole = b.layer(f"{self.rec_layer}/{self.sub_layer_name}")
        time = whole.type.time
        if time is None:
            b.fail(f"'{whole.name}' is {whole.type}, not all steps of a loop", "Name a rec layer.", "rec_layer")
        init = b.layer_outputs(self.rec_layer).initial.get(self.sub_layer_name)
        if init is None:
            init = b.constant(0, whole.type.dtype, (), whole.type.sparse)
        return b.apply(Last(time), whole, init)


class RecStepInfo(Layer, names=(":i", "rec_step_info")):
    """The number of the step of the loop, from 0: what the reference ':i' means, as a layer with a name."""

    source_count = (0, 0)
    output_dtype = "int32"

    def build(self, b: LayerBuilder) -> View:
        return b.layer(":i")


LAYERS = (Subnetwork, RecUnstack, RecLastOutput, RecStepInfo)
