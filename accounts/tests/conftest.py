"""What the tests of this app share."""

import pytest
from django.core.cache import cache

from accounts.domain.origin import Origin


@pytest.fixture(autouse=True)
def _fresh_limits():
    cache.clear()


@pytest.fixture
def origin():
    return Origin(ip_address="203.0.113.7", user_agent="pytest", request_id="r-1")
