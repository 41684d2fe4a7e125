"""A search that both reads frames and ends by itself: step t reads frame t, and there is no step without a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from tests.properties.running import parameters_of, part_of, run, sequence_of
from tests.reference.named import Array, Named

Layers = dict[str, Any]
BEAM, CLASSES = 3, 4
EXTERN = {
    "data": {"dim": 3},
    "other": {"dim": 3, "same_dim_tags_as": {"t": "data"}, "available_for_inference": True},
    "classes": {"dim": CLASSES, "sparse": True, "available_for_inference": False},
}
LENGTHS = {key: np.array([4, 0, 2, 6, 1]) for key in EXTERN}
DRAWN = np.random.default_rng(5)
FEED = {
    "data": DRAWN.normal(size=(5, 6, 3)) * 2,
    "other": DRAWN.normal(size=(5, 6, 3)) * 2,
    "classes": DRAWN.integers(0, CLASSES, (5, 6)),
}
READ: dict[str, Layers] = {
    "the source": {"frame": {"class": "copy", "from": "data:source"}},
    "data with the source's time": {"frame": {"class": "copy", "from": "data:other"}},
    "the source in a subnetwork": {
        "frame": {
            "class": "subnetwork",
            "from": "data:source",
            "subnetwork": {"output": {"class": "copy", "from": "data"}},
        }
    },
    "an unstacked sequence": {"frame": {"class": "rec_unstack", "from": "base:data"}},
    "a sequence that declares the time": {
        "frame": {"class": "rec_unstack", "from": "base:data", "declare_rec_time": True}
    },
}


def network(read: str, **options: Any) -> Layers:
    """Labels of which each depends on the frame and the label before; 0 ends."""
    unit = {
        **READ[read],
        "p": {"class": "softmax", "from": ["frame", "prev:embed"], "target": "classes"},
        "embed": {"class": "linear", "activation": None, "n_out": 2, "from": "output"},
        "output": {"class": "choice", "from": "p", "beam_size": BEAM, "target": "classes", "initial_output": 0,
                   "length_normalization": False},
        "end": {"class": "compare", "from": "output", "value": 0},
    }  # fmt: skip
    source = [] if "rec_unstack" in str(READ[read]) else "data"
    return {
        "data": {"class": "copy", "from": "data:data"},
        "output": {"class": "rec", "from": source, "target": "classes", "unit": unit, **options},
        "length": {"class": "length", "axis": "T", "from": "output"},
        "split": {"class": "split_batch_beam", "from": "length", "is_output_layer": True},
    }


@dataclass(frozen=True)
class Hypothesis:
    score: float = 0.0
    labels: tuple[int, ...] = ()

    @property
    def ended(self) -> bool:
        return 0 in self.labels

    def length(self, counts_end: bool) -> int:
        return self.labels.index(0) + counts_end if self.ended else len(self.labels)


def expected(frames: Array, params: dict[str, Array], most: int) -> list[Hypothesis]:
    """The hypotheses of one sequence, best first."""
    hypotheses = [Hypothesis()]
    for frame in frames[:most]:
        if all(one.ended for one in hypotheses):
            break
        children = []
        for one in hypotheses:
            embedded = np.zeros(2)
            if one.labels:
                embedded = params["output/rec/embed/W"][one.labels[-1]] + params["output/rec/embed/b"]
            logits = np.concatenate([frame, embedded]) @ params["output/rec/p/W"] + params["output/rec/p/b"]
            log_p = logits - np.log(np.exp(logits).sum())
            stays = np.where(np.arange(CLASSES) == 0, 0.0, -1e30)
            scores = one.score + (stays if one.ended else log_p)
            children += [Hypothesis(score, (*one.labels, label)) for label, score in enumerate(scores)]
        hypotheses = sorted(children, key=lambda child: -child.score)[:BEAM]
    return hypotheses


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("options", [{}, {"max_seq_len": 3}, {"max_seq_len": 9, "include_eos": True}], ids=str)
@pytest.mark.parametrize("read", list(READ))
def test_step_t_reads_frame_t(read: str, options: Layers, optimize: bool) -> None:
    """In a batch and alone; a hypothesis ends with the frames of its sequence at the latest."""
    config = {"network": network(read, **options), "extern_data": EXTERN, "behavior_version": 21}
    built = build(config, "search", targets=False)
    graph = optimized(built, optimize)
    found = run(built, graph, FEED, LENGTHS)
    params = parameters_of(built)
    labels, lengths = found["layer:output"], found["layer:split"]
    labels = _in_order(labels, BEAM)
    frames = FEED["other" if "data with" in read else "data"]
    for sequence, count in enumerate(LENGTHS["data"]):
        hypotheses = expected(frames[sequence][:count], params, options.get("max_seq_len", count))
        for number, one in enumerate(hypotheses if count else []):
            length = one.length("include_eos" in options)
            assert _in_order(lengths, BEAM).array[sequence, number] == length <= count
            assert tuple(labels.array[sequence, number, :length]) == one.labels[:length]
            np.testing.assert_allclose(found["scores:output"].array[sequence, number], one.score)
        if not count:
            assert not _in_order(lengths, BEAM).array[sequence].any()
        alone = run(built, graph, *sequence_of(FEED, LENGTHS, sequence))
        for name in ("layer:output", "layer:split", "scores:output"):
            one_alone = Named(alone[name].over(found[name].dims), found[name].dims)
            np.testing.assert_allclose(
                part_of(found[name], sequence, alone[name]), part_of(one_alone, 0, alone[name]), err_msg=name
            )


def _in_order(value: Named, beam: int) -> Named:
    """With the batch first, then the hypotheses."""
    dims = tuple(sorted(value.dims, key=lambda dim: 0 if dim.name == "B" else 1 if dim.size == beam else 2))
    return Named(value.over(dims), dims)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_without_search_there_are_as_many_steps_as_frames(mode: Any) -> None:
    extern = {**EXTERN, "classes": {**EXTERN["classes"], "same_dim_tags_as": {"t": "data"}}}
    net = network("the source")
    net["output"]["unit"]["p"]["loss"] = "ce"
    del net["split"]
    built = build({"network": net, "extern_data": extern, "behavior_version": 21}, mode)
    assert run(built, optimized(built), FEED, LENGTHS)["loss:output/p:count"].array == LENGTHS["data"].sum()


def test_in_tensorflow() -> None:
    """The first frame of each decides; scores that are given."""
    scores = np.log(np.random.default_rng(2).dirichlet(np.ones(CLASSES), (2, 3)))
    unit = {
        "output": {"class": "choice", "from": "data:source", "input_type": "log_prob", "beam_size": 2,
                   "target": "classes", "initial_output": 0, "length_normalization": False},
        "end": {"class": "compare", "from": "output", "value": 0},
    }  # fmt: skip
    scored = {"class": "choice_get_beam_scores", "from": "output", "is_output_layer": True}
    net = {"output": {"class": "rec", "from": "data", "unit": unit}, "scores": scored}
    extern = {"data": {"dim": CLASSES}, "classes": EXTERN["classes"]}
    for optimize in (True, False):
        compiled = rl.compile(net, extern, "search", behavior_version=21, optimize=optimize)
        out = compiled.run({"data": scores}, seq_lens={"data": [3, 1]})
        best = np.sort(scores[1, 0])[::-1][:2]
        np.testing.assert_allclose(out.layers["scores"].value[1], best, rtol=1e-5)
