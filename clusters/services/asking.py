"""How an executor asks AWS: only while it holds the action, and what it asks is written down before."""

from dataclasses import dataclass, field
from decimal import Decimal

from django.db.models import QuerySet

from clusters.aws.errors import AwsError
from clusters.domain.actions import lease
from clusters.models import Action
from spotopt.core.clock import utcnow


class NotVisibleYet(AwsError):
    """AWS made something and does not show it yet."""

    default_code = "not_visible_yet"


class Overtaken(Exception):
    """Another worker holds the action by now."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an executor did."""

    is_success: bool
    result: dict[str, object] = field(default_factory=dict)
    error_code: str = ""
    error_message: str = ""
    usd_per_hour: Decimal | None = None
    is_refused: bool = False
    """The safety floor forbade it after the claim, before AWS was asked to change anything."""


def ask(action: Action, **asked: object) -> None:
    """Renew the lease, for one call of AWS, and note what it will be asked for; raise when overtaken."""
    action.asked = {**action.asked, **asked}
    lease_until = utcnow() + lease(action.kind)
    if not held(action).update(lease_until=lease_until, asked=action.asked):
        raise Overtaken


def held(action: Action) -> QuerySet[Action]:
    """Return the action's row while this worker holds it, else nothing."""
    return Action.objects.filter(pk=action.pk, status=Action.Status.RUNNING, claimed_by=action.claimed_by)
