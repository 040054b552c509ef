"""Scan AWS accounts: one run at a time, regions side by side, each written as soon as it is read."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import OuterRef, Q, Subquery

from accounts import selectors
from accounts.domain import roles
from accounts.models import Account
from accounts.services import limits, mark_failed, mark_scanned
from audit.models import AuditLog
from audit.services import Subject, record
from clusters.aws import autoscaling, ec2, eks
from clusters.aws.errors import AwsAccessDenied, AwsError, ResourceMissing
from clusters.aws.session import AccountSession, RegionSession, RoleGrant, session_for
from clusters.domain.capacity import FoundCluster, ManagedNodeGroup, RegionInventory, node_groups_of
from clusters.models import DiscoveryRun
from clusters.services.region_sync import RegionDiff, apply_region
from spotopt.core.actor import Actor
from spotopt.core.clock import clock_rate, utcnow
from spotopt.core.errors import Conflict, TooManyRequests
from spotopt.core.live import announce
from spotopt.core.queue import enqueue
from spotopt.core.tenancy import tenant

PARALLEL_REGIONS = 8
SCAN_EVERY = timedelta(seconds=300)
RETRY_ERROR_EVERY = timedelta(seconds=900)
RESYNC_EVERY = timedelta(seconds=300)
STALE_AFTER = timedelta(minutes=10)
LEAST_WALL_SECONDS = {"scan": 30, "stale": 60, "queued": 30}
"""However fast the clock runs, scans leave the machine time to breathe and a live run is not called dead."""

_DISCOVERIES = limits.Limit("discover", 1, 60)
OPEN = (DiscoveryRun.Status.QUEUED, DiscoveryRun.Status.SCANNING)
SCANNABLE = (Account.Status.SCANNING, Account.Status.ACTIVE, Account.Status.ERROR)


@dataclass(slots=True)
class _Tally:
    """What a run has found so far."""

    errors: dict[str, str] = field(default_factory=dict)
    codes: set[str] = field(default_factory=set)
    is_denied: bool = False
    done: int = 0
    clusters: int = 0
    instances: int = 0
    new: int = 0
    changed: int = 0
    terminated: int = 0
    changed_clusters: set[UUID] = field(default_factory=set)

    def add(self, diff: RegionDiff) -> None:
        """Count a region that was read and written."""
        self.done += 1
        self.clusters += diff.clusters
        self.instances += diff.instances
        self.new += diff.new
        self.changed += diff.changed
        self.terminated += diff.terminated
        self.changed_clusters |= diff.changed_clusters

    def skip(self, region: str, error: AwsError) -> None:
        """Note why a region was not read; its rows stay as they are."""
        self.errors[region] = error.detail
        self.codes.add(error.code)
        self.is_denied = self.is_denied or isinstance(error, AwsAccessDenied)


def request_scan(*, account_id: UUID, actor: Actor, trigger: str) -> DiscoveryRun:
    """Queue a scan, or return the one that is queued or running. Raises NotFound, Conflict."""
    account = selectors.account_by_id(account_id)
    if account.status not in SCANNABLE:
        raise Conflict("Verify the account before it can be scanned.", code="not_verified")
    running = DiscoveryRun.objects.filter(account=account, status__in=OPEN).first()
    if running is not None:
        return running
    try:
        with transaction.atomic():
            run = DiscoveryRun.objects.create(
                organization_id=account.organization_id, account=account, trigger=trigger
            )
    except IntegrityError:  # somebody was faster
        return DiscoveryRun.objects.get(account=account, status__in=OPEN)
    _start(run)
    _announce(run)
    return run


def resync(*, account_id: UUID, actor: Actor) -> tuple[DiscoveryRun, bool]:
    """Scan now, by a person's wish; return the run and whether it is new.

    A run that is under way is returned as it is. Raises TooManyRequests within five minutes of the last.
    """
    roles.require_role(actor, roles.MEMBER)
    present = DiscoveryRun.objects.filter(account_id=account_id, status__in=OPEN).first()
    if present is not None:
        return present, False
    since = utcnow() - RESYNC_EVERY
    recent = DiscoveryRun.objects.filter(
        account_id=account_id, trigger=DiscoveryRun.Trigger.MANUAL, created_at__gt=since
    ).first()
    if recent is not None:
        wait = int((recent.created_at - since).total_seconds()) + 1
        raise TooManyRequests("This account was synced less than five minutes ago.", retry_after_seconds=wait)
    run = request_scan(account_id=account_id, actor=actor, trigger=DiscoveryRun.Trigger.MANUAL)
    account = selectors.account_by_id(account_id)
    record(
        actor=actor,
        event="clusters.scan.requested",
        sentence=f"{actor.label} asked for a scan of the AWS account {account.alias}.",
        subject=_subject(account),
        account_id=account_id,
    )
    return run, True


def rediscover(*, account_id: UUID, actor: Actor) -> DiscoveryRun:
    """Look for clusters again, at most once a minute for each account; return the run."""
    roles.require_role(actor, roles.MEMBER)
    account = selectors.account_by_id(account_id)
    limits.spend(_DISCOVERIES, str(account.pk))
    return request_scan(account_id=account_id, actor=actor, trigger=DiscoveryRun.Trigger.MANUAL)


def sentence_about(run: DiscoveryRun) -> str:
    """Return in a sentence how far a run is, or how it ended."""
    found = f"{run.clusters_found} clusters and {run.instances_found} instances"
    match run.status:
        case DiscoveryRun.Status.QUEUED:
            return "The scan waits for a worker."
        case DiscoveryRun.Status.SCANNING:
            place = f" {run.current_region} is done;" if run.current_region else ""
            return f"Scanning {run.regions_done} of {run.regions_total} regions.{place} {found} so far."
        case DiscoveryRun.Status.FAILED:
            return next(iter(run.errors.values()), "The scan failed.")
        case DiscoveryRun.Status.PARTIAL:
            return f"Found {found}; {len(run.errors)} regions could not be read."
    hint = "" if run.clusters_found else " No EKS cluster exists in the regions that are enabled."
    return f"Found {found}.{hint}"


def scan_account(*, account_id: UUID, run_id: UUID) -> bool:
    """Carry out a queued run; return False when somebody else has it. AWS's failures end in the run's row."""
    claimed = DiscoveryRun.objects.filter(pk=run_id, status=DiscoveryRun.Status.QUEUED).update(
        status=DiscoveryRun.Status.SCANNING, started_at=utcnow(), updated_at=utcnow()
    )
    if not claimed:
        return False
    run = DiscoveryRun.objects.select_related("account").get(pk=run_id, account_id=account_id)
    _announce(run)
    tally = _Tally()
    try:
        session = session_for(RoleGrant(run.account.role_arn, run.account.external_id))
        regions = ec2.enabled_regions(session.in_region(run.account.primary_region))
        _scan_regions(run, session, regions, tally)
    except AwsError as error:
        tally.skip(error.region or run.account.primary_region, error)
    _finish(run, tally)
    return True


def abandon(*, run_id: UUID, reason: str) -> None:
    """End a run that broke for no foreseen reason; nothing happens to one that has ended."""
    run = DiscoveryRun.objects.select_related("account").filter(pk=run_id, status__in=OPEN).first()
    if run is None:
        return
    DiscoveryRun.objects.filter(pk=run_id, status__in=OPEN).update(
        status=DiscoveryRun.Status.FAILED,
        errors={**run.errors, "": reason},
        finished_at=utcnow(),
        updated_at=utcnow(),
    )
    _announce(run)


def start_due_scans() -> int:
    """Recover dead and forgotten runs, queue what is due; return how many runs were started."""
    now = utcnow()
    open_runs = DiscoveryRun.unscoped.filter(status__in=OPEN)
    dead = open_runs.filter(
        status=DiscoveryRun.Status.SCANNING, updated_at__lt=now - _pace(STALE_AFTER, "stale")
    )
    for run in dead:
        with tenant(run.organization_id):
            abandon(run_id=run.pk, reason="The scan stopped answering and was given up.")
    forgotten = open_runs.filter(
        status=DiscoveryRun.Status.QUEUED, updated_at__lt=now - _pace(timedelta(seconds=60), "queued")
    )
    for run in forgotten:
        _start(run)
    due = _due_accounts()
    for account in due:
        with tenant(account.organization_id):
            request_scan(
                account_id=account.pk,
                actor=Actor.system(account.organization_id),
                trigger=DiscoveryRun.Trigger.SCHEDULE,
            )
    return len(due) + len(forgotten)


def read_region(session: RegionSession) -> RegionInventory:
    """Read everything of one region, or raise AwsError: half a region is never returned."""
    read_at = utcnow()
    instances = ec2.describe_instances(session)
    groups = autoscaling.describe_groups(session)
    clusters = tuple(_clusters(session))
    managed = [group for cluster in clusters for group in _managed_groups(session, cluster)]
    return RegionInventory(
        region=session.region,
        read_at=read_at,
        instances=instances,
        clusters=clusters,
        node_groups=node_groups_of(groups, managed, instances),
    )


def _clusters(session: RegionSession) -> Iterator[FoundCluster]:
    for name in eks.list_clusters(session):
        try:
            yield eks.describe_cluster(session, name=name)
        except ResourceMissing:  # deleted between the two calls
            continue


def _managed_groups(session: RegionSession, cluster: FoundCluster) -> Iterator[ManagedNodeGroup]:
    try:
        for name in eks.list_node_groups(session, cluster_name=cluster.name):
            yield eks.describe_node_group(session, cluster_name=cluster.name, name=name)
    except ResourceMissing:
        return


def _scan_regions(
    run: DiscoveryRun, session: AccountSession, regions: tuple[str, ...], tally: _Tally
) -> None:
    """Threads only talk to AWS; this one alone writes, so that a region is one short transaction."""
    DiscoveryRun.objects.filter(pk=run.pk).update(regions_total=len(regions))
    with ThreadPoolExecutor(PARALLEL_REGIONS, thread_name_prefix="scan") as pool:
        reading: Mapping[Future[RegionInventory], str] = {
            pool.submit(read_region, session.in_region(region)): region for region in regions
        }
        for number, future in enumerate(as_completed(reading), start=1):
            region = reading[future]
            try:
                tally.add(apply_region(account=run.account, inventory=future.result()))
            except AwsError as error:
                tally.skip(region, error)
            _progress(run, region, tally, percent=99 * number // len(regions))


def _progress(run: DiscoveryRun, region: str, tally: _Tally, *, percent: int) -> None:
    DiscoveryRun.objects.filter(pk=run.pk, status=DiscoveryRun.Status.SCANNING).update(
        progress=percent,
        current_region=region,
        regions_done=tally.done + len(tally.errors),
        clusters_found=tally.clusters,
        instances_found=tally.instances,
        errors=tally.errors,
        updated_at=utcnow(),
    )
    _announce(run)


@transaction.atomic
def _finish(run: DiscoveryRun, tally: _Tally) -> None:
    """End the run and tell the account how it went; nothing when the run was given up meanwhile."""
    status = _status(tally)
    ended = DiscoveryRun.objects.filter(pk=run.pk, status=DiscoveryRun.Status.SCANNING).update(
        status=status,
        progress=100,
        current_region="",
        clusters_found=tally.clusters,
        instances_found=tally.instances,
        new_count=tally.new,
        changed_count=tally.changed,
        terminated_count=tally.terminated,
        errors=tally.errors,
        finished_at=utcnow(),
        updated_at=utcnow(),
    )
    account = run.account
    if not ended or selectors.locked_account(account.pk).status not in SCANNABLE:
        return
    actor = Actor.system(account.organization_id)
    if status == DiscoveryRun.Status.FAILED:
        code, message = min(tally.codes), next(iter(tally.errors.values()))
        mark_failed(
            account_id=account.pk, code=code, message=message, actor=actor, is_auth_failure=tally.is_denied
        )
    else:
        mark_scanned(account_id=account.pk, actor=actor)
        enqueue("clusters.refresh_spot_prices")
    for cluster_id in tally.changed_clusters:
        announce(organization_id=account.organization_id, topic="cluster", cluster_id=str(cluster_id))
    _announce(run)
    _record_end(run, status, tally, actor)


def _status(tally: _Tally) -> str:
    if not tally.errors:
        return DiscoveryRun.Status.COMPLETED
    return DiscoveryRun.Status.PARTIAL if tally.done else DiscoveryRun.Status.FAILED


def _record_end(run: DiscoveryRun, status: str, tally: _Tally, actor: Actor) -> None:
    """Record what is news: changes, failures, and every scan that somebody waited for."""
    changes = tally.new + tally.changed + tally.terminated
    is_routine = run.trigger == DiscoveryRun.Trigger.SCHEDULE
    if is_routine and not changes and status == DiscoveryRun.Status.COMPLETED:
        return
    failed = status == DiscoveryRun.Status.FAILED
    found = f"{tally.new} new, {tally.changed} changed and {tally.terminated} ended instances"
    unread = f"; {len(tally.errors)} regions could not be read" if tally.errors else ""
    record(
        actor=actor,
        event="clusters.scan.failed" if failed else "clusters.inventory.changed",
        sentence=f"The scan of the AWS account {run.account.alias} "
        + (f"failed: {next(iter(tally.errors.values()))}" if failed else f"found {found}{unread}."),
        subject=_subject(run.account),
        account_id=run.account_id,
        outcome=AuditLog.Outcome.FAILED if failed else AuditLog.Outcome.SUCCESS,
        after={"status": status, "new": tally.new, "changed": tally.changed, "terminated": tally.terminated},
    )


def _due_accounts() -> list[Account]:
    """Return the accounts of all organizations whose last run ended long enough ago."""
    now = utcnow()
    runs = DiscoveryRun.unscoped.filter(account=OuterRef("pk")).order_by("-created_at")
    healthy = now - _pace(SCAN_EVERY, "scan")
    broken = now - _pace(RETRY_ERROR_EVERY, "scan")
    accounts = Account.unscoped.filter(status__in=SCANNABLE).annotate(
        run_status=Subquery(runs.values("status")[:1]), run_ended=Subquery(runs.values("finished_at")[:1])
    )
    return list(
        accounts.filter(Q(run_status=None) | ~Q(run_status__in=OPEN)).filter(
            Q(run_ended=None)
            | Q(status=Account.Status.ERROR, run_ended__lte=broken)
            | (~Q(status=Account.Status.ERROR) & Q(run_ended__lte=healthy))
        )
    )


def _pace(period: timedelta, what: str) -> timedelta:
    return max(period, timedelta(seconds=LEAST_WALL_SECONDS[what] * clock_rate()))


def _start(run: DiscoveryRun) -> None:
    enqueue(
        "clusters.scan_account",
        organization_id=run.organization_id,
        account_id=run.account_id,
        run_id=run.pk,
    )


def _announce(run: DiscoveryRun) -> None:
    announce(organization_id=run.organization_id, topic="scan", account_id=str(run.account_id))


def _subject(account: Account) -> Subject:
    return Subject("account", str(account.pk), account.alias)
