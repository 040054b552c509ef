"""The plain manifest and the chart say the same, and neither asks for more than the agent uses."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from agentapi.agent.eviction import budget_obstacle
from agentapi.agent.sentry import Post
from agentapi.agent.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
VALUES = yaml.safe_load((ROOT / "chart" / "values.yaml").read_text())
OPTIONS = ("karpenter", "sentries", "workloads")
GIVEN = {
    "apiUrl": "https://spotopt.example.com",
    "clusterId": "00000000-0000-0000-0000-000000000000",
    "workloadChanges": True,
    "karpenter": True,
    "sentries": True,
}


def manifest(*, options=()):
    files = [ROOT / "manifest.yaml", *(ROOT / "manifest-options" / f"{name}.yaml" for name in options)]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def rendered_chart():
    """The chart as Helm renders it with every option; its templates only put values in."""
    values = VALUES | GIVEN

    def put_in(match):
        expression = match.group(1)
        if expression.startswith("- "):  # an option's if and end
            return ""
        if ".Release.Namespace" in expression:
            return "spot-optimizer"
        value = values[re.search(r"\.Values\.(\w+)", expression).group(1)]
        if "toJson" in expression or "quote" not in expression:
            return json.dumps(value)
        return '"' + str(value).replace("True", "true").replace("False", "false") + '"'

    files = [ROOT / "chart" / "templates" / f"{name}.yaml" for name in ("agent", *OPTIONS)]
    texts = (re.sub(r"\{\{(.*?)\}\}", put_in, file.read_text()) for file in files)
    return [document for text in texts for document in yaml.safe_load_all(text)]


def workload(documents, kind="Deployment"):
    return next(each for each in documents if each["kind"] == kind)["spec"]["template"]["spec"]


def without_namespace(documents):
    return [each for each in documents if each["kind"] != "Namespace"]


def test_given_chart_and_manifest_when_rendered_then_they_say_the_same():
    assert rendered_chart() == without_namespace(manifest(options=OPTIONS))


if shutil.which("helm"):  # where it is not, the comparison above renders the chart by itself

    def test_given_helm_when_it_renders_the_chart_then_it_says_what_the_manifest_says():
        settings = [f"--set={key}={json.dumps(value)}" for key, value in GIVEN.items()]
        command = ["helm", "template", "spotopt-agent", ROOT / "chart", "-n", "spot-optimizer", *settings]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout

        rendered = [each for each in yaml.safe_load_all(shown) if each]
        key = json.dumps
        assert sorted(rendered, key=key) == sorted(without_namespace(manifest(options=OPTIONS)), key=key)


def test_given_the_manifest_when_validated_strictly_then_the_three_newest_versions_take_it():
    newest = kubernetes_validate.utils.all_versions()[-3:]
    assert len(newest) == 3
    for version in newest:
        for document in manifest(options=OPTIONS):
            kubernetes_validate.validate(document, version, strict=True)


class Environment(dict):
    """A container's environment that knows which of its variables were read."""

    def __init__(self, container):
        super().__init__({each["name"]: each.get("value", "a") for each in container["env"]})
        self.unread = set(self)

    def __getitem__(self, name):
        self.unread.discard(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.unread.discard(name)
        return super().get(name, default)


@pytest.mark.parametrize(("kind", "reader"), [("Deployment", Settings), ("DaemonSet", Post)])
def test_given_a_container_when_it_starts_then_it_is_given_what_it_needs_and_reads_all_it_is_given(
    kind, reader
):
    [container] = workload(manifest(options=["sentries"]), kind)["containers"]
    environment = Environment(container)

    read = reader.from_environment(environment)

    assert (read.state_dir, environment.unread) == (Path("/state"), set())
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/state"]


def test_given_the_sentries_when_installed_then_they_may_do_nothing_in_the_cluster():
    """Whoever may patch pods may change their images: one node would be enough to become the agent."""
    documents = manifest(options=["sentries"])[len(manifest()) :]

    assert [each["kind"] for each in documents] == ["DaemonSet"]
    assert workload(documents, "DaemonSet")["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("kind", "grade"), [("Deployment", "cluster"), ("DaemonSet", "node")])
def test_given_a_full_cluster_when_pods_compete_then_those_that_others_depend_on_stay(kind, grade):
    pod = workload(manifest(options=["sentries"]), kind)

    assert pod["priorityClassName"] == f"system-{grade}-critical"


def test_given_an_agent_that_counts_thousands_of_pods_when_probed_then_it_has_time_to_answer():
    [container] = workload(manifest())["containers"]

    assert container["livenessProbe"]["timeoutSeconds"] >= 10
    assert container["readinessProbe"]["timeoutSeconds"] >= 10


def test_given_the_agent_when_installed_then_it_runs_without_privileges():
    pod = workload(manifest())
    [container] = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"] == VALUES["resources"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_given_the_cluster_role_when_read_then_it_writes_nothing_but_nodes_and_evictions():
    role = next(each for each in manifest() if each["kind"] == "ClusterRole")
    writes = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in ("get", "list", "watch")
    }

    assert writes == {("nodes", "patch"), ("pods/eviction", "create")}
    assert not any(
        "*" in rule[part] for rule in role["rules"] for part in ("apiGroups", "resources", "verbs")
    )
    assert not any("secrets" in rule["resources"] for rule in role["rules"])


def test_given_the_role_in_its_own_namespace_when_read_then_it_reaches_one_secret_and_one_lease():
    role = next(each for each in manifest() if each["kind"] == "Role")

    named = {
        tuple(rule["resources"]): (rule.get("resourceNames"), rule["verbs"]) for rule in role["rules"][:1]
    }
    assert named == {("secrets",): (["spotopt-agent-identity"], ["get", "patch"])}
    assert [(rule.get("resourceNames"), rule["verbs"]) for rule in role["rules"][1:]] == [
        (None, ["create"]),
        (["spotopt-agent"], ["get", "update"]),
    ]
    assert all(rule["resources"] == ["leases"] for rule in role["rules"][1:])


def test_given_the_network_policy_when_read_then_only_the_health_port_is_open():
    policy = next(each for each in manifest() if each["kind"] == "NetworkPolicy")["spec"]

    assert policy["ingress"] == [{"ports": [{"port": 8080, "protocol": "TCP"}]}]
    assert {each["port"] for rule in policy["egress"] for each in rule["ports"]} == {53, 443, 6443}


def test_given_several_replicas_when_drained_then_the_budget_lets_them_go_one_by_one():
    budget = next(each for each in manifest() if each["kind"] == "PodDisruptionBudget")["spec"]

    assert (budget["maxUnavailable"], "minAvailable" in budget) == (1, False)


def test_given_an_agent_that_is_not_ready_when_its_node_is_drained_then_its_budget_lets_it_go():
    [body] = [each for each in manifest() if each["kind"] == "PodDisruptionBudget"]
    labels = body["spec"]["selector"]["matchLabels"]
    pod = {"metadata": {"name": "p", "namespace": "n", "labels": labels}, "status": {"phase": "Running"}}

    # of one replica none may be missing when it is missing already
    status = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0}
    assert budget_obstacle(pod, [body | {"status": status}]) is None


@pytest.mark.parametrize("name", ["cryptography", "httpx", "httpx-ws", "kr8s"])
def test_given_the_agents_image_when_built_then_its_libraries_are_pinned_as_the_products_are(name):
    pinned = (ROOT / "agent" / "requirements.txt").read_text().split()
    locked = (ROOT.parent / "requirements.txt").read_text()

    [pin] = [each for each in pinned if each.startswith(f"{name}==")]
    assert re.search(rf"^{re.escape(pin)}$", locked, re.MULTILINE)
