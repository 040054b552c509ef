import django.db.models.deletion
import spotopt.core.clock
import spotopt.core.records
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("clusters", "0014_node_pools_of_karpenter"),
        ("policies", "0004_packing_moves_pods_as_before"),
    ]

    operations = [
        migrations.CreateModel(
            name="PoolSteering",
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
                ("pool", models.CharField(max_length=253)),
                ("name", models.CharField(max_length=262)),
                ("manifest", models.JSONField(null=True)),
                ("code", models.CharField(max_length=40)),
                ("sentence", models.CharField(max_length=500)),
                ("is_met", models.BooleanField(default=True)),
                ("hold", models.CharField(blank=True, max_length=500)),
                ("asked", models.CharField(blank=True, max_length=64)),
                ("revision", models.PositiveIntegerField(default=0)),
                ("looked_at", models.DateTimeField()),
                (
                    "action",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="clusters.action",
                    ),
                ),
                (
                    "cluster",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="pool_steerings",
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
                "db_table": "pool_steerings",
                "constraints": [
                    models.UniqueConstraint(fields=("cluster", "pool"), name="pool_steerings_pool_once")
                ],
            },
        ),
    ]
