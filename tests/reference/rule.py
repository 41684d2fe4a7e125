"""What the meaning of a primitive is to the interpreter."""

from __future__ import annotations

from collections.abc import Callable

from tests.reference.named import Named

Rule = Callable[..., Named | tuple[Named, ...]]
"""From the primitive, the lengths (which it may extend by dims that it creates) and the operands to the results."""
