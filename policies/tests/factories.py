"""Templates, policies, runs and plans for tests, each valid by itself inside the active tenant."""

from decimal import Decimal

import factory

from clusters.tests.factories import ClusterFactory
from policies.models import (
    ClusterPolicy,
    NodeTemplate,
    OptimizationJob,
    Plan,
    PlanStep,
    PoolSteering,
    WhatIf,
)
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import active_organization_id


class _TenantFactory(factory.django.DjangoModelFactory):
    class Meta:
        abstract = True

    organization_id = factory.LazyFunction(active_organization_id)


class TemplateFactory(_TenantFactory):
    class Meta:
        model = NodeTemplate

    name = factory.Sequence(lambda n: f"Template {n}")
    families = ["m5", "c5"]


class PolicyFactory(_TenantFactory):
    class Meta:
        model = ClusterPolicy

    cluster = factory.SubFactory(ClusterFactory)
    template = factory.SubFactory(TemplateFactory)


class JobFactory(_TenantFactory):
    class Meta:
        model = OptimizationJob

    cluster = factory.SubFactory(ClusterFactory)
    requested_by = "alice@acme.test"


class WhatIfFactory(_TenantFactory):
    class Meta:
        model = WhatIf

    cluster = factory.SubFactory(ClusterFactory)
    requested_by = "alice@acme.test"


class SteeringFactory(_TenantFactory):
    class Meta:
        model = PoolSteering

    cluster = factory.SubFactory(ClusterFactory)
    pool, name = "default", "spotopt-default"
    code, sentence = "off", "The policy does not steer Karpenter."
    looked_at = factory.LazyFunction(utcnow)


class PlanFactory(_TenantFactory):
    class Meta:
        model = Plan

    cluster = factory.SubFactory(ClusterFactory)
    job = factory.SubFactory(
        JobFactory, cluster=factory.SelfAttribute("..cluster"), status=OptimizationJob.Status.COMPLETED
    )
    policy_version = 1
    quoted_at = factory.LazyFunction(utcnow)
    usd_per_hour_before = Decimal("2.000000")
    usd_per_hour_after = Decimal("0.500000")
    lower_bound_usd_per_hour = Decimal("0.400000")
    spot_replacement_usd_per_hour = Decimal("1.000000")
    bin_packing_usd_per_hour = Decimal("0.500000")
    risk = 0.02
    nodes_before, nodes_after, pods_moved = 10, 4, 30
    document = factory.LazyFunction(lambda: {"waves": []})
    refusals = factory.LazyFunction(
        lambda: [{"subject_kind": "node", "subject": "n1", "code": "young", "reason": "Too young."}]
    )


class StepFactory(_TenantFactory):
    class Meta:
        model = PlanStep

    plan = factory.SubFactory(PlanFactory)
    seq = factory.Sequence(lambda n: n + 1)
    wave = 1
    kind = PlanStep.Kind.LAUNCH
    target = "n1"
