"""Launch one node, in the first pool that has room."""

from dataclasses import asdict
from itertools import chain

from clusters.aws import ec2
from clusters.aws.session import RegionSession
from clusters.domain.capacity import (
    CLUSTER_TAG,
    FleetOverride,
    FleetRequest,
    FoundInstance,
    LaunchResult,
)
from clusters.domain.user_data import UserDataUnreadable
from clusters.models import Action, Instance, InstanceType, NodeGroup
from clusters.services import actions, nodes
from clusters.services.asking import NotVisibleYet, Outcome, ask
from clusters.services.launch_templates import OwnTemplates
from spotopt.core.clock import utcnow


def launch(action: Action, session: RegionSession) -> Outcome:
    """Launch one node in the first pool that has room: the plan's spot pools, then on-demand."""
    known = ec2.launched_for_action(session, action_id=str(action.pk))
    if known:
        return _launched(action, known[0])
    if utcnow() > action.expires_at:
        return Outcome(
            is_success=False, error_code="expired", error_message="AWS never confirmed the launch."
        )
    actions.require_allowed(action)
    if not action.asked:
        group = _template_group(action)
        if group is None:
            message = (
                f"No node group has a launch template whose image runs on {action.params['instance_type']}."
            )
            return Outcome(is_success=False, error_code="no_launch_template", error_message=message)
        try:
            requests = _requests(action, session, group)
        except UserDataUnreadable as reason:
            message = f"Nodes cannot be launched from the launch template of {group.name}. {reason}"
            return Outcome(is_success=False, error_code="user_data_unreadable", error_message=message)
        ask(action, fleets=[asdict(request) for request in requests])
    refusals: list[str] = []
    for request in map(FleetRequest.from_json, action.asked["fleets"]):
        answer = _buy(action, session, request)
        refusals += [f"{refusal.instance_type}: {refusal.code}" for refusal in answer.refusals]
        if answer.instances:
            launched = ec2.known_instances(session, instance_ids=[answer.instances[0].instance_id])
            if not launched:  # AWS may take seconds to show what it has just made
                raise NotVisibleYet(f"AWS does not show {answer.instances[0].instance_id} yet.")
            return _launched(action, launched[0])
    reasons = (
        "; ".join(sorted(set(refusals)))
        or "Each rests for want of capacity, or lies in no zone of the group."
    )
    return Outcome(is_success=False, error_code="no_capacity", error_message=f"No pool had room. {reasons}")


def _requests(action: Action, session: RegionSession, group: NodeGroup) -> list[FleetRequest]:
    """Return the fleet requests to make in order: all spot pools at once, then the on-demand ones.

    Pools that had no capacity a moment ago are left out.
    """
    subnets = ec2.subnets_by_zone(session, subnet_ids=group.subnet_ids)
    templates = OwnTemplates(session, action.cluster, group)
    params = action.params
    first = f"{params['zone_id']}:{params['instance_type']}:{params['capacity_type']}"
    alternatives = params.get("alternatives") or []
    names = [first, *(alternatives if isinstance(alternatives, list) else [])]
    resting = nodes.resting_pools(subnets)
    requests = []
    for capacity_type in ("spot", "on_demand"):
        pools = tuple(
            FleetOverride(instance_type, subnets[zone_id], float(rank), zone_id)
            for rank, (zone_id, instance_type, kind) in enumerate(name.split(":") for name in names)
            if kind == capacity_type and zone_id in subnets and (zone_id, instance_type, kind) not in resting
        )
        if pools:
            requests.append(FleetRequest(capacity_type, templates.version_for(capacity_type), pools))
    return requests


def _buy(action: Action, session: RegionSession, request: FleetRequest) -> LaunchResult:
    """Ask for one node; leave the pools that had none alone for a while."""
    ask(action)
    answer = ec2.create_instant_fleet(
        session=session,
        client_token=f"{action.pk}-{request.capacity_type}",
        launch_template=request.launch_template,
        overrides=request.pools,
        capacity_type=request.capacity_type,
        count=1,
        tags=_tags(action),
    )
    zone_ids = {pool.subnet_id: pool.zone_id for pool in request.pools}
    nodes.record_dry_pools(session.region, request.capacity_type, answer.refusals, zone_ids)
    return answer


def _template_group(action: Action) -> NodeGroup | None:
    """Return the group whose launch template new nodes copy: the largest one that takes every pod.

    Its image has to run on what is launched, and on every alternative, which are of one architecture.
    """
    groups = NodeGroup.objects.filter(cluster_id=action.cluster_id).exclude(launch_template_id="")
    names = {str(action.params["instance_type"]), *chain(*(group.instance_types for group in groups))}
    architectures = dict(InstanceType.objects.filter(name__in=names).values_list("name", "arch"))
    wanted = architectures.get(str(action.params["instance_type"]))
    able = [
        group
        for group in groups
        if all(architectures.get(name, wanted) == wanted for name in group.instance_types)
    ]
    return min(able, key=lambda group: (bool(group.taints), -group.max_size, group.name), default=None)


def _tags(action: Action) -> dict[str, str]:
    cluster = action.cluster
    return {
        "Name": f"{cluster.name}-spotopt",
        f"{CLUSTER_TAG}{cluster.name}": "owned",
        "spotopt:action-id": str(action.pk),
        "spotopt:cluster-id": str(cluster.pk),
        "spotopt:plan-id": str(action.plan_id or ""),
    }


def _launched(action: Action, found: FoundInstance) -> Outcome:
    row = nodes.record_launch(action=action, found=found)
    if found.state == Instance.State.TERMINATED:
        message = f"AWS took {found.instance_id} back at once. {found.end_reason}".strip()
        return Outcome(is_success=False, error_code="interrupted", error_message=message)
    return Outcome(
        is_success=True,
        result={
            "instance_id": found.instance_id,
            "instance_type": found.instance_type,
            "lifecycle": found.lifecycle,
            "zone": found.az,
            "usd_per_hour": str(row.price) if row.price is not None else None,
        },
        usd_per_hour=-row.price if row.price is not None else None,
    )
