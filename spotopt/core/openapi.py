"""Words of the API's description: problem documents and named pages."""

from typing import Any

from drf_spectacular.drainage import set_override
from drf_spectacular.utils import extend_schema_serializer, inline_serializer
from rest_framework import serializers


@extend_schema_serializer(component_name="ProblemDocument")
class ProblemSerializer(serializers.Serializer[Any]):
    """A failure as RFC 9457 has it; some carry more facts, such as ``errors`` or ``code``."""

    type = serializers.CharField(help_text="Path that names the kind, such as /problems/conflict.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="A sentence to act on.")


def answers(success: int | dict[int, Any], serializer: Any = None, *problems: int) -> dict[Any, Any]:
    """Return the responses of an operation: its success, what everybody may get, and its own problems."""
    good = success if isinstance(success, dict) else {success: serializer}
    bad = {(status, "application/problem+json"): ProblemSerializer for status in (401, 403, 429, *problems)}
    return {**good, **bad}


def page_of(collection: str, serializer: type[serializers.BaseSerializer[Any]]) -> Any:
    """Return the description of a page whose array is called ``collection``."""
    number = serializers.IntegerField
    page = inline_serializer(
        f"{serializer.__name__.removesuffix('Serializer')}Page",
        {collection: serializer(many=True), "total": number(), "page": number(), "page_size": number()},
    )
    set_override(page, "many", False)
    return page
