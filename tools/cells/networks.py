"""A recorded case as a network of ours, by what ran the cell."""

from __future__ import annotations

from tools.cells.case import Case
from tools.cells.drivers import bidirectional, caffe2, caffe2_attention, chunks, feedback, sequence, structures
from tools.cells.plan import Plan

THROUGH = ("rec", "plain", "rnn_cell", "keras")
"""The ways: optimised; as it is written, without optimisation; a step in a loop; our cells in Keras' layers."""


class NoDriverError(ValueError):
    """A case that nothing here replays."""


def plan_of(case: Case, through: str) -> Plan:
    """The network and what is whose. Raises NoDriverError."""
    in_loop = through == "rnn_cell"
    if case.system == "caffe2":
        attends = "attention_type" in case.constructor
        return (caffe2_attention if attends else caffe2).plan_of(case, in_loop)
    if not case.constructor:
        raise NoDriverError(f"there is no driver for {case.record['system']}: {case.record['cell']}")
    if "cell_fw" in case.constructor or "cells_fw" in case.constructor or "Bidirectional(" in case.driver:
        return bidirectional.plan_of(case, in_loop)
    if case.driver == "tf.nn.static_state_saving_rnn":
        return chunks.saved_states(case, in_loop)
    if case.keys("mid_state/"):
        return chunks.stateful(case, in_loop)
    if case.driver == "tf.nn.raw_rnn":
        return feedback.plan_of(case, in_loop)
    if "recorder's own" in case.constructor["class"]:
        return structures.plan_of(case, in_loop)
    return sequence.plan_of(case, in_loop)
