"""CloudFormation and IAM: moto's, with the capability that naming IAM resources requires."""

import re

from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult
from moto.iam.responses import IamResponse

from simulator.aws.answers import ApiError
from simulator.aws.operation import Operation

MAKES_ROLES = re.compile(r"AWS::IAM::\w+")
NAMES_ROLES = re.compile(r"\b(RoleName|ManagedPolicyName|InstanceProfileName|UserName|GroupName)\b")


class SimulatedCloudFormation(Operation, CloudFormationResponse):
    """Stacks."""

    def create_stack(self) -> ActionResult:
        self._require_capability()
        return super().create_stack()

    def update_stack(self) -> ActionResult:
        self._require_capability()
        return super().update_stack()

    def _require_capability(self) -> None:
        body = self._get_param("TemplateBody") or ""
        given = set(self._get_param("Capabilities", []))
        if not MAKES_ROLES.search(body):
            return
        needed = (
            {"CAPABILITY_NAMED_IAM"}
            if NAMES_ROLES.search(body)
            else {"CAPABILITY_NAMED_IAM", "CAPABILITY_IAM"}
        )
        if not given & needed:
            raise ApiError("InsufficientCapabilitiesException", f"Requires capabilities : [{max(needed)}]")


class SimulatedIam(Operation, IamResponse):
    """Roles, policies and profiles."""
