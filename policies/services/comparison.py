"""Compute what-ifs in a worker: one cluster under several scenarios; nothing in it changes."""

from collections.abc import Sequence
from uuid import UUID

from django.db import IntegrityError, transaction

from accounts.domain import roles
from audit.services import Subject, record
from clusters.models import Cluster
from policies.domain.watch import part_of
from policies.domain.whatif import outcome_as_json, outcome_of
from policies.models import UNFINISHED, WhatIf
from policies.selectors.snapshot import cluster_snapshot
from policies.services import jobs
from policies.services.planning import pools_for
from policies.services.scenarios import (
    ScenarioDraft,
    draft_as_json,
    draft_from_json,
    scenario_of,
    with_names,
)
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, NotFound, SpotOptError
from spotopt.core.queue import enqueue


@transaction.atomic
def request_what_if(*, cluster_id: UUID, drafts: Sequence[ScenarioDraft], actor: Actor) -> WhatIf:
    """Queue the comparison of a cluster as it is with the drafts.

    Raises InvalidInput or NotFound for a draft that cannot be computed, Conflict while another comparison of
    the cluster is under way and before its agent has reported.
    """
    roles.require_role(actor, roles.MEMBER)
    cluster = Cluster.objects.filter(pk=cluster_id, removed_at__isnull=True).first()
    if cluster is None:
        raise NotFound("There is no such cluster.")
    if cluster.snapshot_at is None:
        raise Conflict("The agent has not reported yet; connect it first.", code="agent_missing")
    scenarios = [draft_as_json(draft) for draft in with_names(cluster, drafts)]
    what_if = _queued(cluster, scenarios, actor)
    jobs.tell(what_if)
    enqueue("policies.run_what_if", organization_id=cluster.organization_id, what_if_id=what_if.pk)
    record(
        actor=actor,
        event="policies.what_if.requested",
        sentence=f"Asked what {cluster.name} would cost under {len(drafts)} other scenarios",
        subject=Subject("cluster", str(cluster.pk), cluster.name),
        cluster_id=cluster.pk,
        account_id=cluster.account_id,
        after={"scenarios": [scenario["name"] for scenario in scenarios[1:]]},
    )
    return what_if


def _queued(cluster: Cluster, scenarios: list[dict[str, object]], actor: Actor) -> WhatIf:
    try:
        with transaction.atomic():
            return WhatIf.objects.create(
                organization_id=cluster.organization_id,
                cluster=cluster,
                scenarios=scenarios,
                requested_by=actor.label,
                phase=jobs.WAITING,
            )
    except IntegrityError:
        running = WhatIf.objects.filter(cluster=cluster, status__in=UNFINISHED).first()
        raise Conflict(
            "A what-if of this cluster is under way already.",
            what_if_id=str(running.pk) if running else None,
        ) from None


def run_what_if(*, what_if_id: UUID) -> bool:
    """Compute one queued what-if, keeping each outcome as it is found; tell whether it came to its end."""
    what_if = jobs.claim(WhatIf, what_if_id, phase="Reading the cluster")
    if what_if is None:
        return False
    try:
        _compute(what_if)
    except jobs.Cancelled:
        return False
    except SpotOptError as error:
        jobs.fail(what_if, error.detail)
        return False
    return True


def _compute(what_if: WhatIf) -> None:
    watch, now = jobs.watch_of(what_if), utcnow()
    snapshot = cluster_snapshot(what_if.cluster_id)
    pools = pools_for(snapshot, watch)
    what_if.quoted_at, what_if.snapshot_at = now, snapshot.taken_at
    what_if.save(update_fields=["quoted_at", "snapshot_at", "updated_at"])
    total = len(what_if.scenarios)
    for number, row in enumerate(what_if.scenarios):
        part = part_of(watch, number / total, (number + 1) / total, f"{number + 1} of {total}: ")
        scenario = scenario_of(what_if.cluster, draft_from_json(row))
        found = outcome_of(snapshot=snapshot, offers=pools, scenario=scenario, now=now, watch=part)
        what_if.outcomes.append(outcome_as_json(found))
        what_if.save(update_fields=["outcomes", "updated_at"])
    jobs.complete(what_if)
