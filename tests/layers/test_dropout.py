"""Dropout: the rate, and what a mask varies over."""

import numpy as np
import pytest

from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder, LayerError
from returnn_lite.layers.dropout import input_dropout, mask_dims
from returnn_lite.layers.surroundings import Given
from tests.layers.harness import Bench

ONES = np.ones((20, 30, 50), "float32")


def builder(bench: Bench) -> LayerBuilder:
    return bench.layer_builder("probe", Given())


def frames(bench: Bench) -> View:
    return bench.input("x", bench.batch, bench.time, bench.feature(50))


def dropped(rate: float, **options: object) -> np.ndarray:
    bench = Bench(train=True)
    y = input_dropout(builder(bench), frames(bench), rate, **options)
    return bench.run(y, {"x": ONES}, lengths=[30] * 20, seed=1).value


def test_elements_are_zero_or_scaled() -> None:
    y = dropped(0.2, noise_shape={"*": None})
    np.testing.assert_allclose(np.unique(y), [0.0, 1.25])
    assert abs((y == 0).mean() - 0.2) < 0.01


def test_by_default_batch_and_time_share_a_mask() -> None:
    y = dropped(0.5)
    assert (y == y[:1, :1]).all()
    assert 0 < (y == 0).mean() < 1


def test_the_same_source_gets_the_same_mask() -> None:
    bench = Bench(train=True)
    x = frames(bench)
    first, second = (input_dropout(builder(bench), x, 0.5) for _ in range(2))
    results = bench.run({"a": first, "b": second}, {"x": ONES}, lengths=[30] * 20)
    np.testing.assert_array_equal(results["a"].value, results["b"].value)


@pytest.mark.parametrize(
    ("train", "on_forward", "drops"), [(True, False, True), (False, False, False), (False, True, True)]
)
def test_when(train: bool, on_forward: bool, drops: bool) -> None:
    bench = Bench(train=train)
    x = frames(bench)
    assert (input_dropout(builder(bench), x, 0.5, on_forward=on_forward) is not x) == drops


# What RETURNN's get_bc_shape gives for a source [B, T, H(3), F], measured.
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (None, "F"),
        ({"*": None}, "B T H F"),
        ({"B": 1}, "F"),
        ({"T": None}, "T F"),
        ({"B": None}, "B F"),
        ({"except_time": None}, "H F"),
        ({"*": 1}, ""),
        ({"*": 1, "F": None}, "F"),
        ([1, None, 1, None], "T F"),
    ],
)
def test_noise_shapes(shape: object, expected: str) -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.time, bench.spatial("H", 3), bench.feature(4))
    dims, fresh = mask_dims(builder(bench), x, shape, None)
    assert " ".join(dim.name for dim in dims) == expected
    assert not fresh


def test_dropout_axis_lists_what_varies() -> None:
    bench = Bench()
    x = frames(bench)
    dims, _ = mask_dims(builder(bench), x, None, ["T", "F"])
    assert dims == x.type.dims[1:]


@pytest.mark.parametrize(
    ("shape", "fresh"),
    [(None, False), ({"*": None}, True), ({"B": None}, False), ({"T": None}, True), ({"T": 1}, False)],
)
def test_steps_of_a_loop_share_a_mask_unless_all_axes_are_independent(shape: object, fresh: bool) -> None:
    bench = Bench()
    x = frames(bench)
    bench.builder.open_loop(bench.time)
    assert mask_dims(builder(bench), bench.builder.element(x), shape, None)[1] == fresh


def looped(noise_shape: object, over: Dim | None = None) -> np.ndarray:
    bench = Bench(train=True)
    x = frames(bench)
    with bench.loop() as stacks:
        stacks["y"] = input_dropout(builder(bench), bench.builder.element(x), 0.5, noise_shape)
    return bench.run(stacks["y"], {"x": ONES}, lengths=[30] * 20).value


def test_values_in_a_loop() -> None:
    shared, fresh = looped(None), looped({"*": None})
    assert (shared == shared[:1, :1]).all()
    assert (fresh[:, 0] != fresh[:, 1]).any()


@pytest.mark.parametrize(
    ("rate", "shape", "axis", "message"),
    [
        (1.0, None, None, "below 1"),
        (-0.1, None, None, "at least 0"),
        (0.1, {"F": 2}, None, "null or 1"),
        (0.1, [1], None, "for each dim"),
        (0.1, {"F": 1}, "T", "exclude"),
    ],
)
def test_mistakes(rate: float, shape: object, axis: object, message: str) -> None:
    bench = Bench(train=True)
    with pytest.raises(LayerError, match=message):
        input_dropout(builder(bench), frames(bench), rate, shape, axis)
