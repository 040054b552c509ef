import pytest

from agentapi.tests.conftest import AGENT_ID
from clusters.models import Action, Instance, Interruption
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant


@pytest.fixture
def node(cluster):
    with tenant(cluster.organization_id):
        return Instance.objects.create(
            organization_id=cluster.organization_id, account=cluster.account, cluster=cluster,
            instance_id="i-00000000000000001", instance_type="m5.large", lifecycle="spot",
            region="us-east-1", az="us-east-1a", az_id="use1-az1", launched_at=utcnow(), node_name="node-1",
        )  # fmt: skip


def notices(*instance_ids, kind="interruption"):
    at = utcnow().isoformat()
    return {
        "agent_id": AGENT_ID,
        "notices": [
            {"kind": kind, "node_name": "node-1", "instance_id": each, "at": at} for each in instance_ids
        ],
    }


def test_given_a_notice_when_the_agent_sends_it_twice_then_the_node_is_closed_once(
    cluster, node, registered, speak
):
    told = notices(node.instance_id, "i-99999999999999999")

    first, second = (speak(cluster.pk, "interruptions", told, registered) for _ in range(2))

    assert first.json() == {"receptions": ["recorded", "unknown_node"]}
    assert second.json() == {"receptions": ["known", "unknown_node"]}
    with tenant(cluster.organization_id):
        assert Interruption.objects.get().source == "agent"
        assert [action.kind for action in Action.objects.order_by("created_at")] == [
            "cordon_node",
            "drain_node",
        ]


@pytest.mark.parametrize("told", [notices("i-1", kind="hurricane"), notices(*["i-1"] * 101)])
def test_given_notices_that_cannot_be_read_when_sent_then_400_and_nothing_is_kept(
    told, cluster, registered, speak
):
    answer = speak(cluster.pk, "interruptions", told, registered)

    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["notices"])
    with tenant(cluster.organization_id):
        assert not Interruption.objects.exists()


def test_given_an_agent_that_stands_by_when_it_sends_a_notice_then_it_is_refused(
    cluster, node, registered, speak
):
    told = notices(node.instance_id) | {"agent_id": "agent-9999-9999"}

    assert speak(cluster.pk, "interruptions", told, registered).status_code == 409

    with tenant(cluster.organization_id):
        assert not Interruption.objects.exists()
