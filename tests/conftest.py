"""What all tests share: hypothesis' two profiles, the seed of what is drawn, a quiet TensorFlow with one thread.

``pytest`` runs the profile "fast": its random examples, and which tests also run in TensorFlow, depend on the commit
alone. ``HYPOTHESIS_PROFILE=nightly pytest`` looks at many more examples, and runs everything in TensorFlow as well.
``--hypothesis-seed=N`` draws others. A failure belongs into the suite as an explicit ``@example``.
"""

import gc
import os
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings

import returnn_lite
from tests.commit import COMMIT, NIGHTLY, SEED, takes_part

# TensorFlow reads these when it is first imported, which happens after this file is loaded.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Tests run side by side (setup.cfg), one on each core.
for threads in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(threads, "1")

PLAIN = 3
"""Of tests whose parameter `optimize` is False, one in so many."""
REWRITTEN = ("cli", "verification", "engine", "oracle", "tests")
# No test asserts a time: building a graph takes what it takes on a busy machine.
settings.register_profile(
    "fast",
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# For tools/mutants.py: that an example fails is enough.
settings.register_profile(
    "mutants",
    parent=settings.get_profile("fast"),
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# Until the compiler has its public interface there is nothing to hold against the recordings.
collect_ignore = [] if hasattr(returnn_lite, "compile") else ["oracle/test_recorded.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the golden files with what the passes give now."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many as there are cores for the whole suite; to start them takes longer than a few tests."""
    return len(os.sched_getaffinity(0)) if config.args_source is config.ArgsSource.TESTPATHS else 0


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """What hypothesis draws follows from the commit, if no seed is given."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(SEED)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of tests marked `one_in(n)` each commit runs one in n, nightly all: they need TensorFlow and much time. So it is
    with those of networks without optimisation, which property tests and probes compare with optimised ones anyway."""
    left = [item for item in items if not takes_part(item.nodeid, _one_in(item))]
    gone = set(left)
    items[:] = [item for item in items if item not in gone]
    # The longest tests come first, so that no process is left with one at the end.
    items.sort(key=lambda item: item.path.parent.name != "properties")
    config.hook.pytest_deselected(items=left)


def _one_in(item: pytest.Item) -> int:
    mark, parameters = item.get_closest_marker("one_in"), getattr(item, "callspec", None)
    plain = parameters is not None and parameters.params.get("optimize") is False
    return (mark.args[0] if mark else 1) * (PLAIN if plain else 1)


def pytest_collection_finish() -> None:
    """What is there by now stays: to look through it again and again for garbage took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


@pytest.fixture(autouse=True)
def graphs_as_lowered(request: pytest.FixtureRequest) -> None:
    """Where most networks run once, TensorFlow does not rewrite their graphs before, which takes it longer than to run
    them. Where a whole program runs (`REWRITTEN`) it does, nightly everywhere but where networks are drawn."""
    if (tensorflow := sys.modules.get("tensorflow")) is not None:
        folder = request.path.parent.name
        rewritten = folder in REWRITTEN or (NIGHTLY and folder != "properties")
        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": not rewritten})


def pytest_report_header(config: pytest.Config) -> str:
    """So that a failure can be seen again at another commit, with the same seed."""
    return f"seed: {config.option.hypothesis_seed} (commit {COMMIT[:12] or 'unknown'})"
