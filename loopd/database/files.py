"""Making a database file so that it is there whole or not at all."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopd.database.connection import UnusableDatabase, connect

_PAGES_A_STEP = 1000


class BackupStopped(Exception):
    """The backup was given up; nothing of it remains."""


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A file beside `target`, readable by its owner alone, that becomes `target` when the block ends well.

    FileExistsError if `target` exists, now or by then: nothing is ever overwritten. A process killed in between leaves
    a hidden `.NAME.*.partial` and no `target`.
    """
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists already")
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    partial = Path(name)
    try:
        try:
            yield partial
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _publish(partial, target)
    finally:
        for leftover in (partial, Path(f"{name}-wal"), Path(f"{name}-shm"), Path(f"{name}-journal")):
            leftover.unlink(missing_ok=True)


def copy_database(source: Path, target: Path, stop: threading.Event) -> None:
    """Copy a database that may be in use, as it is at one moment, into a single self-contained file.

    FileExistsError if `target` exists, BackupStopped once `stop` is set, sqlite3.Error and OSError as they come.
    """

    def progress(_status: int, _remaining: int, _total: int) -> None:
        if stop.is_set():
            raise BackupStopped

    with new_file(target) as partial:
        reading = connect(source, busy_timeout_s=60.0, read_only=True)
        try:
            # An open read holds the moment: otherwise every write would make the copy begin again.
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            writing = connect(partial, busy_timeout_s=60.0)
            try:
                reading.backup(writing, pages=_PAGES_A_STEP, progress=progress)
                # No companion files, so that it can be copied on and opened from a read-only place.
                writing.execute("PRAGMA journal_mode=DELETE")
                verdict = writing.execute("PRAGMA quick_check(1)").fetchone()[0]
            finally:
                writing.close()
        finally:
            reading.close()
        if verdict != "ok":
            raise UnusableDatabase(f"the copy is damaged, and so is probably the database: {verdict}")


def _publish(partial: Path, target: Path) -> None:
    try:
        # Unlike a rename, a link never replaces what somebody put there meanwhile.
        os.link(partial, target)
    except FileExistsError:
        raise FileExistsError(f"{target} exists already") from None
    except OSError:
        # A file system without hard links.
        if os.path.lexists(target):
            raise FileExistsError(f"{target} exists already") from None
        partial.rename(target)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
