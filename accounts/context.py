"""What every page's frame needs: who is signed in, where, and which switches are thrown."""

from django.conf import settings
from django.http import HttpRequest

from accounts.models import SystemSetting
from accounts.permissions import Role, has_role, membership_in
from spotopt.core.clock import clock_rate, utcnow


def frame(request: HttpRequest) -> dict[str, object]:
    """Return ``membership``, ``can_write``, ``is_owner``, ``safe_mode``, ``now``, ``clock_rate``."""
    membership = membership_in(request)
    if membership is None:
        return {"membership": None, "now": utcnow()}
    safe_mode = SystemSetting.objects.filter(key="safe_mode").values_list("value", flat=True).first()
    return {
        "membership": membership,
        "can_write": has_role(membership, Role.MEMBER),
        "is_owner": has_role(membership, Role.OWNER),
        "safe_mode": safe_mode if safe_mode in ("on", "freeze") else "",
        "now": utcnow(),
        "clock_rate": clock_rate(),
        "is_simulated": settings.IS_SIMULATED,
    }
