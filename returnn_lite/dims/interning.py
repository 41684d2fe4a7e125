"""Hash-consing: equal expressions are one object (Ershov 1958; Filliâtre and Conchon 2006)."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable
from typing import Any

_OBJECTS: weakref.WeakValueDictionary[Hashable, Any] = weakref.WeakValueDictionary()
"""The objects that exist; nothing depends on its contents but that equal ones are one."""
_MAKING = threading.Lock()


class Interned(type):
    """Makes equal objects of a class one object, in all threads; its `identity` says what makes them equal."""

    def identity(cls, *fields: Any) -> tuple[Hashable, ...]:
        """What two objects with these fields have in common if they are equal."""
        return fields

    def __call__(cls, *fields: Any) -> Any:
        key = (cls, *cls.identity(*fields))
        with _MAKING:
            found = _OBJECTS.get(key)
            if found is None:
                found = _OBJECTS[key] = super().__call__(*fields)
            return found
