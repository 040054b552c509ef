from django.db import migrations, models
from django.db.models import F, Value
from django.db.models.fields.json import KT
from django.db.models.functions import Coalesce


def move_out_of_the_document(apps, schema_editor):
    plans = apps.get_model("policies", "Plan").objects.using(schema_editor.connection.alias)
    plans.filter(document__has_key="stop_code").update(
        stop_code=Coalesce(KT("document__stop_code"), Value(""))
    )
    plans.filter(document__has_key="waiting_before").update(waiting_before=F("document__waiting_before"))


class Migration(migrations.Migration):
    dependencies = [("policies", "0005_steering_of_karpenter")]

    operations = [
        migrations.AddField("plan", "stop_code", models.CharField(blank=True, max_length=40)),
        migrations.AddField("plan", "waiting_before", models.JSONField(blank=True, default=dict)),
        migrations.RunPython(move_out_of_the_document, migrations.RunPython.noop),
    ]
