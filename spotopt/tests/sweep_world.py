"""One row of every tenant's table, filled by field type, so that a new table needs no line here."""

from datetime import timedelta
from itertools import count

from django.apps import apps
from django.db import connection
from django.db.models import NOT_PROVIDED

from spotopt.core.clock import utcnow
from spotopt.core.tenancy import TenantModel, tenant

VALUES = {
    "accounts.Account": {"aws_account_id": "123412341234", "status": "active"},
    "clusters.Instance": {"instance_id": "i-0123456789abcdef0", "instance_type": "m5.large"},
    "clusters.Cluster": {"region": "us-east-1"},
    "clusters.Interruption": {"kind": "rebalance"},
    "policies.NodeTemplate": {"families": ["m5"]},
}
"""What constraints or screens demand beyond the types."""


def tenant_models():
    return [model for model in apps.get_models() if issubclass(model, TenantModel)]


def build(organization, marker):
    """Insert one row of every tenant's table; return them by model label."""
    rows, waiting = {}, tenant_models()
    with tenant(organization.pk):
        while waiting:
            ready = [model for model in waiting if _parents(model) <= rows.keys()]
            assert ready, f"Rows that need each other: {waiting}"
            for model in ready:
                rows[model._meta.label] = _row(model, organization, rows, marker)
            waiting = [model for model in waiting if model not in ready]
    return rows


def fingerprint(organization):
    """A digest of each table's rows of an organization, in one query; it changes when any row does."""
    tables = [model._meta.db_table for model in tenant_models()] + ["team_members"]
    query = " UNION ALL ".join(
        f"SELECT '{table}', md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"  # noqa: S608 - names of our own tables
        " WHERE organization_id = %s"
        for table in tables
    )
    with connection.cursor() as cursor:
        cursor.execute(query, [organization.pk] * len(tables))
        return dict(cursor.fetchall())


def _required(model):
    return [
        field
        for field in model._meta.fields
        if field.default is NOT_PROVIDED
        and (not field.null or field.name == "cluster")
        and not field.primary_key
        and field.name != "organization"
        and not (field.blank and field.empty_strings_allowed)
    ]


def _parents(model):
    labels = {field.related_model._meta.label for field in _required(model) if field.is_relation}
    return labels - {model._meta.label}


_numbers = count(1)


def _row(model, organization, rows, marker):
    given = VALUES.get(model._meta.label, {})
    values = {
        field.name: _value(field, rows, marker) for field in _required(model) if field.name not in given
    }
    return model.objects.create(organization=organization, **values, **given)


def _value(field, rows, marker):
    if field.is_relation:
        return rows[field.related_model._meta.label]
    if field.choices:
        return field.choices[0][0]
    kind, now = field.get_internal_type(), utcnow()
    if kind == "DateTimeField":
        is_end = field.name.endswith("_until") or field.name.startswith("expires")
        return now + timedelta(minutes=59) if is_end else now
    if kind in ("CharField", "TextField"):
        return f"{marker}{next(_numbers)}"[-(field.max_length or 255) :]
    return {"JSONField": {}, "ArrayField": [], "FloatField": 0.1}.get(kind, 1)
