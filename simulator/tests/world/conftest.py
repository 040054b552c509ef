"""Fixtures of the world's tests."""

import pytest

from simulator.fleet import Budget
from simulator.tests.world.standin import build_world, deployment, fleet_of, serve


@pytest.fixture
def served():
    """Three nodes, a deployment of four with a budget of three, one of two without."""
    budgeted = deployment("web", 4, budget=Budget(min_available=3))
    yield from serve(build_world(fleet_of(budgeted, deployment("free", 2))))


@pytest.fixture
def admin(served):
    with served.client() as client:
        yield client


@pytest.fixture
def control(served):
    with served.control() as client:
        yield client
