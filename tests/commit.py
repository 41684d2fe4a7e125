"""Which part of the tests runs in this commit: the commit's hash is the seed of all that is drawn."""

from __future__ import annotations

import os
import subprocess
import zlib
from pathlib import Path

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
"""Whether everything runs."""


def _commit() -> str:
    """The hash of the commit that is checked out; empty outside of git."""
    top = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=top, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


COMMIT = _commit()
SEED = zlib.crc32(COMMIT.encode())
"""Of all that tests draw; 0 outside of git."""


def takes_part(name: str, one_in: int) -> bool:
    """Whether what has this name is among the one in so many that run in this commit; nightly all do."""
    return NIGHTLY or drawn(name, one_in)


def drawn(name: str, one_in: int) -> bool:
    """Whether what has this name is among the one in so many that this commit's hash draws, also nightly."""
    return zlib.crc32(f"{SEED} {name}".encode()) % one_in == 0
