import django.db.models.deletion
import spotopt.core.clock
import spotopt.core.records
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("clusters", "0013_which_savings_are_estimates"),
    ]

    operations = [
        migrations.AddField(
            model_name="cluster",
            name="karpenter",
            field=models.CharField(
                blank=True,
                choices=[
                    ("", "Not known"),
                    ("running", "Runs"),
                    ("absent", "Not installed"),
                    ("forbidden", "The agent may not read it"),
                ],
                default="",
                max_length=10,
            ),
        ),
        migrations.CreateModel(
            name="NodePool",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("created_at", models.DateTimeField(default=spotopt.core.clock.utcnow, editable=False)),
                (
                    "updated_at",
                    spotopt.core.records.UpdatedAtField(default=spotopt.core.clock.utcnow, editable=False),
                ),
                ("name", models.CharField(max_length=253)),
                ("spec", models.JSONField(default=dict)),
                ("is_ours", models.BooleanField(default=False)),
                ("steers", models.CharField(blank=True, max_length=253)),
                ("used", models.JSONField(blank=True, default=dict)),
                ("managers", models.JSONField(blank=True, default=dict)),
                ("reported_at", models.DateTimeField()),
                (
                    "cluster",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="node_pools",
                        to="clusters.cluster",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "db_table": "node_pools",
                "constraints": [
                    models.UniqueConstraint(fields=("cluster", "name"), name="node_pools_name_once")
                ],
            },
        ),
    ]
