"""Shapes of Karpenter: its node pools, and what is to be applied beside them."""

from typing import Any

from rest_framework import serializers

from clusters.models import Cluster
from policies.selectors.karpenter import State


class PoolChangeSerializer(serializers.Serializer[Any]):
    """One field of our node pool that applying would change."""

    field = serializers.CharField()
    old_value = serializers.JSONField(allow_null=True)
    new_value = serializers.JSONField(allow_null=True)
    change_type = serializers.ChoiceField(choices=["added", "modified", "removed"])


class LastActSerializer(serializers.Serializer[Any]):
    """What the agent was last asked to apply."""

    id = serializers.UUIDField()
    status = serializers.CharField()
    error_code = serializers.CharField()
    error_message = serializers.CharField()
    finished_at = serializers.DateTimeField(allow_null=True)


class PoolSerializer(serializers.Serializer[Any]):
    """One of the customer's node pools, and ours beside it."""

    id = serializers.UUIDField(allow_null=True, help_text="To apply it by; null until somebody has looked.")
    pool = serializers.CharField()
    name = serializers.CharField(help_text="Of our node pool, whether or not it is there.")
    state = serializers.ChoiceField(choices=[state.value for state in State])
    code = serializers.CharField()
    sentence = serializers.CharField()
    spec = serializers.JSONField(help_text="The customer's node pool, as last reported.")
    used = serializers.DictField(help_text="Capacity of its nodes by resource.")
    managers = serializers.DictField(help_text="Who manages which of the fields that we would set.")
    own_used = serializers.DictField(allow_null=True, help_text="Of ours; null while it is not there.")
    changes = PoolChangeSerializer(many=True)
    fingerprint = serializers.CharField(help_text="Of the wanted object; give it back to apply that.")
    hold = serializers.CharField(help_text="Why it cannot be asked for now.")
    action = LastActSerializer(allow_null=True)
    looked_at = serializers.DateTimeField(allow_null=True)


class KarpenterViewSerializer(serializers.Serializer[Any]):
    """What is known of Karpenter in one cluster."""

    status = serializers.ChoiceField(choices=Cluster.Karpenter.choices, allow_blank=True)
    reported_at = serializers.DateTimeField(allow_null=True)
    is_stale = serializers.BooleanField()
    is_enabled = serializers.BooleanField(help_text="Whether the policy steers Karpenter.")
    is_automatic = serializers.BooleanField(help_text="Whether it does so without a person.")
    pools = PoolSerializer(many=True)


class ApplySerializer(serializers.Serializer[Any]):
    """Which object to apply."""

    fingerprint = serializers.CharField(max_length=64)
