from datetime import UTC, datetime, timedelta

import pytest

from agentapi import protocol
from agentapi.agent.backend import Refused
from agentapi.agent.outbox import NOTICE_LASTS, Outbox

pytestmark = pytest.mark.asyncio

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
NOTICE = protocol.InterruptionNotice(
    "interruption", "n", "i-0123456789abcdef0", NOW, NOW + timedelta(minutes=2)
)


class Clock:
    at = NOW

    def now(self):
        return self.at


class Product:
    """Answers as it is told to."""

    def __init__(self):
        self.refusal, self.reception = None, "recorded"
        self.notices, self.events = [], []

    async def send_interruptions(self, told):
        self._refuse()
        self.notices += told.notices
        return protocol.InterruptionsAnswer((self.reception,) * len(told.notices))

    async def send_events(self, told):
        self._refuse()
        self.events += told.events

    def _refuse(self):
        if self.refusal:
            raise self.refusal


@pytest.fixture
def product():
    return Product()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outbox(product, clock):
    return Outbox(product, "agent-0000-0001", clock)


@pytest.mark.parametrize("status", [401, 403, 409])
async def test_given_a_refusal_that_passes_when_told_then_it_is_kept_and_sent_again(status, product, outbox):
    product.refusal = Refused(status, "key_expired", "This key has expired.")
    outbox.warn(NOTICE)
    outbox.tell("command_refused", "critical", {})
    with pytest.raises(Refused):
        await outbox.send()

    product.refusal = None
    await outbox.send()

    assert (product.notices, len(product.events)) == ([NOTICE], 1)


@pytest.mark.parametrize("status", [400, 404, 410, 413])
async def test_given_a_refusal_for_good_when_told_then_it_is_dropped(status, product, outbox):
    product.refusal = Refused(status, "invalid", "That makes no sense.")
    outbox.warn(NOTICE)
    outbox.tell("command_refused", "critical", {})
    await outbox.send()

    product.refusal = None
    await outbox.send()

    assert (product.notices, product.events) == ([], [])


async def test_given_a_node_that_no_scan_found_yet_when_warned_of_then_it_is_told_until_it_is_known_or_over(
    product, clock, outbox
):
    outbox.warn(NOTICE)
    product.reception = "unknown_node"
    await outbox.send()
    await outbox.send()
    product.reception = "recorded"
    await outbox.send()
    await outbox.send()
    assert product.notices == [NOTICE] * 3

    outbox.warn(NOTICE)
    clock.at = NOW + NOTICE_LASTS
    await outbox.send()
    assert product.notices == [NOTICE] * 3
