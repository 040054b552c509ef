"""`manage.py prepare`: bring the database to this version's tables and reference data."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Migrates, then loads the instance catalogue and prices; repeating it changes nothing."""

    help = "Migrate the database and load the bundled reference data."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run both, quietly."""
        call_command("migrate", interactive=False, verbosity=0)
        call_command("load_reference", verbosity=0)
