"""What agents say all the time, answered for many of them at once.

Ordinary is a heartbeat of a connected agent whose configuration is current, and a claim of a connected agent
that lost nothing on the way. Whatever else comes is told apart here and left to `presence`, `keys` and
`delivery`, whose rules these statements repeat in SQL: they decide nothing but what is ordinary.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db import Error, connection

from agentapi import protocol
from agentapi.services import delivery
from agentapi.services.keys import SERVED_ORGANIZATIONS
from agentapi.services.waiting import in_database
from spotopt.core.clock import utcnow

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 500
BATCHES_UNDER_WAY = 2
"""So that one is put together while another is asked."""
_Q = TypeVar("_Q")
_A = TypeVar("_A")

_GOOD_KEYS = """
    api_keys k
    JOIN organizations o ON o.id = k.organization_id AND o.status = ANY(%(served)s)
    WHERE k.key_hash = s.key_hash AND k.cluster_id = s.cluster_id AND k.kind = 'agent'
      AND k.revoked_at IS NULL AND k.used_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > %(now)s)
"""
_HEARTBEATS = f"""
WITH said AS (
    SELECT * FROM unnest(%(keys)s, %(clusters)s::uuid[], %(agents)s, %(versions)s, %(nodes)s, %(configs)s,
                         %(health)s) AS s(key_hash, cluster_id, agent_id, version, node_count, config, health)
), good AS (
    SELECT s.*, k.id AS key_id, k.last_used_at FROM said s CROSS JOIN LATERAL (SELECT k.* FROM {_GOOD_KEYS}) k
    LEFT JOIN agent_configs c ON c.cluster_id = s.cluster_id
    WHERE coalesce(c.version, 0) = s.config AND coalesce(c.acknowledged_version, 0) = s.config
), alive AS (
    UPDATE agent_instances a SET last_heartbeat_at = %(now)s, health = g.health::jsonb, version = g.version,
        node_count = g.node_count
    FROM good g WHERE a.cluster_id = g.cluster_id AND a.agent_id = g.agent_id AND a.status = 'online'
    RETURNING a.cluster_id, a.agent_id, g.version, g.key_id, g.last_used_at
), seen AS (
    UPDATE clusters c SET last_heartbeat_at = %(now)s, agent_version = left(alive.version, 40)
    FROM alive WHERE c.id = alive.cluster_id
), touched AS (
    UPDATE api_keys k SET last_used_at = %(now)s FROM alive
    WHERE k.id = alive.key_id AND coalesce(alive.last_used_at < %(now)s - interval '1 minute', true)
)
SELECT alive.cluster_id, alive.agent_id,
       (SELECT count(*) FROM actions x WHERE x.cluster_id = alive.cluster_id AND x.route = 'agent'
        AND x.status = 'pending' AND x.expires_at > %(now)s),
       set_config('synchronous_commit', 'off', true)
FROM alive
"""  # noqa: S608  # made of constants
"""A heartbeat that a crash of the database loses is followed by another: no commit waits for the disk."""
_CLAIMS = f"""
WITH said AS (
    SELECT * FROM unnest(%(keys)s, %(clusters)s::uuid[], %(agents)s, %(known)s)
        AS s(key_hash, cluster_id, agent_id, known)
)
SELECT s.cluster_id, s.agent_id, k.id,
       EXISTS (SELECT FROM actions x WHERE x.cluster_id = s.cluster_id AND x.route = 'agent'
               AND x.status = 'pending' AND x.expires_at > %(now)s)
FROM said s CROSS JOIN LATERAL (SELECT k.* FROM {_GOOD_KEYS}) k
JOIN agent_instances a ON a.cluster_id = s.cluster_id AND a.agent_id = s.agent_id AND a.status = 'online'
WHERE NOT EXISTS (SELECT FROM agent_actions d WHERE d.cluster_id = s.cluster_id AND d.status = 'picked_up'
                  AND d.action_id::text <> ALL(string_to_array(s.known, ',')))
"""  # noqa: S608  # made of constants


@dataclass(frozen=True, slots=True)
class Sign:
    """A heartbeat, and the digest of the key that came with it."""

    key_hash: str
    cluster_id: UUID
    heartbeat: protocol.Heartbeat


@dataclass(frozen=True, slots=True)
class Ask:
    """A claim, and the digest of the key that came with it."""

    key_hash: str
    cluster_id: UUID
    claim: protocol.Claim


@dataclass(frozen=True, slots=True)
class Served:
    """The answer to a claim, and the id of the key that came with it."""

    key_id: UUID
    commands: tuple[protocol.Command, ...]


def take_signs(signs: Sequence[Sign]) -> list[protocol.HeartbeatAnswer | None]:
    """Keep the agents online and answer each; None for a heartbeat that is not ordinary."""
    now, beats = utcnow(), [sign.heartbeat for sign in signs]
    columns = {
        "agents": [beat.agent_id for beat in beats],
        "versions": [beat.version for beat in beats],
        "nodes": [beat.node_count for beat in beats],
        "configs": [beat.config_version for beat in beats],
        "health": [json.dumps(protocol.dump(beat)) for beat in beats],
    }
    pending = {(cluster, agent): count for cluster, agent, count, _ in _ask(_HEARTBEATS, signs, columns)}
    answers: list[protocol.HeartbeatAnswer | None] = []
    for sign, beat in zip(signs, beats, strict=True):
        count = pending.get((sign.cluster_id, beat.agent_id))
        skew = round((beat.sent_at - now).total_seconds()) if beat.sent_at else 0
        answers.append(
            None
            if count is None
            else protocol.HeartbeatAnswer(
                config_version=beat.config_version, pending_actions=count, clock_skew_seconds=skew
            )
        )
    return answers


def answer_claims(asks: Sequence[Ask]) -> list[Served | None]:
    """Give each agent what waits for it; None for a claim that is not ordinary.

    Of several claims for one cluster the first gets its commands, and the others are not ordinary.
    """
    columns = {
        "agents": [ask.claim.agent_id for ask in asks],
        "known": [",".join(ask.claim.known_actions) for ask in asks],
    }
    keys = {(cluster, agent): (key, busy) for cluster, agent, key, busy in _ask(_CLAIMS, asks, columns)}
    known = [(ask, *keys.get((ask.cluster_id, ask.claim.agent_id), (None, False))) for ask in asks]
    first = {ask.cluster_id: ask.claim for ask, _, is_busy in reversed(known) if is_busy}
    commands = delivery.claim_for_many(requests=first) if first else {}
    answers: list[Served | None] = []
    for ask, key_id, is_busy in known:
        mine = commands.pop(ask.cluster_id, ()) if is_busy else ()
        is_ordinary = key_id is not None and bool(mine) == is_busy
        answers.append(Served(key_id, mine) if is_ordinary else None)
    return answers


def _ask(statement: str, said: Sequence[Sign] | Sequence[Ask], columns: dict[str, Any]) -> list[Any]:
    given: dict[str, Any] = {
        "keys": [each.key_hash for each in said],
        "clusters": [str(each.cluster_id) for each in said],
        "now": utcnow(),
        "served": list(SERVED_ORGANIZATIONS),
    }
    with connection.cursor() as cursor:
        cursor.execute(statement, given | columns)
        return list(cursor.fetchall())


class Together(Generic[_Q, _A]):
    """Answers single questions in batches: those that come while others are asked share the next."""

    def __init__(self, answer_all: Callable[[Sequence[_Q]], list[_A | None]]) -> None:
        self._answer_all = answer_all
        self._waiting: list[tuple[_Q, asyncio.Future[_A | None]]] = []
        self._workers: set[asyncio.Task[None]] = set()

    async def ask(self, question: _Q) -> _A | None:
        """Return the answer; None also when the database cannot give it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_A | None] = loop.create_future()
        self._waiting.append((question, future))
        if len(self._workers) < BATCHES_UNDER_WAY:
            worker = loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            answers: Sequence[_A | None] = [None] * len(batch)
            try:
                answers = await in_database(self._answer_all, [question for question, _ in batch])
            except Error:
                logger.warning("The database cannot answer agents together; each is answered by itself.")
            except Exception:
                logger.exception("Agents cannot be answered together; each is answered by itself.")
            finally:
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)


@dataclass(frozen=True, slots=True)
class Desk:
    """Where the agents' words of one event loop are collected."""

    signs: Together[Sign, protocol.HeartbeatAnswer]
    claims: Together[Ask, Served]


_desks: WeakKeyDictionary[asyncio.AbstractEventLoop, Desk] = WeakKeyDictionary()


def desk() -> Desk:
    """Return the desk of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _desks:
        _desks[loop] = Desk(Together(take_signs), Together(answer_claims))
    return _desks[loop]
