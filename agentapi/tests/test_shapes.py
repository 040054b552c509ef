"""No pod that Kubernetes takes may blind the agent or make the product refuse its reports."""

from hypothesis import given
from hypothesis import strategies as st

from agentapi import protocol
from agentapi.agent.facts import Facts
from agentapi.agent.quantities import MOST

numbers = st.one_of(
    st.integers(0, 2**63 - 1).map(str),
    st.tuples(st.integers(0, 999), st.integers(0, 999)).map(lambda pair: f"{pair[0]}.{pair[1]}"),
    st.integers(0, 999).map(lambda digits: f".{digits}"),
)
suffixes = st.sampled_from(
    ["", *"numkMGTPE", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E6", "e-3", "e+18", "E18"]
)
quantities = st.tuples(numbers, suffixes).map("".join)
resources = st.dictionaries(
    st.sampled_from(["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu", "pods"]), quantities
)


@given(
    containers=st.lists(resources, min_size=1, max_size=4),
    room=resources,
    grace=st.integers(0, 2**62),
)
def test_given_any_quantities_when_read_then_they_are_numbers_that_the_protocol_carries(
    containers, room, grace
):
    spec = {
        "containers": [{"resources": {"requests": each}} for each in containers],
        "terminationGracePeriodSeconds": grace,
    }

    pod = Facts().pod({"metadata": {"namespace": "default", "name": "p"}, "spec": spec})
    node = Facts().node({"metadata": {"name": "n"}, "status": {"allocatable": room}})

    request = pod.request
    assert all(
        0 <= number <= MOST
        for number in (
            *(request.cpu_millis, request.memory_mib, request.gpu, request.ephemeral_mib),
            *(node.cpu_millis, node.memory_mib, node.gpu, node.ephemeral_mib, node.pods),
        )
    )
    constraints = protocol.dump(pod.constraints)
    assert protocol.parse(protocol.Constraints, constraints) == pod.constraints
