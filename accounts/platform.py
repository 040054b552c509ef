"""Switches of the whole platform; today one: safe mode."""

from typing import Literal, cast

from django.db import DatabaseError, transaction

from accounts.models import SystemSetting
from audit.services import Subject, record
from spotopt.core.actor import Actor
from spotopt.core.errors import Forbidden, InvalidInput
from spotopt.core.tenancy import request_scope

SafeMode = Literal["off", "on", "freeze"]
SAFE_MODES: tuple[SafeMode, ...] = ("off", "on", "freeze")
"""``on`` lets only clean-up and reactions to interruptions pass; ``freeze`` lets nothing pass."""
_KEY = "safe_mode"


def get_safe_mode() -> SafeMode:
    """Return the switch; ``on`` when it cannot be read or makes no sense, ``off`` when nobody ever set it."""
    try:
        value = SystemSetting.objects.filter(key=_KEY).values_list("value", flat=True).first()
    except DatabaseError:
        return "on"
    if value is None:
        return "off"
    return cast(SafeMode, value) if value in SAFE_MODES else "on"


def set_safe_mode(*, actor: Actor, value: str) -> SafeMode:
    """Throw the switch for every organization and return its new position; staff only."""
    if actor.kind not in ("admin", "system"):
        raise Forbidden("Only the platform's staff may change safe mode.")
    if value not in SAFE_MODES:
        raise InvalidInput("Safe mode is off, on or freeze.", errors={"safe_mode": ["off, on or freeze."]})
    with request_scope(), transaction.atomic():  # a platform event belongs to no organization
        before = get_safe_mode()
        SystemSetting.objects.update_or_create(
            key=_KEY, defaults={"value": value, "updated_by_id": actor.id or None}
        )
        if before != value:
            record(
                actor=actor,
                event="accounts.safe_mode.changed",
                sentence=f"Changed safe mode from {before} to {value}",
                subject=Subject("system", _KEY, "Safe mode"),
                before={_KEY: before},
                after={_KEY: value},
            )
    return value
