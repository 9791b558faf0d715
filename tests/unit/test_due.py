"""What falls due, each in a transaction of its own."""

from collections.abc import Callable
from pathlib import Path

import structlog

from loopd.clock import Clock
from loopd.database import Database, DatabaseSettings, RowSource, Tx
from loopd.due import PUT_OFF_MS, Due, DueTimer
from loopd.protocol.errors import Conflict
from tests.support import ManualClock


class Chores:
    """Numbers that are due until they are written down; some of them cannot be."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.open = ["a", "broken", "b"]
        self.broken = {"broken"}
        self.tried: list[str] = []
        self.timer = DueTimer("chores", [self], database, clock)

    def due(self, source: RowSource, now_ms: int) -> list[Due]:
        return [Due(name, self._doing(name)) for name in self.open]

    def _doing(self, name: str) -> Callable[[Tx], None]:
        def do(tx: Tx) -> None:
            self.tried.append(name)
            if name in self.broken:
                raise Conflict("broken", "It cannot be done.")
            self.open.remove(name)

        return do


async def chores_of(path: Path, clock: ManualClock) -> tuple[Database, Chores]:
    database = await Database.create(path / "loopd.db", DatabaseSettings(), clock)
    return database, Chores(database, clock)


async def test_what_fails_holds_up_nothing_and_is_tried_again_later(tmp_path: Path) -> None:
    clock = ManualClock()
    database, chores = await chores_of(tmp_path, clock)
    with structlog.testing.capture_logs() as lines:
        await chores.timer.step()
        await chores.timer.step()
    assert (chores.open, chores.tried) == (["broken"], ["a", "broken", "b"])
    assert [(line["event"], line["what"]) for line in lines] == [("due_not_done", "broken")]
    clock.advance(PUT_OFF_MS)
    chores.broken.clear()
    await chores.timer.step()
    assert (chores.open, chores.tried[3:]) == ([], ["broken"])
    await database.close()


async def test_what_came_due_while_the_node_was_down_is_done_before_the_start_ends(tmp_path: Path) -> None:
    database, chores = await chores_of(tmp_path, ManualClock())
    chores.broken.clear()
    await chores.timer.start()
    assert chores.open == []
    await chores.timer.stop()
    await database.close()
