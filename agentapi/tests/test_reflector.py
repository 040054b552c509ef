import asyncio
from contextlib import asynccontextmanager

import pytest

from agentapi.agent import reflector as reflectors
from agentapi.agent.clock import Clock
from agentapi.agent.kube import KubeError, KubeUnreachable
from agentapi.agent.reflector import Reflector

pytestmark = pytest.mark.asyncio


def thing(name, version, value=0):
    return {"metadata": {"name": name, "resourceVersion": version}, "value": value}


class Script:
    """An API server that answers lists and watches as told; a watch without a script hangs."""

    def __init__(self, lists, watches):
        self.lists, self.watches, self.watched_from = list(lists), list(watches), []

    async def pages(self, path):
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        bodies, version = answer
        for body in bodies or [[]]:
            yield [body] if body else [], version

    @asynccontextmanager
    async def watch(self, path, version):
        self.watched_from.append(version)
        events = self.watches.pop(0) if self.watches else None
        if isinstance(events, Exception):
            raise events
        yield self._told(events)

    async def _told(self, events):
        if events is None:
            await asyncio.Event().wait()
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event


async def follow(script, until, **options):
    reflector = Reflector(script, Clock(rate=1000.0), "/things", lambda body: body["value"], **options)
    task = asyncio.ensure_future(reflector.run())
    for _ in range(1500):
        await asyncio.sleep(0.002)
        if until(reflector):
            break
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return reflector


async def test_given_changes_when_watched_then_the_copy_follows():
    events = [
        {"type": "ADDED", "object": thing("b", "2", 5)},
        {"type": "MODIFIED", "object": thing("a", "3", 7)},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
        {"type": "DELETED", "object": thing("b", "10")},
    ]
    script = Script([([thing("a", "1", 1)], "1")], [events])
    changes = []

    reflector = await follow(
        script, lambda _: len(script.watched_from) == 2, on_change=lambda *change: changes.append(change)
    )

    assert reflector.items == {("", "a"): 7}
    assert changes == [(None, 1), (None, 5), (1, 7), (5, None)]
    assert script.watched_from == ["1", "10"]


@pytest.mark.parametrize(
    "gone",
    [
        {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}},
        KubeError(410, "too old"),
    ],
)
async def test_given_a_version_that_is_too_old_when_watched_then_the_collection_is_listed_again(gone):
    script = Script([([thing("a", "1", 1), thing("b", "1", 1)], "1"), ([thing("b", "8", 2)], "8")], [[gone]])

    reflector = await follow(script, lambda _: len(script.watched_from) == 2)

    assert reflector.items == {("", "b"): 2}
    assert script.watched_from == ["1", "8"]


async def test_given_a_broken_watch_when_reached_again_then_it_goes_on_from_where_it_was():
    script = Script(
        [([thing("a", "1", 1)], "1")],
        [[{"type": "MODIFIED", "object": thing("a", "4", 2)}, KubeUnreachable("reset")]],
    )

    reflector = await follow(script, lambda _: len(script.watched_from) == 2)

    assert script.watched_from == ["1", "4"]
    assert reflector.items == {("", "a"): 2}
    assert reflector.failing_since is None


async def test_given_an_api_server_that_is_away_when_followed_then_it_says_since_when():
    script = Script([KubeUnreachable("refused"), ([thing("a", "1", 1)], "1")], [])

    reflector = await follow(script, lambda each: each.failing_since is not None)

    assert reflector.failing_since is not None
    assert not reflector.synced.is_set()


async def test_given_an_api_server_that_opens_no_watch_when_followed_then_the_copy_fails_ever_since(
    monkeypatch,
):
    """The list of long ago must not pass for what is there now."""
    pauses = []
    monkeypatch.setattr(reflectors, "spread", lambda seconds: pauses.append(seconds) or 0.001)
    script = Script([([thing("a", "1", 1)], "1")], [KubeUnreachable("refused")] * 8)
    said = []

    def is_over(reflector):
        said.append(reflector.failing_since)
        return len(script.watched_from) > 8

    reflector = await follow(script, is_over)

    assert len(set(said) - {None}) == 1
    assert reflector.failing_since is None
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


async def test_given_a_server_that_calls_every_version_too_old_when_followed_then_it_is_listed_ever_slower(
    monkeypatch,
):
    pauses = []
    monkeypatch.setattr(reflectors, "spread", lambda seconds: pauses.append(seconds) or 0.001)
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
    script = Script([([thing("a", "1", 1)], "1")] * 4, [[gone]] * 3)

    await follow(script, lambda _: len(script.watched_from) == 4)

    assert pauses == [0.5, 1.0, 2.0]
