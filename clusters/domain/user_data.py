"""Rewrite a group's user data so that a node registers as what it is, whatever the group's nodes are."""

import gzip
import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

GROUP_LABEL = "eks.amazonaws.com/nodegroup"
"""Says that a node is a member of a managed node group; none of ours is."""

_GZIP = b"\x1f\x8b"
_LABELS = re.compile(r"(--node-labels[=\s]\s*\\?[\"']?)([^\s\"'\\]*)")
_EXTRA_ARGS = re.compile(r"(--kubelet-extra-args[=\s]\s*)(?:('[^']*)(?=')|(\"[^\"\\]*)(?=\"))")
_BOOTSTRAP = re.compile(r"/etc/eks/bootstrap\.sh(?=\s)")
_ENCODED_PART = re.compile(r"^content-transfer-encoding:\s*base64", re.IGNORECASE | re.MULTILINE)
_BOUNDARY = re.compile(
    r"^content-type:\s*multipart/mixed;\s*boundary=\"?([^\"\s;]+)", re.IGNORECASE | re.MULTILINE
)
_NODE_CONFIG = re.compile(r"^kind:\s*NodeConfig\b", re.MULTILINE)
_TABLE = re.compile(r"^\[settings\.kubernetes\.node-labels\][^\n]*(?:\n(?!\s*\[)[^\n]*)*\n?", re.MULTILINE)
_COUNT = r"[\"']?maxPods[\"']?:\s*\d+"
_POD_COUNT = re.compile(rf"^[ \t]*{_COUNT}[ \t]*(?:\n|\Z)|,\s*{_COUNT}|{_COUNT}\s*,?", re.MULTILINE)
_FLAG = r"([\"']?)--max-pods=\d+"
_LISTED_FLAG = re.compile(
    rf"^[ \t]*-[ \t]*{_FLAG}\1[ \t]*(?:\n|\Z)|,\s*{_FLAG}\2(?=\s*[],])|(?<=\[){_FLAG}\3\s*,?", re.MULTILINE
)
_POD_COUNT_FLAG = re.compile(r"[ \t]*--max-pods[=\s]\d+")
_USE_POD_COUNT = re.compile(r"(--use-max-pods[=\s]+|\bUSE_MAX_PODS=[\"']?)false")
_POD_COUNT_SETTING = re.compile(
    r"^[ \t]*(?:settings\.kubernetes\.)?[\"']?max-pods[\"']?[ \t]*=[ \t]*\d+[^\n]*\n?", re.MULTILINE
)
_OWN_BOUNDARY = "SPOTOPT"
_NODE_CONFIG_PART = """\
Content-Type: application/node.eks.aws

---
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  kubelet:
    flags:
      - "--node-labels={labels}"
"""


class UserDataUnreadable(ValueError):
    """It is not clear from the user data where its node gets its labels; the message says why."""


def capacity_labels(capacity_type: str) -> dict[str, str]:
    """Return the labels that say how a node of ours is paid for: those that plans expect it to carry."""
    word = "spot" if capacity_type == "spot" else "on-demand"
    return {
        "eks.amazonaws.com/capacityType": "SPOT" if capacity_type == "spot" else "ON_DEMAND",
        "karpenter.sh/capacity-type": word,
        "spotopt.io/capacity-type": word,
    }


def relabelled(user_data: bytes, labels: Mapping[str, str]) -> bytes:
    """Return user data whose node has these labels beside its own, and belongs to no managed node group.

    It counts by itself how many pods it may have: EKS writes the number of the group's instance type, and a
    smaller one has fewer addresses, so that pods would be bound there and never start.

    Reads scripts with EKS's ``bootstrap.sh``, nodeadm's NodeConfig, both alone or as parts of a MIME
    message, Bottlerocket's settings, and any of them compressed. Raises UserDataUnreadable for the rest.
    """
    if user_data.startswith(_GZIP):
        try:
            return gzip.compress(relabelled(gzip.decompress(user_data), labels), mtime=0)
        except (OSError, EOFError) as error:
            raise UserDataUnreadable("It is compressed and cannot be unpacked.") from error
    try:
        text = user_data.decode()
    except UnicodeDecodeError as error:
        raise UserDataUnreadable("It is not text.") from error
    settings = _settings(text)
    return (_in_text(text, labels) if settings is None else _in_settings(text, settings, labels)).encode()


def _in_text(text: str, labels: Mapping[str, str]) -> str:
    if _ENCODED_PART.search(text):
        raise UserDataUnreadable("A part of it is encoded in base64.")
    text = _without_pod_count(text)
    lines = text.splitlines(keepends=True)
    listed = [line for line in lines if _LABELS.search(line) and not line.lstrip().startswith("#")]
    if listed:
        return "".join(
            _LABELS.sub(lambda found: found[1] + _changed(found[2], labels), line) if line in listed else line
            for line in lines
        )
    added = ",".join(f"{key}={value}" for key, value in labels.items())
    if _NODE_CONFIG.search(text):
        return _with_part(text, _NODE_CONFIG_PART.format(labels=added))
    if not _BOOTSTRAP.search(text):
        raise UserDataUnreadable("It runs neither EKS's bootstrap.sh nor nodeadm.")
    if "--kubelet-extra-args" not in text:
        return _BOOTSTRAP.sub(f"/etc/eks/bootstrap.sh --kubelet-extra-args '--node-labels={added}'", text)
    if not _EXTRA_ARGS.search(text):
        raise UserDataUnreadable("The kubelet's arguments come from elsewhere.")
    return _EXTRA_ARGS.sub(rf"\g<0> --node-labels={added}", text)


def _without_pod_count(text: str) -> str:
    text = _POD_COUNT.sub("", text)
    if _NODE_CONFIG.search(text):
        text = _LISTED_FLAG.sub("", text)
    uncounted = _POD_COUNT_FLAG.sub("", text)
    return text if uncounted == text else _USE_POD_COUNT.sub(r"\g<1>true", uncounted)


def _changed(listed: str, labels: Mapping[str, str]) -> str:
    """Return a list of labels with ours at its end, where they win over what a variable holds."""
    if "$(" in listed or "`" in listed:
        raise UserDataUnreadable("A command computes its labels.")
    replaced = {*labels, GROUP_LABEL}
    kept = [pair for pair in listed.split(",") if pair and pair.partition("=")[0] not in replaced]
    return ",".join([*kept, *(f"{key}={value}" for key, value in labels.items())])


def _with_part(text: str, part: str) -> str:
    """Return a MIME message with one more part; nodeadm joins the NodeConfigs that it finds."""
    found = _BOUNDARY.search(text)
    boundary = found[1] if found else _OWN_BOUNDARY
    if found is None and "MIME-Version" in text:
        raise UserDataUnreadable("Its MIME message names no boundary.")
    if found is None:
        first = f"Content-Type: application/node.eks.aws\n\n{text.rstrip()}\n"
        head = f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{boundary}"\n\n--{boundary}\n'
        return f"{head}{first}--{boundary}\n{part}--{boundary}--\n"
    before, closing, _ = text.rpartition(f"--{boundary}--")
    if not closing:
        raise UserDataUnreadable("Its MIME message does not end.")
    return f"{before}--{boundary}\n{part}--{boundary}--\n"


def _settings(text: str) -> dict[str, Any] | None:
    """Return Bottlerocket's settings, or None when the text is something else."""
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    return parsed if "settings" in parsed else None


def _in_settings(text: str, settings: dict[str, Any], labels: Mapping[str, str]) -> str:
    kubernetes = settings["settings"].setdefault("kubernetes", {})
    kubernetes.pop("max-pods", None)
    kept = {key: value for key, value in kubernetes.get("node-labels", {}).items() if key != GROUP_LABEL}
    kubernetes["node-labels"] = kept | dict(labels)
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in kubernetes["node-labels"].items()]
    table = "\n".join(["[settings.kubernetes.node-labels]", *lines])
    kept_text = _POD_COUNT_SETTING.sub("", _TABLE.sub("", text))
    rewritten = f"{kept_text.rstrip()}\n\n{table}\n"
    if _settings(rewritten) != settings:
        raise UserDataUnreadable("Its node labels are not in a table of their own.")
    return rewritten
