"""What the customer's people do to a cluster, and see of it, without the product."""

import random
import time
from typing import Any

import boto3
import httpx
from botocore.exceptions import BotoCoreError, ClientError

from spotopt.tests.chaos.stage import Stage
from spotopt.tests.smoke.road import CUSTOMER_ACCOUNT
from spotopt.tests.smoke.truth import World

SOFT_TAINT = "spotopt.io/consolidating"


def marked_nodes(stage: Stage, cluster: dict[str, Any]) -> set[str]:
    """Return the live nodes that carry a mark of ours; nobody else cordons here."""
    nodes = Kubernetes(stage.world, cluster["name"]).ask("GET", "/api/v1/nodes")["items"]
    machines = stage.world.read("machines")["machines"]
    alive = {each["private_dns"] for each in machines if each["state"] == "running"}
    return {node["metadata"]["name"] for node in nodes if _is_marked(node)} & alive


def _is_marked(node: dict[str, Any]) -> bool:
    taints = node["spec"].get("taints") or ()
    return bool(node["spec"].get("unschedulable")) or any(taint["key"] == SOFT_TAINT for taint in taints)


class Kubernetes:
    """The customer's own administrator of one cluster; patient with faults."""

    def __init__(self, world: World, name: str) -> None:
        access = world.read(f"clusters/{name}/credentials", **{"as": "admin"})
        self._http = httpx.Client(
            base_url=access["server"], timeout=30, headers={"Authorization": f"Bearer {access['token']}"}
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer, trying until there is one that is not a fault."""
        for _ in range(50):
            headers = {"Content-Type": "application/merge-patch+json"} if body is not None else {}
            answer = self._http.request(method, path, json=body, headers=headers)
            if answer.is_success:
                return answer.json()
            time.sleep(0.1)
        raise SystemExit(f"{method} {path} answered {answer.status_code}: {answer.text}")


class Customer:
    """What people at the customer do to a cluster between two optimizations."""

    def __init__(self, stage: Stage, cluster: dict[str, Any], dice: random.Random) -> None:
        self._stage, self._cluster, self._dice = stage, cluster, dice
        self._kubernetes = Kubernetes(stage.world, cluster["name"])

    def change_load(self) -> None:
        """Scale some deployments, and have the cluster's own group add on-demand nodes."""
        self._grow()
        path = "/apis/apps/v1/namespaces/default/deployments"
        for each in self._kubernetes.ask("GET", path)["items"]:
            if self._dice.random() < 0.5:  # one in two
                scale = {"spec": {"replicas": self._dice.choice((1, 2, 3, 4))}}
                self._kubernetes.ask("PATCH", f"{path}/{each['metadata']['name']}/scale", scale)

    def _grow(self) -> None:
        autoscaling = boto3.Session().client(  # the default session is not for several threads
            "autoscaling",
            endpoint_url=self._stage.instance.aws_url,
            region_name="us-east-1",
            aws_access_key_id=f"AKIACUSTOMERADMIN{CUSTOMER_ACCOUNT}",
            aws_secret_access_key="simulated",  # the simulator takes any
        )
        wanted = self._dice.randint(1, 2)
        for _ in range(50):
            try:
                pages = autoscaling.get_paginator("describe_auto_scaling_groups").paginate()
                groups = [group for page in pages for group in page["AutoScalingGroups"]]
                mine = next(
                    g for g in groups if f"{self._cluster['name']}-general" in g["AutoScalingGroupName"]
                )
                size = min(mine["MaxSize"], mine["DesiredCapacity"] + wanted)
                autoscaling.set_desired_capacity(
                    AutoScalingGroupName=mine["AutoScalingGroupName"], DesiredCapacity=size
                )
            except (ClientError, BotoCoreError):
                time.sleep(0.2)
            else:
                return
        raise SystemExit(f"The group of {self._cluster['name']} did not grow.")
