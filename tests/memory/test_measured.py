"""What is predicted beside what a train step keeps in TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.bench import memory, recompute

BENCHMARK = Path(__file__).parents[2] / "tools" / "bench" / "memory.py"
TOLERANCE = 0.15


@pytest.mark.tensorflow
@pytest.mark.one_in(16)
@pytest.mark.parametrize("case", ["lstm", "attention", "g2p_attention"])
def test_the_prediction_is_what_is_measured(case: str) -> None:
    done = subprocess.run([sys.executable, BENCHMARK, "--one", case], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["predicted"] == pytest.approx(found["measured"], rel=TOLERANCE)


@pytest.mark.tensorflow
@pytest.mark.one_in(4)
@pytest.mark.parametrize("option", ["steps", "all"])
@pytest.mark.parametrize("name", recompute.NETWORKS)
def test_recurrences_that_are_recomputed_keep_little_more_than_states_and_products(name: str, option: str) -> None:
    network, value = recompute.NETWORKS[name], recompute.OPTIONS[option]
    assert memory.predicted(network.case(value)) <= recompute.ALLOWED * network.bound(value)


@pytest.mark.tensorflow
@pytest.mark.one_in(32)
@pytest.mark.parametrize("option", ["steps", "all"])
@pytest.mark.parametrize("name", recompute.NETWORKS)
def test_so_it_is_measured(name: str, option: str) -> None:
    command = [sys.executable, "-m", "tools.bench.recompute", name, "--kept", option]
    environment = {**os.environ, **recompute.KEPT}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, cwd=BENCHMARK.parents[2]
    )
    network, value = recompute.NETWORKS[name], recompute.OPTIONS[option]
    found = int(done.stdout.splitlines()[-1])
    assert found <= recompute.ALLOWED * network.bound(value)
    assert memory.predicted(network.case(value)) == pytest.approx(found, rel=TOLERANCE)
