"""Choices with their options in whole networks, against search written down for one sequence in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite import ConfigError
from returnn_lite.compiler import ModeName, Network, build, optimized
from tests.properties.running import parameters_of, part_of, sequence_of
from tests.properties.running import run as run_in_numpy

STEPS = 4
EXTERN = {"data": {"dim": 3}, "classes": {"dim": 5, "sparse": True}}
GOLD = ((1, 2, 3), (4, 0))
INPUTS = {"data": np.zeros((2, 3, 3), "float32"), "classes": [[1, 2, 3], [4, 0, 0]]}
LENGTHS = {"data": [3, 2], "classes": [3, 2]}
SUMS = {"length_normalization": False}


SHARPER = "scores_in * 1.5 + scores_base * (1.0 - 0.1 * t)"


def sharper(scores_in: Any, scores_base: Any, t: Any, **_: Any) -> Any:
    """The same as a function, of arrays of one or all hypotheses."""
    return scores_in * 1.5 + scores_base * (1.0 - 0.1 * (tf.cast(t, tf.float32) if tf.is_tensor(t) else t))


def text_of(options: dict[str, Any]) -> str:
    """An id for options, which names functions as all processes do."""
    return str({key: getattr(value, "__name__", value) for key, value in options.items()})


def choice(source: Any, **options: Any) -> dict[str, Any]:
    return {"class": "choice", "from": source, "target": "classes", "beam_size": 2, "initial_output": 0, **options}


def linear(source: Any, **options: Any) -> dict[str, Any]:
    return {"class": "linear", "activation": None, "from": source, "n_out": 3, "initial_output": 0, **options}


def two_choices(first: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    """In each step a label `first`, then a label `output` that depends on it; 0 ends."""
    unit = {
        "prob_first": {"class": "softmax", "from": ["prev:embed", "prev:embed_first"], "target": "classes"},
        "first": choice("prob_first", is_output_layer=True, **first),
        "embed_first": linear("first"),
        "prob": {"class": "softmax", "from": ["prev:embed", "embed_first"], "target": "classes"},
        "output": choice("prob", **output),
        "embed": linear("output"),
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    loop = {"class": "rec", "from": [], "target": "classes", "unit": unit, "max_seq_len": STEPS}
    scores = {"class": "choice_get_beam_scores", "from": "output", "is_output_layer": True}
    return {"output": loop, "scores": scores}


def run(
    network: dict[str, Any], optimize: bool, mode: str = "search", seed: int = 0, lengths: Any = LENGTHS
) -> tuple[Any, Any]:
    """The outputs of a network with random parameters, and these."""
    net = rl.compile(network, extern_data=EXTERN, mode=mode, optimize=optimize, behavior_version=21)
    generator = np.random.default_rng(seed)
    for name in sorted(net.params):
        net.params[name].assign(generator.normal(size=net.params[name].shape) * 1.5)
    out = net.run(INPUTS, seq_lens=lengths)
    return out, {name: variable.numpy() for name, variable in net.params.items()}


@dataclass(frozen=True)
class Hypothesis:
    score: float
    outputs: tuple[int, ...] = ()
    firsts: tuple[int, ...] = ()
    ended: bool = False

    @property
    def length(self) -> int:
        return self.outputs.index(0) if 0 in self.outputs else len(self.outputs)


def extended(
    hypotheses: list[Hypothesis],
    t: int,
    options: dict[str, Any],
    log_p: Callable[[Hypothesis], np.ndarray],
    append: Callable[[Hypothesis, int], Hypothesis],
) -> list[Hypothesis]:
    """One choice: the best extensions of hypotheses by a label."""
    beam = options.get("beam_size", 2)
    children = []
    for one in hypotheses:
        scores = np.where(np.arange(5) == 0, 0.0, -1e30) if one.ended else log_p(one)
        base = one.score
        if one.ended and t and options.get("length_normalization", True):
            base *= (t + 1) / t
        combine = options.get("custom_score_combine", "scores_in + scores_base")
        total = eval(combine, {"scores_in": scores, "scores_base": base, "t": t}) if isinstance(combine, str) else None
        if total is None:
            total = combine(scores_in=scores, scores_base=base, t=t)
        own = [append(replace(one, score=total[label]), label) for label in range(5)]
        if options.get("keep_beams") and t:
            own = sorted(own, key=lambda child: -child.score)[: beam // len(hypotheses)]
        children += own
    return children if options.get("keep_beams") and t else sorted(children, key=lambda child: -child.score)[:beam]


def expected(
    params: dict[str, np.ndarray], first: dict[str, Any], output: dict[str, Any], sequence: int, apart: bool = False
) -> list[Hypothesis]:
    """The hypotheses of one sequence, best first. `apart`: both labels of a step depend on the step before only."""

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        return x @ params[f"output/rec/{name}/W"] + params[f"output/rec/{name}/b"]

    def embedded(name: str, labels: tuple[int, ...]) -> np.ndarray:
        return layer(name, np.eye(5)[labels[-1]]) if labels else np.zeros(3)

    def log_p(name: str, one: Hypothesis, before: tuple[int, ...]) -> np.ndarray:
        logits = layer(name, np.concatenate([embedded("embed", before), embedded("embed_first", one.firsts)]))
        return logits - np.log(np.exp(logits).sum())

    hypotheses = [Hypothesis(0.0)]
    for t in range(STEPS):
        right = GOLD[sequence][t] if t < len(GOLD[sequence]) else 0

        def of_first(one: Hypothesis) -> np.ndarray:
            return log_p("prob_first", one, one.outputs)

        def of_output(one: Hypothesis) -> np.ndarray:
            return log_p("prob", replace(one, firsts=one.firsts[:-1]) if apart else one, one.outputs)

        def with_first(one: Hypothesis, label: int) -> Hypothesis:
            return replace(one, firsts=(*one.firsts, label))

        if first.get("search", True):
            hypotheses = extended(hypotheses, t, first, of_first, with_first)
        else:
            scored = first.get("add_to_beam_scores", False)
            gains = [of_first(one)[right] if scored and not one.ended else 0.0 for one in hypotheses]
            hypotheses = [
                with_first(replace(x, score=x.score + gain), right) for x, gain in zip(hypotheses, gains, strict=True)
            ]
        hypotheses = extended(
            hypotheses, t, output, of_output, lambda one, label: replace(one, outputs=(*one.outputs, label))
        )
        hypotheses = [replace(one, ended=one.ended or one.outputs[-1] == 0) for one in hypotheses]
    return hypotheses


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    ("first", "output"),
    [
        ({}, {}),
        ({}, {"beam_size": 4}),
        ({"beam_size": 5}, {"beam_size": 3}),
        ({**SUMS, "beam_size": 1}, {**SUMS, "beam_size": 5}),
        ({}, {"beam_size": 4, "keep_beams": True}),
        ({"custom_score_combine": SHARPER}, {"custom_score_combine": SHARPER, "beam_size": 4}),
        ({"custom_score_combine": sharper}, {"custom_score_combine": sharper, "beam_size": 4}),
        ({"custom_score_combine": SHARPER, **SUMS}, {"custom_score_combine": sharper, "keep_beams": True, **SUMS}),
        ({"search": False}, {"beam_size": 3}),
        ({"search": False, "add_to_beam_scores": True, **SUMS}, {"beam_size": 3, **SUMS}),
    ],
    ids=text_of,
)
def test_two_choices(first: dict[str, Any], output: dict[str, Any], optimize: bool) -> None:
    """Each step has two beams, whose sizes differ; labels of both are traced back to the hypotheses of the end."""
    out, params = run(two_choices(first, output), optimize)
    labels, firsts, scores = (out.layers[name] for name in ("output", "output/first", "scores"))
    assert labels.value.shape[2] == STEPS, "some hypothesis never ends, so that all steps are run"
    lengths = labels.seq_lens[labels.dims[2]]
    for sequence in range(2):
        wanted = expected(params, first, output, sequence)
        for number, one in enumerate(wanted):
            assert lengths[sequence, number] == one.length
            assert tuple(labels.value[sequence, number, : one.length]) == one.outputs[: one.length]
            where = (sequence, number) if firsts.value.ndim == 3 else (sequence,)
            assert tuple(firsts.value[where][: one.length]) == one.firsts[: one.length]
            divisor = STEPS if output.get("length_normalization", True) else 1
            np.testing.assert_allclose(scores.value[sequence, number], one.score / divisor, rtol=1e-4)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    "output",
    [{"custom_score_combine": SHARPER}, {"custom_score_combine": sharper}, {"base_beam_score_scale": 0.9}, SUMS],
    ids=text_of,
)
def test_scores_of_a_known_length_are_final(output: dict[str, Any], optimize: bool) -> None:
    """How long the other sequences of the batch are makes no difference."""
    network = two_choices({"search": False}, output)
    loop = network["output"]
    del loop["unit"]["end"]
    loop["size_target"] = "classes"
    del loop["max_seq_len"]
    together, _ = run(network, optimize)
    alone, _ = run(network, optimize, lengths={"data": [2, 2], "classes": [2, 2]})
    np.testing.assert_allclose(together.layers["scores"].value[1], alone.layers["scores"].value[1], rtol=1e-5)
    for name in ("output", "output/first"):
        np.testing.assert_array_equal(together.layers[name].value[1][..., :2], alone.layers[name].value[1][..., :2])


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    "output",
    [{"custom_score_combine": SHARPER}, {"custom_score_combine": sharper}, {"base_beam_score_scale": 0.9}],
    ids=text_of,
)
def test_scores_are_final_once_all_hypotheses_have_ended(output: dict[str, Any], optimize: bool) -> None:
    """A sequence whose hypotheses have all ended may wait for others of the batch."""
    network = two_choices({"search": False}, {"length_normalization": False, **output})
    network["steps"] = {"class": "length", "from": "data"}
    after = {"class": "combine", "kind": "add", "from": [":i", "base:one"]}
    network["one"] = {"class": "constant", "value": 1}
    network["output"]["unit"] |= {
        "after": after,
        "end": {"class": "compare", "kind": "greater_equal", "from": ["after", "base:steps"]},
    }
    long, _ = run(network, optimize, lengths={"data": [3, 1], "classes": [2, 2]})
    short, _ = run(network, optimize, lengths={"data": [1, 1], "classes": [2, 2]})
    np.testing.assert_allclose(long.layers["scores"].value[1], short.layers["scores"].value[1], rtol=1e-5)
    assert not np.allclose(long.layers["scores"].value[0], short.layers["scores"].value[0])


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    ("first", "output"),
    [
        ({}, {}),
        ({"length_normalization_exponent": 2.0}, {"length_normalization_exponent": 0.5}),
        ({}, SUMS),
        ({**SUMS, "beam_size": 1}, {**SUMS, "beam_size": 5}),
        ({"beam_size": 4}, {"beam_size": 3, "base_beam_score_scale": 0.8}),
        ({"beam_size": 2}, {"beam_size": 4, "keep_beams": True}),
        ({"custom_score_combine": SHARPER}, {"custom_score_combine": SHARPER, "beam_size": 4}),
        ({"search": False, "add_to_beam_scores": True, **SUMS}, {"beam_size": 6, **SUMS, "prob_scale": 0.5}),
    ],
    ids=str,
)
def test_a_batch_is_its_sequences(first: dict[str, Any], output: dict[str, Any], optimize: bool) -> None:
    """Labels, lengths, scores and back-pointers of each, whether it has no step, one or more than the others."""
    network = two_choices(first, output)
    network["frames"] = {"class": "copy", "from": "data"}
    network["output"] |= {"max_seq_len": "max_len_from('base:frames')", "include_eos": True}
    network["pointers"] = {"class": "choice_get_src_beams", "from": "output", "is_output_layer": True}
    built = build({"network": network, "extern_data": EXTERN, "behavior_version": 21}, "search")
    graph = optimized(built, optimize)
    feed = {"data": np.zeros((4, 5, 3)), "classes": np.array([[1, 2, 3, 1], [4, 1, 2, 2], [3, 3, 3, 3], [0, 1, 2, 3]])}
    lengths = {"data": np.array([5, 0, 1, 3]), "classes": np.array([3, 4, 2, 1])}
    together = run_in_numpy(built, graph, feed, lengths)
    for sequence in range(4):
        alone = run_in_numpy(built, graph, *sequence_of(feed, lengths, sequence))
        for name in ("output", "output/first", "scores", "pointers"):
            whole, one = together[f"layer:{name}"], alone[f"layer:{name}"]
            found = part_of(whole, sequence, one)
            np.testing.assert_allclose(found, one.over(whole.dims)[0], err_msg=f"{name} of sequence {sequence}")


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_a_function_sees_the_layers_that_the_choice_comes_after(optimize: bool, named: bool) -> None:
    """With the labels of the step before, in the order of the hypotheses: none may repeat its label."""
    shapes = []

    def new_label(layer: Any, scores_in: Any, scores_base: Any, batch_dim: Any, base_beam_in: Any, **_: Any) -> Any:
        (source,) = layer.explicit_search_sources.values() if named else layer.explicit_search_sources
        shapes.append((source.output.dim, source.output.sparse, layer.output.dim, scores_in.shape[2]))
        before = tf.reshape(source.output.placeholder, (batch_dim, -1))[:, :base_beam_in]
        repeated = tf.equal(before[:, :, None], tf.range(5))
        return scores_in + scores_base + tf.where(repeated, tf.constant(-100, scores_in.dtype), 0)

    options = {"custom_score_combine": new_label, "beam_size": 4, **SUMS}
    options["explicit_search_sources"] = {"before": "prev:output"} if named else ["prev:output"]
    network = two_choices({"search": False}, options)
    network["output"]["unit"]["end"] = {"class": "compare", "from": "output", "value": -1}
    out, _ = run(network, optimize)
    assert set(shapes) == {(5, True, 5, 5)}
    labels = out.layers["output"].value
    assert labels.shape == (2, 4, STEPS)
    assert (labels[:, :, 1:] != labels[:, :, :-1]).all()
    without = network["output"]["unit"]["output"].pop("custom_score_combine")
    assert callable(without)
    labels = run(network, optimize)[0].layers["output"].value
    assert (labels[:, :, 1:] == labels[:, :, :-1]).any()


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_a_function_sees_one_hypothesis_in_the_first_step(optimize: bool, normalized: bool) -> None:
    """Whether scores of hypotheses that have ended grow or not: so what it adds then for more of them is 0."""

    def counted(scores_in: Any, scores_base: Any, t: Any, base_beam_in: Any, **_: Any) -> Any:
        more = tf.where(tf.equal(t, 0), base_beam_in - 1, 0)
        return scores_in + scores_base + 7 * tf.cast(more, scores_in.dtype)

    options = {"beam_size": 4, "length_normalization": normalized}
    plain, _ = run(two_choices({"search": False}, options), optimize)
    found, _ = run(two_choices({"search": False}, {**options, "custom_score_combine": counted}), optimize)
    np.testing.assert_allclose(found.layers["scores"].value, plain.layers["scores"].value, rtol=1e-5)


@pytest.mark.tensorflow
def test_what_a_function_returns_is_checked() -> None:
    def wrong(scores_in: Any, **_: Any) -> Any:
        return scores_in[..., 0]

    with pytest.raises(ValueError, match=r"output/output: wrong returned shape .* not \[batch, hypotheses, classes\]"):
        run(two_choices({}, {"custom_score_combine": wrong}), True)


def test_choices_without_an_order() -> None:
    """Two choices of a step that do not need each other: one must say that it is the second."""
    network = two_choices(SUMS, SUMS)
    unit = network["output"]["unit"]
    unit["prob"]["from"] = ["prev:embed", "prev:embed_first"]
    with pytest.raises(ConfigError, match=r"which choice is first, 'output/first' or this one"):
        run(network, True)
    unit["output"]["explicit_search_sources"] = ["first"]
    for optimize in (True, False):
        out, params = run(network, optimize)
        for sequence in range(2):
            for number, one in enumerate(expected(params, SUMS, SUMS, sequence, apart=True)):
                score = out.layers["scores"].value[sequence, number]
                np.testing.assert_allclose(score, one.score, rtol=1e-4)
                for name, labels in (("output", one.outputs), ("output/first", one.firsts)):
                    assert tuple(out.layers[name].value[sequence, number, : one.length]) == labels[: one.length]


def test_children_of_kept_beams_must_divide() -> None:
    with pytest.raises(ConfigError, match=r"keep_beams: a beam of 3 can't keep as many successors of each of 2"):
        run(two_choices({}, {"beam_size": 3, "keep_beams": True}), True)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_drawn_labels(mode: ModeName) -> None:
    """Labels follow the distribution of the source, anew in each step of each sequence; what leaves the loop draws what
    it drew inside."""
    unit = {
        "prob": {"class": "softmax", "from": "prev:embed", "target": "classes", "loss": "ce"},
        "output": choice("prob", scheduled_sampling={"gold_mixin_prob": 0.25}),
        "embed": linear("output"),
    }
    network = {"output": {"class": "rec", "from": [], "target": "classes", "unit": unit}}
    config = {"behavior_version": 21, "network": network, "extern_data": {"classes": {"dim": 5, "sparse": True}}}
    batch, length = 200, 20
    gold = np.full((batch, length), 3)
    results = []
    for optimize in (True, False):
        net = Network(config, mode, optimize, "float32", {}, 42, draws_by_step=True)
        for variable in net.params.values():
            variable.assign(np.zeros(variable.shape))
        net.params["output/rec/prob/b"].assign(np.log([0.1, 0.2, 0.3, 0.1, 0.3]))
        out = net.run({"classes": gold}, seq_lens={"classes": [length] * batch})
        results.append(out.layers["output"].value)
    np.testing.assert_array_equal(*results)
    frequencies = np.bincount(results[0].ravel(), minlength=5) / gold.size
    wanted = 0.75 * np.array([0.1, 0.2, 0.3, 0.1, 0.3]) + 0.25 * np.eye(5)[3]
    np.testing.assert_allclose(frequencies, wanted, atol=0.03)
    assert (results[0].std(1) > 0).all(), "a sequence draws anew in each step"
    assert (results[0].std(0) > 0).all(), "a step draws for each sequence"


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("mode", ["train", "eval", "search"])
@pytest.mark.parametrize("claimed", [{}, {"n_out": 3}], ids=["", "n_out"])
def test_a_regression(claimed: dict[str, Any], mode: ModeName, optimize: bool) -> None:
    """Each frame is computed from the one before: that of the target, in search the one that was computed."""
    unit = {
        "output": {"class": "linear", "activation": None, "n_out": 3, "from": "prev:choice", "loss": "mse",
                   "target": "data"},
        "choice": {"class": "choice", "input_type": "regression", "from": "output", "beam_size": 1, "target": "data",
                   **claimed},
    }  # fmt: skip
    network = {"output": {"class": "rec", "from": [], "target": "data", "size_target": "data", "unit": unit}}
    built = build({"network": network, "extern_data": EXTERN, "behavior_version": 21}, mode)
    frames = np.random.default_rng(4).normal(size=(2, 3, 3))
    lengths = {"data": np.array([3, 2]), "classes": np.array([3, 2])}
    feed = {"data": frames, "classes": np.zeros((2, 3), int)}
    graph = optimized(built, optimize)
    found = run_in_numpy(built, graph, feed, lengths)
    w, b = (parameters_of(built)[f"output/rec/output/{name}"] for name in ("W", "b"))
    output = found["layer:output"].over(dict.fromkeys((built.extern_data.batch, *graph.axes("layer:output"))))
    total = 0.0
    for sequence, length in enumerate(lengths["data"]):
        before = np.zeros(3)
        for t in range(length):
            expected_frame = before @ w + b
            np.testing.assert_allclose(output[sequence, t], expected_frame)
            total += ((expected_frame - frames[sequence, t]) ** 2).mean()
            before = expected_frame if mode == "search" else frames[sequence, t]
    if mode != "search":
        np.testing.assert_allclose(found["loss:output/output:sum"].array, total)


def test_nothing_is_drawn_of_a_regression() -> None:
    unit = {
        "output": linear("prev:choice"),
        "choice": {**choice("output", scheduled_sampling=True), "input_type": "regression", "target": "data"},
    }
    network = {"output": {"class": "rec", "from": [], "target": "data", "unit": unit}}
    with pytest.raises(ConfigError, match=r"choice\.scheduled_sampling: of a regression nothing is drawn"):
        build({"network": network, "extern_data": EXTERN, "behavior_version": 21}, "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduled_sampling": {"gold_mixin": 0.5}}, "there is no 'gold_mixin'"),
        ({"scheduled_sampling": {"gold_mixin_prob": 2}}, "expected a probability, got 2"),
        ({"search": True, "custom_score_combine": "scores_in +"}, "'scores_in \\+' is not an expression"),
        ({"search": True, "custom_score_combine": "scores_inn"}, "Did you mean 'scores_in'"),
        ({"search": True, "custom_score_combine": "scores_base"}, "no score for each of"),
        ({"search": True, "custom_score_combine": lambda scores: scores}, "the function does not take what it gets"),
        ({"search": True, "custom_score_combine": SHARPER, "prob_scale": 0.5}, "in place of prob_scale"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(two_choices(options, {}), True, mode="train")


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("cheating", [True, "exclusive"])
def test_the_target_beyond_its_end_is_no_label(cheating: bool | str, optimize: bool) -> None:
    """The hypothesis that is the target keeps its score while longer sequences go on, whatever the padding is."""
    net = rl.compile(
        two_choices({"search": False}, {"cheating": cheating}), EXTERN, "search", optimize=optimize, behavior_version=21
    )
    found = []
    for wild in (0, 3, 99):
        labels = np.array([[1, 2, 3], [4, 0, wild]])
        found.append(net.run({**INPUTS, "classes": labels}, LENGTHS).layers)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0]["scores"].value, other["scores"].value)
        np.testing.assert_array_equal(found[0]["output"].value[..., :2], other["output"].value[..., :2])
    assert found[0]["scores"].value.min() > -1e3
