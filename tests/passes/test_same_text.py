"""One network is one text, in any process: no order comes from hashes or addresses."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).parent.parent.parent


def text_in_a_process(seed: str) -> str:
    """What `same_text` prints with strings hashed by this seed."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(TOP)}
    command = [sys.executable, "-m", "tests.passes.same_text"]
    return subprocess.run(command, env=environment, cwd=TOP, capture_output=True, text=True, check=True).stdout


def test_networks_have_one_text_in_all_processes() -> None:
    one, *others = (text_in_a_process(seed) for seed in ("0", "1"))
    assert one.count("\nreturn ") > 50
    assert others == [one]
