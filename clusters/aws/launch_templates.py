"""Launch templates: read what a group's says, and keep versions of our own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusters.aws.errors import AwsError, translated
from clusters.aws.session import RegionSession
from clusters.domain.capacity import LaunchTemplate

if TYPE_CHECKING:
    from botocore.model import Shape

Content = dict[str, Any]
"""What a template says, in AWS's own words; its user data is in base64."""
PAGE = 200
_EXISTS = "InvalidLaunchTemplateName.AlreadyExistsException"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a template of ours."""

    template: LaunchTemplate
    description: str
    is_default: bool


def content(session: RegionSession, *, template: LaunchTemplate) -> Content:
    """Return what a template's version says, without what AWS adds and does not take back.

    Raises ResourceMissing when there is no such template.
    """
    with translated(action="ec2:DescribeLaunchTemplateVersions", region=session.region):
        answer = session.ec2.describe_launch_template_versions(
            LaunchTemplateId=template.id, Versions=[template.version]
        )
    told = answer["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    request: Any = session.ec2.meta.service_model.operation_model("CreateLaunchTemplateVersion").input_shape
    found: Content = _taken(request.members["LaunchTemplateData"], told)
    return found


def versions(session: RegionSession, *, name: str) -> tuple[Version, ...]:
    """Return the versions of the template of this name, newest first; ResourceMissing when there is none."""
    with translated(action="ec2:DescribeLaunchTemplateVersions", region=session.region):
        pages = session.ec2.get_paginator("describe_launch_template_versions").paginate(
            LaunchTemplateName=name, PaginationConfig={"PageSize": PAGE}
        )
        rows: list[Any] = [row for page in pages for row in page["LaunchTemplateVersions"]]
    return tuple(_version(row) for row in sorted(rows, key=lambda row: -row["VersionNumber"]))


def dry_run_create(session: RegionSession, *, name: str, tags: Mapping[str, str]) -> None:
    """Raise DryRunPassed when a template could be made, or the AwsError that says why not."""
    with translated(action="ec2:CreateLaunchTemplate", region=session.region):
        session.ec2.create_launch_template(
            DryRun=True,
            LaunchTemplateName=name,
            LaunchTemplateData={"InstanceType": "m5.large"},
            TagSpecifications=_tagged(tags),
        )


def create(
    session: RegionSession, *, name: str, description: str, content: Content, tags: Mapping[str, str]
) -> LaunchTemplate:
    """Return the first version of a new template, or one more where another worker was faster."""
    try:
        with translated(action="ec2:CreateLaunchTemplate", region=session.region):
            made = session.ec2.create_launch_template(
                ClientToken=_token(name, description),
                LaunchTemplateName=name,
                VersionDescription=description,
                LaunchTemplateData=content,  # type: ignore[arg-type]  # as AWS described it
                TagSpecifications=_tagged(tags),
            )["LaunchTemplate"]
    except AwsError as error:
        if error.aws_code != _EXISTS:
            raise
        return add_version(session, name=name, description=description, content=content)
    return LaunchTemplate(made["LaunchTemplateId"], "1")


def add_version(session: RegionSession, *, name: str, description: str, content: Content) -> LaunchTemplate:
    """Return a new version of a template; the same words bring the same version again."""
    with translated(action="ec2:CreateLaunchTemplateVersion", region=session.region):
        made: Any = session.ec2.create_launch_template_version(
            ClientToken=_token(name, description),
            LaunchTemplateName=name,
            VersionDescription=description,
            LaunchTemplateData=content,  # type: ignore[arg-type]  # as AWS described it
        )["LaunchTemplateVersion"]
    return _version(made).template


def delete_versions(session: RegionSession, *, name: str, numbers: Sequence[str]) -> None:
    """Delete versions of a template; those that are gone already do no harm."""
    with translated(action="ec2:DeleteLaunchTemplateVersions", region=session.region):
        session.ec2.delete_launch_template_versions(LaunchTemplateName=name, Versions=list(numbers))


def _version(row: Mapping[str, Any]) -> Version:
    return Version(
        template=LaunchTemplate(row["LaunchTemplateId"], str(row["VersionNumber"])),
        description=row.get("VersionDescription", ""),
        is_default=row.get("DefaultVersion", False),
    )


def _tagged(tags: Mapping[str, str]) -> Any:
    listed = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
    return [{"ResourceType": "launch-template", "Tags": listed}]


def _token(name: str, description: str) -> str:
    return f"{name}-{description}"


def _taken(shape: "Shape", told: Any) -> Any:
    """Return the part of an answer that AWS also takes as a parameter of this shape."""
    if shape.type_name == "structure":
        known: dict[str, Shape] = shape.members  # type: ignore[attr-defined]  # of a structure
        return {name: _taken(known[name], value) for name, value in told.items() if name in known}
    if shape.type_name == "list":
        return [_taken(shape.member, value) for value in told]  # type: ignore[attr-defined]  # of a list
    return told
