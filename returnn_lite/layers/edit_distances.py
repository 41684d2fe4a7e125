"""Edit distances to a reference, label by label, and what each label that may come next would cost (SEMANTICS 4, 8).

They are for training with optimal completions (Sabour et al. 2019, "Optimal completion distillation for sequence
learning"): the costs, negated, are what the scores of the next label should be.
"""

from __future__ import annotations

from dataclasses import dataclass

from returnn_lite.config.options import AxisSpec, DimSpec, Unspecified, UnspecifiedType, option
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.edit_distances import EditDistanceStep
from returnn_lite.ir.ops.elementwise import PrintValue
from returnn_lite.ir.ops.losses import OptimalCompletions
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.constants import renamed
from returnn_lite.layers.loop_axis import axis_or_loop


@dataclass(frozen=True)
class Reference:
    """The labels that are right, a sequence [.., time]; the dim of a row of the table; and how many labels there are,
    with the blank."""

    value: View
    time: Dim
    row: Dim
    labels: int


def reference_of(b: LayerBuilder, blank: int | None) -> Reference:
    """The target of the layer, whole."""
    value = b.surroundings.target.value()
    if value.type.sparse is None or value.type.sparse.size is None:
        b.fail(f"the target must be labels, not {value.type}", "", "target")
    time = value.type.default_time
    if time is None:
        b.fail(
            f"the target must be a whole sequence, not {value.type}",
            "In a loop write layer:base:data:KEY: a key alone is the target of this step.",
            "target",
        )
    if b.ir.varies_in_loop(value):
        b.fail(
            "the target is computed in the loop, where it may differ from step to step",
            "Compute it outside of the loop and write layer:base:NAME.",
            "target",
        )
    size = value.type.sparse.size
    return Reference(value, time, time + 1, size if blank is None else max(size, blank + 1))


class EditDistanceTableLayer(Layer, names=("edit_distance_table",)):
    """The edit distances of the labels so far to each beginning of the target, the row of a table: [T' + 1], int32.

    In a loop it is the row after this step's label, and `prev:` of it in the first step 0, 1, 2, ...; of a whole
    sequence the rows after each of its labels.
    """

    source_count = (1, 1)
    output_dtype = "int32"
    begins_held = True

    axis: AxisSpec | UnspecifiedType = option(
        "the axis of the labels; default their time, or the loop", default=Unspecified
    )
    debug: bool = option("prints labels, target and rows", default=False)
    blank_idx: int | None = option("a label that is none: the row stays as it is", default=None, least=0)
    out_dim: DimSpec | None = option("the dim of a row (a dynamic Dim)", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        right = reference_of(b, self.blank_idx)
        if x.type.sparse is None or x.type.sparse.size not in (None, right.labels):
            b.fail(f"the source must be labels of {right.labels} classes, as the target has, not {x.type}", "", "from")
        over = self._axis(b, x)
        if over not in x.type:
            return self._step(b, x, right)
        if right.time is over:
            other = b.copy_of_dim(over)
            right = Reference(b.relabel(right.value, over, other), other, right.row, right.labels)
        step = EditDistanceStep(right.time, right.row, self.blank_idx)
        (table,) = b.recurrence(step, x, right.value, b.iota(right.row), over=over)
        table = b.as_features(table, right.row)
        if self.debug:
            print_values(b, {"labels": x, "target": right.value, "rows": table})
        return renamed(b, table, right.row, self.out_dim, "out_dim")

    def _step(self, b: LayerBuilder, label: View, right: Reference) -> View:
        with b.ir.at_outer():
            first = b.iota(right.row)
        step = EditDistanceStep(right.time, right.row, self.blank_idx)
        before = b.delay("row", step.type_of(label.type, right.value.type, first.type), first)
        before.next = b.with_feature(b.apply(step, label, right.value, before.now), right.row)
        if self.debug:
            print_values(b, {"label": label, "target": right.value, "before": before.now, "after": before.next})
        result = renamed(b, before.next, right.row, self.out_dim, "out_dim")
        if b.surroundings.initial_output(result.type) is not None:
            b.fail("the row before the first label is 0, 1, 2, ...", "Leave it out.", "initial_output")
        with b.ir.at_outer():
            held = renamed(b, first, right.row, self.out_dim, "out_dim")
        b.ir.hold(result, held)
        return result

    def _axis(self, b: LayerBuilder, x: View) -> Dim:
        if self.axis is not Unspecified:
            return axis_or_loop(b, self.axis, x)
        over = x.type.default_time or b.loop
        if over is None:
            b.fail(f"the source has no axis of labels: {x.type}", "Give a sequence of labels.", "from")
        return over


class OptimalCompletionsLayer(Layer, names=("optimal_completions",)):
    """For each label the least edit distance to the target that the labels so far, this one next, can come to have:
    [labels], int32. The source is the row of an edit_distance_table, in a loop usually that of the step before."""

    source_count = (1, 1)

    debug: bool = option("prints the row, the target and the costs", default=False)
    blank_idx: int | None = option("a label that is none: it costs nothing", default=None, least=0)

    def build(self, b: LayerBuilder, x: View) -> View:
        right = reference_of(b, self.blank_idx)
        have = right.row if right.row in x.type else x.type.feature
        if x.type.dtype != "int32" or have is None or have.size is not None:
            b.fail(f"the source must be rows of an edit_distance_table, not {x.type}", "", "from")
        row = b.relabel(x, have, right.row, f"the row that '{b.name}' reads, and its target")
        classes = right.value.type.sparse
        assert classes is not None
        if classes.size != right.labels:
            classes = b.new_feature(right.labels)
        costs = b.apply(OptimalCompletions(right.time, right.row, classes, self.blank_idx), row, right.value)
        if self.debug:
            print_values(b, {"row": row, "target": right.value, "costs": costs})
        return b.with_feature(costs, classes)


def print_values(b: LayerBuilder, values: dict[str, View]) -> None:
    """Has values printed each time they are computed."""
    for name, value in values.items():
        b.ir.require_computed(b.apply(PrintValue(f"{b.name} {name}"), value))


LAYERS = (EditDistanceTableLayer, OptimalCompletionsLayer)
