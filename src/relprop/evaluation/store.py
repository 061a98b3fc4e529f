"""What has been measured, in one SQLite file, so that an evaluation goes on where it was stopped."""

from __future__ import annotations

import json
import sqlite3
from os import PathLike
from typing import Any

from ..errors import FileError

_TABLES = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    method TEXT, sample INTEGER, digest TEXT NOT NULL, found TEXT NOT NULL, PRIMARY KEY (method, sample)
);
"""


class Store:
    """Results by method and sample; in memory if there is no path.

    Args:
        path: of the file, which is made if it is not there.
        settings: what results depend on. They must be those of the file.

    Raises:
        FileError: if the file is none of these, or is of other settings.
    """

    def __init__(self, path: str | PathLike[str] | None, settings: dict[str, str]):
        self.path = path
        self._file = sqlite3.connect(":memory:" if path is None else path)
        try:
            self._file.executescript(_TABLES)
            kept = dict(self._file.execute("SELECT name, value FROM settings"))
        except sqlite3.DatabaseError as error:
            raise FileError(f"{path} is no file of an evaluation: {error}") from error
        if other := [name for name in settings if kept and kept.get(name) != settings[name]]:
            told = "; ".join(f"{name}: {kept.get(name)} there, {settings[name]} here" for name in other)
            raise FileError(f"{path} holds an evaluation of other settings ({told}): give resume= another file.")
        with self._file:
            self._file.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", settings.items())

    def get(self, method: str, sample: int, digest: str) -> dict[str, Any] | None:
        """What was found, if it was.

        Raises:
            FileError: if it was found of another sample.
        """
        query = "SELECT digest, found FROM results WHERE method = ? AND sample = ?"
        row = self._file.execute(query, (method, sample)).fetchone()
        if row is None:
            return None
        if row[0] != digest:
            raise FileError(f"{self.path} holds results of another sample {sample}: give resume= another file.")
        found: dict[str, Any] = json.loads(row[1])
        return found

    def put(self, method: str, sample: int, digest: str, found: dict[str, Any]) -> None:
        """Keep what was found; it is on the disk when this returns."""
        with self._file:
            row = (method, sample, digest, json.dumps(found))
            self._file.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", row)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
