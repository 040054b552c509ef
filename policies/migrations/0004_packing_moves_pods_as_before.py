"""Until now the knob was not read and pods moved whatever it said; they go on to."""

from typing import Any

from django.db import migrations


def keep_moving(apps: Any, _schema_editor: Any) -> None:
    """Let stored documents say what they did."""
    policies = apps.get_model("policies", "ClusterPolicy")
    for policy in policies._base_manager.filter(config__binpack__method="delete_empty"):  # noqa: SLF001  # every tenant's
        policy.config["binpack"]["method"] = "replace_and_move"
        policy.save(update_fields=["config"])


class Migration(migrations.Migration):
    dependencies = [("policies", "0003_what_ifs_progress_and_constraint_prices")]

    operations = [migrations.RunPython(keep_moving, migrations.RunPython.noop)]
