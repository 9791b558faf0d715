"""SQLite: one writer with group commit, readers beside it, numbered migrations."""

from loopd.database.connection import UnusableDatabase
from loopd.database.database import Database
from loopd.database.readers import Reader
from loopd.database.rows import RowSource
from loopd.database.settings import DatabaseSettings
from loopd.database.writer import Tx, WriterStatistics

__all__ = ["Database", "DatabaseSettings", "Reader", "RowSource", "Tx", "UnusableDatabase", "WriterStatistics"]
