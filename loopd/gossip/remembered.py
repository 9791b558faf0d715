"""A mapping that forgets: bounded memory for what is disposable."""

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Remembered(OrderedDict[Key, Value], Generic[Key, Value]):
    """At most `ceiling` entries; a further one replaces the one that was set first or longest ago."""

    def __init__(self, ceiling: int) -> None:
        super().__init__()
        self._ceiling = ceiling

    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self._ceiling:
            self.popitem(last=False)
