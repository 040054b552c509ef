"""What became of every action, written down by the database itself, and what that says about safety."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg2

MOVES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "pending": frozenset({"running", "refused", "expired", "cancelled"}),
        "running": frozenset({"running", "succeeded", "failed", "refused"}),
    }
)
"""What the specification allows; running to running is a dead actuator's work being taken over."""
LIFETIMES = MappingProxyType({"drain_node": timedelta(minutes=15)})
LIFETIME = timedelta(minutes=5)
DISRUPTIVE = frozenset({"cordon_node", "drain_node", "terminate_instance"})

_WATCH = """
CREATE TABLE IF NOT EXISTS witnessed_moves (
    id bigserial PRIMARY KEY, action_id uuid, cluster_id uuid, kind text, is_voluntary boolean,
    instance_id text, before text, after text, lease_until timestamptz, at timestamptz,
    created_at timestamptz, is_paused boolean, nodes integer, written_in bigint DEFAULT txid_current()
);
CREATE OR REPLACE FUNCTION witness_move() RETURNS trigger AS $$ BEGIN
    INSERT INTO witnessed_moves (action_id, cluster_id, kind, is_voluntary, instance_id, before, after,
                                 lease_until, at, created_at, is_paused, nodes)
    SELECT NEW.id, NEW.cluster_id, NEW.kind, NEW.is_voluntary, coalesce(NEW.params->>'instance_id', ''),
           OLD.status, NEW.status, OLD.lease_until, NEW.updated_at, NEW.created_at, c.maintenance_mode,
           (SELECT count(*) FROM instances i WHERE i.cluster_id = c.id AND i.node_name <> ''
            AND i.state IN ('pending', 'running'))
    FROM clusters c WHERE c.id = NEW.cluster_id;
    RETURN NEW;
END $$ LANGUAGE plpgsql;
DROP TRIGGER IF EXISTS witness_moves ON actions;
CREATE TRIGGER witness_moves AFTER UPDATE ON actions FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.claimed_by IS DISTINCT FROM NEW.claimed_by)
    EXECUTE FUNCTION witness_move();
"""
_READ = """SELECT action_id::text, cluster_id::text, kind, is_voluntary, instance_id, before, after,
                  lease_until, at, created_at, is_paused, nodes, written_in
           FROM witnessed_moves ORDER BY id"""

OVERDUE = timedelta(minutes=3)
"""How long the reaper may take; it looks every minute."""
_LEFT_OPEN = """SELECT id::text, kind, status FROM actions
                WHERE (status = 'pending' AND expires_at < %(latest)s)
                   OR (status = 'running' AND route = 'agent' AND lease_until < %(latest)s)"""
_KNOWN = "SELECT instance_id FROM instances WHERE state IN ('pending', 'running')"


@dataclass(frozen=True, slots=True)
class Move:
    """One change of one action's status or holder; instants by the product's clock."""

    action_id: str
    cluster_id: str
    kind: str
    is_voluntary: bool
    instance_id: str
    before: str
    after: str
    lease_until: datetime | None
    """Of the holder before the move."""
    at: datetime
    created_at: datetime
    is_paused: bool
    nodes: int
    written_in: int
    """The transaction; a claim that is refused in its own transaction never began."""

    @property
    def is_claim(self) -> bool:
        """Tell whether somebody began to work on the action."""
        return self.after == "running"


def watch(directory: Path) -> None:
    """Have the database write every move down from now on."""
    _execute(directory, _WATCH)


def read(directory: Path) -> list[Move]:
    """Return every move since, oldest first."""
    return [Move(*row) for row in _execute(directory, _READ)]


def left_open(directory: Path, *, now: datetime) -> list[str]:
    """Return the actions whose time was over well before ``now``, and that nobody closed."""
    return [" ".join(row) for row in _execute(directory, _LEFT_OPEN, {"latest": now - OVERDUE})]


def known_instances(directory: Path) -> set[str]:
    """Return the ids of the instances that the product takes for alive."""
    return {instance_id for (instance_id,) in _execute(directory, _KNOWN)}


def count(moves: Iterable[Move]) -> Counter[str]:
    """Return how often each rule of the queue was broken, by the name of its counter."""
    return Counter(name for name, _ in broken_rules(moves))


def broken_rules(moves: Iterable[Move]) -> Iterator[tuple[str, Move]]:
    """Yield each move that broke a rule of the queue, with the name of the rule's counter."""
    working: dict[str, dict[str, str]] = defaultdict(dict)
    for move in _committed(moves):
        yield from ((name, move) for name in _broken_by(move))
        disrupting = working[move.cluster_id]
        if move.is_claim and move.kind in DISRUPTIVE and move.is_voluntary:
            disrupting[move.action_id] = move.instance_id
            cap = max(1, int(move.nodes * 0.10))
            if len(set(disrupting.values())) > cap:
                yield "nodes disrupted beyond the budget", move
        elif not move.is_claim:
            disrupting.pop(move.action_id, None)


def _committed(moves: Iterable[Move]) -> list[Move]:
    """Return the moves as others saw them: one for each transaction of an action."""
    seen: dict[tuple[str, int], Move] = {}
    for move in moves:
        key = (move.action_id, move.written_in)
        seen[key] = replace(seen[key], after=move.after) if key in seen else move
    return list(seen.values())


def _broken_by(move: Move) -> Iterator[str]:
    if move.after not in MOVES.get(move.before, frozenset()):
        yield "moves that no rule allows"
    if not move.is_claim:
        return
    if move.before == "running" and (move.lease_until is None or move.lease_until > move.at):
        yield "actions claimed twice"
    if move.before == "pending" and move.at > move.created_at + LIFETIMES.get(move.kind, LIFETIME):
        yield "actions begun after their time"
    if move.before == "pending" and move.is_paused and move.is_voluntary:
        yield "voluntary work begun in a pause"


def _execute(directory: Path, statement: str, values: Mapping[str, object] | None = None) -> list[Any]:
    with closing(psycopg2.connect(host=str(directory), user="postgres", dbname="postgres")) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []
