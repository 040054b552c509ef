"""EKS: clusters and managed node groups."""

from collections.abc import Mapping
from typing import Any

from clusters.aws.errors import translated
from clusters.aws.session import RegionSession
from clusters.domain.capacity import FoundCluster, ManagedNodeGroup

TAINT_EFFECTS = {
    "NO_SCHEDULE": "NoSchedule",
    "NO_EXECUTE": "NoExecute",
    "PREFER_NO_SCHEDULE": "PreferNoSchedule",
}


def list_clusters(session: RegionSession) -> tuple[str, ...]:
    """Return the names of the region's EKS clusters."""
    with translated(action="eks:ListClusters", region=session.region):
        pages = session.eks.get_paginator("list_clusters").paginate()
        return tuple(name for page in pages for name in page["clusters"])


def describe_cluster(session: RegionSession, *, name: str) -> FoundCluster:
    """Return one cluster; raise ResourceMissing when there is none of this name."""
    with translated(action="eks:DescribeCluster", region=session.region):
        row = session.eks.describe_cluster(name=name)["cluster"]
    return FoundCluster(
        name=row["name"],
        arn=row["arn"],
        version=row.get("version", ""),
        endpoint=row.get("endpoint", ""),
        vpc_id=row.get("resourcesVpcConfig", {}).get("vpcId", ""),
        tags=row.get("tags", {}),
    )


def list_node_groups(session: RegionSession, *, cluster_name: str) -> tuple[str, ...]:
    """Return the names of the cluster's managed node groups."""
    with translated(action="eks:ListNodegroups", region=session.region):
        pages = session.eks.get_paginator("list_nodegroups").paginate(clusterName=cluster_name)
        return tuple(name for page in pages for name in page["nodegroups"])


def describe_node_group(session: RegionSession, *, cluster_name: str, name: str) -> ManagedNodeGroup:
    """Return one managed node group; raise ResourceMissing when there is none of this name."""
    with translated(action="eks:DescribeNodegroup", region=session.region):
        answer = session.eks.describe_nodegroup(clusterName=cluster_name, nodegroupName=name)
    row: Mapping[str, Any] = answer["nodegroup"]
    scaling = row.get("scalingConfig", {})
    groups = (row.get("resources") or {}).get("autoScalingGroups") or []
    return ManagedNodeGroup(
        cluster_name=cluster_name,
        name=name,
        asg_names=tuple(group["name"] for group in groups),
        instance_types=tuple(row.get("instanceTypes") or ()),
        subnet_ids=tuple(row.get("subnets") or ()),
        min_size=scaling.get("minSize", 0),
        desired=scaling.get("desiredSize", 0),
        max_size=scaling.get("maxSize", 0),
        is_spot_enabled=row.get("capacityType") == "SPOT",
        labels=row.get("labels") or {},
        taints=tuple(
            {"key": taint["key"], "value": taint.get("value", ""), "effect": TAINT_EFFECTS[taint["effect"]]}
            for taint in row.get("taints") or ()
        ),
    )
