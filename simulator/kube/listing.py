"""Reading collections: selectors, pages with continue tokens, metrics."""

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from datetime import datetime

from simulator.kube.cluster import Cluster
from simulator.kube.errors import Body, bad_request, expired, not_found
from simulator.kube.resources import Resource
from simulator.kube.selectors import field_text, parse_field_selector, parse_label_selector
from simulator.kube.store import Entry, Key
from simulator.kube.usage import SAMPLE, UsageModel, is_measured

Test = Callable[[Body], bool]


def selection(resource: Resource, query: dict[str, str], name: str = "") -> Test | None:
    """The test behind labelSelector, fieldSelector and a name; None when everything passes."""
    by_label = parse_label_selector(query.get("labelSelector", ""))
    terms = parse_field_selector(resource.plural, query.get("fieldSelector", ""))
    if name:
        terms.append((("metadata", "name"), name, True))
    if by_label is None and not terms:
        return None

    def test(body: Body) -> bool:
        if any((field_text(body, path) == value) is not is_equal for path, value, is_equal in terms):
            return False
        return by_label is None or by_label(body["metadata"].get("labels") or {})

    return test


def list_page(cluster: Cluster, resource: Resource, namespace: str | None, query: dict[str, str]) -> bytes:
    """The List object as JSON; `limit` and `continue` page through it."""
    limit = _limit(query)
    after, version = _resume(cluster, resource, query.get("continue", ""))
    test = selection(resource, query)
    field_selector = query.get("fieldSelector", "")
    found = _found(cluster, resource, namespace, field_selector=field_selector, test=test, after=after)
    items: list[bytes] = []
    last: Key | None = None
    has_more = False
    for key, entry in found:
        if limit and len(items) == limit:
            has_more = True
            break
        items.append(entry.json)
        last = key
    metadata: Body = {"resourceVersion": str(version)}
    if has_more and last is not None:
        metadata["continue"] = _token(version, last)
        if test is None:
            metadata["remainingItemCount"] = cluster.store.count_after(resource.plural, namespace, last)
    return _list_document(resource, metadata, items)


def _limit(query: dict[str, str]) -> int:
    text = query.get("limit") or "0"
    if not text.isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _list_document(resource: Resource, metadata: Body, items: list[bytes]) -> bytes:
    head = json.dumps(
        {"kind": f"{resource.kind}List", "apiVersion": resource.group_version, "metadata": metadata}
    )
    return head[:-1].encode() + b',"items":[' + b",".join(items) + b"]}\n"


def _found(
    cluster: Cluster,
    resource: Resource,
    namespace: str | None,
    *,
    field_selector: str,
    test: Test | None,
    after: Key | None,
) -> Iterator[tuple[Key, Entry]]:
    """The entries that a list shows, in order; pods of one node come from the index."""
    if (
        resource.plural == "pods"
        and field_selector.startswith("spec.nodeName=")
        and "," not in field_selector
    ):
        keys = sorted(cluster.index.on_node.get(field_selector.partition("=")[2].lstrip("="), ()))
        entries = cluster.store.collections["pods"].entries
        page = ((key, entries[key]) for key in keys if after is None or key > after)
    else:
        page = (
            (key, entry)
            for key, entry in cluster.store.page(resource.plural, namespace=namespace, after=after)
        )
    for key, entry in page:
        if namespace is not None and key[0] != namespace:
            continue
        if test is None or test(entry.body):
            yield key, entry


def _token(version: int, last: Key) -> str:
    start = f"{last[0]}/{last[1]}\0"
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _resume(cluster: Cluster, resource: Resource, token: str) -> tuple[Key | None, int]:
    """Where a page starts and the version that the list pretends to be of; 400 or 410 for a bad token."""
    if not token:
        return None, cluster.store.version
    content = _decoded(token)
    try:
        fields = json.loads(content)
        namespace, _, name = fields["start"].rstrip("\0").partition("/")
        version = int(fields["rv"])
    except (ValueError, KeyError, TypeError) as error:
        shown = _go_character(content[:1])
        raise bad_request(
            "invalid continue token: continue key is not valid: "
            f"invalid character {shown} looking for beginning of value"
        ) from error
    if version < cluster.store.collections[resource.plural].compacted:
        raise expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a "
            "new list without the continue parameter."
        )
    return (namespace, name), version


def _decoded(token: str) -> bytes:
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        position = next(
            (at for at, letter in enumerate(token) if not (letter.isalnum() or letter in "-_")), 0
        )
        raise bad_request(
            f"invalid continue token: continue key is not valid: illegal base64 data at input byte {position}"
        ) from error


def _go_character(first: bytes) -> str:
    code = first[0] if first else 0
    is_plain = chr(code).isascii() and chr(code).isprintable()
    return f"'{chr(code)}'" if is_plain else f"'\\u{code:04x}'"


def metrics_page(
    cluster: Cluster, usage: UsageModel, resource: Resource, namespace: str | None, query: dict[str, str]
) -> bytes:
    """All usage samples of nodes or pods that pass the selectors."""
    at = _sampled_at(cluster.now)
    test = selection(resource, query)
    items = []
    for key, entry in cluster.store.page(resource.plural, namespace=namespace):
        if (test is None or test(entry.body)) and _has_sample(resource, entry.body):
            body = metrics_of(cluster, usage, resource, key, at)
            items.append(json.dumps(body, separators=(",", ":")).encode())
    return _list_document(resource, {}, items)


def metrics_of(
    cluster: Cluster, usage: UsageModel, resource: Resource, key: Key, at: datetime | None = None
) -> Body:
    """One usage sample; 404 for what the metrics server has not seen run."""
    at = at or _sampled_at(cluster.now)
    body = cluster.store.get(resource.plural, *key)
    if body is None or not _has_sample(resource, body):
        group = "metrics.k8s.io"
        shown = f"{key[0]}/{key[1]}" if key[0] else key[1]
        raise not_found(resource.plural, group, shown)
    if resource.plural == "nodes":
        return usage.node_metrics(cluster, body, at)
    return usage.pod_metrics(body, at)


def _has_sample(resource: Resource, body: Body) -> bool:
    return resource.plural == "nodes" or is_measured(body)


def _sampled_at(now: datetime) -> datetime:
    seconds = int(now.timestamp() // SAMPLE.total_seconds() * SAMPLE.total_seconds())
    return datetime.fromtimestamp(seconds, now.tzinfo)
