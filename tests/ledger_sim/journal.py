"""Changes of mappings, so that what is refused half-way can be undone."""

from collections.abc import MutableMapping
from typing import Any, Final

_ABSENT: Final = object()


class Journal:
    """Remembers what was there before each change, until it is told to forget."""

    def __init__(self) -> None:
        self._changes: list[tuple[MutableMapping[Any, Any], Any, Any]] = []

    def put(self, mapping: MutableMapping[Any, Any], key: Any, value: Any) -> None:
        """Set an item."""
        self._changes.append((mapping, key, mapping.get(key, _ABSENT)))
        mapping[key] = value

    def drop(self, mapping: MutableMapping[Any, Any], key: Any) -> None:
        """Remove an item that is there."""
        self._changes.append((mapping, key, mapping[key]))
        del mapping[key]

    def undo(self) -> None:
        """Make everything what it was when it last forgot."""
        for mapping, key, before in reversed(self._changes):
            if before is _ABSENT:
                mapping.pop(key, None)
            else:
                mapping[key] = before
        self._changes.clear()

    def forget(self) -> None:
        """What was changed stays."""
        self._changes.clear()
