"""References are read once, with their options: those that lead nowhere are found before a layer is built."""

from __future__ import annotations

from typing import Any

import pytest

from returnn_lite.compiler import ModeName, build
from returnn_lite.config.diagnostics import ConfigError

EXTERN_DATA = {"data": {"dim": 2}, "classes": {"dim": 5, "sparse": True}}
SCORES = {"class": "softmax", "from": "data", "target": "classes"}


def wrong(network: dict[str, Any], mode: ModeName = "train") -> list[tuple[tuple[Any, ...], str]]:
    """Where the mistakes are below the network, and what they are."""
    with pytest.raises(ConfigError) as raised:
        build({"network": network, "extern_data": EXTERN_DATA, "behavior_version": 21}, mode)
    return sorted((one.path[1:], one.message) for one in raised.value.diagnostics)


def rec(**unit: dict[str, Any]) -> dict[str, Any]:
    return {"class": "rec", "from": "data", "unit": unit}


def test_names_in_what_a_mode_does_not_read() -> None:
    choice = {"class": "choice", "from": "scores", "target": "classes", "beam_size": 2}
    output = rec(scores=SCORES, output={**choice, "explicit_search_sources": ["kay"]})
    (found,) = wrong({"output": output})
    assert found == (
        ("output", "unit", "output", "explicit_search_sources"),
        "there is no layer 'kay' in the network of 'output'",
    )


@pytest.mark.parametrize("mode", ["train", "search"])
def test_names_in_options_of_losses_in_each_mode(mode: ModeName) -> None:
    loss = {"loss": "as_is", "loss_opts": {"custom_inv_norm_factor": "kay"}}
    (found,) = wrong({"output": {"class": "linear", "n_out": 1, "from": "data", **loss}}, mode)
    assert found == (("output", "loss_opts"), "there is no layer 'kay' in the network")


def test_names_in_the_options_of_the_loss_in_a_loss() -> None:
    inner = {"class": "as_is", "custom_inv_norm_factor": "kay"}
    loss = {"loss": "expected_loss", "loss_opts": {"loss": inner, "loss_kind": "value"}}
    found = wrong({"output": {"class": "linear", "n_out": 1, "from": "data", **loss}})
    assert (("output", "loss_opts"), "there is no layer 'kay' in the network") in found


def test_all_names_of_a_layer_are_found_at_their_options() -> None:
    """And what it reads is still looked at: its own mistakes are told, too."""
    switch = {"class": "switch", "condition": "kay", "true_from": "base:data", "false_from": "wrong"}
    found = wrong({"output": switch, "wrong": {"class": "copy", "from": "kee"}})
    assert [path for path, _ in found] == [("output", "condition"), ("output", "true_from"), ("wrong", "from")]


def test_what_is_no_reference_is_told_at_its_option() -> None:
    masked = {"class": "masked_computation", "from": "data", "mask": "prev:prev:x", "unit": {"class": "copy"}}
    (found,) = wrong({"output": rec(x=SCORES, output=masked)})
    assert found == (("output", "unit", "output", "mask"), "'prev:prev:x' reads two steps back")


def test_a_wrong_name_in_a_nested_network_is_told_there_alone() -> None:
    inner = {"class": "subnetwork", "from": "data", "subnetwork": {"output": {"class": "copy", "from": "base:kay"}}}
    (found,) = wrong({"output": inner})
    assert found == (("output", "subnetwork", "output", "from"), "there is no layer 'kay' in the network")


def test_layers_that_nothing_needs_are_not_looked_at() -> None:
    network = {"unused": {"class": "copy", "from": "kay"}, "output": {"class": "copy", "from": "data"}}
    build({"network": network, "extern_data": EXTERN_DATA, "behavior_version": 21}, "train")
