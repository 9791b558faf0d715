"""Opening the file: which files are ours, and how every connection to it is set up."""

import sqlite3
from pathlib import Path
from typing import Literal

from loopd.protocol.errors import Unavailable

# "LOOP" in ASCII, in the file's header: a database of another program is never touched.
APPLICATION_ID = 0x4C4F4F50

# The file's header, as sqlite.org/fileformat.html has it.
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_APPLICATION_ID_AT = 68

_CACHE_KIB = 16 * 1024
# A node's writer knows some two hundred statements: to compile one anew costs several times what it does.
_STATEMENTS_KEPT = 512
_WAL_KEPT_BYTES = 64 * 1024 * 1024
# Pages of 4 KiB in the log before they are brought into the file: a page that is changed over and over is written there
# once for all of them. Four times SQLite's own figure halves what the disk has to do, and is done in some 50 ms.
_CHECKPOINT_PAGES = 4000

# What the disk or another process does to us, unlike a constraint or a mistake in the SQL (sqlite.org/rescode.html).
_STORAGE_ERRORS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)


class UnusableDatabase(Exception):
    """The file cannot serve as this node's database; the message tells the operator why."""


def connect(
    path: Path,
    *,
    busy_timeout_s: float,
    synchronous: Literal["FULL", "NORMAL"] = "FULL",
    read_only: bool = False,
    one_thread: bool = True,
) -> sqlite3.Connection:
    """A connection to a file that exists; it begins no transaction by itself.

    With `one_thread` false it may be passed on to another thread, though not be used by two at once.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=one_thread,
        cached_statements=_STATEMENTS_KEPT,
    )
    try:
        connection.row_factory = sqlite3.Row
        for pragma in (
            f"synchronous={synchronous}",
            "foreign_keys=ON",
            f"cache_size=-{_CACHE_KIB}",
            # A disk error is an error then, not a signal that kills the process.
            "mmap_size=0",
            "temp_store=MEMORY",
            # What is erased is overwritten, not only forgotten.
            "secure_delete=ON",
            "trusted_schema=OFF",
            f"journal_size_limit={_WAL_KEPT_BYTES}",
            f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
            f"query_only={'ON' if read_only else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def check_ours(path: Path) -> None:
    """UnusableDatabase unless the file is there and was made by loopd. Changes and creates nothing.

    Only the header is looked at, and not by SQLite: a crash may leave the file in the middle of a checkpoint, which
    together with its log is whole, but damaged to whoever reads it alone. This process must have no connection to the
    file: to close a file ends all the locks that the process has on it.
    """
    if not path.is_file():
        raise UnusableDatabase(f"there is no database at {path}")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise UnusableDatabase(f"{path} cannot be read: {error.strerror}") from error
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise UnusableDatabase(f"{path} cannot be read as a database: it does not begin like one")
    if int.from_bytes(header[_APPLICATION_ID_AT : _APPLICATION_ID_AT + 4]) != APPLICATION_ID:
        raise UnusableDatabase(f"{path} is not a database of loopd")


def is_storage_error(error: BaseException) -> bool:
    """Whether the disk, the file or another process is to blame, and a later try may succeed."""
    return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _STORAGE_ERRORS


def storage_unavailable() -> Unavailable:
    """What a caller is told of a storage error; the error itself is for the log."""
    return Unavailable("storage", "The node cannot write to or read from its storage now.")


def shutting_down() -> Unavailable:
    """What a caller is told once the database is closing."""
    return Unavailable("shutting_down", "The node is stopping.")
