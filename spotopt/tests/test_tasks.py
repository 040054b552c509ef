import ast

import pytest
from django.conf import settings

from spotopt.celery import app
from spotopt.core.tasks import PlatformTask, TenantTask

APPS = ("spotopt", "audit", "accounts", "clusters", "mlregistry", "policies", "hibernation", "agentapi")
STARTERS = {"enqueue", "_for_each"}
"""``enqueue`` itself, and the helper that calls it once for each organization."""


@pytest.fixture(scope="module")
def registry():
    app.loader.import_default_modules()
    return {name: task for name, task in app.tasks.items() if name.split(".")[0] in APPS}


def _starts():
    """Every call that starts a task in our own code: place, name (None when it is no literal), call."""
    for path in (path for name in APPS for path in (settings.BASE_DIR / name).rglob("*.py")):
        if "tests" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if getattr(call.func, "id", "") in STARTERS and call.args:
                literals = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
                if literals or not STARTERS & defined:
                    yield f"{path.relative_to(settings.BASE_DIR)}:{call.lineno}", (*literals, None)[0], call


def test_given_the_registry_when_read_then_every_task_names_its_tenant_or_says_that_it_sees_all(registry):
    unbound = [name for name, task in registry.items() if not isinstance(task, TenantTask | PlatformTask)]

    assert registry
    assert unbound == []


def test_given_a_tenant_task_when_called_without_its_tenant_then_it_refuses(registry):
    tenant_tasks = [task for task in registry.values() if isinstance(task, TenantTask)]

    assert tenant_tasks
    for task in tenant_tasks:
        assert "organization_id" in task.run.__annotations__, task.name
        with pytest.raises(KeyError, match="organization_id"):
            task()


def test_given_the_code_when_it_starts_a_task_then_the_name_is_a_literal_that_exists(registry):
    starts = list(_starts())

    assert starts
    assert [(place, name) for place, name, _ in starts if name not in registry] == []


def test_given_a_tenant_task_when_started_then_its_tenant_is_named(registry):
    forgotten = [
        (place, name)
        for place, name, call in _starts()
        if call.func.id == "enqueue"
        and isinstance(registry.get(name), TenantTask)
        and "organization_id" not in {keyword.arg for keyword in call.keywords}
    ]

    assert forgotten == []


def test_given_the_beat_schedule_when_read_then_every_tick_exists_and_sees_all(registry):
    ticks = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}

    assert ticks - registry.keys() == set()
    assert [name for name in ticks if not isinstance(registry[name], PlatformTask)] == []
