"""CloudFormation and IAM: moto's, with the capability that naming IAM resources requires."""

import json
import re
from typing import Any

import yaml
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult
from moto.iam.responses import IamResponse

from simulator.aws.answers import ApiError
from simulator.aws.identity import iam_of
from simulator.aws.operation import Operation

MAKES_ROLES = re.compile(r"AWS::IAM::\w+")
NAMES_ROLES = re.compile(r"\b(RoleName|ManagedPolicyName|InstanceProfileName|UserName|GroupName)\b")


class _Untagged(yaml.SafeLoader):
    """Reads a template without understanding !Ref and its like."""


_Untagged.add_multi_constructor("!", lambda *_: None)


class SimulatedCloudFormation(Operation, CloudFormationResponse):
    """Stacks, with the defaults of list parameters split and inline policies as JSON (moto does neither)."""

    def create_stack(self) -> ActionResult:
        self._require_capability()
        answer = super().create_stack()
        self._write_policies_as_json()
        return answer

    def update_stack(self) -> ActionResult:
        self._require_capability()
        answer = super().update_stack()
        self._write_policies_as_json()
        return answer

    def _get_params_from_list(self, parameters_list: list[dict[str, Any]]) -> dict[str, Any]:
        template = yaml.load(self._get_param("TemplateBody") or "{}", Loader=_Untagged)  # noqa: S506 - a SafeLoader
        defaults = {
            name: parameter["Default"]
            for name, parameter in template.get("Parameters", {}).items()
            if parameter.get("Type") == "CommaDelimitedList" and "Default" in parameter
        }
        return {**defaults, **super()._get_params_from_list(parameters_list)}

    def _write_policies_as_json(self) -> None:
        for role in iam_of(self.principal.account_id).roles.values():
            documents: dict[str, Any] = dict(role.policies)
            for name, document in documents.items():
                if isinstance(document, dict):
                    role.policies[name] = json.dumps(document)

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
