"""Every task of the app; importing the package registers them."""

from clusters.tasks import actions, market, scanning

__all__ = ["actions", "market", "scanning"]
