"""The ledger as one: what the parts of its room are told."""

from pathlib import Path

from structlog.testing import capture_logs

from loopd.database import Database, DatabaseSettings
from tests.settlement_city import BUYER, SELLER, City
from tests.support import ManualClock


async def test_each_part_knows_by_the_reference_which_of_its_messages_was_answered(tmp_path: Path) -> None:
    settings = DatabaseSettings(synchronous="NORMAL")
    async with await Database.create(tmp_path / "loopd.db", settings, ManualClock()) as database:
        room = City(database, SELLER, BUYER).room
        await room.begin()
        with capture_logs() as logs:
            for reference in ("netting:run 1", "bid:1"):
                await database.write(lambda tx, told=reference: room.request_answered(tx, told, 403, "not_a_peer"))
    assert [(line["event"], line["reference"]) for line in logs] == [("netting_not_taken", "netting:run 1")]
