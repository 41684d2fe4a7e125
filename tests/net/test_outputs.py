"""The outputs of a network under their names in a graph, and back."""

from returnn_lite.net.outputs import LossParts, NetworkOutputs, layers_of

OUTPUTS = NetworkOutputs(
    {"a": 1, "loop/b": 2},
    {"ce": LossParts(3, 4, 5), "error": LossParts(6, error=7)},
    constraints=8,
    objective=9,
    scores={"loop": 10},
    beyond={"a": 11},
)


def test_all_have_names_and_are_found_by_them() -> None:
    named = OUTPUTS.named()
    assert sorted(named.values()) == list(range(1, 12))
    texts = OUTPUTS.of({name: str(value) for name, value in named.items()})
    assert texts.layers == {"a": "1", "loop/b": "2"}
    assert texts.losses == {"ce": LossParts("3", "4", "5"), "error": LossParts("6", None, "7")}
    assert (texts.constraints, texts.objective, texts.scores) == ("8", "9", {"loop": "10"})
    assert (texts.beyond, OUTPUTS.ends()) == ({"a": "11"}, {"layer:a": "beyond:a"})
    assert layers_of(named) == OUTPUTS.layers


def test_what_is_not_there_is_not_found() -> None:
    found = OUTPUTS.of({name: value for name, value in OUTPUTS.with_layers(["a"]).named().items() if value != 9})
    assert (found.layers, found.objective) == ({"a": 1}, None)
    assert (OUTPUTS.with_layers(["a"]).beyond, OUTPUTS.with_layers(["loop/b"]).beyond) == ({"a": 11}, {})
    assert NetworkOutputs().named() == {}


def test_parts_of_a_loss_that_are_not_there_stay_so() -> None:
    assert OUTPUTS.losses["error"].map(str) == LossParts("6", None, "7")
