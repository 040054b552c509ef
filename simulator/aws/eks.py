"""EKS: clusters at the world's Kubernetes addresses, node groups over Auto Scaling groups."""

from datetime import datetime, timedelta

from moto.core.responses import ActionResult
from moto.eks.models import Cluster, Nodegroup
from moto.eks.responses import EKSResponse

from simulator.aws.groups import Group, Groups
from simulator.aws.operation import Operation

CREATION_TAKES = timedelta(minutes=9)


class SimulatedEks(Operation, EKSResponse):
    """Clusters take their time to become ACTIVE; a node group's sizes are those of its Auto Scaling group."""

    groups: Groups

    def create_cluster(self) -> ActionResult:
        answer = super().create_cluster()
        cluster = self.eks_backend.clusters[self._get_param("name")]
        cluster.created_at, cluster.status = self.estate.now(), "CREATING"
        cluster.endpoint = f"{self.estate.kube_url}/clusters/{cluster.name}"
        return answer

    def describe_cluster(self) -> ActionResult:
        cluster = self.eks_backend.describe_cluster(name=self._get_param("name"))
        self._age(cluster)
        return ActionResult({"cluster": cluster})

    def create_nodegroup(self) -> ActionResult:
        self._age(self.eks_backend.describe_cluster(name=self._get_param("name")))
        return super().create_nodegroup()

    def describe_nodegroup(self) -> ActionResult:
        nodegroup = self._nodegroup()
        group = self._group_of(nodegroup)
        if group:
            nodegroup.scaling_config = {
                "minSize": group.min_size, "maxSize": group.max_size, "desiredSize": group.desired
            }  # fmt: skip
        return ActionResult({"nodegroup": nodegroup})

    def update_nodegroup_config(self) -> ActionResult:
        group, sizes = self._group_of(self._nodegroup()), self._get_param("scalingConfig")
        if group and sizes and self.estate.replaying_at is None:  # groups are journaled on their own
            self.groups.resize(
                group,
                minimum=sizes.get("minSize"),
                maximum=sizes.get("maxSize"),
                desired=sizes.get("desiredSize"),
            )
        return super().update_nodegroup_config()

    def _nodegroup(self) -> Nodegroup:
        name, nodegroup_name = self._get_param("name"), self._get_param("nodegroupName")
        found: Nodegroup = self.eks_backend.describe_nodegroup(
            cluster_name=name, nodegroup_name=nodegroup_name
        )
        return found

    def _group_of(self, nodegroup: Nodegroup) -> Group | None:
        name = str(nodegroup.resources["autoScalingGroups"][0]["name"])  # type: ignore[index]  # untyped in moto
        return self.groups.get(*self.place, name) if self.groups.exists(*self.place, name) else None

    def _age(self, cluster: Cluster) -> None:
        created_at = cluster.created_at
        if cluster.status == "CREATING" and isinstance(created_at, datetime):
            old = self.estate.now() - created_at >= CREATION_TAKES
            cluster.status = "ACTIVE" if old else "CREATING"
