"""How a running plan moves on: what an action's end means for its step, and when a plan must stop."""

from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

MAX_ATTEMPTS = 3
READY_TIMEOUT = timedelta(minutes=5)
"""A launched node that is not Ready by then is given up (flows.md, X2)."""
SETTLE_TIMEOUT = timedelta(minutes=10)
"""How long pods may be pending after a wave before the plan stops."""
RECHECK_PATIENCE = timedelta(minutes=5)
"""How long a removal may be refused on fresh state before it is given up."""
WAIT_PATIENCE = timedelta(minutes=15)
"""How long a step may wait for a guardrail to lift."""
SILENT_AGENT = timedelta(minutes=10)
FRESH_SNAPSHOT = timedelta(seconds=90)
MAX_QUOTE_AGE = timedelta(hours=1)
MAX_PRICE_DRIFT = Decimal("0.05")
MIN_ACHIEVED_SHARE = Decimal("0.5")
"""A plan stops when the finished waves saved less than this share of what they promised."""

SAVINGS_SHORT = "savings_short"
"""Why a plan stopped, where it saved too little; no policy starts another one for ``SHORT_MEMORY``."""
SHORT_MEMORY = timedelta(hours=24)

WAIT_CODES = frozenset(
    {"disruption_budget", "stale_snapshot", "group_unready", "node_too_young", "node_not_empty", "node_taken"}
)
"""Guardrails that may lift by themselves: the step waits and asks again."""
STOP_CODES = frozenset({"safe_mode", "frozen", "paused", "account_disconnected"})
"""Switches that people throw: the plan stops safely."""
RETRY_CODES = frozenset({"expired", "lease_expired", "interrupted", "throttled", "upstream-throttled"})
"""Failures that say nothing about the target: worth another try."""
PATIENT_REFUSALS = frozenset(
    {
        "pods_pending",
        "budget_exhausted",
        "too_many_at_once",
        "launch_not_ready",
        "group_unhealthy",
        "no_room_elsewhere",
        "spread",
        "anti_affinity",
        "pod_affinity",
        "on_demand_minimum",
    }
)
"""Refusals of the last look before a drain that may lift within ``RECHECK_PATIENCE``."""

_MUST_SUCCEED = frozenset({"launch", "terminate"})
"""Without these the plan's money does not add up."""


class Turn(StrEnum):
    """What to do with a step whose action ended without success."""

    WAIT = "wait"
    RETRY = "retry"
    GIVE_UP = "give_up"
    STOP_PLAN = "stop_plan"


def after_failure(*, kind: str, error_code: str, attempts: int, waited: timedelta) -> Turn:
    """Decide what follows an action that was refused, failed or expired, ``waited`` after its step began."""
    if error_code in STOP_CODES:
        return Turn.STOP_PLAN
    if error_code in WAIT_CODES and waited < WAIT_PATIENCE:
        return Turn.WAIT
    is_worth_retrying = error_code in RETRY_CODES or kind in _MUST_SUCCEED
    if is_worth_retrying and error_code not in WAIT_CODES and attempts < MAX_ATTEMPTS:
        return Turn.RETRY
    return Turn.STOP_PLAN if kind in _MUST_SUCCEED else Turn.GIVE_UP


def is_late(*, launched_at: datetime | None, seen_at: datetime | None) -> bool:
    """Tell whether the agent has reported since a node that was launched then should have been Ready.

    While the agent is silent nobody knows whether it is.
    """
    return launched_at is not None and seen_at is not None and seen_at - launched_at > READY_TIMEOUT


def falls_short(*, promised: Decimal, achieved: Decimal) -> bool:
    """Tell whether the finished waves saved too little to go on, both in USD per hour."""
    return promised > 0 and achieved < promised * MIN_ACHIEVED_SHARE
