"""Rows of templates, policies with a history, and what-ifs in every state."""

from datetime import datetime, timedelta
from decimal import Decimal

from clusters.models import AgentConfig, Cluster, InstanceType
from policies.models import OptimizationJob, WhatIf
from policies.services.policies import PolicyChange, change_policy
from policies.services.templates import TemplateDraft, create_template, ensure_defaults
from spotopt.core.actor import Actor


def make_templates(actor: Actor) -> None:
    """Fill the catalogue with some families; add a template of the organization's own to the system's."""
    for family, arch, generation in (
        ("m5", "x86_64", 5), ("m6i", "x86_64", 6), ("m7i", "x86_64", 7), ("m7g", "arm64", 7),
        ("c5", "x86_64", 5), ("c6i", "x86_64", 6), ("c7i", "x86_64", 7), ("c7g", "arm64", 7),
        ("r5", "x86_64", 5), ("r6i", "x86_64", 6), ("t3", "x86_64", 3), ("g5", "x86_64", 5),
    ):  # fmt: skip
        InstanceType.objects.get_or_create(
            name=f"{family}.xlarge",
            defaults={
                "family": family, "size": "xlarge", "category": family[0], "generation": generation,
                "arch": arch, "vcpu": 4, "memory_mib": 16384, "max_pods": 58, "cpu_allocatable_millis": 3920,
                "memory_allocatable_mib": 14800, "is_burstable": family == "t3",
                "gpu_count": int(family == "g5"),
            },
        )  # fmt: skip
    assert actor.organization_id is not None
    ensure_defaults(organization_id=actor.organization_id)
    create_template(
        draft=TemplateDraft(name="Batch", description="Cheap and patient.", families=("m5", "c5", "t3")),
        actor=actor,
    )


def make_policy(cluster: Cluster, actor: Actor) -> None:
    """Change a cluster's policy twice, so that it has a history; its agent knows the first change only."""
    for changes in (
        {"constraints": {"min_nodes": 4, "headroom_cpu_percent": 15}},
        {
            "karpenter": {"enabled": True},
            "provisioning": {"spot_percentage": 95},
            "spot_affinity": {"namespaces": {"data": "none"}},
        },
    ):
        change_policy(
            cluster_id=cluster.pk, change=PolicyChange(config=changes, mode="automatic"), actor=actor
        )
    AgentConfig.objects.filter(cluster=cluster).update(acknowledged_version=1)


def what_ifs(cluster: Cluster, busy: Cluster, now: datetime) -> None:
    """Add what-ifs that are done, cancelled and under way, the last with an optimization beside it."""
    names = ("As it is", "On-demand only", "Spot prices +30 %", "20 × m5.xlarge committed")
    costs = ((1, "0.46"), (1, "0.83"), (1, "0.55"), ("0.9", "0.41"))
    before = sum((row.price or Decimal(0) for row in cluster.instances.all()), Decimal(0))
    outcomes = [
        _outcome(name, before * Decimal(today), before * Decimal(after), number)
        for number, (name, (today, after)) in enumerate(zip(names, costs, strict=True))
    ]
    facts = {
        "organization_id": cluster.organization_id,
        "requested_by": "bob@acme.test",
        "scenarios": [{"name": name} for name in names],
        "quoted_at": now - timedelta(minutes=3),
        "snapshot_at": now - timedelta(minutes=4),
    }
    WhatIf.objects.create(
        cluster=cluster, status="cancelled", outcomes=outcomes[:1], created_at=now - timedelta(hours=2),
        completed_at=now - timedelta(hours=2), **facts,
    )  # fmt: skip
    WhatIf.objects.create(
        cluster=cluster, status="completed", outcomes=outcomes, progress_percent=100,
        created_at=now - timedelta(minutes=3), completed_at=now - timedelta(minutes=2), **facts,
    )  # fmt: skip
    WhatIf.objects.create(
        cluster=busy, status="running", outcomes=outcomes[:2], progress_percent=55,
        phase="3 of 4: Searching for cheaper nodes", created_at=now - timedelta(seconds=20),
        started_at=now - timedelta(seconds=15), **facts,
    )  # fmt: skip
    OptimizationJob.objects.create(
        organization_id=busy.organization_id, cluster=busy, status="running", requested_by="bob@acme.test",
        phase="Searching for cheaper nodes", progress_percent=40, started_at=now - timedelta(seconds=5),
    )  # fmt: skip


def _outcome(name: str, before: Decimal, after: Decimal, number: int) -> dict[str, object]:
    return {
        "name": name,
        "usd_per_hour_before": str(before),
        "usd_per_hour_after": str(after),
        "lower_bound_usd_per_hour": str(after * Decimal("0.985")),
        "fee_usd_per_hour": "1.2" if "committed" in name else "0",
        "nodes_before": 46,
        "nodes_after": 21 + number,
        "nodes_launched": 14,
        "nodes_removed": 39 - number,
        "spot_nodes_after": 0 if "On-demand" in name else 17,
        "pods_moved": 312,
        "risk": 0.0 if "On-demand" in name else 0.043,
        "refusals": {"local_storage": 1, "budget_exhausted": 2 + number, "pool_size": 5},
    }
