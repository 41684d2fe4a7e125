"""What is predicted beside what a train step keeps in TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "tools" / "bench" / "memory.py"
TOLERANCE = 0.15


@pytest.mark.tensorflow
@pytest.mark.one_in(16)
@pytest.mark.parametrize("case", ["lstm", "attention", "g2p_attention"])
def test_the_prediction_is_what_is_measured(case: str) -> None:
    done = subprocess.run([sys.executable, BENCHMARK, "--one", case], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["predicted"] == pytest.approx(found["measured"], rel=TOLERANCE)
