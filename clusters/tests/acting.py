"""What tests of acting on AWS say: ask for an act, carry it out, come back later."""

from uuid import uuid4

import time_machine

from clusters.models import Instance
from clusters.services import actions, actuation
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow

CLUSTER, GROUP = "acme-production", "production-general"


class Killed(Exception):
    """Stands for kill -9."""


def die(**_):
    raise Killed


def request(cluster, kind, target, params, **changes):
    return actions.request_action(
        cluster=cluster, kind=kind, target=target, params=params, reason="Test",
        actor=Actor.system(cluster.organization_id), idempotency_key=str(uuid4()), plan_id=uuid4(), **changes,
    )  # fmt: skip


def terminate(cluster, node):
    Instance.objects.filter(pk=node.pk).update(is_cordoned=True)
    return request(
        cluster, "terminate_instance", node.node_name,
        {"node_name": node.node_name, "instance_id": node.instance_id},
    )  # fmt: skip


def later(delta):
    return time_machine.travel(utcnow() + delta)


def run(action, worker="one"):
    status = actuation.actuate(action_id=action.pk, worker=worker)
    action.refresh_from_db()
    return status
