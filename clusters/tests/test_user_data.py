import gzip
import tomllib
from email import message_from_string

import pytest
import yaml

from clusters.domain.user_data import UserDataUnreadable, capacity_labels, relabelled
from simulator.aws.launching import registration

SPOT = capacity_labels("spot")
BOOTSTRAP = "#!/bin/bash\nset -e\n/etc/eks/bootstrap.sh shop {}\n"
NODE_CONFIG = """\
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  cluster:
    name: shop
  kubelet:
    flags: [{}]
"""
MIME = """\
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="//"

--//
Content-Type: application/node.eks.aws

---
{}
--//--
"""
OF_EKS = "team=blue,eks.amazonaws.com/capacityType=ON_DEMAND,eks.amazonaws.com/nodegroup=general"


def _registered(user_data):
    return registration(relabelled(user_data.encode(), SPOT).decode())


@pytest.mark.parametrize(
    "user_data",
    [
        BOOTSTRAP.format(f"--kubelet-extra-args '--max-pods=29 --node-labels={OF_EKS}'"),
        BOOTSTRAP.format(f'--kubelet-extra-args "--node-labels={OF_EKS} --max-pods=29"'),
        BOOTSTRAP.format(f"\\\n  --kubelet-extra-args --node-labels={OF_EKS}"),
        f"ARGS='--node-labels {OF_EKS}'\n/etc/eks/bootstrap.sh shop --kubelet-extra-args $ARGS\n",
        NODE_CONFIG.format(f'"--node-labels={OF_EKS}"'),
        MIME.format(NODE_CONFIG.format(f'"--node-labels={OF_EKS}", "--max-pods=29"')),
    ],
)
def test_given_the_labels_of_a_managed_group_when_relabelled_then_the_node_says_what_it_is(user_data):
    cluster, labels, _ = _registered(user_data)

    assert (cluster, labels) == ("shop", {"team": "blue"} | SPOT)


@pytest.mark.parametrize(
    "user_data",
    [
        BOOTSTRAP.format(""),
        BOOTSTRAP.format("--use-max-pods false"),
        BOOTSTRAP.format("--kubelet-extra-args '--max-pods=29'"),
        BOOTSTRAP.format('--kubelet-extra-args "$EXTRA"'),
        NODE_CONFIG.format(""),
        MIME.format(NODE_CONFIG.format("")),
    ],
)
def test_given_no_labels_when_relabelled_then_the_node_gets_ours(user_data):
    cluster, labels, _ = _registered(user_data)

    assert (cluster, labels) == ("shop", SPOT)


@pytest.mark.parametrize("user_data", [NODE_CONFIG.format(""), MIME.format(NODE_CONFIG.format(""))])
def test_given_a_node_config_without_labels_when_relabelled_then_it_is_a_message_of_two_node_configs(
    user_data,
):
    message = message_from_string(relabelled(user_data.encode(), SPOT).decode())

    assert [part.get_content_type() for part in message.get_payload()] == ["application/node.eks.aws"] * 2


def test_given_labels_in_a_variable_when_relabelled_then_ours_come_last_and_win():
    user_data = BOOTSTRAP.format('--kubelet-extra-args "--node-labels=$LABELS"')

    rewritten = relabelled(user_data.encode(), SPOT).decode()

    assert "--node-labels=$LABELS,eks.amazonaws.com/capacityType=SPOT," in rewritten


@pytest.mark.parametrize("labels", ["", '"eks.amazonaws.com/capacityType" = "ON_DEMAND"\n"team" = "blue"\n'])
def test_given_settings_of_bottlerocket_when_relabelled_then_only_the_labels_change(labels):
    table = f"[settings.kubernetes.node-labels]\n{labels}" if labels else ""
    admin = "[settings.host-containers.admin]\nenabled = true\n"
    user_data = f'[settings.kubernetes]\ncluster-name = "shop"\n{table}{admin}'

    settings = tomllib.loads(relabelled(user_data.encode(), SPOT).decode())["settings"]

    assert settings["kubernetes"]["node-labels"] == ({"team": "blue"} if labels else {}) | SPOT
    assert settings["kubernetes"]["cluster-name"] == "shop"
    assert settings["host-containers"] == {"admin": {"enabled": True}}


def test_given_compressed_user_data_when_relabelled_twice_then_both_are_the_same_bytes_and_unpack():
    user_data = gzip.compress(BOOTSTRAP.format("").encode())

    one, two = relabelled(user_data, SPOT), relabelled(user_data, SPOT)

    assert one == two
    assert registration(gzip.decompress(one).decode())[1] == SPOT


@pytest.mark.parametrize(
    ("user_data", "reason"),
    [
        (b"", "neither"),
        (b"#!/bin/bash\nyum update -y\n", "neither"),
        (b"\x1f\x8bnonsense", "unpacked"),
        (b"\xff\xfe\x00", "not text"),
        (b"Content-Transfer-Encoding: base64\n\nSGVsbG8=", "base64"),
        (BOOTSTRAP.format("--kubelet-extra-args '--node-labels=$(labels --all)'").encode(), "computes"),
        (BOOTSTRAP.format("--kubelet-extra-args $EXTRA").encode(), "elsewhere"),
        (b'[settings.kubernetes]\nnode-labels = { "team" = "blue" }\n', "table"),
        (MIME.format(NODE_CONFIG.format("")).replace("--//--", "").encode(), "does not end"),
    ],
)  # fmt: skip
def test_given_user_data_that_hides_its_labels_when_relabelled_then_it_is_refused_with_the_reason(
    user_data, reason
):
    with pytest.raises(UserDataUnreadable, match=reason):
        relabelled(user_data, SPOT)


OF_AL2 = "--use-max-pods false --kubelet-extra-args '--node-labels=team=blue --max-pods=29'"


@pytest.mark.parametrize(
    "user_data",
    [
        BOOTSTRAP.format(OF_AL2),
        BOOTSTRAP.format("--kubelet-extra-args '--max-pods=29' --use-max-pods false"),
        BOOTSTRAP.format('--kubelet-extra-args "--max-pods 29 --v=2"'),
        "export USE_MAX_PODS=false\nexport KUBELET_EXTRA_ARGS='--max-pods=29'\n" + BOOTSTRAP.format(""),
        NODE_CONFIG.format('"--max-pods=29", "--node-labels=team=blue"'),
        NODE_CONFIG.format('"--node-labels=team=blue", "--max-pods=29"'),
        NODE_CONFIG.format("--max-pods=29"),
        MIME.format(
            f"{NODE_CONFIG.format('')}    config:\n      maxPods: 29\n      clusterDNS: [10.0.0.10]\n"
        ),
        f"{NODE_CONFIG.format('')}    config: {{maxPods: 29, clusterDNS: [10.0.0.10]}}\n",
        f"{NODE_CONFIG.format('')}    config:\n      maxPods: 29",
    ],
)
def test_given_the_pod_count_of_a_groups_type_when_relabelled_then_the_node_counts_its_own(user_data):
    changed = relabelled(user_data.encode(), SPOT).decode()

    assert "29" not in changed
    assert "false" not in changed
    assert registration(changed)[0] == "shop"
    assert SPOT.items() <= registration(changed)[1].items()
    for line in changed.splitlines():
        if "flags:" in line:
            assert all(yaml.safe_load(line.partition(":")[2]) or [True])


def test_given_a_customer_who_counts_no_addresses_when_relabelled_then_that_stays():
    user_data = BOOTSTRAP.format("--use-max-pods false").encode()

    assert b"--use-max-pods false" in relabelled(user_data, SPOT)


@pytest.mark.parametrize(
    "user_data",
    [
        '[settings.kubernetes]\n"max-pods" = 29\ncluster-name = "shop"\n',
        'settings.kubernetes.cluster-name = "shop"\nsettings.kubernetes.max-pods = 29\n',
    ],
)
def test_given_the_pod_count_of_a_groups_type_in_settings_when_relabelled_then_it_goes(user_data):
    settings = tomllib.loads(relabelled(user_data.encode(), SPOT).decode())["settings"]

    assert settings["kubernetes"] == {"cluster-name": "shop", "node-labels": SPOT}
