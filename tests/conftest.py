"""What all tests share: hypothesis' two profiles and a quiet TensorFlow.

``pytest`` runs the profile "fast". ``HYPOTHESIS_PROFILE=nightly pytest`` looks at many more examples and at new ones
each time; a failure it finds belongs into the suite as an explicit ``@example``.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

import returnn_lite

# TensorFlow reads these when it is first imported, which happens after this file is loaded.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# No test asserts a time: building a graph takes what it takes on a busy machine.
settings.register_profile(
    "fast",
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# Until the compiler has its public interface there is nothing to hold against the recordings.
collect_ignore = [] if hasattr(returnn_lite, "compile") else ["oracle/test_recorded.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the golden files with what the passes give now."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files")
