"""Rows for the browser: an organization with clusters and plans in every state, savings and a record."""

import random
from datetime import datetime, timedelta
from decimal import Decimal

from accounts.models import Account, Membership, Organization, User
from audit.models import AuditLog
from audit.services import Subject, record
from clusters.models import Cluster, DiscoveryRun, Price
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant
from spotopt.tests.e2e.seed_fleet import make_cluster, make_nodes, make_samples, make_workloads
from spotopt.tests.e2e.seed_karpenter import make_node_pools
from spotopt.tests.e2e.seed_plans import past_plans, proposed_plan, running_plan
from spotopt.tests.e2e.seed_policies import make_policy, make_templates, what_ifs

PASSWORD = "Correct-horse-9"


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
            cluster = make_cluster(account, f"fleet-{number:02}", now, env="prod")
            machines = make_nodes(cluster, chance, now, nodes, spot_share=0.4)
            make_workloads(cluster, machines, chance, now, workloads)
            make_samples(cluster, chance, now, hours=24, minutes=5)


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
    shop = make_cluster(account, "shop-production", now, env="prod")
    staging = make_cluster(account, "shop-staging", now, env="staging")
    lost = make_cluster(
        account, "analytics", now, env="prod", heard=timedelta(minutes=42), region="us-east-1"
    )
    new = make_cluster(account, "sandbox", now, env="dev", heard=None, region="us-east-1")
    for cluster, count, spot in ((shop, 46, 0.1), (staging, 18, 0.6), (lost, 24, 0.0), (new, 7, 0.0)):
        machines = make_nodes(cluster, chance, now, count, spot_share=spot, measured=cluster != new)
        if cluster != new:
            make_workloads(cluster, machines, chance, now, 24)
        make_samples(cluster, chance, now, hours=24 * 8, minutes=30)
    proposed_plan(shop, now)
    running_plan(staging, now)
    past_plans(shop, now)
    make_templates(_alice(acme))
    make_node_pools(shop, now)
    make_policy(shop, _alice(acme))
    what_ifs(shop, lost, now)
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
            (
                "iam:PassRole",
                None,
                "Launch replacement nodes",
                "Not checked: AWS has no dry run for this call.",
            ),
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
    run = {
        "regions_total": 17,
        "regions_done": 17,
        "clusters_found": 4,
        "instances_found": 95,
        "new_count": 2,
    }
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


def _alice(acme: Organization) -> Actor:
    return Actor(
        kind="user", organization_id=acme.pk, label="alice@acme.test", id=str(acme.owner_id), role="owner"
    )


def _activity(acme: Organization, account: Account, clusters: tuple[Cluster, ...], now: datetime) -> None:
    shop, staging, lost = clusters
    alice = _alice(acme)
    spotopt = Actor.system(acme.pk)
    agent = Actor(kind="agent", organization_id=acme.pk, label="agent of shop-staging")
    about_account = Subject("account", str(account.pk), account.alias)
    ok = AuditLog.Outcome.SUCCESS
    told = (
        (alice, "account.verified", "Verified the role of Acme production", None, ok, None),
        (spotopt, "scan.finished", "Scanned Acme production: 4 clusters, 95 instances", None, ok, None),
        (spotopt, "plan.proposed", "Proposed a plan for shop-production: 46 to 21 nodes", shop, ok, None),
        (alice, "plan.approved", "Approved the plan for shop-staging", staging, ok, "2.1840"),
        (spotopt, "action.requested", "Asked AWS to launch m6a.4xlarge (spot)", staging, ok, None),
        (spotopt, "action.failed", "AWS had no spot capacity for m6a.4xlarge", staging, "failed", None),
        (agent, "action.succeeded", "Drained ip-10-0-1-0: 12 pods moved", staging, ok, "0.3840"),
        (alice, "policy.changed", "Changed the policy of shop-production", shop, ok, None),
        (alice, "cluster.paused", "You may not pause analytics: this needs an owner", lost, "denied", None),
        (spotopt, "agent.lost", "Lost contact with the agent of analytics", lost, "failed", None),
    )
    for actor, event, sentence, cluster, outcome, usd in told:
        is_policy = event == "policy.changed"
        record(
            actor=actor,
            event=f"policies.{event}",
            sentence=sentence,
            subject=Subject("cluster", str(cluster.pk), cluster.name) if cluster else about_account,
            outcome=outcome,
            cluster_id=cluster.pk if cluster else None,
            before={"spot_percentage": 60, "min_nodes": 3, "mode": "recommend"} if is_policy else None,
            after={"spot_percentage": 80, "min_nodes": 3, "mode": "automatic"} if is_policy else None,
            usd_per_hour=Decimal(usd) if usd else None,
        )
