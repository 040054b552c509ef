"""Rows of plans in every state, with steps, refusals, actions and what was booked for them."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from clusters.domain.interruptions import action_key
from clusters.models import Action, Cluster, ClusterEvent, Interruption, SavingsEntry
from policies.models import OptimizationJob, Plan, PlanStep


def _plan(cluster: Cluster, status: str, now: datetime, *, age: timedelta, **facts: object) -> Plan:
    made = now - age
    before = sum((row.price or Decimal(0) for row in cluster.instances.all()), Decimal(0))
    job = OptimizationJob.objects.create(
        organization=cluster.organization,
        cluster=cluster,
        status="completed",
        requested_by="alice@acme.test",
        created_at=made,
    )
    return Plan.objects.create(
        organization=cluster.organization,
        cluster=cluster,
        job=job,
        policy_version=1,
        status=status,
        quoted_at=made,
        created_at=made,
        usd_per_hour_before=before,
        usd_per_hour_after=before * Decimal("0.46"),
        lower_bound_usd_per_hour=before * Decimal("0.41"),
        spot_replacement_usd_per_hour=before * Decimal("0.32"),
        bin_packing_usd_per_hour=before * Decimal("0.22"),
        risk=0.043,
        nodes_before=46,
        nodes_after=21,
        pods_moved=312,
        document={"waves": [{"launches": [], "removals": []}]},
        refusals=_REFUSALS,
        **facts,
    )


_REFUSALS = [
    {"subject_kind": "workload", "subject": "data/StatefulSet/postgres", "code": "local_storage",
     "reason": "It keeps data on the node's own disk."},
    {"subject_kind": "workload", "subject": "shop/Deployment/payments", "code": "budget_exhausted",
     "reason": "Its disruption budget lets no pod go right now."},
    {"subject_kind": "node", "subject": "ip-10-0-0-7.eu-west-1.compute.internal", "code": "node_too_young",
     "reason": "It is 3 minutes old; nodes are left alone for 5."},
    {"subject_kind": "node", "subject": "ip-10-0-0-9.eu-west-1.compute.internal", "code": "node_too_young",
     "reason": "It is 2 minutes old; nodes are left alone for 5."},
    {"subject_kind": "pool", "subject": "euw1-az2:m6i.large:spot", "code": "risk_too_high",
     "reason": "An interruption within a day is likelier than the policy allows."},
]  # fmt: skip


def _steps(plan: Plan, states: list[str], now: datetime) -> None:
    seq = 0
    for wave in (1, 2):
        steps = [
            ("launch", f"n{wave}", _pool("m6a.4xlarge", "eu-west-1b")),
            ("launch", f"n{wave}b", _pool("r6a.2xlarge", "eu-west-1a")),
        ]
        for node in range(2):
            name = f"ip-10-0-{wave}-{node}.eu-west-1.compute.internal"
            steps += [(kind, name, {"reason": "Its pods fit on cheaper spot nodes."}) for kind in _REMOVAL]
        steps.append(("verify", "cluster", {}))
        for kind, target, params in steps:
            status = states[seq] if seq < len(states) else "planned"
            done = status in ("completed", "failed", "skipped")
            PlanStep.objects.create(
                organization=plan.organization,
                plan=plan,
                seq=seq + 1,
                wave=wave,
                kind=kind,
                target=target,
                params=params,
                usd_per_hour=Decimal("0.2384"),
                status=status,
                started_at=now - timedelta(minutes=5) if status != "planned" else None,
                finished_at=now - timedelta(minutes=4) if done else None,
                note="3 of 12 pods left, one waits for its budget" if status == "running" else "",
            )
            seq += 1


def _pool(instance_type: str, zone: str) -> dict[str, str]:
    return {"instance_type": instance_type, "zone": zone, "capacity_type": "spot"}


_REMOVAL = ("cordon", "drain", "terminate")


def proposed_plan(cluster: Cluster, now: datetime) -> None:
    plan = _plan(cluster, "proposed", now, age=timedelta(minutes=6))
    _steps(plan, [], now)
    least = plan.usd_per_hour_after
    plan.constraint_prices = {
        "status": "done", "at": (now - timedelta(minutes=5)).isoformat(), "tried": 12, "candidates": 12,
        "prices": [
            {"code": code, "subject": "", "words": words, "usd_per_hour_with": str(least),
             "usd_per_hour_without": str(least * Decimal(share))}
            for code, words, share in (
                ("protected_namespace", "Protected namespace kube-system", "0.88"),
                ("spread", "Zone spread of shop/checkout-with-quite-a-long-name", "0.93"),
                ("headroom", "Headroom of 15 % CPU and 10 % memory", "0.95"),
                ("on_demand_only", "On-demand nodes for data/postgres", "0.985"),
            )
        ],
    }  # fmt: skip
    plan.save()


def running_plan(cluster: Cluster, now: datetime) -> None:
    plan = _plan(
        cluster,
        "running",
        now,
        age=timedelta(minutes=14),
        decided_by="alice@acme.test",
        decided_at=now - timedelta(minutes=9),
        started_at=now - timedelta(minutes=9),
    )
    _steps(
        plan, ["completed", "completed", "completed", "completed", "completed", "completed", "running"], now
    )
    for kind, status, message in (
        ("drain_node", "running", ""),
        ("terminate_instance", "succeeded", ""),
        ("cordon_node", "refused", "Two nodes are already draining; the policy allows two."),
        ("launch_node", "failed", "AWS has no spot capacity for m6a.4xlarge in eu-west-1b."),
    ):
        Action.objects.create(
            organization=cluster.organization,
            cluster=cluster,
            kind=kind,
            route="aws" if kind.startswith(("launch", "term")) else "agent",
            target="ip-10-0-1-1.eu-west-1.compute.internal",
            reason="Its pods fit on cheaper spot nodes.",
            requested_by="alice@acme.test",
            plan_id=plan.pk,
            idempotency_key=uuid4().hex,
            status=status,
            expires_at=now + timedelta(minutes=10),
            finished_at=None if status == "running" else now - timedelta(minutes=2),
            error_message=message,
        )
    ClusterEvent.objects.create(
        organization=cluster.organization,
        cluster=cluster,
        event_id="rebalance-1",
        event_type="rebalance_recommendation",
        severity="warning",
        occurred_at=now - timedelta(minutes=30),
    )
    _interruptions(cluster, now)
    _book(cluster, plan, now)


def _interruptions(cluster: Cluster, now: datetime) -> None:
    """One notice in each state, with what was done about the one that is under way."""
    nodes = cluster.instances.filter(lifecycle="spot", state="running").order_by("node_name")[:5]
    told = (
        ("interruption", "open", 1, ""),
        ("interruption", "taken", 45, ""),
        ("rebalance", "moved", 120, ""),
        ("rebalance", "watched", 150, "The policy leaves nodes alone until AWS takes them."),
        ("interruption", "false_alarm", 400, ""),
    )
    for node, (kind, status, minutes, note) in zip(nodes, told, strict=False):
        at = now - timedelta(minutes=minutes)
        row = Interruption.objects.create(
            organization=cluster.organization, cluster=cluster, instance=node, kind=kind, status=status,
            source="agent", region=node.region, zone_id=node.az_id, instance_type=node.instance_type,
            noticed_at=at, deadline=at + timedelta(minutes=2), pods_at_notice=11, note=note,
            is_verified=status == "taken",
        )  # fmt: skip
        for step in ("cordon_node", "drain_node") if status in ("open", "taken") else ():
            is_over = step == "cordon_node" or status == "taken"
            Action.objects.create(
                organization=cluster.organization, cluster=cluster, kind=step, route="agent",
                target=node.node_name, reason="AWS takes the node back in two minutes.",
                requested_by="Spotopt", idempotency_key=action_key(row.pk, at, step), is_voluntary=False,
                status="succeeded" if is_over else "running", expires_at=now + timedelta(minutes=10),
                finished_at=at + timedelta(seconds=2) if is_over else None,
            )  # fmt: skip


def past_plans(cluster: Cluster, now: datetime) -> None:
    _plan(cluster, "superseded", now, age=timedelta(days=1))
    done = _plan(
        cluster,
        "completed",
        now,
        age=timedelta(days=3),
        decided_by="alice@acme.test",
        decided_at=now - timedelta(days=3),
        started_at=now - timedelta(days=3),
        finished_at=now - timedelta(days=3) + timedelta(minutes=20),
    )
    _steps(done, ["completed"] * 6 + ["skipped"] * 2 + ["completed"] * 10, now)
    _plan(
        cluster,
        "rejected",
        now,
        age=timedelta(days=2),
        decided_by="bob@acme.test",
        decided_at=now - timedelta(days=2),
        stop_reason="Freeze before the sale.",
    )


def _book(cluster: Cluster, plan: Plan, now: datetime) -> None:
    """Book twelve days of two removed nodes and one launched one."""
    top = now.replace(minute=0, second=0, microsecond=0)
    nodes = list(cluster.instances.all()[:3])
    kinds = (("removed", Decimal("0.384")), ("removed", Decimal("0.68")), ("added", Decimal("-0.238")))
    hours = [top - timedelta(hours=back) for back in range(12 * 24)]
    SavingsEntry.objects.bulk_create(
        SavingsEntry(
            organization=cluster.organization,
            cluster=cluster,
            plan_id=plan.pk,
            instance=node,
            kind=kind,
            hour=hour,
            booked_from=hour,
            booked_until=min(now, hour + timedelta(hours=1)),
            usd_per_hour=abs(usd),
            usd=usd * Decimal(100 + 5 * (hour.hour % 7)) / 100,
            formula="recorded price × measured hours",
        )
        for hour in hours
        for node, (kind, usd) in zip(nodes, kinds, strict=True)
    )
