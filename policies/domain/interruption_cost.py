"""What interruptions are expected to cost: how often a pool is lost, times what starting again costs.

How often is a rate, in losses per hour, because a probability within a day says nothing any more once it is
close to 1. What the served risk foretells is corrected twice by what was seen: for all pools alike, by the
losses that nothing foretold; and for each pool by gamma-Poisson shrinkage (W. DuMouchel, "Bayesian Data
Mining in Large Frequency Tables", The American Statistician 53, 1999).

Capacity comes and goes in spells, so a loss ends what was known: the hours held before it no longer speak for
the pool, while the loss itself speaks against it until it fades. Between losses this is the Lomax law of
survival (K. S. Lomax, "Business Failures", JASA 49, 1954): a pool that has lasted long is likely to last on.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

HOURS_FORETOLD = 24
"""Horizon of the served risk."""
HALF_LIFE = timedelta(days=1)
"""After this long, a loss counts half."""
SUREST = 0.99
"""No loss counts as surer than this: a certain one would have no finite rate."""
DOUBT = 1.0
"""Losses that must be seen, or expected in vain, before sight outweighs what was foretold."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of one pool until ``as_of``: its losses, faded, and the hours held since the last one."""

    as_of: datetime
    losses: float = 0.0
    hours: float = 0.0

    def later(self, now: datetime, *, held: bool) -> "Sight":
        """Return the sight at ``now``, after a time in which nodes of the pool were held, or none."""
        elapsed = now - self.as_of
        hours = self.hours + (elapsed / timedelta(hours=1) if held else 0.0)
        return Sight(now, self.losses * 0.5 ** (elapsed / HALF_LIFE), hours)

    def lost(self) -> "Sight":
        """Return the sight just after the pool took nodes back, however many."""
        return Sight(self.as_of, self.losses + 1, 0.0)


def losses_per_hour(risk: float) -> float:
    """Return the constant rate that makes a loss within 24 hours as probable as ``risk``, 0 to 1."""
    return -math.log1p(-min(risk, SUREST)) / HOURS_FORETOLD


def unforetold_per_hour(*, losses: float, expected: float, hours: float) -> float:
    """Return the rate of losses that nothing foretold, the same for every pool.

    ``losses`` were seen in so many pool-hours for which ``expected`` were foretold. A day without a loss is
    assumed beside, so that one early loss does not count for more than it says.
    """
    return max(0.0, losses - expected) / (hours + HOURS_FORETOLD)


def expected_losses_per_hour(rate: float, sight: Sight) -> float:
    """Return the rate at which a pool will be lost, from that of its kind and from what was seen of it."""
    return rate * (DOUBT + sight.losses) / (DOUBT + rate * sight.hours)


def expected_usd_per_hour(usd_per_hour: float, losses: float, restart_hours: float) -> float:
    """Return a node's price with its interruptions charged, at ``losses`` an hour.

    A loss is charged at what the node costs in ``restart_hours``: a node is worth what runs on it, and its
    price is the measure of that which is known before the pods are packed.
    """
    return usd_per_hour * (1 + losses * restart_hours)
