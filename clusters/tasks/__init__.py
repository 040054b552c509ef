"""Every task of the app; importing the package registers them."""

from clusters.tasks import actions, interruptions, market, scanning

__all__ = ["actions", "interruptions", "market", "scanning"]
