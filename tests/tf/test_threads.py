"""Networks compiled in several threads at once are those that one thread compiles."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

import returnn_lite as rl

EXTERN = {"data": {"dim": 3}, "classes": {"dim": 5, "sparse": True, "same_dim_tags_as": {"t": "data"}}}
SOFTMAX = {"class": "softmax", "target": "classes", "loss": "ce"}
DATA = {"data": np.linspace(-1, 1, 24).reshape(2, 4, 3), "classes": np.arange(8).reshape(2, 4) % 5}
LENGTHS = {"data": [4, 3]}
THREADS, NETWORKS = 6, 24


def loss_of(number: int, computed: bool) -> tuple[str, float | None]:
    """A network that depends on the number: its graph as text, and if it is computed its loss."""
    kernel = {"class": "conv", "filter_size": [2 + number % 2], "strides": 1 + number % 3, "padding": "valid"}
    unit = {
        "joined": {"class": "linear", "n_out": 2 + number % 5, "from": ["data:source", "prev:state"]},
        "state": {"class": "linear", "n_out": 4, "activation": "tanh", "from": ["joined", "prev:state"]},
        "output": {**SOFTMAX, "from": "state"},
    }
    network = {
        "shorter": {**kernel, "n_out": 2, "from": "data", "is_output_layer": True},
        "output": {"class": "rec", "from": "data", "target": "classes", "unit": unit},
    }
    compiled = rl.compile(network, EXTERN, "train", seed=number)
    return str(compiled.graph), compiled.run(DATA, LENGTHS).objective if computed else None


@contextmanager
def quick_switches() -> Iterator[None]:
    """Threads take turns a thousand times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_threads_compile_the_same_networks() -> None:
    numbers = range(NETWORKS)
    expected = {number: loss_of(number, number % 12 == 0) for number in numbers}
    found: list[list[tuple[int, tuple[str, float | None]]]] = [[] for _ in range(THREADS)]

    def work(thread: int) -> None:
        for step in numbers:
            number = (step * 5 + thread * 7) % NETWORKS
            found[thread].append((number, loss_of(number, number % 12 == 0)))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    with quick_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(len(own) == NETWORKS for own in found)
    assert all(result == expected[number] for own in found for number, result in own)
