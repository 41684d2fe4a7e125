"""Expressions of sources: published ones, and what they must refuse."""

import numpy as np
import pytest

from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError
from returnn_lite.layers.evaluate import Eval
from returnn_lite.layers.pointwise import Combine
from tests.layers.harness import LENGTHS, Bench, assert_frames_equal, draw

X = np.abs(draw(2, 3, 4)) + 0.1
Y = np.abs(draw(2, 3, 4, seed=1)) + 0.1
LABELS = np.array([[3, 0, 5], [4, 4, 1]], "int32")
OTHERS = np.array([[1, 0, 6], [2, 4, 0]], "int32")
MASK = np.array([[1, 0, 1], [0, 1, 0]], bool)


def frames(bench: Bench) -> tuple[View, View]:
    return tuple(bench.input(name, bench.batch, bench.time, bench.feature(4, name.upper())) for name in "xy")


def logsumexp(x: np.ndarray) -> np.ndarray:
    return np.log(np.exp(x).sum(-1, keepdims=True))


ONE = {
    "0.5 * source(0)": 0.5 * X,
    "source(0)": X,
    "-source(0)": -X,
    "tf.ones_like(source(0), dtype='float32')": np.ones_like(X),
    "tf.zeros_like(source(0))": np.zeros_like(X),
    "tf.clip_by_value(source(0), 0.3, 0.7)": np.clip(X, 0.3, 0.7),
    "tf.log_sigmoid(-source(0))": -np.log1p(np.exp(X)),
    "tf.compat.v1.log_sigmoid(-source(0))": -np.log1p(np.exp(X)),
    "safe_log(source(0))": np.log(X),
    "tf.exp(source(0))": np.exp(X),
    "tf.math.l2_normalize(source(0), axis=2)": X / np.linalg.norm(X, axis=-1, keepdims=True),
    "tf.pow(source(0), 2.0) ** 2": X**4,
    "tf.maximum(0.0, source(0) - 0.5)": np.maximum(0, X - 0.5),
    "where_bc(tf.greater_equal(source(0), 0.5), 1.0, 0.0)": (X >= 0.5) * 1.0,
    "tf.nn.softmax(-20. * tf.cast(source(0), tf.float32))": np.exp(-20 * X - logsumexp(-20 * X)),
    "tf.to_float(tf.argmax(source(0), axis=-1, output_type=tf.int32))": X.argmax(-1) * 1.0,
    "-tf.reduce_sum(source(0)*safe_log(source(0)), axis=-1, keepdims=True)": -(X * np.log(X)).sum(-1, keepdims=True),
    "source(0) - tf.math.reduce_logsumexp(source(0), axis=-1, keepdims=True)": X - logsumexp(X),
    "tf.math.divide_no_nan(source(0), "
    "tf.norm(source(0), axis=source(0, as_data=True).feature_dim_axis, keepdims=True))": (
        X / np.linalg.norm(X, axis=-1, keepdims=True)
    ),
    "tf.squeeze(tf.reduce_max(source(0), axis=[2], keepdims=True), axis=2)": X.max(-1),
    "tf.reduce_sum(tf.expand_dims(source(0), axis=-1), axis=-1)": X,
    "tf.cast(tf.round(source(0) * 10 / 2), dtype='int32')": np.round(X * 10 / 2).astype(int),
    "tf.one_hot(tf.argmax(source(0), axis=2), 4)": np.eye(4)[X.argmax(-1)],
    "tf.math.argmin(source(0), 2)": X.argmin(-1),
    "tf.cumsum(source(0), axis=1)": X.cumsum(1),
    "tf.cast(tf.argsort(source(0), axis=source(0, as_data=True).get_axis_from_description('F'), "
    "direction='DESCENDING', stable=True), 'float32')": np.argsort(-X, -1, kind="stable") * 1.0,
    "source(0) * (1 - ce_smoothing) + ce_smoothing / source(0, as_data=True).dim": X * 0.9 + 0.1 / 4,
    "tf.where(source(0) > 0.5, source(0), 0)": np.where(X > 0.5, X, 0),
    "tf.nn.relu(source(0) - 0.5) + tf.nn.leaky_relu(0.2 - source(0), alpha=0.3)": (
        np.maximum(X - 0.5, 0) + np.where(X < 0.2, 0.2 - X, 0.3 * (0.2 - X))
    ),
    "tf.add_n([source(0), source(0), source(0)])": 3 * X,
    "tf.math.floormod(source(0), 0.3) + source(0) // 0.3 * 0.3": X,
}
TWO = {
    "source(0) + source(1) * 0.5": X + Y * 0.5,
    "tf.minimum(source(0), source(1) - 1)": np.minimum(X, Y - 1),
    "tf.cast(tf.abs(source(0) - source(1)), tf.float32)": np.abs(X - Y),
    "tf.cast(tf.math.greater_equal(source(0), source(1)), dtype=tf.float32)": (X >= Y) * 1.0,
    "tf.divide(source(0), source(1))": X / Y,
    "safe_log(source(0)) + 0.36 * safe_log(source(1))": np.log(X) + 0.36 * np.log(Y),
    "tf.exp(source(0) - source(1))": np.exp(X - Y),
    "am_scale * safe_log(source(0)) + lm_scale * safe_log(source(1))": 0.7 * np.log(X) + 0.3 * np.log(Y),
}
INTEGERS = {
    "tf.math.floormod(source(0), source(1) + 1)": LABELS % (OTHERS + 1),
    "tf.floordiv(source(0),2) + tf.floormod(source(1),2)": LABELS // 2 + OTHERS % 2,
    "where_bc(tf.equal(source(0), source(1)), 1., 0.)": (LABELS == OTHERS) * 1.0,
    "tf.cast(tf.round((source(0) + source(1) - 1) / 2), dtype='int32')": np.round((LABELS + OTHERS - 1) / 2).astype(
        int
    ),
    "tf.maximum(0, tf.minimum(source(0), source(1)-1))": np.maximum(0, np.minimum(LABELS, OTHERS - 1)),
}
LOCALS = {"ce_smoothing": 0.1, "am_scale": 0.7, "lm_scale": 0.3}


def test_of_one_source() -> None:
    bench = Bench()
    x, y = frames(bench)
    results = bench.run({text: bench.build(Eval(eval=text, eval_locals=LOCALS), x) for text in ONE}, {"x": X, "y": Y})
    for text, expected in ONE.items():
        assert_frames_equal(results[text].value, expected)
    assert y.type.feature is not x.type.feature


def test_of_two_sources() -> None:
    bench = Bench()
    sources = frames(bench)
    built = {text: bench.build(Eval(eval=text, eval_locals=LOCALS), *sources) for text in TWO}
    results = bench.run(built, {"x": X, "y": Y})
    for text, expected in TWO.items():
        assert_frames_equal(results[text].value, expected)


def test_of_integers() -> None:
    bench = Bench()
    sources = [bench.input(name, bench.batch, bench.time, dtype="int32") for name in "xy"]
    built = {text: bench.build(Eval(eval=text), *sources) for text in INTEGERS}
    results = bench.run(built, {"x": LABELS, "y": OTHERS})
    for text, expected in INTEGERS.items():
        assert_frames_equal(results[text].value, expected)
        assert results[text].value.dtype.kind == expected.dtype.kind


def test_of_booleans() -> None:
    bench = Bench()
    sources = [bench.input(name, bench.batch, bench.time, dtype="bool") for name in "xy"]
    y = bench.build(Eval(eval="tf.logical_and(source(0), tf.logical_not(source(1)))"), *sources)
    assert_frames_equal(bench.run(y, {"x": MASK, "y": MASK[:, ::-1]}).value, MASK & ~MASK[:, ::-1])


def test_sequence_lengths() -> None:
    bench = Bench()
    x, _ = frames(bench)
    y = bench.build(Eval(eval="source(0) / tf.cast(source(0, as_data=True).get_sequence_lengths(), 'float32')"), x)
    assert_frames_equal(bench.run(y, {"x": X, "y": Y}).value, X / np.array(LENGTHS)[:, None, None])


def test_a_literal_axis_is_one_of_the_step() -> None:
    bench = Bench()
    x, _ = frames(bench)
    with bench.loop() as stacks:
        stacks["y"] = bench.build(Eval(eval="tf.nn.softmax(source(0), axis=1)"), bench.builder.element(x))
    exp = np.exp(X)
    assert_frames_equal(bench.run(stacks["y"], {"x": X, "y": Y}).value, exp / exp.sum(-1, keepdims=True))


def test_random_numbers() -> None:
    bench = Bench()
    x, _ = frames(bench)
    text = "tf.random.uniform(tf.shape(source(0)), minval=0, maxval=4, dtype='int32')"
    first, second = bench.build(Eval(eval=f"{text} + {text}"), x), bench.build(Eval(eval=text), x)
    assert first.type.dtype == "int32"
    drawn = bench.run(second, {"x": np.zeros((2, 3, 4)), "y": Y}).value
    assert set(drawn.ravel()) <= {0, 1, 2, 3}
    seeds = [node.op.seed for node in bench.builder.outermost_nodes if isinstance(node.op, RandomDraw)]
    assert len(set(seeds)) == len(seeds) == 3


def test_combine_evaluates_too() -> None:
    bench = Bench()
    layer = Combine(kind="eval", eval="source(0) * factor + source(1)", eval_locals={"factor": 0.3})
    assert_frames_equal(bench.run(bench.build(layer, *frames(bench)), {"x": X, "y": Y}).value, 0.3 * X + Y)


def test_functions_of_python_configs() -> None:
    def scaled(source, factor, **_):
        return source(0) * factor + source(1)

    bench = Bench()
    y = bench.build(Eval(eval=scaled, eval_locals={"factor": 2.0}), *frames(bench))
    assert_frames_equal(bench.run(y, {"x": X, "y": Y}).value, 2 * X + Y)
    with pytest.raises(LayerError, match="wants 'factor'"):
        bench.build(Eval(eval=scaled), *frames(Bench()))
    with pytest.raises(LayerError, match="needs a parameter 'source'"):
        bench.build(Eval(eval=lambda x: x), *frames(Bench()))


def test_functions_by_name() -> None:
    bench = Bench()
    x, y = frames(bench)
    layer = Eval(eval="double(source(0)) + source(1)", eval_locals={"double": lambda t: t + t})
    assert_frames_equal(bench.run(bench.build(layer, x, y), {"x": X, "y": Y}).value, 2 * X + Y)


@pytest.mark.parametrize(
    "read",
    [
        "self.network.get_config().typed_value('sum')",
        "self.network.get_config().typed_dict['sum']",
        "self.network._config.typed_dict['sum']",
        "self.network._config.typed_value('sum')",
    ],
)
def test_functions_as_published_configs_name_them(read: str) -> None:
    """The config's own function is meant, also where TensorFlow has one of that name."""
    bench = Bench()
    x, y = frames(bench)
    layer = Eval(eval=f"{read}(source(0)) + source(1)", eval_locals={"sum": lambda t: t + t})
    assert_frames_equal(bench.run(bench.build(layer, x, y), {"x": X, "y": Y}).value, 2 * X + Y)
    number = Eval(eval=f"{read} * source(0)", eval_locals={"sum": 3.0})
    assert_frames_equal(bench.run(bench.build(number, x), {"x": X, "y": Y}).value, 3 * X)


def test_out_type_says_the_dtype_of_a_function() -> None:
    bench = Bench()
    x, _ = frames(bench)
    y = bench.build(Eval(eval=lambda source: source(0) > 0.5), x, out_type={"dtype": "bool"})
    assert y.type.dtype == "bool"
    assert_frames_equal(bench.run(y, {"x": X, "y": Y}).value, X > 0.5)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("tf.nn.rellu(source(0))", "no function 'tf.nn.rellu'", "tf.relu"),
        ("source(1)", "there are 1 sources", ""),
        ("source(0, as_tensor=True)", "no argument 'as_tensor'", "as_data"),
        ("source(0) + scale", "there is no 'scale'", "eval_locals"),
        ("tf.reshape(source(0), [2])", "order of axes", "names its axes"),
        ("tf.nn.softmax(source(0), axis=3)", "no axis 3", ""),
        ("tf.nn.softmax(source(0), axis='T')", "an axis is a number", ""),
        ("tf.reduce_sum(source(0), axes=1)", "unexpected keyword argument 'axes'", ""),
        ("self.network.get_config()", "reads the network", "eval_locals"),
        ("self.network.get_config().typed_value('sum')(source(0))", "there is no function 'sum'", "Python config"),
        ("self.network._config.typed_dict['f'](source(0))", "there is no function 'f'", "Python config"),
        ("self.network.layers['f'](source(0))", "", ""),
        ("tf.cast(source(0), 'flot')", "expected a dtype", "float32"),
        ("tf.random.uniform([2], 0, 1) + source(0)", "must be that of a source", "tf.shape(source(0))"),
        ("tf.random.uniform(tf.shape(source(0)), dtype='int32')", "needs maxval", ""),
        ("source(0) + 'a'", "expected a number", ""),
        ("'a' * 3 + source(0)", "takes tensors and numbers", ""),
        ("9**9**9 * source(0)", "is too large for a tensor", ""),
        ("source(0) + 1 / 0", "1 / 0 divides by zero", ""),
        ("(1 & 1.5) * source(0)", "takes ints or booleans", ""),
        ("-'a' * source(0)", "- takes a tensor or a number", ""),
        ("source(0).shape", "is known of source(i, as_data=True) only", ""),
        ("source(0, as_data=True).sizes + source(0)", "has no 'sizes'", "feature_dim_axis"),
        ("tf.expand_dims(source(0), axis=1)", "a last axis only", "axis=-1"),
        ("1 + 1", "source(0) is not used", ""),
        ("source(0)[0]", "can't be in an expression", ""),
        ("__import__('os').system('true')", "", ""),
        ("(lambda: source(0))()", "", ""),
        ("source(0) if True else 0", "can't be in an expression", ""),
    ],
)
def test_mistakes(text: str, message: str, hint: str) -> None:
    bench = Bench()
    with pytest.raises(LayerError) as caught:
        bench.build(Eval(eval=text), frames(bench)[0])
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.option in ("eval", "")
