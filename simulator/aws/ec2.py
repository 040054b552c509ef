"""EC2: instances are the world's machines; the rest of EC2 is moto's."""

import hashlib
import json
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import InvalidInstanceIdError
from moto.ec2.models.launch_templates import LaunchTemplate, LaunchTemplateVersion
from moto.ec2.responses import EC2Response

from simulator.aws import fleets, spot_prices
from simulator.aws.answers import ApiError
from simulator.aws.filters import page_of, selected
from simulator.aws.instance_xml import document, reservation, reservations, state
from simulator.aws.launching import build, launch_of, obstacle, template_version
from simulator.aws.operation import Operation, Written
from simulator.machines import Machine

PAGE_SIZES = {"DescribeInstances": 1000, "DescribeInstanceTypes": 100, "DescribeInstanceTypeOfferings": 1000}
SMALLEST_PAGE = 5


class SimulatedEc2(Operation, EC2Response):
    """The actions of EC2 that concern machines, prices and pages."""

    def describe_instances(self) -> ActionResult:
        filters = {item["Name"]: item.get("Values", []) for item in self._get_param("Filters", [])}
        ids = self._get_param("InstanceIds", [])
        if ids and self._get_param("MaxResults"):
            raise ApiError(
                "InvalidParameterCombination",
                "The parameter instancesSet cannot be used with the parameter maxResults",
            )
        machines = self._known(ids) if ids else self.estate.machines(*self.place)
        machines.sort(key=lambda machine: (machine.launched_at, machine.instance_id))
        page, token = self._page(selected(self.estate, machines, filters), "DescribeInstances")
        return Written(
            document("DescribeInstancesResponse", reservations(self.estate, list(page)), next_token=token)
        )

    def describe_instance_status(self) -> ActionResult:
        ids = self._get_param("InstanceIds", [])
        machines = self._known(ids) if ids else self.estate.machines(*self.place)
        if not self._get_bool_param("IncludeAllInstances", False):
            machines = [machine for machine in machines if machine.state == "running"]
        page, token = self._page(machines, "DescribeInstances")
        return ActionResult({"InstanceStatuses": [_status(machine) for machine in page], "NextToken": token})

    def run_instances(self) -> ActionResult:
        request = self._request()
        token = request.pop("ClientToken", None)
        remembered = self._remembered("RunInstances", token, request)
        if remembered:
            machines = [
                machine for instance_id in remembered if (machine := self.estate.room.get(instance_id))
            ]
            return Written(document("RunInstancesResponse", reservation(self.estate, machines)))
        template = request.get("LaunchTemplate")
        version = template_version(*self.place, template) if template else None
        launch = launch_of(*self.place, request, version)
        found = obstacle(self.estate, launch)
        if found:
            raise ApiError(*found)
        machines = build(self.estate, launch, int(request.get("MaxCount") or 1))
        for machine in machines:
            machine.client_token, machine.launched_by = token, self.principal.arn
        self._remember("RunInstances", token, request, [machine.instance_id for machine in machines])
        self.estate.room.launch_many(machines)
        return Written(document("RunInstancesResponse", reservation(self.estate, machines)))

    def create_fleet(self) -> ActionResult:
        request = self._request()
        token = request.pop("ClientToken", None)
        remembered = self._remembered("CreateFleet", token, request)
        if remembered:
            return ActionResult(remembered)
        if request.get("Type") != "instant":
            raise ApiError("UnsupportedOperation", "Only fleets of type instant are simulated.")
        fleet_id = "fleet-" + _uuid_like(
            self.estate.digest("fleet", self.estate.new_instance_id(), length=32)
        )
        result = fleets.allocate(
            self.estate, *self.place, request, fleet_id=fleet_id, caller=self.principal.arn
        )
        for machine in result.machines:
            machine.client_token = token
            machine.tags["aws:ec2:fleet-id"] = fleet_id
        answer = {"FleetId": fleet_id, "Errors": result.errors, "Instances": result.instances}
        self._remember("CreateFleet", token, request, answer)
        self.estate.room.launch_many(result.machines)
        return ActionResult(answer)

    def create_launch_template(self) -> ActionResult:
        request = self._request()
        token = request.pop("ClientToken", None)
        remembered = self._remembered("CreateLaunchTemplate", token, request)
        if remembered:
            template = self.ec2_backend.get_launch_template(remembered)
            return ActionResult({"LaunchTemplate": _template(template, self.principal.arn)})
        answer = super().create_launch_template()
        template = self.ec2_backend.get_launch_template_by_name(request["LaunchTemplateName"])
        self._remember("CreateLaunchTemplate", token, request, template.id)
        return answer

    def create_launch_template_version(self) -> ActionResult:
        request = self._request()
        token = request.pop("ClientToken", None)
        remembered = self._remembered("CreateLaunchTemplateVersion", token, request)
        if remembered:
            version = self._named_template().get_version(remembered)
            return ActionResult({"LaunchTemplateVersion": _version(version)})
        answer = super().create_launch_template_version()
        number = self._named_template().latest_version_number
        self._remember("CreateLaunchTemplateVersion", token, request, number)
        return answer

    def describe_launch_template_versions(self) -> ActionResult:
        answer: dict[str, Any] = super().describe_launch_template_versions().result  # type: ignore[assignment]
        rows = answer["LaunchTemplateVersions"]
        return ActionResult({"LaunchTemplateVersions": [row for row in rows if row["LaunchTemplateData"]]})

    def delete_launch_template_versions(self) -> ActionResult:
        """Empty the versions: moto counts them by their place, and later ones keep their numbers."""
        template, deleted, kept = self._named_template(), [], []
        for number in self._get_param("Versions", []):
            version = template.get_version(number)
            row = {"LaunchTemplateId": template.id, "VersionNumber": version.number}
            if template.is_default(version):
                error = {"Code": "unexpectedError", "Message": "The default version cannot be deleted."}
                kept.append({**row, "ResponseError": error})
            else:
                version.data = {}
                deleted.append(row)
        return ActionResult(
            {
                "SuccessfullyDeletedLaunchTemplateVersions": deleted,
                "UnsuccessfullyDeletedLaunchTemplateVersions": kept,
            }
        )

    def _named_template(self) -> LaunchTemplate:
        """The template that the request names."""
        name = self._get_param("LaunchTemplateName")
        found: LaunchTemplate = (
            self.ec2_backend.get_launch_template_by_name(name)
            if name
            else self.ec2_backend.get_launch_template(self._get_param("LaunchTemplateId"))
        )
        return found

    def terminate_instances(self) -> ActionResult:
        machines = self._known(self._get_param("InstanceIds", []))
        if not machines:
            raise ApiError("InvalidParameterCombination", "No instances specified")
        before = {machine.instance_id: state(machine) for machine in machines}
        for machine in machines:
            self.estate.room.terminate(machine.instance_id, reason="user", at=self.estate.now())
        items = "".join(
            f"<item><instanceId>{machine.instance_id}</instanceId><currentState>{state(machine)}</currentState>"
            f"<previousState>{before[machine.instance_id]}</previousState></item>"
            for machine in machines
        )
        return Written(document("TerminateInstancesResponse", f"<instancesSet>{items}</instancesSet>"))

    def stop_instances(self) -> ActionResult:
        raise ApiError("UnsupportedOperation", "Machines of this world can only run or be terminated.")

    start_instances = reboot_instances = stop_instances

    def create_tags(self) -> ActionResult:
        tags = {tag["Key"]: tag.get("Value", "") for tag in self._get_param("Tags", [])}
        return self._retag("create_tags", lambda old: {**old, **tags}, tags)

    def delete_tags(self) -> ActionResult:
        tags = {tag["Key"]: tag.get("Value") for tag in self._get_param("Tags", [])}
        return self._retag(
            "delete_tags",
            lambda old: {key: value for key, value in old.items() if tags.get(key, ...) not in {None, value}},
            tags,
        )

    def describe_spot_price_history(self) -> ActionResult:
        return Written(spot_prices.history(self.estate, self.region, self._request()))

    def describe_instance_types(self) -> ActionResult:
        wanted = self._get_param("InstanceTypes", [])
        found = self.ec2_backend.describe_instance_types(wanted, self._filters_from_querystring())
        page, token = self._page(found, "DescribeInstanceTypes")
        return ActionResult({"InstanceTypes": page, "NextToken": token})

    def describe_instance_type_offerings(self) -> ActionResult:
        location = self._get_param("LocationType")
        found = self.ec2_backend.describe_instance_type_offerings(location, self._filters_from_querystring())
        page, token = self._page(found, "DescribeInstanceTypeOfferings")
        return ActionResult({"InstanceTypeOfferings": page, "NextToken": token})

    def describe_regions(self) -> ActionResult:
        names = self._get_param("RegionNames", [])
        disabled = set() if self._get_bool_param("AllRegions", False) else self.estate.faults.disabled_regions
        enabled = self.estate.enabled_regions - disabled
        found = [region for region in self.ec2_backend.describe_regions(names) if region.name in enabled]
        return ActionResult({"Regions": found})

    def _request(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(dict(self.params), default=str))
        return plain

    def _page(self, items: Any, action: str) -> tuple[Any, str | None]:
        largest = PAGE_SIZES[action]
        size = self._get_int_param("MaxResults", largest)
        if not SMALLEST_PAGE <= size <= largest:
            raise ApiError(
                "InvalidParameterValue",
                f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value between "
                f"{SMALLEST_PAGE} and {largest}.",
            )
        return page_of(items, self._get_param("NextToken"), size)

    def _known(self, ids: list[str]) -> list[Machine]:
        found = {machine.instance_id: machine for machine in self.estate.machines(*self.place)}
        missing = [instance_id for instance_id in ids if instance_id not in found]
        if missing:
            raise InvalidInstanceIdError(missing)
        return [found[instance_id] for instance_id in ids]

    def _token_key(self, action: str, token: str) -> str:
        account_id, region = self.place
        return f"token/{account_id}/{region}/{action}/{token}"

    def _remembered(self, action: str, token: str | None, request: dict[str, Any]) -> Any:
        """What this client token brought about before; None when new, refused when the request differs."""
        replaying = self.estate.replaying_at is not None
        record = self.estate.remembered(self._token_key(action, token)) if token else None
        if record is None or replaying:
            return None
        if record["digest"] != _digest(request):
            raise ApiError(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in "
                "previous request(s).",
            )
        return record["answer"]

    def _remember(self, action: str, token: str | None, request: dict[str, Any], answer: Any) -> None:
        if token:
            self.estate.remember(
                self._token_key(action, token), {"digest": _digest(request), "answer": answer}
            )

    def _retag(self, moto_action: str, change: Any, tags: dict[str, Any]) -> ActionResult:
        """Retag machines in the room and everything else in moto."""
        resources = self._get_param("Resources", [])
        if self.estate.replaying_at is None:  # the room keeps its machines' tags itself
            for machine in self._known([name for name in resources if name.startswith("i-")]):
                self.estate.room.retag(machine.instance_id, tags=change(machine.tags))
        others = [name for name in resources if not name.startswith("i-")]
        if others:
            self.ec2_backend.do_resources_exist(others)
            getattr(self.ec2_backend, moto_action)(others, tags)
        return EmptyResult()


def _digest(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _uuid_like(text: str) -> str:
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:32]))


def _status(machine: Machine) -> dict[str, Any]:
    good = "ok" if machine.state == "running" and machine.failed_at is None else "impaired"
    return {
        "InstanceId": machine.instance_id,
        "AvailabilityZone": machine.zone,
        "InstanceState": {"Code": 16 if machine.state == "running" else 48, "Name": machine.state},
        "InstanceStatus": {"Status": good},
        "SystemStatus": {"Status": good},
    }


def _template(template: Any, caller: str) -> dict[str, Any]:
    return {
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "CreateTime": template.create_time,
        "CreatedBy": caller,
        "DefaultVersionNumber": template.default_version_number,
        "LatestVersionNumber": template.latest_version_number,
        "Tags": template.tags,
    }


def _version(version: LaunchTemplateVersion) -> dict[str, Any]:
    return {
        "LaunchTemplateId": version.template.id,
        "LaunchTemplateName": version.template.name,
        "VersionNumber": version.number,
        "VersionDescription": version.description,
        "DefaultVersion": version.template.is_default(version),
        "LaunchTemplateData": version.data,
    }
