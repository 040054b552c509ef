"""Keep a launch template of Spotopt's own for each cluster, derived from a group's."""

import json
from base64 import b64decode, b64encode
from hashlib import sha256

from accounts.domain.trust_policy import LAUNCH_TAG
from clusters.aws import launch_templates as gateway
from clusters.aws.errors import ResourceMissing
from clusters.aws.session import RegionSession
from clusters.domain.capacity import LaunchTemplate
from clusters.domain.user_data import capacity_labels, relabelled
from clusters.models import Cluster, NodeGroup

KEPT_VERSIONS = 10
"""Requests under way name a version, so that the last ones stay."""
NOT_COPIED = (
    "CapacityReservationSpecification",
    "DisableApiStop",
    "DisableApiTermination",
    "InstanceMarketOptions",
    "InstanceRequirements",
    "InstanceType",
)
"""The fleet request says what to buy and how; a group ends protected members all the same, we could not."""
GROUP_TAGS = frozenset({"eks:nodegroup-name"})


class OwnTemplates:
    """The launch templates of one cluster, as they are while one action looks at them."""

    def __init__(self, session: RegionSession, cluster: Cluster, group: NodeGroup) -> None:
        """Read the group's template; raise ResourceMissing when it is gone."""
        self._session, self._cluster = session, cluster
        template = LaunchTemplate(group.launch_template_id, group.launch_template_version)
        self._source = gateway.content(session, template=template)

    def version_for(self, capacity_type: str) -> LaunchTemplate:
        """Return a version that launches nodes which register as ``capacity_type``, made at first use.

        Same image, network, role and disks as the group's. Raises UserDataUnreadable when its user data
        cannot be made to say so.
        """
        content = _derived(self._source, capacity_type)
        digest = sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]
        name = f"spotopt-{self._cluster.pk}"
        try:
            known = gateway.versions(self._session, name=name)
        except ResourceMissing:
            tags = {"Name": f"{self._cluster.name}-spotopt", LAUNCH_TAG: str(self._cluster.pk)}
            return gateway.create(self._session, name=name, description=digest, content=content, tags=tags)
        for version in known:
            if version.description == digest:
                return version.template
        made = gateway.add_version(self._session, name=name, description=digest, content=content)
        old = [version.template.version for version in known[KEPT_VERSIONS - 1 :] if not version.is_default]
        if old:
            gateway.delete_versions(self._session, name=name, numbers=old)
        return made


def _derived(source: gateway.Content, capacity_type: str) -> gateway.Content:
    """Return what our template says where the group's says ``source``."""
    content = {key: value for key, value in source.items() if key not in NOT_COPIED}
    user_data = relabelled(b64decode(content.get("UserData", "")), capacity_labels(capacity_type))
    content["UserData"] = b64encode(user_data).decode()
    tagged = [
        {**each, "Tags": [tag for tag in each["Tags"] if tag["Key"] not in GROUP_TAGS]}
        for each in content.get("TagSpecifications", [])
    ]
    content["TagSpecifications"] = [each for each in tagged if each["Tags"]]
    return content
