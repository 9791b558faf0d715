"""What the parts of a request cost when nothing else is done: the floor that the daemon's figures are held to."""

import asyncio
import itertools
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from bench.messages import material
from bench.rows import Row, Sample, spin
from loopd.crypto.keys import SEED_BYTES, NodeKey
from loopd.database import Database, Tx
from loopd.protocol.documents import check_document

HELLO_GET = "hello-get"
HELLO_POST = "hello-post"
VERIFY = "verify"
SCHEMA = "schema"
COMMIT_ALONE = "commit-1"
COMMIT_GROUP = "commit-100"
GROUP = 100

_INSERT = "INSERT INTO bench (subject, document) VALUES (?, ?)"
_TABLE = "CREATE TABLE bench (number INTEGER PRIMARY KEY, subject TEXT UNIQUE, document BLOB) STRICT"


def verify_row() -> Row:
    """One Ed25519 verification of a kilobyte."""
    key, message = NodeKey.from_seed(os.urandom(SEED_BYTES)), os.urandom(1024)
    signature = key.sign(message)
    return Row(VERIFY, "Ed25519 verification, 1 KB", spin(lambda: key.public.verify(message, signature)))


def schema_row() -> Row:
    """One document read and checked as a request's is."""
    body = material(0)
    return Row(SCHEMA, f"document check, {len(body)} B", spin(lambda: check_document(body, "MaterialDNA")))


def commit_row(directory: Path, group: int) -> Row:
    """Inserts of a material's size, `group` of them in each durable transaction."""
    connection = sqlite3.connect(directory / f"bare-{group}.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(_TABLE)
    body, numbers = material(0), itertools.count()

    def transaction() -> None:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(group):
            connection.execute(_INSERT, (f"subject {next(numbers)}", body))
        connection.execute("COMMIT")

    name = COMMIT_ALONE if group == 1 else COMMIT_GROUP
    return Row(name, f"SQLite insert, synchronous=FULL, {group} a commit", spin(transaction, group))


def writer_row(database: Database) -> Row:
    """The same insert through the node's own writer, while a hundred callers wait for theirs."""
    body, numbers = material(0), itertools.count()

    def unit(subject: str) -> Callable[[Tx], object]:
        return lambda tx: tx.execute(_INSERT, (subject, body))

    async def sample(seconds: float) -> Sample:
        waits_s: list[float] = []
        started_s, cpu_started_s = time.perf_counter(), time.process_time()

        async def caller() -> None:
            while (sent_s := time.perf_counter()) < started_s + seconds:
                await database.write(unit(f"subject {next(numbers)}"))
                waits_s.append(time.perf_counter() - sent_s)

        await asyncio.gather(*(caller() for _ in range(GROUP)))
        return Sample(len(waits_s), time.perf_counter() - started_s, time.process_time() - cpu_started_s, waits_s)

    return Row("writer", f"the node's writer, {GROUP} callers", sample, (COMMIT_GROUP,))


async def prepare_writer(database: Database) -> None:
    """The table that `writer_row` writes to."""
    await database.write(lambda tx: tx.execute(_TABLE))
