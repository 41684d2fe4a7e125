"""The options of all layers (SEMANTICS 1.4): what each does, by numbers, or the error that says it can't be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

X = np.random.default_rng(3).normal(size=(2, 3, 4)).astype("float32")
SEQ_LENS = {"data": [3, 2], "classes": [3, 2], "other": [3, 2]}
LABELS = np.array([[1, 2, 0], [2, 1, 0]])
OTHER = np.array([[0, 1, 1], [1, 0, 0]])
DATA = {"data": X, "classes": LABELS, "other": OTHER}
EXTERN_DATA: dict[str, Any] = {
    "data": {"dim": 4},
    "classes": {"dim": 3, "sparse": True, "available_for_inference": False},
    "other": {"dim": 3, "sparse": True, "available_for_inference": False},
}
IN_LOOP = [False, True]


def compiled(layers: dict[str, Any], mode: str = "forward", extern_data: Any = None, optimize: bool = True) -> Any:
    return rl.compile(layers, extern_data=extern_data or EXTERN_DATA, mode=mode, behavior_version=21, optimize=optimize)


def network(layer: dict[str, Any], in_loop: bool) -> dict[str, Any]:
    """A layer `x` of the data, outside of a loop or in one."""
    if not in_loop:
        return {"x": {"from": "data", "is_output_layer": True, **layer}, "output": {"class": "copy", "from": "x"}}
    unit = {"x": {"from": "data:source", **layer}, "output": {"class": "copy", "from": "x"}}
    return {"output": {"class": "rec", "from": "data", "unit": unit}}


def message(layers: dict[str, Any], **more: Any) -> str:
    with pytest.raises(rl.ConfigError) as error:
        compiled(layers, **more)
    return str(error.value)


# Parameters


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("in_loop", IN_LOOP)
def test_param_dropout_draws_one_mask_of_single_elements(in_loop: bool, optimize: bool) -> None:
    """Each element of W is 0 or W / (1 - p), the same in all steps and sequences; b has too few dims."""
    linear = {"class": "linear", "n_out": 4, "param_dropout": 0.5, "param_dropout_min_ndim": 2}
    net = compiled(network(linear, in_loop), "train", optimize=optimize)
    ones = np.broadcast_to(np.eye(4, 4, dtype="float32")[:3], (2, 3, 4))
    prefix = "output/rec/x" if in_loop else "x"
    net.params[f"{prefix}/b"].assign([1.0, 2.0, 3.0, 4.0])
    value = np.asarray(net.run({**DATA, "data": ones}, SEQ_LENS).layers["output"].value)
    if value.shape[0] == 3:
        value = value.swapaxes(0, 1)
    weights = net.params[f"{prefix}/W"].numpy()[:3]
    rows = value[0] - [1.0, 2.0, 3.0, 4.0]
    kept = np.isclose(rows, 2 * weights, atol=1e-5)
    assert (kept | np.isclose(rows, 0.0, atol=1e-5)).all()
    assert 0 < kept.sum() < kept.size
    np.testing.assert_allclose(value[1, :2], value[0, :2], rtol=1e-5)


def test_parameters_have_no_noise_outside_of_training() -> None:
    linear = {"class": "linear", "n_out": 2, "param_dropout": 0.5, "param_variational_noise": 1.0}
    net = compiled(network(linear, False))
    weights = net.params["x/W"].numpy()
    value = np.asarray(net.run(DATA, SEQ_LENS).layers["x"].value)
    for frames, source, length in zip(value, X, SEQ_LENS["data"], strict=True):
        np.testing.assert_allclose(frames[:length], (source @ weights)[:length], rtol=1e-4, atol=1e-5)


def test_param_variational_noise_has_its_deviation_and_comes_from_the_layer_around() -> None:
    linear = {"class": "linear", "from": "data", "n_out": 4, "forward_weights_init": 0.0, "with_bias": False}
    subnetwork = {"class": "subnetwork", "from": "data", "subnetwork": {"output": linear}}
    layers = {"x": {**subnetwork, "param_variational_noise": 0.5}, "output": {"class": "copy", "from": "x"}}
    net = compiled(layers, "train", {"data": {"dim": 400}})
    ones = np.eye(400, dtype="float32")[None]
    noise = np.asarray(net.run({"data": ones}, {"data": [400]}).layers["output"].value)
    assert noise.std() == pytest.approx(0.5, rel=0.1)
    assert abs(noise.mean()) < 0.1


def test_l2_of_a_layer_counts_the_layers_inside() -> None:
    linear = {"class": "linear", "from": "data", "n_out": 2}
    layers = {"output": {"class": "subnetwork", "from": "data", "subnetwork": {"output": linear}, "L2": 0.5}}
    layers["output"] |= {"loss": "as_is", "loss_scale": 0.0}
    net = compiled(layers, "train")
    expected = 0.5 * sum(float(np.square(value.numpy()).sum()) for value in net.params.values())
    assert net.run(DATA, SEQ_LENS).objective == pytest.approx(expected, rel=1e-5)


def test_the_scale_of_a_loss_is_said_once() -> None:
    layers = {
        "output": {"class": "copy", "from": "data", "loss": "as_is", "loss_scale": 0.5, "loss_opts": {"scale": 2}}
    }
    with pytest.raises(rl.ConfigError, match=r"network\.output\.loss_scale: .* say the same"):
        compiled(layers, "train")
    layers["output"]["loss_opts"]["scale"] = 0.5
    compiled(layers, "train")


LINEAR = {"class": "linear", "from": "data", "n_out": 12, "activation": "tanh"}
FRAMES = np.array([[1, 1, 1], [1, 1, 0]])[:, :, None]


def constrained(layer: dict[str, Any], in_loop: bool, optimize: bool) -> tuple[float, np.ndarray]:
    """The objective of a network whose only loss is switched off, and the linear layer's result at real frames."""
    layers = {"x": layer, "output": {"class": "copy", "from": "x"}}
    if in_loop:
        unit = {"x": {**layer, "from": "data:source"}, "output": {"class": "copy", "from": "x"}}
        layers = {"output": {"class": "rec", "from": "data", "unit": unit}}
    layers["loss"] = {"class": "copy", "from": "output", "loss": "as_is", "loss_scale": 0.0}
    net = compiled(layers, "train", optimize=optimize)
    weights = next(np.asarray(value.numpy()) for name, value in net.params.items() if name.endswith("W"))
    gradients = net.gradients(DATA, SEQ_LENS)
    assert any((np.asarray(gradient) != 0).any() for gradient in gradients.values())
    return net.run(DATA, SEQ_LENS).objective, (X @ weights) * FRAMES


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("in_loop", IN_LOOP)
def test_darc1_is_the_largest_sum_of_a_feature_before_the_activation(in_loop: bool, optimize: bool) -> None:
    objective, y = constrained({**LINEAR, "darc1": 0.5}, in_loop, optimize)
    assert objective == pytest.approx(0.5 * np.abs(y).sum((0, 1)).max(), rel=1e-5)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("in_loop", IN_LOOP)
def test_spatial_smoothing_is_the_energy_of_differences_from_neighbours(in_loop: bool, optimize: bool) -> None:
    objective, y = constrained({**LINEAR, "spatial_smoothing": 0.5}, in_loop, optimize)
    image = np.tanh(y).reshape(2, 3, 4, 3)
    around = sum(np.roll(image, (i, j), (2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))
    assert objective == pytest.approx(0.5 * np.square(image - around / 8).sum(), rel=1e-4)


def test_spatial_smoothing_needs_an_image() -> None:
    with pytest.raises(rl.ConfigError, match="no image of 3 rows and 3 columns at least: 5 times 2"):
        compiled({"output": {**LINEAR, "n_out": 10, "spatial_smoothing": 0.5, "loss": "as_is"}}, "train")


# Output


@pytest.mark.parametrize("in_loop", IN_LOOP)
def test_out_dim_is_the_feature_dim(in_loop: bool) -> None:
    """A Dim of any layer's output: what has it meets what has it, even where two dims have one size."""
    dim = rl.Dim("D", rl.DimKind.FEATURE, 4)
    net = compiled(network({"class": "copy", "out_dim": dim}, in_loop))
    out = net.run(DATA, SEQ_LENS).layers["output"]
    assert out.dims[-1] == "D"
    assert "out_dim" in message(network({"class": "copy", "out_dim": 5}, in_loop))
    assert "no feature dim" in message(
        network({"class": "compare", "value": 0, "out_dim": 4, "from": "data:classes"}, False), mode="eval"
    )


def test_n_out_needs_features() -> None:
    layers = {"output": {"class": "length", "from": "data", "n_out": 3}}
    assert "no feature dim" in message(layers)


@pytest.mark.parametrize("in_loop", IN_LOOP)
def test_out_type_casts_and_marks_classes(in_loop: bool) -> None:
    layer = {"class": "eval", "eval": "tf.argmax(source(0), axis=-1)", "out_type": {"sparse": True, "dim": 7}}
    layers = network(layer, in_loop)
    layers["onehot"] = {"class": "linear", "from": "output", "n_out": 2, "is_output_layer": True}
    net = compiled(layers)
    assert net.params["onehot/W"].shape == (7, 2)


@pytest.mark.parametrize(
    ("out_type", "expected"),
    [
        ({"dim": 5}, "says dim 5"),
        ({"shape": (4,)}, "says shape"),
        ({"shape": (None, 5)}, "says shape"),
        ({"dtpye": "int32"}, "Did you mean 'dtype'?"),
        ({"dtype": "int31"}, "no dtype 'int31'"),
        ({"sparse": True}, "number of classes"),
        (lambda sources, **_: sources[0].output, "as a function is not supported"),
    ],
)
def test_wrong_out_type(out_type: Any, expected: str) -> None:
    assert expected in message(network({"class": "copy", "out_type": out_type}, False))


def test_right_out_type() -> None:
    out_type = {"dim": 4, "shape": (None, 4), "dtype": "float32", "time_dim_axis": 1, "batch_dim_axis": 0}
    assert compiled(network({"class": "copy", "out_type": out_type}, False)).run(DATA, SEQ_LENS)


def test_out_shape_is_a_set_of_dims() -> None:
    assert "set of Dims" in message(network({"class": "copy", "out_shape": {4}}, False))


def test_size_target_gives_the_lengths() -> None:
    """The output's time becomes that of the target, whose lengths are compared at run time."""
    layers: dict[str, Any] = {"output": {"class": "copy", "from": "data", "size_target": "classes"}}
    layers["used"] = {"class": "cast", "dtype": "float32", "from": "data:classes", "is_output_layer": True}
    out = compiled(layers, "eval").run(DATA, SEQ_LENS).layers["output"]
    assert "classes:time" in out.seq_lens
    with pytest.raises(Exception, match="length"):
        compiled(layers, "eval").run(DATA, {**SEQ_LENS, "classes": [2, 2]})


def test_size_target_of_a_step_is_that_of_its_loop() -> None:
    """Published 2D LSTMs have it in the loop: one step has no time, its loop has the target's."""
    layer = {"class": "linear", "n_out": 3, "from": "data:source", "size_target": "classes"}
    source = {"class": "cast", "dtype": "float32", "from": "data:classes"}
    loop = {"class": "rec", "from": "wide", "target": "classes", "unit": {"output": layer}}
    wide = {"class": "expand_dims", "axis": "F", "from": "source"}
    out = compiled({"source": source, "wide": wide, "output": loop}, "eval").run(DATA, SEQ_LENS).layers["output"]
    assert "classes:time" in out.seq_lens
    assert "the output has no time dim" in message({"output": {**loop, "from": "data"}})


# Inputs


def test_in_dim_is_the_feature_dim_of_the_source() -> None:
    """Over the heads [B, T, H, 2] of the data: a linear map of the heads."""
    heads = rl.Dim("H", rl.DimKind.SPATIAL, 2)
    layers = {
        "heads": {"class": "split_dims", "axis": "F", "dims": [heads, 2], "from": "data"},
        "output": {"class": "linear", "from": "heads", "in_dim": heads, "n_out": 3, "with_bias": False},
    }
    net = compiled(layers)
    weights = net.params["output/W"].numpy()
    assert weights.shape == (2, 3)
    out = net.run(DATA, SEQ_LENS).layers["output"]
    value = np.moveaxis(np.asarray(out.value), out.dims.index("output:feature"), -1)
    expected = np.einsum("bthf,ho->btfo", X.reshape(2, 3, 2, 2), weights)
    for frames, wanted, length in zip(value, expected, SEQ_LENS["data"], strict=True):
        np.testing.assert_allclose(frames[:length], wanted[:length], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option", [{"dropout": 0.1}, {"in_dim": 4}])
def test_layers_that_do_not_join_their_sources_have_no_options_for_them(option: dict[str, Any]) -> None:
    layers = {"output": {"class": "combine", "kind": "add", "from": ["data", "data"], **option}}
    assert f"no {next(iter(option))}" in message(layers)


# Losses


@pytest.mark.parametrize("in_loop", IN_LOOP)
def test_a_loss_with_each_of_several_targets(in_loop: bool) -> None:
    layer = {"class": "softmax", "target": ["classes", "other"], "loss": "ce"}
    net = compiled(network(layer, in_loop), "eval")
    losses = net.run(DATA, SEQ_LENS).losses
    path = "output/x" if in_loop else "x"
    assert sorted(losses) == [f"{path}/classes", f"{path}/other"]
    prefix = "output/rec/x" if in_loop else "x"
    logits = X @ net.params[f"{prefix}/W"].numpy()
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    real = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    for key, labels in (("classes", LABELS), ("other", OTHER)):
        expected = -sum(log_p[b, t, labels[b, t]] for b, t in real)
        assert losses[f"{path}/{key}"].sum == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("option", [{"dropout_axis": "T"}, {"dropout_on_forward": True}])
def test_dropout_options_of_a_layer_that_does_not_join_its_sources(option: dict[str, Any]) -> None:
    """A subnetwork has a dropout of its own, which these options would not reach."""
    layers = {"output": {"class": "copy", "from": "data"}}
    subnetwork = {"class": "subnetwork", "from": "data", "subnetwork": layers, "dropout": 0.5, **option}
    (name,) = option
    assert f"network.output.{name}: 'subnetwork' does not join its sources" in message({"output": subnetwork})


@pytest.mark.parametrize("scale", ["2", [1.0], True])
def test_a_scale_of_a_loss_is_a_number(scale: object) -> None:
    layer = {"class": "softmax", "from": "data", "loss": "ce", "target": "classes", "loss_opts": {"scale": scale}}
    assert f"network.output.loss_opts: scale is a number, not {scale!r}" in message({"output": layer}, mode="train")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"input_type": "logit"}, "input_type: expected one of 'prob', 'logits', got 'logit'. Did you mean 'logits'?"),
        ({"label_smoothing": -0.1}, "loss_opts: label_smoothing is a probability, not -0.1"),
        ({"label_smoothing": 1.5}, "loss_opts: label_smoothing is a probability, not 1.5"),
    ],
)
def test_options_of_a_cross_entropy_that_mean_nothing(options: dict[str, Any], expected: str) -> None:
    layer = {"class": "softmax", "from": "data", "loss": "ce", "target": "classes", "loss_opts": options}
    assert expected in message({"output": layer}, mode="train")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"learning_rate_multipler": 2}, "updater_opts: 'learning_rate_multipler' is not supported for one layer. Did"),
        ({"clip": 2}, "'clip' is not supported for one layer. There are optimizer and learning_rate_multiplier."),
        ({"learning_rate_multiplier": "2"}, "updater_opts: learning_rate_multiplier is a number, not '2'"),
    ],
)
def test_optimizer_options_of_a_layer(options: dict[str, Any], expected: str) -> None:
    layer = {"class": "linear", "from": "data", "n_out": 3, "updater_opts": options}
    assert expected in message({"output": layer}, mode="train")
