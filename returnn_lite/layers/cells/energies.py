"""The energies of attention: how well each frame of the encoder fits the state of the decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from returnn_lite.config.options import LayerRef
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.unit import States

Kind = Literal["regular", "recurrent", "dot", "soft_coverage"]
Energy = Callable[[View, States], View]
"""From the new h and the states before the step to energies along the frames."""


@dataclass(frozen=True)
class Encoder:
    """The frames that are attended to: `values` [frames, features], and `keys` [frames, key] where the config gives
    them."""

    values: View
    frames: Dim
    features: Dim
    keys: View | None = None


def encoder_of(b: CellBuilder, name: LayerRef, keys: LayerRef | None, x: MarkedType) -> Encoder:
    """The frames of a layer, and of one with keys, for a cell over a source of this type. Raises LayerError.

    The features have a dim of the cell, and frames of the sequence that the cell itself runs over are a copy of that
    dim: each step sees all.
    """
    values = b.layer(name)
    frames, given = values.type.default_time, b.feature_of(values)
    if frames is None or given.size is None:
        b.fail(f"'{name}' has no frames to attend to: {values.type}", "Name a layer with a time axis and features.")
    runs_over = frames is b.frames or frames in x or frames in b.ir.loops
    own = b.own_copy(frames) if runs_over else frames
    features = b.dim("context", given.size)
    values = b.with_feature(b.relabel(_over(b, values, frames, own), given, features), features)
    if keys is None:
        return Encoder(values, own, features)
    of_keys = b.layer(keys)
    time, key = of_keys.type.default_time, b.feature_of(of_keys)
    if time is None or key.size is None:
        b.fail(f"'{keys}' has no key for each frame: {of_keys.type}", f"Compute it from '{name}'.")
    own_key = b.dim("key", key.size)
    of_keys = b.with_feature(b.relabel(_over(b, of_keys, time, own), key, own_key), own_key)
    return Encoder(values, own, features, of_keys)


def _over(b: CellBuilder, values: View, frames: Dim, wanted: Dim) -> View:
    """Values of an encoder along another dim."""
    if frames is wanted:
        return values
    if b.loop is None or b.ir.varies_in_loop(values):
        return b.relabel(values, frames, wanted, "frames that are attended to")
    with b.ir.at_outer():  # where states along these frames begin, too
        return b.relabel(values, frames, wanted, "frames that are attended to")


def energy_of(b: CellBuilder, kind: Kind, encoder: Encoder, hidden: Dim, key_size: int | None) -> Energy:
    """The energy of a kind for an h along `hidden`; makes its parameters, and what does not depend on the state.

    dot: e_s h' (Luong et al. 2015), h' through a matrix and bias where the sizes differ. Others add up and have
    v tanh(...) of the sum (Bahdanau et al. 2014): regular: keys and query; recurrent: the context before, too;
    soft_coverage: how much a frame was attended to so far, times a product of the frame (Tu et al. 2016).
    """
    return _dot(b, encoder, hidden) if kind == "dot" else _additive(b, kind, encoder, hidden, key_size)


def _dot(b: CellBuilder, encoder: Encoder, hidden: Dim) -> Energy:
    features = encoder.features
    query = None if hidden.size == features.size else _affine(b, "query", hidden, features)

    def energy(h: View, before: States) -> View:
        found = b.relabel(h, hidden, features, "h and the frames") if query is None else query(h)
        return b.dot(encoder.values, found, features)

    return energy


def _additive(b: CellBuilder, kind: Kind, encoder: Encoder, hidden: Dim, key_size: int | None) -> Energy:
    features, keys = encoder.features, encoder.keys
    if keys is None:
        assert features.size is not None
        key = b.dim("key", key_size or features.size)
        keys = _affine(b, "keys", features, key)(encoder.values)
    else:
        key = b.feature_of(keys)
        if key_size not in (None, key.size):
            b.fail(f"key_size: the keys have {key.size} features, not {key_size}", "Leave it out.")
    query = _affine(b, "query", hidden, key)
    previous = _affine(b, "previous_context", features, key) if kind == "recurrent" else None
    coverage = _affine(b, "coverage", features, key)(encoder.values) if kind == "soft_coverage" else None
    v = b.param("v", (key,), b.inits.input)

    def energy(h: View, before: States) -> View:
        total = b.add(keys, query(h))
        if previous is not None:
            total = b.add(total, previous(before["context"]))
        if coverage is not None:
            total = b.add(total, b.mul(coverage, before["coverage"]))
        return b.dot(b.unary("tanh", total), v, key)

    return energy


def _affine(b: CellBuilder, name: str, source: Dim, out: Dim) -> Callable[[View], View]:
    """The product with NAME/W [source, out], plus NAME/b."""
    weights = b.param(f"{name}/W", (source, out), b.inits.input)
    bias = b.param(f"{name}/b", (out,), b.inits.bias)
    return lambda x: b.input_product(x, weights, bias)
