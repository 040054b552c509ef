"""Take nodes out of the groups that scale them, and give groups their minimum back."""

from clusters.aws import autoscaling, ec2
from clusters.aws.session import RegionSession
from clusters.domain.capacity import (
    FoundInstance,
    ScalingGroup,
)
from clusters.models import Action, Instance
from clusters.services import actions, nodes, stillness
from clusters.services.asking import Outcome, ask
from spotopt.core.errors import GuardrailViolated


def terminate(action: Action, session: RegionSession) -> Outcome:
    """Terminate one node; a member of an Auto Scaling group leaves it for good."""
    instance_id = str(action.params["instance_id"])
    found = _shown(session, instance_id)
    if found is None:
        return _terminated(action, None, "AWS no longer knows the instance.")
    if found.state == Instance.State.TERMINATED:
        return _terminated(action, found, "It was terminated already.")
    if found.cluster_name != action.cluster.name:
        message = (
            f"The instance belongs to {found.cluster_name or 'no cluster'}, not to {action.cluster.name}."
        )
        return Outcome(is_success=False, error_code="foreign_instance", error_message=message)
    actions.require_allowed(action)
    kind, name = found.group_key
    group = autoscaling.describe_group(session, name=name) if kind == "asg" else None
    if group is not None and instance_id in group.leaving_ids:
        return _terminated(action, found, "Its group was ending it already.")
    if group is not None and instance_id in group.instance_ids:
        _leave_group(action, session, group, instance_id)
    else:
        ask(action, terminated=instance_id)
        ec2.terminate(session=session, instance_id=instance_id)
    return _terminated(action, _shown(session, instance_id), "")


def _shown(session: RegionSession, instance_id: str) -> FoundInstance | None:
    found = ec2.known_instances(session, instance_ids=[instance_id])
    return found[0] if found else None


def _leave_group(action: Action, session: RegionSession, group: ScalingGroup, instance_id: str) -> None:
    """Take the member out and ask for one less; lower the minimum first where it forbids that.

    Raises GuardrailViolated when the group's owner wants the member, or the minimum, kept.
    """
    if "Terminate" in group.suspended:
        reason = f"The process Terminate of {group.name} was suspended; somebody wants its nodes kept."
        raise GuardrailViolated(reason, code="group_suspended")
    if instance_id in group.protected_ids:
        reason = f"Somebody protects the instance from being taken out of {group.name}."
        raise GuardrailViolated(reason, code="instance_protected")
    if group.desired - 1 < group.min_size:
        _lower_minimum(action, session, group)
    stillness.hold_still(cluster=action.cluster, session=session, group=group)
    ask(action, terminated=instance_id)
    autoscaling.terminate_in_group(session=session, instance_id=instance_id, decrement=True)


def _lower_minimum(action: Action, session: RegionSession, group: ScalingGroup) -> None:
    if nodes.keeps_minimum(cluster=action.cluster, group_name=group.name):
        reason = f"{group.name} is at its minimum of {group.min_size}, which somebody had restored."
        raise GuardrailViolated(reason, code="group_minimum")
    ask(action)
    minimum = group.desired - 1
    if not nodes.record_lowered_minimum(cluster=action.cluster, group=group, minimum=minimum):
        reason = f"{group.name} is at its minimum of {group.min_size}, and is no group that a scan has found."
        raise GuardrailViolated(reason, code="group_minimum")
    autoscaling.set_sizes(session=session, group_name=group.name, minimum=minimum)


def _terminated(action: Action, found: FoundInstance | None, note: str) -> Outcome:
    """Record the end of a node, or its beginning; a saving is ours only where AWS had been asked by us."""
    is_ours = "terminated" in action.asked
    row = nodes.record_termination(action=action, found=found, is_ours=is_ours)
    price = row.price if row is not None and is_ours and row.changed_by_plan_id is not None else None
    result: dict[str, object] = {"instance_id": action.params["instance_id"], "note": note}
    return Outcome(is_success=True, result=result, usd_per_hour=price)


def detach(action: Action, session: RegionSession) -> Outcome:
    """Take a replaced node that AWS takes back out of its group, so that the group does not replace it too.

    A group at its minimum keeps it, and replaces it by itself: nobody's minimum is lowered for this.
    """
    name, instance_id = str(action.params["group_name"]), str(action.params["instance_id"])
    group = autoscaling.describe_group(session, name=name)
    if instance_id not in group.instance_ids:
        return Outcome(is_success=True, result={"detached": False, "note": "It has left the group already."})
    if group.desired <= group.min_size:
        note = f"{name} is at its minimum of {group.min_size} and replaces the node itself."
        return Outcome(is_success=True, result={"detached": False, "note": note})
    actions.require_allowed(action)
    stillness.hold_still(cluster=action.cluster, session=session, group=group)
    ask(action)
    autoscaling.detach(session=session, group_name=name, instance_id=instance_id)
    nodes.record_detached(cluster=action.cluster, group_name=name)
    return Outcome(is_success=True, result={"detached": True})


def restore_minimum(action: Action, session: RegionSession) -> Outcome:
    """Give an Auto Scaling group its minimum back; AWS launches what is missing to reach it."""
    name, minimum = str(action.params["group_name"]), int(str(action.params["minimum"]))
    group = autoscaling.describe_group(session, name=name)
    if group.min_size < minimum:
        actions.require_allowed(action)
        desired = max(group.desired, minimum)
        ask(action)
        autoscaling.set_sizes(session=session, group_name=name, minimum=minimum, desired=desired)
    restored = autoscaling.describe_group(session, name=name)
    nodes.record_restored_minimum(cluster=action.cluster, group=restored)
    return Outcome(is_success=True, result={"minimum": restored.min_size, "desired": restored.desired})
