"""An act of the demonstration: how it is played and how it is shown. loopd/demo/scenario.py puts them in order."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from loopd.demo.cast import MUNICH
from loopd.demo.client import Client
from loopd.demo.nodes import Node, Nodes
from loopd.demo.page import Page

Facts = dict[str, Any]

PATIENCE_S: Final = 20.0


@dataclass(slots=True)
class Play:
    """What the acts play with, and what earlier ones leave for later ones."""

    nodes: Nodes
    client: Client
    token: str = ""
    registered_at_ms: int = 0
    # The ids of what belongs to the deal with another city, by what they are.
    deal: dict[str, str] = field(default_factory=dict)

    @property
    def munich(self) -> Node:
        """The node that has something left over."""
        return self.nodes.of(MUNICH)


@dataclass(frozen=True, slots=True)
class Act:
    """`play` gives what it saw as JSON, under `name`; `show` prints that below the title, and computes nothing."""

    name: str
    title: str
    play: Callable[[Play], Awaitable[Facts]]
    show: Callable[[Page, Facts], None]
