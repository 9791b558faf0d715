"""A process that registers materials without end and prints each id once it is answered. Killed by the test beside it.

Arguments: the database's file, and the number that its ids begin with.
"""

import asyncio
import os
import sys
from itertools import count
from pathlib import Path

from loopd.audit.service import AuditLog
from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings
from loopd.events.service import EventLog
from loopd.protocol.documents import check_document
from loopd.registry.rules import MATERIAL_TYPE
from loopd.registry.service import Registry
from tests.registry_support import Munich, RecordingAnnouncer, material_id, material_json

WORKERS = 8


async def main(path: Path, first: int) -> None:
    clock = SystemClock()
    registry = Registry(Munich(), clock, AuditLog(clock), EventLog(clock), RecordingAnnouncer())
    numbers = count(first)
    async with await Database.open(path, DatabaseSettings(), clock) as database:

        async def work() -> None:
            for number in numbers:
                document = check_document(material_json(number), MATERIAL_TYPE)
                await database.write(lambda tx, document=document: registry.register(tx, document))
                # One write of less than PIPE_BUF bytes arrives whole or not at all.
                os.write(1, f"{material_id(number)}\n".encode())

        await asyncio.gather(*(work() for _ in range(WORKERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
