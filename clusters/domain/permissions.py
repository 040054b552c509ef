"""Which AWS permissions Spotopt asks for, what for, and what a probe of them found."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Purpose(StrEnum):
    """Why a permission is asked for, in the words of the page."""

    SCAN = "Find clusters, nodes and node groups"
    PRICES = "Read current spot prices"
    LAUNCH = "Launch replacement nodes"
    TERMINATE = "Terminate drained nodes"
    RESIZE = "Resize node groups"


READ_PURPOSES = frozenset({Purpose.SCAN, Purpose.PRICES})

NEEDED: dict[str, Purpose] = {
    "ec2:DescribeRegions": Purpose.SCAN,
    "ec2:DescribeInstances": Purpose.SCAN,
    "ec2:DescribeAvailabilityZones": Purpose.SCAN,
    "ec2:DescribeSubnets": Purpose.SCAN,
    "ec2:DescribeLaunchTemplateVersions": Purpose.SCAN,
    "eks:ListClusters": Purpose.SCAN,
    "eks:DescribeCluster": Purpose.SCAN,
    "eks:ListNodegroups": Purpose.SCAN,
    "eks:DescribeNodegroup": Purpose.SCAN,
    "autoscaling:DescribeAutoScalingGroups": Purpose.SCAN,
    "ec2:DescribeSpotPriceHistory": Purpose.PRICES,
    "ec2:CreateFleet": Purpose.LAUNCH,
    "ec2:RunInstances": Purpose.LAUNCH,
    "ec2:CreateTags": Purpose.LAUNCH,
    "ec2:CreateLaunchTemplate": Purpose.LAUNCH,
    "ec2:CreateLaunchTemplateVersion": Purpose.LAUNCH,
    "ec2:DeleteLaunchTemplateVersions": Purpose.LAUNCH,
    "iam:PassRole": Purpose.LAUNCH,
    "ec2:TerminateInstances": Purpose.TERMINATE,
    "autoscaling:TerminateInstanceInAutoScalingGroup": Purpose.TERMINATE,
    "autoscaling:UpdateAutoScalingGroup": Purpose.RESIZE,
    "autoscaling:DetachInstances": Purpose.RESIZE,
    "autoscaling:SuspendProcesses": Purpose.RESIZE,
    "autoscaling:ResumeProcesses": Purpose.RESIZE,
}
"""Every action that the role's policy must allow, in the order in which it is shown."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a probe of one action found; ``is_granted`` is None when AWS offers no way to find out."""

    action: str
    is_granted: bool | None
    note: str = ""

    @property
    def purpose(self) -> Purpose:
        """Return what the action is needed for."""
        return NEEDED[self.action]

    def as_json(self) -> dict[str, object]:
        """Return the grant as the account's row keeps it."""
        return {
            "action": self.action,
            "granted": self.is_granted,
            "needed_for": self.purpose.value,
            "note": self.note,
        }


def actions_for(*, is_read_only: bool) -> tuple[str, ...]:
    """Return the actions that an account in this permission mode must allow."""
    return tuple(action for action, purpose in NEEDED.items() if not is_read_only or purpose in READ_PURPOSES)


def complete(grants: Iterable[Grant], *, is_read_only: bool) -> tuple[Grant, ...]:
    """Return a grant for each needed action, in order; what was not probed is "not checked"."""
    known = {grant.action: grant for grant in grants}
    unknown = "Not checked: AWS has no dry run for this call."
    return tuple(
        known.get(action, Grant(action, None, unknown)) for action in actions_for(is_read_only=is_read_only)
    )


def denied(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """Return the grants that AWS refused."""
    return tuple(grant for grant in grants if grant.is_granted is False)
