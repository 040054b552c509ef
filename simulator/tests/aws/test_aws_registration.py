"""What user data tells a machine about the cluster it joins."""

import pytest

from simulator.aws.launching import registration

NODEADM = """MIME-Version: 1.0
--//
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  cluster:
    apiServerEndpoint: https://example
    name: acme-production
    cidr: 10.100.0.0/16
  kubelet:
    flags: ["--node-labels=pool=spot,zone=a",
            "--register-with-taints=dedicated=spot:NoSchedule,busy:NoExecute"]
--//--
"""
BOOTSTRAP = """#!/bin/bash
/etc/eks/bootstrap.sh acme-production --kubelet-extra-args '--node-labels=pool=spot,zone=a --register-with-taints=dedicated=spot:NoSchedule,busy:NoExecute'
"""  # noqa: E501 - one line, as shells have it


@pytest.mark.parametrize("user_data", [NODEADM, BOOTSTRAP])
def test_given_user_data_when_read_then_it_names_the_cluster_its_labels_and_its_taints(user_data):
    cluster, labels, taints = registration(user_data)

    assert cluster == "acme-production"
    assert labels == {"pool": "spot", "zone": "a"}
    assert taints == [
        {"key": "dedicated", "value": "spot", "effect": "NoSchedule"},
        {"key": "busy", "value": "", "effect": "NoExecute"},
    ]


def test_given_no_user_data_when_read_then_the_machine_joins_nothing():
    assert registration("") == (None, {}, [])
