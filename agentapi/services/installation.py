"""Tell a person how to install the agent, without the token on a command line."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from django.conf import settings

from agentapi.services import keys
from clusters.models import Cluster
from spotopt.core.actor import Actor

SECRET = "spotopt-agent-token"  # noqa: S105  # the name of a Kubernetes Secret
_MANIFEST = Path(__file__).resolve().parent.parent / "manifest.yaml"


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


def prepare_installation(*, cluster: Cluster, namespace: str, actor: Actor) -> Installation:
    """Issue a bootstrap key and return the commands that install the agent with it.

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
        values_yaml=f"apiUrl: {endpoint}\nclusterId: {cluster.pk}\nexistingSecret: {SECRET}\n",
        manifest=_manifest(cluster, namespace, endpoint),
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


def _manifest(cluster: Cluster, namespace: str, endpoint: str) -> str:
    text = _MANIFEST.read_text()
    for placeholder, value in (
        ("https://spotopt.example.com", endpoint),
        ("00000000-0000-0000-0000-000000000000", str(cluster.pk)),
        ("spot-optimizer", namespace),
    ):
        text = text.replace(placeholder, value)
    return text
