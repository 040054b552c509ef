"""The world's memory on disk: one SQLite file of JSON values, each write one atomic transaction."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LAST = "\U0010ffff"


class Journal:
    """Key to JSON value. A finished write survives kill -9; power loss costs moments, never half a write."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the file; None keeps everything in memory (tests)."""
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS entry (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"
        )

    def texts(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Every (key, JSON text) whose key starts with the prefix, in key order."""
        query = "SELECT key, value FROM entry WHERE key >= ? AND key < ? ORDER BY key"
        with self._lock:
            rows = self._database.execute(query, (prefix, prefix + LAST)).fetchall()
        yield from rows

    def read(self, prefix: str) -> dict[str, Any]:
        """Every value whose key starts with the prefix, by full key."""
        return {key: json.loads(text) for key, text in self.texts(prefix)}

    def write(self, changes: Mapping[str, Any]) -> None:
        """Write values, durable on return; None removes the key."""
        self.write_texts(
            {key: None if value is None else json.dumps(value) for key, value in changes.items()}
        )

    def write_texts(self, changes: Mapping[str, str | None]) -> None:
        """Write JSON texts, durable on return; None removes the key."""
        puts = [(key, text) for key, text in changes.items() if text is not None]
        removals = [(key,) for key, text in changes.items() if text is None]
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?)", puts)
            self._database.executemany("DELETE FROM entry WHERE key = ?", removals)
            self._database.execute("COMMIT")

    def erase(self, prefix: str) -> None:
        """Remove every key that starts with the prefix."""
        with self._lock:
            self._database.execute("DELETE FROM entry WHERE key >= ? AND key < ?", (prefix, prefix + LAST))

    def close(self) -> None:
        """Fold the log into the file and close it."""
        with self._lock:
            self._database.close()
