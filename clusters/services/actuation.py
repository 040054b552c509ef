"""Carry AWS actions out: launch, terminate, restore; each safe to do again after a crash."""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from django.db.models import QuerySet

from accounts.models import Account
from clusters.aws import autoscaling, ec2
from clusters.aws.errors import (
    AwsError,
    AwsFailed,
    AwsSessionExpired,
    AwsThrottled,
    AwsTimeout,
    AwsUnreachable,
    GroupAtMinimum,
)
from clusters.aws.session import AccountSession, RegionSession, RoleGrant, session_for
from clusters.domain.actions import lease
from clusters.domain.capacity import (
    CLUSTER_TAG,
    FleetOverride,
    FleetRequest,
    FoundInstance,
    LaunchResult,
    ScalingGroup,
)
from clusters.domain.user_data import UserDataUnreadable
from clusters.models import Action, Instance, NodeGroup
from clusters.services import actions, nodes, stillness
from clusters.services.launch_templates import OwnTemplates
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, GuardrailViolated

RETRY_AFTER = timedelta(seconds=10)
"""Actions that AWS throttled together come back spread over as long again."""


class NotVisibleYet(AwsError):
    """AWS made something and does not show it yet."""

    default_code = "not_visible_yet"


_PASSING = (
    AwsThrottled,
    AwsTimeout,
    AwsUnreachable,
    AwsFailed,
    AwsSessionExpired,
    NotVisibleYet,
    GroupAtMinimum,
)
"""After these the action is tried again with the same token: nobody knows whether AWS acted, or another
member left the group between our look at its sizes and our request."""


class _Overtaken(Exception):
    """Another worker holds the action by now."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an executor did."""

    is_success: bool
    result: dict[str, object] = field(default_factory=dict)
    error_code: str = ""
    error_message: str = ""
    usd_per_hour: Decimal | None = None
    is_refused: bool = False
    """The safety floor forbade it after the claim, before AWS was asked to change anything."""


def actuate(*, action_id: UUID, worker: str) -> str:
    """Claim one AWS action, do it, and close it; return its status, or ``skipped`` when another has it."""
    action = actions.claim_for_actuator(action_id=action_id, worker=worker)
    if action is None:
        return "skipped"
    account = action.cluster.account
    if account.status == Account.Status.DISCONNECTED:
        message = "The AWS account is disconnected."
        return _close(
            action, Outcome(is_success=False, error_code="account_disconnected", error_message=message)
        )
    try:
        session = session_for(RoleGrant(account.role_arn, account.external_id))
        outcome = _carried_out(action, session)
    except _Overtaken:
        return "skipped"  # the worker that took over records how it ends
    except _PASSING as error:
        return _try_again_later(action, error)
    except GuardrailViolated as refusal:
        code = str(refusal.extra["code"])
        outcome = Outcome(is_success=False, is_refused=True, error_code=code, error_message=refusal.detail)
    except AwsError as error:
        outcome = Outcome(is_success=False, error_code=error.code, error_message=error.detail)
    return _close(action, outcome)


def _carried_out(action: Action, session: AccountSession) -> Outcome:
    try:
        return _EXECUTORS[action.kind](action, session.in_region(action.cluster.region))
    except AwsSessionExpired:
        session.expire()
        raise


def waiting_actions() -> list[UUID]:
    """Return the organization's AWS actions that nobody works on: never started, or left by a dead worker."""
    now = utcnow()
    rows = Action.objects.filter(route=Action.Route.AWS)
    pending = rows.filter(status=Action.Status.PENDING, expires_at__gt=now)
    abandoned = rows.filter(status=Action.Status.RUNNING, lease_until__lt=now)
    return [*pending.values_list("pk", flat=True), *abandoned.values_list("pk", flat=True)]


def _close(action: Action, outcome: Outcome) -> str:
    if not _held(action).exists():
        return "skipped"  # a worker that took over records how it ends
    status = Action.Status.SUCCEEDED if outcome.is_success else Action.Status.FAILED
    try:
        actions.finish(
            action=action,
            status=Action.Status.REFUSED if outcome.is_refused else status,
            actor=Actor.system(action.organization_id, "AWS actuator"),
            result=outcome.result,
            error_code=outcome.error_code,
            error_message=outcome.error_message,
            usd_per_hour=outcome.usd_per_hour,
        )
    except Conflict:
        action.refresh_from_db()  # somebody was faster; what they recorded stands
    return str(action.status)


def _ask(action: Action, **asked: object) -> None:
    """Renew the lease, for one call of AWS, and note what it will be asked for; raise when overtaken."""
    action.asked = {**action.asked, **asked}
    lease_until = utcnow() + lease(action.kind)
    if not _held(action).update(lease_until=lease_until, asked=action.asked):
        raise _Overtaken


def _held(action: Action) -> QuerySet[Action]:
    """Return the action's row while this worker holds it, else nothing."""
    return Action.objects.filter(pk=action.pk, status=Action.Status.RUNNING, claimed_by=action.claimed_by)


def _try_again_later(action: Action, error: AwsError) -> str:
    spread = random.uniform(1, 2)  # noqa: S311  # no secret
    _held(action).update(
        lease_until=utcnow() + RETRY_AFTER * spread,
        error_code=error.code[:100],
        error_message=error.detail[:1024],
    )
    return "waiting"


# --- launch ----------------------------------------------------------------------------------------------


def _launch(action: Action, session: RegionSession) -> Outcome:
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
            message = "No node group of the cluster has a launch template to launch from."
            return Outcome(is_success=False, error_code="no_launch_template", error_message=message)
        try:
            requests = _requests(action, session, group)
        except UserDataUnreadable as reason:
            message = f"Nodes cannot be launched from the launch template of {group.name}. {reason}"
            return Outcome(is_success=False, error_code="user_data_unreadable", error_message=message)
        _ask(action, fleets=[asdict(request) for request in requests])
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
    zones = ec2.subnet_zones(session, subnet_ids=group.subnet_ids)
    subnets = {zone_id: subnet for subnet, (_, zone_id) in sorted(zones.items(), reverse=True)}
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
    _ask(action)
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
    """Return the group whose launch template new nodes copy: the largest one that takes every pod."""
    groups = NodeGroup.objects.filter(cluster_id=action.cluster_id).exclude(launch_template_id="")
    return min(groups, key=lambda group: (bool(group.taints), -group.max_size, group.name), default=None)


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


# --- terminate -------------------------------------------------------------------------------------------


def _terminate(action: Action, session: RegionSession) -> Outcome:
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
        _ask(action, terminated=instance_id)
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
    _ask(action, terminated=instance_id)
    autoscaling.terminate_in_group(session=session, instance_id=instance_id, decrement=True)


def _lower_minimum(action: Action, session: RegionSession, group: ScalingGroup) -> None:
    if nodes.keeps_minimum(cluster=action.cluster, group_name=group.name):
        reason = f"{group.name} is at its minimum of {group.min_size}, which somebody had restored."
        raise GuardrailViolated(reason, code="group_minimum")
    _ask(action)
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


# --- detach ----------------------------------------------------------------------------------------------


def _detach(action: Action, session: RegionSession) -> Outcome:
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
    _ask(action)
    autoscaling.detach(session=session, group_name=name, instance_id=instance_id)
    nodes.record_detached(cluster=action.cluster, group_name=name)
    return Outcome(is_success=True, result={"detached": True})


# --- restore ---------------------------------------------------------------------------------------------


def _restore_minimum(action: Action, session: RegionSession) -> Outcome:
    """Give an Auto Scaling group its minimum back; AWS launches what is missing to reach it."""
    name, minimum = str(action.params["group_name"]), int(str(action.params["minimum"]))
    group = autoscaling.describe_group(session, name=name)
    if group.min_size < minimum:
        actions.require_allowed(action)
        desired = max(group.desired, minimum)
        _ask(action)
        autoscaling.set_sizes(session=session, group_name=name, minimum=minimum, desired=desired)
    restored = autoscaling.describe_group(session, name=name)
    nodes.record_restored_minimum(cluster=action.cluster, group=restored)
    return Outcome(is_success=True, result={"minimum": restored.min_size, "desired": restored.desired})


_EXECUTORS: dict[str, Callable[[Action, RegionSession], Outcome]] = {
    Action.Kind.LAUNCH_NODE: _launch,
    Action.Kind.TERMINATE_INSTANCE: _terminate,
    Action.Kind.DETACH_INSTANCE: _detach,
    Action.Kind.RESTORE_MINIMUM: _restore_minimum,
}
