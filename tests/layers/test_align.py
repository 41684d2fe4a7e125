"""Which dims of several operands are taken to be one."""

import pytest

from returnn_lite.dims import Declared, Dim, DimError, DimKind, Masked, Symbol, Unknown
from returnn_lite.ir.views import View
from returnn_lite.layers.align import align
from returnn_lite.layers.errors import LayerError
from tests.layers.harness import Bench


def aligned(bench: Bench, *dims: tuple[Dim, ...], **options: bool) -> list[View]:
    values = [bench.input(f"x{i}", *value_dims) for i, value_dims in enumerate(dims)]
    return align(bench.builder, values, **options)


def shown(values: list[View]) -> list[str]:
    return [str(value.type) for value in values]


def test_features_of_one_size_meet() -> None:
    bench = Bench()
    f, g = bench.feature(5, "F"), bench.feature(5, "G")
    result = aligned(bench, (bench.batch, bench.time, f), (bench.batch, bench.time, g))
    assert shown(result) == ["[B, T, F(5)]"] * 2


def test_a_declared_spatial_dim_is_no_feature() -> None:
    bench = Bench()
    f, made, declared = bench.feature(5, "F"), Symbol("R", DimKind.SPATIAL, 5), Declared("R", DimKind.SPATIAL, 5)
    assert shown(aligned(bench, (bench.batch, f), (made,))) == ["[B, F(5)]", "[F(5)]"]
    assert shown(aligned(bench, (bench.batch, f), (declared,))) == ["[B, F(5)]", "[R(5)]"]
    with pytest.raises(LayerError, match="no source has all dims"):
        aligned(bench, (bench.batch, f), (declared,), broadcast_all=False)


def test_features_of_two_sizes_are_kept_apart() -> None:
    bench = Bench()
    result = aligned(bench, (bench.batch, bench.feature(5, "F")), (bench.batch, bench.feature(4, "G")))
    assert shown(result) == ["[B, F(5)]", "[B, G(4)]"]


def test_the_value_with_the_most_dims_decides() -> None:
    bench = Bench()
    f, g = bench.feature(5, "F"), bench.feature(5, "G")
    assert shown(aligned(bench, (bench.batch, f), (bench.batch, bench.time, g))) == ["[B, G(5)]", "[B, T, G(5)]"]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_feature_of_size_one_broadcasts(swapped: bool) -> None:
    bench = Bench()
    dims = [(bench.batch, bench.time, bench.feature(1, "one")), (bench.batch, bench.time, bench.feature(5))]
    expected = ["[B, T]", "[B, T, F(5)]"]
    assert shown(aligned(bench, *(dims[::-1] if swapped else dims))) == (expected[::-1] if swapped else expected)


def test_a_feature_of_size_one_stays_if_there_is_no_other() -> None:
    bench = Bench()
    assert shown(aligned(bench, (bench.batch, bench.feature(1, "one")), (bench.batch,))) == ["[B, one(1)]", "[B]"]


def test_an_unknown_feature_becomes_the_known_one() -> None:
    bench = Bench()
    unknown, f = Unknown("?", DimKind.FEATURE), bench.feature(5)
    assert shown(aligned(bench, (bench.batch, bench.time, unknown), (bench.batch, f))) == ["[B, T, F(5)]", "[B, F(5)]"]


def test_times_meet_with_a_check_at_run_time() -> None:
    bench = Bench()
    other = bench.spatial("T2")
    result = aligned(bench, (bench.batch, bench.time), (bench.batch, other))
    assert shown(result) == ["[B, T]"] * 2
    node = bench.builder.producer(result[1])
    assert node is not None
    assert "x0" in node.op.reason and "x1" in node.op.reason


def test_times_that_both_have_do_not_meet_others() -> None:
    bench = Bench()
    history = bench.spatial("H")
    result = aligned(bench, (bench.batch, bench.time, history), (bench.batch, bench.time))
    assert shown(result) == ["[B, T, H]", "[B, T]"]


def test_masked_frames_do_not_meet_the_frames_they_are_of() -> None:
    bench = Bench()
    masked = Masked(bench.time, "mask", "mask", (bench.batch,))
    with pytest.raises(LayerError) as caught:
        aligned(bench, (bench.batch, bench.time), (bench.batch, masked))
    assert "unmask" in caught.value.hint


def test_static_dims_meet_if_there_is_one_of_that_size() -> None:
    bench = Bench()
    heads, other = bench.spatial("heads", 8), bench.spatial("other", 8)
    result = aligned(bench, (bench.batch, heads, bench.feature(3)), (bench.batch, other))
    assert shown(result) == ["[B, heads(8), F(3)]", "[B, heads(8)]"]


def test_static_dims_of_one_size_are_ambiguous() -> None:
    bench = Bench()
    a, b, c = (bench.spatial(name, 8) for name in "abc")
    with pytest.raises(LayerError, match=r"a\(8\), b\(8\), c\(8\)"):
        aligned(bench, (bench.batch, a, b), (bench.batch, c))


def test_values_meet_each_other_where_the_largest_has_no_dim() -> None:
    bench = Bench()
    result = aligned(bench, (bench.batch, bench.time), (bench.feature(5, "F"),), (bench.feature(5, "G"),))
    assert shown(result) == ["[B, T]", "[F(5)]", "[F(5)]"]


def test_a_dim_that_has_met_is_not_taken_again() -> None:
    bench = Bench()
    heads, f, g = bench.spatial("heads", 5), bench.feature(5, "F"), bench.feature(5, "G")
    result = aligned(bench, (bench.batch, bench.time, f), (bench.batch, heads), (bench.time, g))
    assert shown(result)[2] == "[T, F(5)]"


def test_broadcasting_all_sources_can_be_refused() -> None:
    bench = Bench()
    dims = [(bench.batch, bench.time), (bench.batch, bench.feature(5))]
    assert shown(aligned(bench, *dims)) == ["[B, T]", "[B, F(5)]"]
    with pytest.raises(LayerError) as caught:
        aligned(Bench(), *dims, broadcast_all=False)
    assert "allow_broadcast_all_sources" in caught.value.hint


def test_sizes_that_differ_are_no_relabel() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.feature(5))
    with pytest.raises(DimError, match="differ in size"):
        bench.builder.relabel(x, x.type.dims[1], Symbol("G", DimKind.FEATURE, 4), "two layers")
