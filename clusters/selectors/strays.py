"""Machines that carry our tags although no launch of ours is on record as done."""

from datetime import timedelta

from django.db.models import Exists, OuterRef, QuerySet

from clusters.domain.actions import ACTUATION_PATIENCE
from clusters.models import Action, Instance
from clusters.selectors.guard import ALIVE
from spotopt.core.clock import utcnow

SETTLING = timedelta(minutes=10)


def strays() -> QuerySet[Instance]:
    """Return living instances with the tag of an action that is unknown, or over without success.

    One that is younger than ten minutes, or whose launch is still being tried, is none.
    """
    now = utcnow()
    launch = Action.objects.filter(pk=OuterRef("launch_action_id"))
    done = launch.filter(status__in=[Action.Status.SUCCEEDED, Action.Status.PENDING])
    trying = launch.filter(status=Action.Status.RUNNING, expires_at__gt=now - ACTUATION_PATIENCE)
    return Instance.objects.filter(
        ~Exists(done),
        ~Exists(trying),
        launch_action_id__isnull=False,
        state__in=ALIVE,
        launched_at__lt=now - SETTLING,
    ).order_by("launched_at")
