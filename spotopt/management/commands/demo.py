"""`manage.py demo`: an organization that has linked the simulated account and connected its clusters."""

import json
import os
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts.domain import roles, trust_policy
from accounts.models import Account, Membership, User
from accounts.services import linking, people
from agentapi.services import keys
from clusters.models import Cluster, DiscoveryRun
from clusters.services import scanning
from clusters.services.linking import verify_account
from policies.models import Plan
from simulator.customer import create_stack
from spotopt.core.actor import Actor
from spotopt.core.tenancy import tenant

EMAIL = "demo@spotopt.example"
CUSTOMER_ACCOUNT = "111122223333"
"""The account that the simulator's fleets live in."""
PATIENCE_SECONDS = 90


class Command(BaseCommand):
    """Does, once, what a new customer does: sign up, link, verify, scan, connect."""

    help = "Create the demonstration organization against a running simulator."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Name the options."""
        parser.add_argument("--agents", type=Path, help="write the settings of the clusters' agents here")
        parser.add_argument("--kube-port", help="port of the simulated Kubernetes")
        parser.add_argument(
            "--wait-for-plans", action="store_true", help="return when every cluster has a plan"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Create whatever is not there yet."""
        if not settings.IS_SIMULATED:
            raise CommandError("The demonstration needs the simulator: start `manage.py up`.")
        actor = _owner()
        with tenant(roles.organization_of(actor)):
            if options["wait_for_plans"]:
                _wait_for_plans()
                return
            _scan(_linked_account(actor), actor)
            for cluster in Cluster.objects.filter(removed_at__isnull=True):
                _connect(cluster, actor, options["agents"], options["kube_port"])


def _owner() -> Actor:
    user = User.objects.filter(email=EMAIL).first()
    if user is None:
        password = os.environ["DEMO_PASSWORD"]
        user = people.sign_up(email=EMAIL, password=password, organization_name="Acme Shop", name="Demo").user
    membership = Membership.objects.get(user=user)
    return Actor(
        kind="user",
        organization_id=membership.organization_id,
        label=user.email,
        id=str(user.pk),
        role=membership.role,
    )


def _linked_account(actor: Actor) -> Account:
    known = Account.objects.filter(aws_account_id=CUSTOMER_ACCOUNT).exclude(status=Account.Status.PENDING)
    account = known.first()
    if account is not None:
        return account
    link = linking.start_link(
        actor=actor,
        aws_account_id=CUSTOMER_ACCOUNT,
        alias="Acme main",
        region="us-east-1",
        permission_mode=Account.PermissionMode.FULL_ACCESS,
    )
    role_arn = create_stack(
        account_id=CUSTOMER_ACCOUNT,
        template=trust_policy.render(
            mode=Account.PermissionMode.FULL_ACCESS, platform_account_id=settings.PLATFORM_AWS_ACCOUNT_ID
        ).body,
        external_id=link.external_id,
    )
    verify_account(account_id=link.account.pk, role_arn=role_arn, actor=actor)
    return link.account


def _scan(account: Account, actor: Actor) -> None:
    """Wait for the first scan, which the verification has queued."""
    finished = DiscoveryRun.objects.filter(account=account, finished_at__isnull=False)
    if finished.exists():
        return
    scanning.request_scan(account_id=account.pk, actor=actor, trigger=DiscoveryRun.Trigger.INITIAL)
    _wait_until(finished.exists, "the first scan")
    if not Cluster.objects.exists():
        raise CommandError("The scan found no cluster; see the worker's log.")


def _connect(cluster: Cluster, actor: Actor, directory: Path, kube_port: str) -> None:
    """Write the settings of the cluster's agent, with a one-use key."""
    path = directory / f"{cluster.name}.json"
    if path.exists():
        return
    address = f"http://127.0.0.1:{kube_port}/control/clusters/{cluster.name}/credentials"
    with urlopen(address, timeout=10) as answer:  # the simulator on this machine
        kubernetes = json.load(answer)
    issued = keys.issue_bootstrap_key(cluster=cluster, actor=actor)
    env = {
        "SPOTOPT_API_URL": settings.AGENT_API_URL,
        "SPOTOPT_CLUSTER_ID": str(cluster.pk),
        "SPOTOPT_API_TOKEN": issued.token,
        "SPOTOPT_KUBE_SERVER": kubernetes["server"],
        "SPOTOPT_KUBE_TOKEN": kubernetes["token"],
        "SPOTOPT_AGENT_STATE": str(directory / cluster.name),
    }
    directory.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({"env": env}))


def _wait_for_plans() -> None:
    clusters = Cluster.objects.filter(removed_at__isnull=True)
    _wait_until(
        lambda: Plan.objects.values("cluster").distinct().count() >= clusters.count(),
        "a plan for each cluster",
    )


def _wait_until(is_done: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            raise CommandError(f"Waited {PATIENCE_SECONDS} s for {what}; see the worker's log.")
        time.sleep(0.2)
