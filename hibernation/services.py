"""Write schedules. Nothing carries them out yet: ``is_active`` stays false and no node is touched."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from accounts.permissions import Role, require_role
from audit.services import Subject, record
from clusters.selectors.registry import cluster_named
from hibernation.domain.schedule import matrix_error, timezone_error
from hibernation.models import HibernationSchedule, always_awake
from spotopt.core.actor import Actor
from spotopt.core.errors import InvalidInput
from spotopt.core.live import announce


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """What to change; None leaves a part as it is."""

    schedule_matrix: Sequence[int] | None = None
    timezone: str | None = None
    prewarm_enabled: bool | None = None
    prewarm_minutes: int | None = None


@transaction.atomic
def save_schedule(*, cluster_id: UUID, change: ScheduleChange, actor: Actor) -> HibernationSchedule:
    """Return the cluster's schedule as changed; raise InvalidInput naming the wrong hour or zone."""
    require_role(actor, Role.MEMBER)
    _refuse_bad(change)
    cluster = cluster_named(cluster_id)
    HibernationSchedule.objects.get_or_create(
        cluster=cluster, defaults={"organization_id": cluster.organization_id}
    )
    rows = HibernationSchedule.objects.select_for_update(of=("self",)).select_related("cluster")
    schedule = rows.get(cluster=cluster)
    before = _facts(schedule)
    for name in before:
        value = getattr(change, name)
        if value is not None:
            setattr(schedule, name, list(value) if name == "schedule_matrix" else value)
    if _facts(schedule) == before:
        return schedule
    schedule.save(update_fields=[*before, "updated_at"])
    announce(organization_id=schedule.organization_id, topic="cluster", cluster_id=str(cluster.pk))
    record(
        actor=actor,
        event="hibernation.schedule.updated",
        sentence=f"Modified the hibernation schedule of {cluster.name}",
        subject=Subject("hibernation", str(schedule.pk), cluster.name),
        account_id=cluster.account_id,
        cluster_id=cluster.pk,
        before=before,
        after=_facts(schedule),
    )
    return schedule


def clear_schedule(*, cluster_id: UUID, actor: Actor) -> HibernationSchedule:
    """Return the schedule with every hour awake again."""
    return save_schedule(
        cluster_id=cluster_id, change=ScheduleChange(schedule_matrix=always_awake()), actor=actor
    )


def _refuse_bad(change: ScheduleChange) -> None:
    errors = {}
    if change.schedule_matrix is not None and (wrong := matrix_error(change.schedule_matrix)):
        errors["schedule_matrix"] = [wrong]
    if change.timezone is not None and (wrong := timezone_error(change.timezone)):
        errors["timezone"] = [wrong]
    if errors:
        raise InvalidInput("The schedule is not valid.", errors=errors)


def _facts(schedule: HibernationSchedule) -> dict[str, object]:
    names = ("schedule_matrix", "timezone", "prewarm_enabled", "prewarm_minutes")
    return {name: getattr(schedule, name) for name in names}
