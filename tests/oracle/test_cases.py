"""The cases that are compared with RETURNN: every layer class has one, in the loop, too, where it can be."""

from collections.abc import Iterator
from typing import Any

from returnn_lite.layers.registry import LAYERS
from tools.oracle.case import Tag, with_dims
from tools.oracle.cases import all_cases

NOT_IN_LOOPS = {
    "accumulate_mean",  # its mean is over all frames
    "boolean_mask",  # RETURNN packs the batch
    "choice_get_beam_scores",  # what search leaves
    "choice_get_src_beams",  # what search leaves
    "decide",  # what search leaves
    "decide_keep_beam",  # what search leaves
    "rec_last_output",  # looks at a loop from around
    "split_batch_beam",  # what search leaves
}
ELSEWHERE = {
    "kenlm",  # needs a file and a package; RETURNN's numbers are in tests/net/test_language_models.py
    "rand_int",  # no two programs draw the same: tests/layers/test_random_numbers.py has the distributions
    "random",
    "random_state_init",  # refused
}
ALIASES = {"rec_step_info": ":i", "combine_dims": "merge_dims", "identity": "copy"}


def classes(network: dict[str, Any], in_loop: bool) -> Iterator[tuple[str, bool]]:
    for layer in network.values():
        if not isinstance(layer, dict) or "class" not in layer:
            continue
        yield layer["class"], in_loop
        for value in layer.values():
            if isinstance(value, dict):
                nested = {"unit": value} if "class" in value else value
                yield from classes(nested, in_loop or layer["class"] == "rec")


def test_every_layer_class_has_a_case() -> None:
    used = {pair for case in all_cases() for pair in classes(case.network, False)}
    wanted = {ALIASES.get(name, name) for name in LAYERS} - ELSEWHERE
    assert wanted - {name for name, _ in used} == set()
    assert wanted - {name for name, in_loop in used if in_loop} - NOT_IN_LOOPS == set()


def test_equal_tags_become_one_dim() -> None:
    made = with_dims({"a": [Tag("x", 2)], "b": {"c": (Tag("x", 2), Tag("y"))}}, lambda tag: object())
    assert made["a"][0] is made["b"]["c"][0]
    assert made["a"][0] is not made["b"]["c"][1]
