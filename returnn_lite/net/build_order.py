"""The order in which layers are built: found beforehand, so that deep networks need no deep recursion."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def build_order(roots: Sequence[str], needed: Callable[[str], Sequence[str]]) -> list[str]:
    """The roots and all that they need, each after what it needs itself; where that is a cycle, it is cut."""
    order: dict[str, None] = {}
    for root in roots:
        stack = [(root, iter(needed(root)))]
        entered = {root}
        while stack:
            name, following = stack[-1]
            first = next((n for n in following if n not in order and n not in entered), None)
            if first is None:
                order[name] = None
                stack.pop()
            else:
                entered.add(first)
                stack.append((first, iter(needed(first))))
    return list(order)
