from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agentapi import protocol
from agentapi.agent.need import Need
from agentapi.tests.workbench import bench
from simulator.tests.world.standin import deployment

pytestmark = pytest.mark.asyncio


async def test_z23_given_a_drain_that_is_only_called_involuntary_when_commanded_then_kube_system_stays(
    tmp_path,
):
    system = replace(deployment("dns", 2), namespace="kube-system")
    async with bench(tmp_path, system) as it:
        node = it.command().payload

        async def drain(number, **ahead):
            ends = {"deadline": (it.world.clock.now() + timedelta(**ahead)).isoformat()} if ahead else {}
            fields = {"action_id": f"a-{number}", "nonce": f"n-{number}", "payload": node | ends}
            return await it.carry_out(it.command("drain_node", is_voluntary=False, **fields))

        plain, distant = await drain(1), await drain(2, minutes=10)
        believed = await drain(3, minutes=3)

        assert [plain.error_code, distant.error_code] == ["protected_namespace"] * 2
        assert (believed.status, believed.error_code) == ("completed", "")


async def test_z23_given_many_nodes_that_only_the_product_calls_taken_when_commanded_then_few_are_believed():
    class Clock:
        def seconds(self):
            return 1_000_000.0

    def order(number, seconds=120):
        ends = datetime.fromtimestamp(Clock().seconds() + seconds, UTC)
        payload = {"instance_id": f"i-{number}", "deadline": ends.isoformat()}
        return protocol.Command(
            "a", "c", "g", "drain_node", payload, ends, ends, nonce="n", is_voluntary=False
        )

    need = Need(Clock(), {"i-99"}.__contains__, node_count=lambda: 40)

    assert [need.justifies(order(n)) for n in range(12)] == [True] * 10 + [False] * 2
    assert need.justifies(order(3))
    assert need.justifies(order(99))
    assert not need.justifies(replace(order(99), is_voluntary=True))
