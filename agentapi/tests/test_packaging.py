"""The plain manifest and the chart say the same, and neither asks for more than the agent uses."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
VALUES = yaml.safe_load((ROOT / "chart" / "values.yaml").read_text())


def manifest():
    return list(yaml.safe_load_all((ROOT / "manifest.yaml").read_text()))


def rendered_chart():
    """The chart as Helm renders it; its templates only put values in."""
    text = (ROOT / "chart" / "templates" / "agent.yaml").read_text()
    values = VALUES | {
        "apiUrl": "https://spotopt.example.com",
        "clusterId": "00000000-0000-0000-0000-000000000000",
    }

    def put_in(match):
        expression = match.group(1)
        if ".Release.Namespace" in expression:
            return "spot-optimizer"
        value = values[re.search(r"\.Values\.(\w+)", expression).group(1)]
        if "toJson" in expression:
            return yaml.safe_dump(value, default_flow_style=True).strip()
        return '"' + str(value).replace("True", "true").replace("False", "false") + '"'

    return list(yaml.safe_load_all(re.sub(r"\{\{(.*?)\}\}", put_in, text)))


def workload(documents):
    return next(each for each in documents if each["kind"] == "Deployment")["spec"]["template"]["spec"]


def test_given_chart_and_manifest_when_rendered_then_they_say_the_same():
    assert rendered_chart() == [each for each in manifest() if each["kind"] != "Namespace"]


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


def test_given_the_role_in_its_own_namespace_when_read_then_it_reaches_one_secret():
    role = next(each for each in manifest() if each["kind"] == "Role")

    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["spotopt-agent-identity"],
            "verbs": ["get", "patch"],
        }
    ]


@pytest.mark.parametrize("name", ["cryptography", "httpx", "kr8s"])
def test_given_the_agents_image_when_built_then_its_libraries_are_pinned_as_the_products_are(name):
    pinned = (ROOT / "agent" / "requirements.txt").read_text().split()
    locked = (ROOT.parent / "requirements.txt").read_text()

    [pin] = [each for each in pinned if each.startswith(f"{name}==")]
    assert re.search(rf"^{re.escape(pin)}$", locked, re.MULTILINE)
