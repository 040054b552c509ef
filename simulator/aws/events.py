"""EventBridge and SQS: moto's, fed with what EC2 says about spot machines."""

import json
import uuid
from typing import Any

from moto.core.common_models import CloudFormationModel
from moto.events.models import EventsBackend, events_backends
from moto.sqs.models import sqs_backends
from moto.sqs.responses import SQSResponse

from simulator.aws.estate import Estate
from simulator.aws.operation import Operation
from simulator.machines import Machine

SPOKEN = {
    "interrupting": "EC2 Spot Instance Interruption Warning",
    "rebalance": "EC2 Instance Rebalance Recommendation",
}


class QueuePolicy(CloudFormationModel):
    """AWS::SQS::QueuePolicy, which moto's CloudFormation does not know: who may write to a queue."""

    physical_resource_id = ""

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SQS::QueuePolicy"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "Id"

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,
        **_: Any,
    ) -> "QueuePolicy":
        """Put the policy on each of the queues."""
        properties = cloudformation_json["Properties"]
        policy = cls()
        policy.physical_resource_id = resource_name
        for url in properties["Queues"]:
            queue = sqs_backends[account_id][region_name].get_queue(url.rpartition("/")[2])
            queue.policy = json.dumps(properties["PolicyDocument"])
        return policy

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,
    ) -> "QueuePolicy":
        return cls.create_from_cloudformation_json(
            new_resource_name, cloudformation_json, account_id, region_name
        )

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str
    ) -> None:
        """Leave the queues, which go with their own stack."""


class SimulatedSqs(Operation, SQSResponse):
    """Queues."""


class EventBus:
    """Sends EC2's events to whatever rules the customer made."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate

    def notice(self, event: str, machine: Machine) -> None:
        """Say what happened to a machine, if AWS says anything about it."""
        if event not in SPOKEN:
            return
        backend: EventsBackend = events_backends[machine.account_id][machine.region]
        with self._estate.lock:
            for rule in backend.event_buses["default"].rules.values():
                if rule.state == "ENABLED":
                    rule.send_to_targets(self._event(SPOKEN[event], machine), transform_input=False)

    def _event(self, detail_type: str, machine: Machine) -> Any:
        said_at = self._estate.now().timestamp()  # moto spells it
        warned = detail_type == SPOKEN["interrupting"]
        arn = f"arn:aws:ec2:{machine.zone}:instance/{machine.instance_id}"
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": "aws.ec2",
            "account": machine.account_id,
            "time": said_at,
            "region": machine.region,
            "resources": [arn],
            "detail": {"instance-id": machine.instance_id}
            | ({"instance-action": "terminate"} if warned else {}),
        }
