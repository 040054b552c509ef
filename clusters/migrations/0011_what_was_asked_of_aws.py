from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("clusters", "0010_nodes_leave_their_group"),
    ]

    operations = [
        migrations.AddField(
            model_name="action",
            name="asked",
            field=models.JSONField(blank=True, default=dict),
        ),
    ]
