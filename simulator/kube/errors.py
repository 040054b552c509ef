"""Kubernetes Status bodies: what the API server answers when it refuses."""

from typing import Any

Body = dict[str, Any]


class StatusError(Exception):
    """A refusal that becomes a Status body with this HTTP code."""

    def __init__(
        self, code: int, message: str, *, reason: str | None = None, details: Body | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.details = details

    def body(self) -> Body:
        """The Status object, its fields in the real server's order."""
        body: Body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body["message"] = self.message
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        return body | {"code": self.code}


def qualified(plural: str, group: str) -> str:
    """`deployments.apps`, or just `pods` for the core group."""
    return f"{plural}.{group}" if group else plural


def _details(name: str, group: str, kind: str) -> Body:
    details = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in details.items() if value}


def unauthorized() -> StatusError:
    """Refuse a missing or unknown token."""
    return StatusError(401, "Unauthorized", reason="Unauthorized")


def forbidden(
    *, user: str, verb: str, plural: str, group: str, name: str, namespace: str | None, subresource: str = ""
) -> StatusError:
    """Refuse what the roles do not grant."""
    subject = qualified(plural, group) + (f' "{name}"' if name else "")
    resource = f"{plural}/{subresource}" if subresource else plural
    scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    message = (
        f'{subject} is forbidden: User "{user}" cannot {verb} resource "{resource}" '
        f'in API group "{group}" {scope}'
    )
    return StatusError(403, message, reason="Forbidden", details=_details(name, group, plural))


def not_found(plural: str, group: str, name: str) -> StatusError:
    """Refuse for want of the object."""
    message = f'{qualified(plural, group)} "{name}" not found'
    return StatusError(404, message, reason="NotFound", details=_details(name, group, plural))


def no_such_path() -> StatusError:
    """Refuse for want of the resource."""
    message = "the server could not find the requested resource"
    return StatusError(404, message, reason="NotFound", details={})


def bad_request(message: str) -> StatusError:
    """Refuse a malformed request."""
    return StatusError(400, message, reason="BadRequest")


def already_exists(plural: str, group: str, name: str) -> StatusError:
    """Refuse a second object of one name."""
    message = f'{qualified(plural, group)} "{name}" already exists'
    return StatusError(409, message, reason="AlreadyExists", details=_details(name, group, plural))


def conflict(plural: str, group: str, name: str) -> StatusError:
    """Refuse a write over a newer version."""
    message = (
        f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": the object has been '
        "modified; please apply your changes to the latest version and try again"
    )
    return StatusError(409, message, reason="Conflict", details=_details(name, group, plural))


def precondition_failed(plural: str, group: str, name: str, problem: str) -> StatusError:
    """Refuse because a stated precondition does not hold."""
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {problem}'
    return StatusError(409, message, reason="Conflict", details=_details(name, group, plural))


def expired(message: str) -> StatusError:
    """Refuse a version or token that history no longer covers."""
    return StatusError(410, message, reason="Expired")


def method_not_allowed() -> StatusError:
    """Refuse the verb."""
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, message, reason="MethodNotAllowed", details={})


def unsupported_media_type(accepted: str) -> StatusError:
    """Refuse a body of an unknown kind."""
    message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    return StatusError(415, message, reason="UnsupportedMediaType", details={})


def cause(field: str, message: str, reason: str = "FieldValueInvalid") -> Body:
    """One reason of an Invalid answer."""
    return {"reason": reason, "message": message, "field": field}


def invalid(kind: str, group: str, name: str, causes: list[Body]) -> StatusError:
    """Refuse with 422; several distinct causes are listed in brackets, repeated ones named once."""
    sentences = list(dict.fromkeys(f"{each['field']}: {each['message']}" for each in causes))
    summary = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    details = _details(name, group, kind) | {"causes": causes}
    message = f'{qualified(kind, group)} "{name}" is invalid: {summary}'
    return StatusError(422, message, reason="Invalid", details=details)
