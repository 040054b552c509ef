"""What people change about a cluster by hand: labels, budget, pause, and its place in the list."""

from collections.abc import Mapping
from uuid import UUID

from django.db import transaction

from accounts.permissions import Role, require_role
from audit.services import Subject, record
from clusters.domain.actions import OPEN
from clusters.models import Cluster
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, Gone, InvalidInput, NotFound
from spotopt.core.live import announce

EDITABLE = ("environment", "tags", "monthly_budget")
_BUSY_JOBS = ("queued", "running")
_BUSY_PLANS = ("approved", "running", "stopping")


@transaction.atomic
def update_cluster(*, cluster_id: UUID, changes: Mapping[str, object], actor: Actor) -> Cluster:
    """Return the cluster with its environment, tags or budget changed."""
    require_role(actor, Role.MEMBER)
    cluster = _locked(cluster_id)
    changed = {name: changes[name] for name in EDITABLE if name in changes}
    changed = {name: value for name, value in changed.items() if getattr(cluster, name) != value}
    if not changed:
        return cluster
    before = {name: _plain(getattr(cluster, name)) for name in changed}
    for name, value in changed.items():
        setattr(cluster, name, value)
    cluster.save(update_fields=[*changed, "updated_at"])
    after = {name: _plain(value) for name, value in changed.items()}
    _tell(
        actor,
        cluster,
        "updated",
        f"Changed {', '.join(changed)} of {cluster.name}",
        before=before,
        after=after,
    )
    return cluster


@transaction.atomic
def set_maintenance(
    *, cluster_id: UUID, is_paused: bool, actor: Actor, reason: str = "", typed_name: str | None = None
) -> Cluster:
    """Pause or resume the cluster; while paused no voluntary act touches it, alerts go on.

    Raises InvalidInput when a name was typed to confirm it and is not the cluster's.
    """
    require_role(actor, Role.MEMBER)
    cluster = _locked(cluster_id)
    if typed_name is not None and typed_name != cluster.name:
        verb = "pause" if is_paused else "resume"
        problem = {"name": [f"must be exactly {cluster.name}."]}
        raise InvalidInput(f"Type {cluster.name} to {verb} it.", errors=problem)
    reason = reason if is_paused else ""
    if (cluster.maintenance_mode, cluster.maintenance_reason) == (is_paused, reason):
        return cluster
    before = {"maintenance_mode": cluster.maintenance_mode, "maintenance_reason": cluster.maintenance_reason}
    cluster.maintenance_mode, cluster.maintenance_reason = is_paused, reason
    cluster.save(update_fields=["maintenance_mode", "maintenance_reason", "updated_at"])
    verb, sentence = ("paused", "Paused") if is_paused else ("resumed", "Resumed")
    after = {"maintenance_mode": is_paused, "maintenance_reason": reason}
    _tell(actor, cluster, verb, f"{sentence} {cluster.name}", before=before, after=after)
    return cluster


@transaction.atomic
def remove_cluster(*, cluster_id: UUID, typed_name: str, actor: Actor) -> Cluster:
    """Take the cluster out of sight, history kept; owners only, by its typed name, when nothing runs."""
    require_role(actor, Role.OWNER)
    cluster = _locked(cluster_id)
    if typed_name != cluster.name:
        raise InvalidInput(
            f"Type {cluster.name} to remove it.", errors={"name": [f"must be exactly {cluster.name}."]}
        )
    if _is_busy(cluster):
        raise Conflict(
            "Work is under way on this cluster. Stop its plan and wait for its actions to end.", code="busy"
        )
    cluster.removed_at, cluster.status = utcnow(), Cluster.Status.INACTIVE
    cluster.save(update_fields=["removed_at", "status", "updated_at"])
    _tell(actor, cluster, "removed", f"Removed {cluster.name}", before={"name": cluster.name})
    return cluster


def _is_busy(cluster: Cluster) -> bool:
    """Tell whether actions, runs or plans are open; the last two belong to an app above and are only read."""
    rows = Cluster.objects.filter(pk=cluster.pk)
    return (
        rows.filter(actions__status__in=OPEN).exists()
        or rows.filter(optimization_jobs__status__in=_BUSY_JOBS).exists()
        or rows.filter(plans__status__in=_BUSY_PLANS).exists()
    )


def _locked(cluster_id: UUID) -> Cluster:
    cluster = Cluster.objects.select_for_update(of=("self",)).filter(pk=cluster_id).first()
    if cluster is None:
        raise NotFound("There is no such cluster.")
    if cluster.removed_at is not None:
        raise Gone("This cluster was removed.")
    return cluster


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, str | dict | bool) else str(value)


def _tell(
    actor: Actor,
    cluster: Cluster,
    verb: str,
    sentence: str,
    *,
    before: Mapping[str, object],
    after: Mapping[str, object] | None = None,
) -> None:
    announce(organization_id=cluster.organization_id, topic="cluster", cluster_id=str(cluster.pk))
    record(
        actor=actor,
        event=f"clusters.cluster.{verb}",
        sentence=sentence,
        subject=Subject("cluster", str(cluster.pk), cluster.name),
        account_id=cluster.account_id,
        cluster_id=cluster.pk,
        before=before,
        after=after,
    )
