"""Karpenter's node pools in a cluster: one is held, one failed, one is left alone."""

from datetime import datetime, timedelta

from clusters.models import Action, Cluster, NodePool
from policies.models import PoolSteering

CAPACITY = {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"]}
TYPES = {
    "key": "node.kubernetes.io/instance-type",
    "operator": "In",
    "values": ["c5.xlarge", "c6a.2xlarge", "m5.xlarge", "m6i.2xlarge", "r5.xlarge", "r6a.xlarge"],
}


def _spec(weight: int, cpu: str, *requirements: dict[str, object]) -> dict[str, object]:
    nodes = {"nodeClassRef": {"kind": "EC2NodeClass", "name": "default"}, "requirements": list(requirements)}
    return {"weight": weight, "limits": {"cpu": cpu}, "template": {"spec": nodes | {"expireAfter": "720h"}}}


def make_node_pools(cluster: Cluster, now: datetime) -> None:
    """Let the cluster have Karpenter with three node pools."""
    cluster.karpenter = Cluster.Karpenter.RUNNING
    cluster.save(update_fields=["karpenter", "updated_at"])
    failed = Action.objects.create(
        organization=cluster.organization, cluster=cluster, kind="apply_karpenter", route="agent",
        target="spotopt-general", requested_by="Spotopt", idempotency_key="karpenter:seed", status="failed",
        expires_at=now + timedelta(minutes=5), finished_at=now - timedelta(minutes=9), error_code="conflict",
        error_message='Somebody else manages a field that the command sets: conflict with "argocd".',
    )  # fmt: skip
    steered = "Spot nodes of 6 types are tried first; {} stays as it is behind them."
    for name, code, sentence, hold, action in (
        ("batch", "steered", steered.format("batch"), "Safe mode is on: only clean-up runs.", None),
        ("general", "steered", steered.format("general"), "", failed),
        ("licensed", "static", "It keeps a fixed number of nodes, for which no weight counts.", "", None),
    ):  # fmt: skip
        NodePool.objects.create(
            organization=cluster.organization, cluster=cluster, name=name, spec=_spec(10, "400", CAPACITY),
            used={"cpu": "96", "nodes": "12"}, managers={"limits": ["helm"]}, reported_at=now,
        )  # fmt: skip
        wanted = {"spec": _spec(11, "72", CAPACITY, TYPES)} if code == "steered" else None
        PoolSteering.objects.create(
            organization=cluster.organization, cluster=cluster, pool=name, name=f"spotopt-{name}", code=code,
            sentence=sentence, manifest=wanted, is_met=wanted is None, hold=hold, action=action,
            looked_at=now,
        )  # fmt: skip
