"""Every queue is served, on one machine and in production alike."""

from pathlib import Path

import yaml
from django.conf import settings

from spotopt.management.runtime import WORKERS


def test_given_the_routes_of_tasks_when_workers_start_then_each_queue_is_served_by_one_of_them():
    served = [queue for queues, _ in WORKERS.values() for queue in queues.split(",")]
    routed = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}

    assert sorted(served) == sorted(routed | {settings.CELERY_TASK_DEFAULT_QUEUE})


def test_given_the_workers_of_one_machine_when_composed_for_production_then_they_are_the_same():
    composed = yaml.safe_load((Path(settings.BASE_DIR) / "docker-compose.yml").read_text())["services"]

    for name, (queues, threads) in WORKERS.items():
        command = composed[name]["command"]
        assert command[command.index("-Q") + 1] == queues
        assert command[command.index("-c") + 1] == str(threads)
