from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("clusters", "0011_what_was_asked_of_aws"),
    ]

    operations = [
        migrations.AddField(
            model_name="nodegroup",
            name="stilled_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
