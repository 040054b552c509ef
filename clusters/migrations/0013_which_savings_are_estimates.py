from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("clusters", "0012_groups_that_are_held_still"),
    ]

    operations = [
        migrations.AddField(
            model_name="savingsentry",
            name="is_estimate",
            field=models.BooleanField(default=False),
        ),
    ]
