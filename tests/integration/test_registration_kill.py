"""kill -9 at any moment of registering: what was answered is there, and nothing is there by half."""

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from loopd.audit.service import AuditLog
from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings

RUNS = 12
ROOT = Path(__file__).parents[2]


def ids_answered_before_the_kill(database: Path, first: int, alive_s: float) -> list[str]:
    """Let a process register, kill it `alive_s` after its first answer, and give the ids that it had printed."""
    command = [sys.executable, "-m", "tests.integration.registering", str(database), str(first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            head = child.stdout.readline()
            time.sleep(alive_s)
        finally:
            child.kill()
        answered = (head + child.stdout.read()).decode()
    assert answered.endswith("\n")
    return answered.split()


async def test_every_answered_registration_survives_and_none_is_half(tmp_path: Path) -> None:
    path = tmp_path / "loopd.db"
    await (await Database.create(path, DatabaseSettings(), SystemClock())).close()
    answered: list[str] = []
    moments = random.Random(20261121)
    for run in range(RUNS):
        answered += ids_answered_before_the_kill(path, 1 + run * 100_000, moments.uniform(0, 0.15))
        async with await Database.open(path, DatabaseSettings(), SystemClock()) as database:
            records = await database.all("SELECT subject_id, received FROM record ORDER BY number")
            entries = await database.all("SELECT subject, payload FROM audit_entry ORDER BY sequence")
            async with database.snapshot() as reader:
                report = await AuditLog(SystemClock()).verify(reader)
        assert report.first_break is None
        assert report.entries == len(entries)
        assert set(answered) <= {row["subject_id"] for row in records}
        kept = [(row["subject_id"], hashlib.sha256(row["received"]).hexdigest()) for row in records]
        told = [(row["subject"], json.loads(row["payload"])["document_sha256"]) for row in entries]
        assert kept == told
    assert len(answered) > RUNS * 8
    assert len(answered) == len(set(answered))
