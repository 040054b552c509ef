"""How much the agents' road carries: heartbeats, claims and waiting agents, beside a bare ASGI handler.

One web process serves; the load comes from processes of their own, whose ceiling is measured against a
handler that answers at once. The reference makes one indexed query for each request, in a thread pool like
the product's.
"""

import asyncio
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psutil

from spotopt.bench.scratch import scratch_stores
from spotopt.management.embedded import free_port

AGENTS = 6_000
"""So many that none beats more often than the twelve times a minute that each may."""
HELD = 2_000
CONNECTIONS = 400
LOAD_PROCESSES = 2
SECONDS, ROUNDS = 2.0, 5
AIM = 0.7
COMMANDS_EACH = 2
_START_SECONDS = 60
Rate = tuple[float, float]
"""Answers in a second, and the 99th percentile of their latency in milliseconds."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that one process sends: one connection each, again and again for a while."""

    port: int
    requests: tuple[bytes, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back: latencies in seconds of the answers with status 200, and how many had another."""

    latencies: tuple[float, ...]
    refused: int
    seconds: float
    """Until the last answer, which may come after the load has ended."""


def main() -> int:
    """Print the figures; the exit status says whether heartbeats reach their share of the reference."""
    with tempfile.TemporaryDirectory() as directory, scratch_stores(Path(directory)):
        tokens = _agents(AGENTS)
        beats = [_request(cluster, "heartbeat", token, _beat()) for cluster, token in tokens]
        claims = [_request(cluster, "actions/claim", token, _claim(0)) for cluster, token in tokens]
        waits = [_request(cluster, "actions/claim", token, _claim(20)) for cluster, token in tokens[:HELD]]
        fetches = [_request(cluster, "actions/claim", token, _claim(0, limit=1)) for cluster, token in tokens]
        with _server("spotopt.bench.bare:at_once") as port:
            _say("load client's ceiling", _rate(port, beats))
        with _server("spotopt.bench.bare:one_query") as bare, _server("spotopt.asgi:application") as port:
            references, heartbeats, idle = _in_turns([(bare, beats), (port, beats), (port, claims)])
            _say("bare handler, one query", _middle(references))
            share = _say("heartbeats", _middle(heartbeats), _shares(heartbeats, references))
            _say("claims, nothing waiting", _middle(idle), _shares(idle, references))
        with _server("spotopt.asgi:application") as port:
            _hold(port, waits, beats)
            _queue_commands([cluster for cluster, _ in tokens])
            fetched = _rate(port, fetches)
            _say("claims, a command each", fetched, [fetched[0] / _middle(references)[0]])
            _print(f"{'commands signed and stored':<28} {_delivered():>8}")
    return 0 if share >= AIM else 1


def _in_turns(loads: list[tuple[int, list[bytes]]]) -> list[list[Rate]]:
    """Measure each load in turns, so that whatever else the machine does strikes all of them alike."""
    rounds = [[_rate(port, requests) for port, requests in loads] for _ in range(ROUNDS)]
    return [list(rates) for rates in zip(*rounds, strict=True)]


def _middle(rates: list[Rate]) -> Rate:
    return statistics.median(rate for rate, _ in rates), statistics.median(late for _, late in rates)


def _shares(rates: list[Rate], references: list[Rate]) -> list[float]:
    return [rate / reference for (rate, _), (reference, _) in zip(rates, references, strict=True)]


def _agents(count: int) -> list[tuple[UUID, str]]:
    """Store connected agents of as many clusters; return each cluster with its agent's token."""
    from accounts.models import Account, Organization, User  # noqa: PLC0415  # once Django is set up
    from agentapi.models import AgentInstance, APIKey  # noqa: PLC0415
    from clusters.models import Cluster  # noqa: PLC0415
    from spotopt.core.clock import utcnow  # noqa: PLC0415
    from spotopt.core.crypto import digest, random_token  # noqa: PLC0415
    from spotopt.core.tenancy import tenant  # noqa: PLC0415

    owner = User.objects.create(email="bench@spotopt.example")
    organization = Organization.objects.create(name="Bench", slug="bench", owner=owner)
    tokens = [random_token("so_") for _ in range(count)]
    with tenant(organization.pk):
        account = Account.objects.create(organization=organization, alias="a", aws_account_id="111122223333")
        clusters = Cluster.objects.bulk_create(
            Cluster(organization=organization, account=account, name=f"c-{n}", region="us-east-1")
            for n in range(count)
        )
        APIKey.objects.bulk_create(
            APIKey(organization=organization, cluster=cluster, kind="agent", key_hash=digest(token),
                   key_prefix=token[3:11])
            for cluster, token in zip(clusters, tokens, strict=True)
        )  # fmt: skip
        AgentInstance.objects.bulk_create(
            AgentInstance(organization=organization, cluster=cluster, agent_id="bench", version="1.0.0",
                          registered_at=utcnow(), last_heartbeat_at=utcnow(), status="online")
            for cluster in clusters
        )  # fmt: skip
    return [(cluster.pk, token) for cluster, token in zip(clusters, tokens, strict=True)]


def _beat() -> dict[str, object]:
    return {"agent_id": "bench", "version": "1.0.0", "node_count": 12, "uptime_seconds": 3600,
            "memory_mib": 64, "k8s_api_ok": True}  # fmt: skip


def _claim(seconds: float, limit: int = 10) -> dict[str, object]:
    return {"agent_id": "bench", "limit": limit, "wait_seconds": seconds, "known_actions": []}


def _queue_commands(cluster_ids: list[UUID]) -> None:
    """Queue more reactions for each agent than it can fetch, one at a time, while it is measured."""
    from clusters.models import Action, Cluster  # noqa: PLC0415  # once Django is set up
    from spotopt.core.clock import utcnow  # noqa: PLC0415
    from spotopt.core.tenancy import tenant  # noqa: PLC0415

    organization_id = Cluster.unscoped.values_list("organization_id", flat=True)[0]
    with tenant(organization_id):
        Action.objects.bulk_create(
            Action(organization_id=organization_id, cluster_id=cluster_id, kind="cordon_node", route="agent",
                   target="node", params={"node_name": "node", "instance_id": "i-0123456789abcdef0"},
                   requested_by="bench", idempotency_key=f"{cluster_id}:{number}", is_voluntary=False,
                   expires_at=utcnow() + timedelta(minutes=5))
            for cluster_id in cluster_ids
            for number in range(COMMANDS_EACH)
        )  # fmt: skip


def _delivered() -> int:
    from agentapi.models import AgentAction  # noqa: PLC0415  # once Django is set up

    return AgentAction.unscoped.count()


def _request(cluster_id: UUID, path: str, token: str, document: dict[str, object]) -> bytes:
    body = gzip.compress(json.dumps(document).encode())
    head = (
        f"POST /api/v1/clusters/{cluster_id}/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def _server(application: str) -> Iterator[int]:
    """Serve an ASGI application from one process of its own; yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--log-level", "warning"]
    command += ["--no-access-log", "--timeout-graceful-shutdown", "1"]
    environment = {**os.environ, "LOG_LEVEL": "WARNING", **_database()}
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603  # our own application
        try:
            asyncio.run(_listening(port))
            yield port
        finally:
            process.terminate()


def _database() -> dict[str, str]:
    """Return the environment that leads a process to the database of this measurement."""
    from django.db import connection  # noqa: PLC0415  # once Django is set up

    name = str(connection.settings_dict["NAME"])
    address, _, query = os.environ["DATABASE_URL"].partition("?")
    return {"DATABASE_URL": f"{address.rpartition('/')[0]}/{name}?{query}", "BENCH_DATABASE": name}


async def _listening(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


def _rate(port: int, requests: list[bytes]) -> Rate:
    """Return answers in a second and the 99th percentile of their latency in milliseconds."""
    loads = [Load(port, tuple(requests[number::LOAD_PROCESSES]), SECONDS) for number in range(LOAD_PROCESSES)]
    with ProcessPoolExecutor(LOAD_PROCESSES) as pool:
        heard = list(pool.map(drive, loads))
    latencies = sorted(latency for each in heard for latency in each.latencies)
    refused = sum(each.refused for each in heard)
    if refused or not latencies:
        raise SystemExit(f"{refused} requests were refused, {len(latencies)} answered.")
    return len(latencies) / max(each.seconds for each in heard), latencies[int(len(latencies) * 0.99)] * 1000


def drive(load: Load) -> Heard:
    """Send the load's requests over and over from this process."""
    return asyncio.run(_drive(load))


async def _drive(load: Load) -> Heard:
    latencies: list[float] = []
    refused, begun = 0, time.monotonic()
    share = CONNECTIONS // LOAD_PROCESSES

    async def connection(requests: tuple[bytes, ...]) -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
        until, number = begun + load.seconds, 0
        while time.monotonic() < until:
            sent = time.monotonic()
            writer.write(requests[number % len(requests)])
            status = await _answer(reader)
            latencies.append(time.monotonic() - sent)
            refused += status != 200  # noqa: PLR2004
            number += 1
        writer.close()

    await asyncio.gather(*(connection(load.requests[number::share]) for number in range(share)))
    return Heard(tuple(latencies), refused, time.monotonic() - begun)


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    lengths = [line for line in lines if line.lower().startswith(b"content-length:")]
    if lengths:
        await reader.readexactly(int(lengths[0].split(b":")[1]))
    else:
        await reader.readuntil(b"0\r\n\r\n")  # chunked
    return int(lines[0].split()[1])


def _hold(port: int, waits: list[bytes], beats: list[bytes]) -> None:
    """Let every agent wait for work at once, and measure the heartbeats beside them."""
    with ProcessPoolExecutor(1) as pool:
        waiting = pool.submit(hold, port, tuple(waits))
        time.sleep(8)
        web = next(p for p in psutil.process_iter(["cmdline"]) if str(port) in (p.info["cmdline"] or []))
        threads, memory = web.num_threads(), web.memory_info().rss // 2**20
        connections = _database_connections()
        rate = _rate(port, beats)
        held = waiting.result()
    _print(f"{'agents held waiting':<28} {held} of {len(waits)}, by {threads} threads, {memory} MiB, "
           f"{connections} database connections")  # fmt: skip
    _say("heartbeats beside them", rate)


def hold(port: int, requests: tuple[bytes, ...]) -> int:
    """Send every request on a connection of its own; return how many were answered with 200."""

    async def one(request: bytes) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        status = await _answer(reader)
        writer.close()
        return status == 200  # noqa: PLR2004

    async def everyone() -> int:
        return sum(await asyncio.gather(*(one(request) for request in requests)))

    return asyncio.run(everyone())


def _database_connections() -> int:
    from django.db import connection  # noqa: PLC0415  # once Django is set up

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        count: int = cursor.fetchone()[0]
    return count


def _say(name: str, rate: Rate, shares: Sequence[float] = ()) -> float:
    """Print a rate and, beside it, its share of the bare handler in the middle of the rounds; return that."""
    share = statistics.median(shares) if shares else 0.0
    said = f", {share:.2f} of the bare handler ({min(shares):.2f} to {max(shares):.2f})" if shares else ""
    _print(f"{name:<28} {rate[0]:>8.0f}/s, p99 {rate[1]:.0f} ms{said}")
    return share


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
