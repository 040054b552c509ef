"""Pages of a list under the documented array name: ``{"clusters": […], "total", "page", "page_size"}``."""

from typing import Any

from rest_framework.pagination import PageNumberPagination
from rest_framework.response import Response


class NamedPages(PageNumberPagination):
    """Pages by ``page`` and ``page_size`` (at most 100); the view's ``collection`` names the array."""

    page_size_query_param = "page_size"
    max_page_size = 100
    collection = "results"

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> Any:
        """Remember the array's name and return the page's rows."""
        self.collection = getattr(view, "collection", "results")
        return super().paginate_queryset(queryset, request, view)

    def get_paginated_response(self, data: Any) -> Response:
        """Return the page in the documented envelope."""
        assert self.page is not None and self.request is not None  # noqa: S101, PT018  # set by paginate_queryset
        return Response(
            {
                self.collection: data,
                "total": self.page.paginator.count,
                "page": self.page.number,
                "page_size": self.get_page_size(self.request),
            }
        )

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe the envelope in the OpenAPI document."""
        number = {"type": "integer"}
        return {
            "type": "object",
            "properties": {"results": schema, "total": number, "page": number, "page_size": number},
        }
