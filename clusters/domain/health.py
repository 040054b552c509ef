"""One word and one number for how a cluster and a fleet are."""

from enum import StrEnum

from clusters.domain.contact import Contact

MAX_UNREADY_SHARE = 0.10
_BAND = (20.0, 80.0)


class Health(StrEnum):
    """The state of a cluster as lists show it."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    OFFLINE = "offline"


def health(*, contact: Contact, has_error: bool, pending_pods: int, nodes: int, unready_nodes: int) -> Health:
    """Return offline without a heartbeat for 60 s or with an error, degraded with pods or nodes waiting."""
    if has_error or contact is not Contact.CONNECTED:
        return Health.OFFLINE
    if pending_pods or unready_nodes > nodes * MAX_UNREADY_SHARE:
        return Health.DEGRADED
    return Health.HEALTHY


def fleet_health(
    *, spot_risk: float | None, cpu_percent: float | None, memory_percent: float | None
) -> float | None:
    """Return 0 to 100: 40 % spot stability, 30 % CPU band, 30 % memory band; None when one is unmeasured.

    ``spot_risk`` is the mean interruption risk of the spot nodes, 0 to 1 (0 without spot nodes); the other
    two are the mean utilisation in percent.
    """
    if spot_risk is None or cpu_percent is None or memory_percent is None:
        return None
    return 100 * (0.4 * (1 - spot_risk) + 0.3 * band_score(cpu_percent) + 0.3 * band_score(memory_percent))


def band_score(percent: float) -> float:
    """Return 1 inside 20–80 % utilisation, falling linearly to 0 at 0 and at 100."""
    low, high = _BAND
    return max(0.0, min(percent / low, 1.0, (100 - percent) / (100 - high)))
