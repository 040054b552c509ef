"""GPUs and ephemeral storage: what nodes have, and what daemon sets and pods take of it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("clusters", "0007_kinds_of_agent_work"),
    ]

    operations = [
        migrations.AddField(
            model_name="instance",
            name="daemon_ephemeral_mib",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="instance",
            name="ephemeral_allocatable_mib",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="instance",
            name="gpu_allocatable",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="workload",
            name="ephemeral_request_mib",
            field=models.PositiveIntegerField(default=0),
        ),
    ]
