"""Tell a person how to install the agent, without the token on a command line."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from uuid import UUID

import yaml
from django.conf import settings

from agentapi.services import keys
from clusters.models import Cluster
from spotopt.core.actor import Actor

SECRET = "spotopt-agent-token"  # noqa: S105  # the name of a Kubernetes Secret
_APP = Path(__file__).resolve().parent.parent
_NAMESPACE = "spot-optimizer"
ROTATION_COMMANDS = (
    f"kubectl -n {_NAMESPACE} create secret generic {SECRET} --from-file=token=/dev/stdin "
    "--dry-run=client -o yaml | kubectl apply -f -\n"
    f"kubectl -n {_NAMESPACE} rollout restart deployment/spotopt-agent"
)
"""Give an installed agent its new key, by standard input."""
OPTIONS = {"workloads": "workloadChanges", "karpenter": "karpenter", "sentries": "sentries"}
"""Rights that are given on request only: the file under ``manifest-options`` and the chart's value."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What installs the agent of one cluster; ``api_token`` is shown this once."""

    cluster_id: UUID
    namespace: str
    endpoint: str
    api_token: str
    expires_at: datetime | None
    helm_command: str
    values_yaml: str
    manifest: str


def prepare_installation(
    *, cluster: Cluster, namespace: str, actor: Actor, options: Collection[str] = ()
) -> Installation:
    """Issue a bootstrap key and return the commands that install the agent with it and the optional rights.

    Raises Conflict while an agent of the cluster is connected.
    """
    issued = keys.issue_bootstrap_key(cluster=cluster, actor=actor)
    endpoint = settings.AGENT_API_URL
    return Installation(
        cluster_id=cluster.pk,
        namespace=namespace,
        endpoint=endpoint,
        api_token=issued.token,
        expires_at=issued.key.expires_at,
        helm_command=_helm_command(namespace),
        values_yaml=f"apiUrl: {endpoint}\nclusterId: {cluster.pk}\nexistingSecret: {SECRET}\n"
        + "".join(f"{OPTIONS[each]}: true\n" for each in sorted(options)),
        manifest=_manifest(cluster, namespace, endpoint, options),
    )


@dataclass(frozen=True, slots=True)
class Right:
    """What the agent may do with some resources; ``option`` names the choice that grants it, if it is one."""

    verbs: str
    resources: str
    where: str
    option: str = ""


@cache
def cluster_rights() -> tuple[Right, ...]:
    """Return every right in the agent's manifest, those of every installation first."""
    files = {"": _APP / "manifest.yaml"} | {
        name: _APP / "manifest-options" / f"{name}.yaml" for name in OPTIONS
    }
    return tuple(
        Right(
            verbs=", ".join(rule["verbs"]),
            resources=", ".join(rule["resources"]),
            where="the cluster" if document["kind"] == "ClusterRole" else "its own namespace",
            option=option,
        )
        for option, file in files.items()
        for document in yaml.safe_load_all(file.read_text())
        if document["kind"] in ("ClusterRole", "Role")
        for rule in document["rules"]
    )


def _helm_command(namespace: str) -> str:
    """Return commands that read the token from standard input and everything else from values.yaml."""
    return "\n".join(
        [
            f"kubectl create namespace {namespace}",
            f"kubectl -n {namespace} create secret generic {SECRET} --from-file=token=/dev/stdin",
            f"helm upgrade --install spotopt-agent agentapi/chart -n {namespace} -f values.yaml",
        ]
    )


def _manifest(cluster: Cluster, namespace: str, endpoint: str, options: Collection[str]) -> str:
    files = [
        _APP / "manifest.yaml",
        *(_APP / "manifest-options" / f"{each}.yaml" for each in sorted(options)),
    ]
    text = "---\n".join(file.read_text() for file in files)
    for placeholder, value in (
        ("https://spotopt.example.com", endpoint),
        ("00000000-0000-0000-0000-000000000000", str(cluster.pk)),
        ("spot-optimizer", namespace),
    ):
        text = text.replace(placeholder, value)
    return text
