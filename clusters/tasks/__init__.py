"""Every task of the app; importing the package registers them."""

from clusters.tasks import actions

__all__ = ["actions"]
