"""What is measured: the cases, each with its network and its data. Needs the standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cell_networks
import loop_networks
import networks
from loop_networks import LABELS, TRANSDUCER, MakeDim
from networks import LSTM, SEARCH, SEQ2SEQ

GROUPS = {
    "speed": ("lite", "returnn", "keras", "torch"),
    "loops": ("lite", "lite_plain", "returnn", "returnn_plain"),
    "cells": ("lite", "keras", "torch"),
}
"""The tables and the peers that each compares."""


@dataclass(frozen=True)
class Case:
    """A network with random data: `batch` sequences, of each data key with at most `longest` frames; all have as many
    with `equal_lengths`.

    With `search`, it is a beam search that outputs these layers, else a step of training. Where `labels` is given, that
    part of the target's frames has another label than 0. `without` are peers that fail on the network. RETURNN gets
    `returnn_version` as its behaviour version.
    """

    group: str
    title: str
    network: Callable[[MakeDim], dict[str, Any]]
    extern_data: Mapping[str, Mapping[str, Any]]
    batch: int
    longest: Mapping[str, int]
    search: tuple[str, ...] = ()
    labels: float | None = None
    without: tuple[str, ...] = ()
    returnn_version: int = 0
    equal_lengths: bool = False

    def lengths(self, key: str) -> list[int]:
        """The sequences' lengths of a data key."""
        if self.equal_lengths:
            return [self.longest[key]] * self.batch
        own = key != "data" and "same_dim_tags_as" not in self.extern_data[key]
        return networks.lengths(self.batch, self.longest[key], seed=2 if own else 1)


DATA = {"data": {"dim": SEQ2SEQ["input"]}}
LABELLED = {**DATA, "classes": {"dim": SEQ2SEQ["vocabulary"], "sparse": True, "available_for_inference": False}}
FRAMEWISE = {**DATA, "classes": {**LABELLED["classes"], "same_dim_tags_as": {"t": "data"}}}
SOURCE, TARGET, FRAMES = SEQ2SEQ["source"], SEQ2SEQ["target"], TRANSDUCER["frames"]
DOT_BY_DIMS = 3  # from here on, RETURNN finds out by itself which dims a dot's operands share

CASES = {
    "lstm_train": Case(
        "speed", "LSTM layer, training step (B=32, T=100, D=256, H=512)", lambda dim: networks.lstm(),
        {"data": {"dim": LSTM["input"]}}, LSTM["batch"], {"data": LSTM["time"]},
    ),
    "attention_train": Case(
        "speed", "attention decoder, training step (B=32, source 40, target 20)", lambda dim: networks.attention(),
        LABELLED, SEQ2SEQ["batch"], {"data": SOURCE, "classes": TARGET},
    ),
    "transformer_train": Case(
        "speed", "Transformer decoder, training step (B=32, source 40, target 20)", lambda dim: networks.transformer(),
        LABELLED, SEQ2SEQ["batch"], {"data": SOURCE, "classes": TARGET},
    ),
    "attention_search": Case(
        "speed", "attention decoder, beam search (B=8, beam 12, 20 steps)", lambda dim: networks.attention(),
        LABELLED, SEARCH["batch"], {"data": SOURCE}, search=("decision",),
    ),
    "compile": Case(
        "speed", "time to build the attention decoder for training, first step included",
        lambda dim: networks.attention(), LABELLED, SEQ2SEQ["batch"], {"data": SOURCE, "classes": TARGET},
    ),
    "masked_train": Case(
        "loops", "masked label model, training step (B=32, T=100, a label in a quarter of the frames)",
        lambda dim: loop_networks.masked_label_model(), FRAMEWISE, TRANSDUCER["batch"],
        {"data": FRAMES, "classes": FRAMES}, labels=0.25,
    ),
    "masked_search": Case(
        "loops", "masked label model, beam search (B=8, beam 12, T=100)",
        lambda dim: loop_networks.masked_label_model(), FRAMEWISE, SEARCH["batch"], {"data": FRAMES},
        search=("decision",),
    ),
    "cum_concat_train": Case(
        "loops", "self-attention by cum_concat, training step (B=32, target 60)", loop_networks.cum_concat_attention,
        LABELLED, LABELS["batch"], {"data": SOURCE, "classes": LABELS["time"]}, returnn_version=DOT_BY_DIMS,
    ),
    "cum_concat_search": Case(
        "loops", "self-attention by cum_concat, beam search (B=8, beam 12, 30 steps)",
        loop_networks.cum_concat_attention, LABELLED, SEARCH["batch"], {"data": SOURCE}, search=("decision",),
        returnn_version=DOT_BY_DIMS,
    ),
    "second_model_search": Case(
        "loops", "attention decoder, its labels scored by an LSTM beside it, beam search (B=8, beam 12, 20 steps)",
        lambda dim: loop_networks.second_model(), LABELLED, SEARCH["batch"], {"data": SOURCE},
        search=("decision", "lm_scores"),
        without=("returnn",),  # its optimiser moves the scores out, and then finds no choices for their beam
    ),
}  # fmt: skip


def _of_cell(title: str, net: cell_networks.CellNetwork) -> Case:
    """One recurrent layer over sequences of one length."""
    return Case(
        "cells", title, lambda dim: net.network(), net.extern_data(), net.batch, net.longest(), equal_lengths=True
    )


CASES |= {name: _of_cell(net.title, net) for name, net in cell_networks.NETWORKS.items()}
