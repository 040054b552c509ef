"""Find out which permissions a role really has, without changing anything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from accounts.domain.trust_policy import CLUSTER_TAGS, LAUNCH_TAG
from clusters.aws import autoscaling, ec2, eks, launch_templates
from clusters.aws.errors import (
    AwsAccessDenied,
    AwsError,
    AwsThrottled,
    AwsTimeout,
    AwsUnreachable,
    DryRunPassed,
    RegionDisabled,
    ResourceMissing,
)
from clusters.aws.session import RegionSession
from clusters.domain.capacity import FleetOverride, FoundInstance, ScalingGroup
from clusters.domain.permissions import Grant, complete

FIRST_PAGE = 100
NOBODY = "spotopt-permission-check"
"""A name that no cluster has: AWS checks the permission before it looks for the thing."""
DRY_RUN_READS = (
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeSubnets",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeSpotPriceHistory",
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What the role may do, and what a first look at one region showed."""

    grants: tuple[Grant, ...]
    instances_seen: int
    clusters_seen: int
    is_partial: bool
    """More instances exist than were counted, or other regions were not looked at."""


def probe(session: RegionSession, *, is_read_only: bool) -> Probe:
    """Try every permission that can be tried in one region.

    Raises AwsError when AWS throttles, cannot be reached or does not know the region: then nothing is
    known about the permissions.
    """
    look = _Look(session)
    look.at_reads()
    if not is_read_only:
        look.at_writes()
    return Probe(
        grants=complete(look.grants, is_read_only=is_read_only),
        instances_seen=len(look.instances),
        clusters_seen=len(look.clusters),
        is_partial=look.has_more or look.regions > 1,
    )


class _Look:
    """One pass over the permissions; later checks use what earlier ones found."""

    def __init__(self, session: RegionSession) -> None:
        self._session = session
        self.grants: list[Grant] = []
        self.instances: tuple[FoundInstance, ...] = ()
        self.clusters: tuple[str, ...] = ()
        self.groups: tuple[ScalingGroup, ...] = ()
        self.has_more = False
        self.regions = 0

    def at_reads(self) -> None:
        """Call, for a small answer, what a scan calls."""
        session = self._session
        self._try("ec2:DescribeRegions", self._count_regions)
        self._try("ec2:DescribeInstances", self._read_instances)
        for action in DRY_RUN_READS:
            self._try(action, partial(ec2.dry_run_read, session, action=action))
        self._try("eks:ListClusters", self._read_clusters)
        cluster = self.clusters[0] if self.clusters else NOBODY
        self._try("eks:DescribeCluster", partial(eks.describe_cluster, session, name=cluster))
        self._try("eks:ListNodegroups", partial(eks.list_node_groups, session, cluster_name=cluster))
        describe_group = partial(eks.describe_node_group, session, cluster_name=cluster, name=NOBODY)
        self._try("eks:DescribeNodegroup", describe_group)
        self._try("autoscaling:DescribeAutoScalingGroups", self._read_groups)

    def at_writes(self) -> None:
        """Ask for dry runs on what exists; without an instance or group to try on, nothing is known."""
        launchable = (group for group in self.groups if group.launch_template and group.instance_types)
        if group := next(launchable, None):
            self._at_launch(group)
        ours = (
            instance.instance_id
            for instance in self.instances
            if instance.state != "terminated" and set(CLUSTER_TAGS) & instance.tags.keys()
        )
        if instance_id := next(ours, None):
            terminate = partial(ec2.terminate, session=self._session, instance_id=instance_id)
            self._try("ec2:TerminateInstances", partial(terminate, is_dry_run=True))

    def _at_launch(self, group: ScalingGroup) -> None:
        session, tags = self._session, {LAUNCH_TAG: NOBODY}
        if group.launch_template is None or not group.subnet_ids:
            return
        template, subnet_id = group.launch_template, group.subnet_ids[0]
        create_fleet = partial(
            ec2.create_instant_fleet,
            session=session,
            client_token=NOBODY,
            launch_template=template,
            overrides=[FleetOverride(group.instance_types[0], subnet_id)],
            capacity_type="on_demand",
            count=1,
            tags=tags,
            is_dry_run=True,
        )
        self._try("ec2:CreateFleet", create_fleet)
        launch = partial(
            ec2.dry_run_launch, session, launch_template=template, subnet_id=subnet_id, tags=tags
        )
        make_template = partial(launch_templates.dry_run_create, session, name=NOBODY, tags=tags)
        self._try("ec2:CreateLaunchTemplate", make_template)
        self._try("ec2:RunInstances", launch, proves=("ec2:CreateTags", "iam:PassRole"))

    def _count_regions(self) -> None:
        self.regions = len(ec2.enabled_regions(self._session))

    def _read_instances(self) -> None:
        self.instances, self.has_more = ec2.first_instances(self._session, limit=FIRST_PAGE)

    def _read_clusters(self) -> None:
        self.clusters = eks.list_clusters(self._session)

    def _read_groups(self) -> None:
        self.groups = autoscaling.describe_groups(self._session)

    def _try(self, action: str, call: Callable[[], object], *, proves: Sequence[str] = ()) -> None:
        """Note what the call shows about its action and about those that AWS checks along with it."""
        try:
            call()
        except (DryRunPassed, ResourceMissing):
            pass
        except AwsAccessDenied as error:  # AWS may name another action, such as iam:PassRole
            self.grants.append(Grant(error.action, False, error.detail))
            return
        except (AwsThrottled, AwsTimeout, AwsUnreachable, RegionDisabled):
            raise
        except AwsError as error:
            self.grants.append(Grant(action, None, f"Not checked: {error.detail}"))
            return
        self.grants.extend(Grant(name, True) for name in (action, *proves))
