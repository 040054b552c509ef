"""What the tests of plans share."""

from decimal import Decimal

import pytest

from clusters.models import InstanceType, Price
from spotopt.core.clock import utcnow


@pytest.fixture
def prices(db):
    """One type, sold on demand and on spot in the cluster's zone."""
    InstanceType.objects.create(
        name="m5.xlarge", family="m5", size="xlarge", category="m", generation=5, arch="x86_64", vcpu=4,
        memory_mib=16384, max_pods=58, cpu_allocatable_millis=3920, memory_allocatable_mib=14800,
    )  # fmt: skip
    for zone_id, capacity_type, usd in (("", "on_demand", "0.192"), ("use1-az1", "spot", "0.060")):
        Price.objects.create(
            region="us-east-1", zone_id=zone_id, instance_type="m5.xlarge", capacity_type=capacity_type,
            usd_per_hour=Decimal(usd), observed_at=utcnow(), source="aws",
        )  # fmt: skip
