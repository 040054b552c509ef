"""Rows for the browser: an organization with clusters in every state, plans, actions, savings and a record."""

import random
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from accounts.models import Account, Membership, Organization, User
from audit.services import Subject, record
from clusters.models import (
    Action,
    Cluster,
    ClusterEvent,
    ClusterSample,
    DiscoveryRun,
    Instance,
    NodeGroup,
    Placement,
    Price,
    SavingsEntry,
    Workload,
)
from policies.models import OptimizationJob, Plan, PlanStep
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant

PASSWORD = "Correct-horse-9"
TYPES = {
    "m5.2xlarge": (7_910, 30_000, "0.384"),
    "m5.xlarge": (3_920, 14_600, "0.192"),
    "c5.4xlarge": (15_890, 29_000, "0.68"),
    "r5.2xlarge": (7_910, 62_000, "0.504"),
    "m6i.large": (1_930, 7_100, "0.096"),
    "c6a.2xlarge": (7_910, 14_600, "0.306"),
    "t3.xlarge": (3_920, 14_600, "0.1664"),
    "i3.xlarge": (3_920, 29_000, "0.312"),
}
NAMES = ("checkout", "search", "payments", "catalog", "gateway", "ledger", "mailer", "ranking", "sessions", "web")


def seed() -> None:
    """Fill an empty database: Acme with everything, Empty with nothing."""
    chance = random.Random(7)
    acme = _organization("Acme", "alice@acme.test")
    for email, role in (("bob@acme.test", "member"), ("vera@acme.test", "viewer")):
        user = User.objects.create_user(email, PASSWORD, name=email.partition("@")[0].title())
        Membership.objects.create(user=user, organization=acme, role=role)
    _organization("Empty", "new@empty.test")
    _organization("Rival", "mallory@rival.test")
    with tenant(acme.pk):
        _fill(acme, chance)


def seed_large(*, clusters: int = 50, nodes: int = 100, workloads: int = 40) -> None:
    """Fill Acme with a fleet large enough to measure pages on: nodes and workloads are for each cluster."""
    chance = random.Random(11)
    now = utcnow()
    acme = Organization.objects.get(slug="acme")
    with tenant(acme.pk):
        account = Account.objects.get(status=Account.Status.ACTIVE)
        for number in range(clusters):
            cluster = _cluster(account, f"fleet-{number:02}", now, env="prod")
            machines = _nodes(cluster, chance, now, nodes, spot_share=0.4)
            _workloads(cluster, machines, chance, now, workloads)
            _samples(cluster, chance, now, hours=24, minutes=5)


def _organization(name: str, email: str) -> Organization:
    owner = User.objects.create_user(email, PASSWORD, name=email.partition("@")[0].title())
    organization = Organization.objects.create(name=name, slug=name.lower(), owner=owner)
    Membership.objects.create(user=owner, organization=organization, role=Membership.Role.OWNER)
    with tenant(organization.pk):
        Account.objects.create(organization=organization, alias="First AWS account", is_default=True)
    return organization


def _fill(acme: Organization, chance: random.Random) -> None:
    now = utcnow()
    Price.objects.create(
        region="eu-west-1",
        instance_type="m5.large",
        capacity_type="on_demand",
        usd_per_hour=Decimal("0.107"),
        observed_at=now - timedelta(minutes=4),
        source="aws",
    )
    account = _account(acme, now)
    shop = _cluster(account, "shop-production", now, env="prod")
    staging = _cluster(account, "shop-staging", now, env="staging")
    lost = _cluster(account, "analytics", now, env="prod", heard=timedelta(minutes=42), region="us-east-1")
    new = _cluster(account, "sandbox", now, env="dev", heard=None, region="us-east-1")
    for cluster, count, spot in ((shop, 46, 0.1), (staging, 18, 0.6), (lost, 24, 0.0), (new, 7, 0.0)):
        machines = _nodes(cluster, chance, now, count, spot_share=spot, measured=cluster != new)
        if cluster != new:
            _workloads(cluster, machines, chance, now, 24)
        _samples(cluster, chance, now, hours=24 * 8, minutes=30)
    _proposed(shop, now)
    _running(staging, now)
    _over(shop, now)
    _activity(acme, account, (shop, staging, lost), now)


def _account(acme: Organization, now: datetime) -> Account:
    account = Account.objects.get(is_default=True)
    account.alias, account.aws_account_id, account.status = "Acme production", "123456789012", "active"
    account.primary_region, account.role_arn = "eu-west-1", "arn:aws:iam::123456789012:role/SpotOptimizerRole"
    account.last_verified_at, account.last_scan_at = now - timedelta(hours=3), now - timedelta(minutes=2)
    account.permissions = [
        {"action": action, "granted": granted, "needed_for": purpose, "note": note}
        for action, granted, purpose, note in (
            ("ec2:DescribeInstances", True, "Find clusters, nodes and node groups", ""),
            ("eks:ListClusters", True, "Find clusters, nodes and node groups", ""),
            ("ec2:DescribeSpotPriceHistory", True, "Read current spot prices", ""),
            ("ec2:CreateFleet", True, "Launch replacement nodes", ""),
            ("iam:PassRole", None, "Launch replacement nodes", "Not checked: AWS has no dry run for this call."),
            ("ec2:TerminateInstances", False, "Terminate drained nodes", ""),
        )
    ]
    account.save()
    Account.objects.create(
        organization=acme,
        alias="Acme data",
        aws_account_id="210987654321",
        status="error",
        last_error_code="external_id_mismatch",
        last_error_message="The role no longer accepts our external id.",
    )
    Account.objects.create(organization=acme, alias="Acme labs", aws_account_id="333322221111")
    run = {"regions_total": 17, "regions_done": 17, "clusters_found": 4, "instances_found": 95, "new_count": 2}
    DiscoveryRun.objects.create(
        organization=acme,
        account=account,
        trigger="schedule",
        status="partial",
        progress=100,
        errors={"me-south-1": "The region is disabled in this account."},
        started_at=now - timedelta(minutes=3),
        finished_at=now - timedelta(minutes=2),
        **run,
    )
    return account


def _cluster(
    account: Account,
    name: str,
    now: datetime,
    *,
    env: str,
    heard: timedelta | None = timedelta(seconds=12),
    region: str = "eu-west-1",
) -> Cluster:
    seen = now - heard if heard is not None else None
    return Cluster.objects.create(
        organization=account.organization,
        account=account,
        name=name,
        region=region,
        arn=f"arn:aws:eks:{region}:123456789012:cluster/{name}",
        k8s_version="1.31",
        environment=env,
        status="active" if seen else "discovered",
        agent_installed=seen is not None,
        agent_version="1.0.0" if seen else "",
        last_heartbeat_at=seen,
        snapshot_at=seen,
        last_synced_at=now - timedelta(minutes=2),
    )


def _nodes(
    cluster: Cluster,
    chance: random.Random,
    now: datetime,
    count: int,
    *,
    spot_share: float,
    measured: bool = True,
) -> list[Instance]:
    group = NodeGroup.objects.create(
        organization=cluster.organization,
        cluster=cluster,
        name="general",
        kind="managed_nodegroup",
        min_size=3,
        desired_capacity=count,
        max_size=count * 2,
    )
    rows = [
        _node(cluster, group, chance, now, number, spot_share, measured=measured) for number in range(count)
    ]
    return Instance.objects.bulk_create(rows)


def _node(
    cluster: Cluster,
    group: NodeGroup,
    chance: random.Random,
    now: datetime,
    number: int,
    spot_share: float,
    *,
    measured: bool,
) -> Instance:
    kind = chance.choices(list(TYPES), weights=[8, 6, 3, 3, 4, 3, 2, 1])[0]
    cpu, memory, price = TYPES[kind]
    is_spot = chance.random() < spot_share
    load = chance.uniform(0.1, 0.75)
    facts: dict[str, object] = {}
    if measured:
        facts = {
            "node_name": f"ip-10-0-{number // 200}-{number % 200}.{cluster.region}.compute.internal",
            "is_ready": chance.random() > 0.03,
            "is_cordoned": chance.random() < 0.02,
            "cpu_requested_millis": int(cpu * load),
            "memory_requested_mib": int(memory * load * 0.9),
            "cpu_util": 100 * load * chance.uniform(0.3, 0.9),
            "memory_util": 100 * load * chance.uniform(0.5, 1.0),
            "pod_count": chance.randint(4, 28),
            "node_seen_at": now,
        }
    return Instance(
        organization_id=cluster.organization_id,
        account_id=cluster.account_id,
        cluster=cluster,
        node_group=group,
        instance_id=f"i-{uuid4().hex[:17]}",
        instance_type=kind,
        lifecycle="spot" if is_spot else "on_demand",
        region=cluster.region,
        az=f"{cluster.region}{chance.choice('abc')}",
        state="running",
        price=Decimal(price) * (Decimal("0.35") if is_spot else 1),
        price_is_estimate=chance.random() < 0.02,
        launched_at=now - timedelta(hours=chance.randint(1, 700)),
        last_seen_at=now - timedelta(minutes=2),
        cpu_allocatable_millis=cpu,
        memory_allocatable_mib=memory,
        **facts,
    )


def _workloads(
    cluster: Cluster, nodes: list[Instance], chance: random.Random, now: datetime, count: int
) -> None:
    rows, placements = [], []
    for number in range(count):
        namespace, name = chance.choice(("shop", "data", "platform")), f"{NAMES[number % 10]}-{number // 10}"
        row = Workload(
            organization_id=cluster.organization_id,
            cluster=cluster,
            key=f"{namespace}/Deployment/{name}",
            namespace=namespace,
            kind="Deployment",
            name=name,
            cpu_request_millis=chance.choice((100, 250, 500, 1000)),
            memory_request_mib=chance.choice((256, 512, 1024, 2048)),
            cpu_used_millis=chance.randint(20, 200),
            memory_used_mib=chance.randint(80, 400),
            budget_count=1,
            budget_allows=chance.choice((None, 0, 1, 2)),
            reported_at=now,
        )
        homes = chance.sample(nodes, k=min(len(nodes), chance.randint(1, 14)))
        counts = [chance.randint(1, 4) for _ in homes]
        row.replicas = row.ready_replicas = sum(counts)
        rows.append(row)
        placements += [
            Placement(organization_id=cluster.organization_id, workload=row, instance=home, count=size)
            for home, size in zip(homes, counts, strict=True)
        ]
    rows[0].pending_replicas, rows[0].replicas = 2, rows[0].replicas + 2
    Workload.objects.bulk_create(rows)
    Placement.objects.bulk_create(placements)
    cluster.pod_count, cluster.pending_pods = sum(row.ready_replicas for row in rows), 2
    cluster.save()


def _samples(cluster: Cluster, chance: random.Random, now: datetime, *, hours: int, minutes: int) -> None:
    usd = sum((row.price or Decimal(0) for row in cluster.instances.all()), Decimal(0))
    nodes = cluster.instances.count()
    steps = hours * 60 // minutes
    ClusterSample.objects.bulk_create(
        ClusterSample(
            organization_id=cluster.organization_id,
            cluster=cluster,
            taken_at=now - timedelta(minutes=minutes * (steps - step)),
            usd_per_hour=usd * Decimal(str(round(1.3 - 0.3 * step / steps + chance.uniform(-0.02, 0.02), 4))),
            nodes=nodes,
            spot_nodes=0,
            pods=cluster.pod_count,
            pending_pods=0,
        )
        for step in range(steps)
    )


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
            ("launch", f"n{wave}", {"instance_type": "m6a.4xlarge", "zone": "eu-west-1b", "capacity_type": "spot"}),
            ("launch", f"n{wave}b", {"instance_type": "r6a.2xlarge", "zone": "eu-west-1a", "capacity_type": "spot"}),
        ]  # fmt: skip
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


_REMOVAL = ("cordon", "drain", "terminate")


def _proposed(cluster: Cluster, now: datetime) -> None:
    _steps(_plan(cluster, "proposed", now, age=timedelta(minutes=6)), [], now)


def _running(cluster: Cluster, now: datetime) -> None:
    plan = _plan(
        cluster,
        "running",
        now,
        age=timedelta(minutes=14),
        decided_by="alice@acme.test",
        decided_at=now - timedelta(minutes=9),
        started_at=now - timedelta(minutes=9),
    )
    _steps(plan, ["completed", "completed", "completed", "completed", "completed", "completed", "running"], now)
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
    _book(cluster, plan, now)


def _over(cluster: Cluster, now: datetime) -> None:
    _plan(cluster, "superseded", now, age=timedelta(days=1))
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
    for hours in range(12 * 24):
        start = top - timedelta(hours=hours)
        for node, kind, usd in zip(nodes, ("removed", "removed", "added"), ("0.384", "0.68", "-0.238"), strict=True):
            SavingsEntry.objects.create(
                organization=cluster.organization,
                cluster=cluster,
                plan_id=plan.pk,
                instance=node,
                kind=kind,
                hour=start,
                booked_from=start,
                booked_until=min(now, start + timedelta(hours=1)),
                usd_per_hour=abs(Decimal(usd)),
                usd=Decimal(usd) * Decimal(str(round(1 + hours % 7 / 20, 2))),
                formula="recorded price × measured hours",
            )


def _activity(acme: Organization, account: Account, clusters: tuple[Cluster, ...], now: datetime) -> None:
    shop, staging, lost = clusters
    alice = Actor(kind="user", organization_id=acme.pk, label="alice@acme.test", id=str(acme.owner_id), role="owner")
    spotopt = Actor.system(acme.pk)
    agent = Actor(kind="agent", organization_id=acme.pk, label="agent of shop-staging")
    told = (
        (alice, "accounts.account.verified", "Verified the role of Acme production", account, None, "success", None),
        (spotopt, "clusters.scan.finished", "Scanned Acme production: 4 clusters, 95 instances", account, None, "success", None),
        (spotopt, "policies.plan.proposed", "Proposed a plan for shop-production: 46 to 21 nodes", shop, shop, "success", None),
        (alice, "policies.plan.approved", "Approved the plan for shop-staging", staging, staging, "success", "2.1840"),
        (spotopt, "clusters.action.requested", "Asked AWS to launch m6a.4xlarge (spot) in eu-west-1b", staging, staging, "success", None),
        (spotopt, "clusters.action.failed", "AWS had no spot capacity for m6a.4xlarge in eu-west-1b", staging, staging, "failed", None),
        (agent, "clusters.action.succeeded", "Drained ip-10-0-1-0.eu-west-1.compute.internal: 12 pods moved", staging, staging, "success", "0.3840"),
        (alice, "policies.policy.changed", "Changed the policy of shop-production", shop, shop, "success", None),
        (alice, "clusters.cluster.paused", "You may not pause analytics: this needs the role owner", lost, lost, "denied", None),
        (spotopt, "agentapi.agent.lost", "Lost contact with the agent of analytics", lost, lost, "failed", None),
    )  # fmt: skip
    for actor, event, sentence, about, cluster, outcome, usd in told:
        is_policy = event.endswith("policy.changed")
        record(
            actor=actor,
            event=event,
            sentence=sentence,
            subject=Subject("account" if about is account else "cluster", str(about.pk), str(about)),
            outcome=outcome,
            cluster_id=cluster.pk if cluster else None,
            before={"spot_percentage": 60, "min_nodes": 3, "mode": "recommend"} if is_policy else None,
            after={"spot_percentage": 80, "min_nodes": 3, "mode": "automatic"} if is_policy else None,
            usd_per_hour=Decimal(usd) if usd else None,
        )
