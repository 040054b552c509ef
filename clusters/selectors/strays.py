"""Machines that carry our tags although no launch of ours is on record as done."""

from datetime import timedelta

from django.db.models import Exists, F, OuterRef, Q, QuerySet

from clusters.domain.actions import ACTUATION_PATIENCE
from clusters.models import Action, Instance
from clusters.selectors.guard import ALIVE
from spotopt.core.clock import utcnow

SETTLING = timedelta(minutes=10)


def strays() -> QuerySet[Instance]:
    """Return living instances with the tag of an action that is unknown, or over without success.

    Those whose launch succeeded count too, when the agent still knew no node of theirs ten minutes later. One
    that is younger, or whose launch is still being tried, is none.
    """
    now = utcnow()
    launch = Action.objects.filter(pk=OuterRef("launch_action_id"))
    done = launch.filter(status=Action.Status.SUCCEEDED)
    never_joined = Q(node_name="", cluster__snapshot_at__gt=F("launched_at") + SETTLING)
    waiting = launch.filter(status=Action.Status.PENDING)
    trying = launch.filter(status=Action.Status.RUNNING, expires_at__gt=now - ACTUATION_PATIENCE)
    return Instance.objects.filter(
        ~Exists(done) | never_joined,
        ~Exists(waiting),
        ~Exists(trying),
        launch_action_id__isnull=False,
        state__in=ALIVE,
        launched_at__lt=now - SETTLING,
    ).order_by("launched_at")
