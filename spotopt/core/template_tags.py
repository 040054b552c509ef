"""Template tags and filters that every page may use without loading them."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from django import template
from django.http import HttpRequest
from django.template import Context
from django.template.loader import get_template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from spotopt.core import formats
from spotopt.core.clock import utcnow

register = template.Library()

NOT_KNOWN = "n/a"
_MIB_PER_GIB = 1024
_SPARK_WIDTH, _SPARK_HEIGHT = 96, 24


@lru_cache
def _icon(name: str) -> SafeString:
    return SafeString(get_template(f"_icons/{name}.svg").render().strip())


@register.simple_tag
def icon(name: str) -> SafeString:
    """Return the inline SVG of ``templates/_icons/<name>.svg``, hidden from screen readers."""
    return _icon(name)


@register.filter
def usd(value: Decimal | None, places: int = 2) -> str:
    """Show an amount of US dollars."""
    return NOT_KNOWN if value is None else formats.usd(Decimal(value), places)


@register.filter
def monthly(usd_per_hour: Decimal | None) -> str:
    """Show an hourly price as dollars a month of 730 hours."""
    return usd(None if usd_per_hour is None else Decimal(usd_per_hour) * formats.HOURS_PER_MONTH)


@register.filter
def monthly_whole(usd_per_hour: Decimal | None) -> str:
    """Show an hourly price as whole dollars a month."""
    return usd(None if usd_per_hour is None else Decimal(usd_per_hour) * formats.HOURS_PER_MONTH, 0)


@register.filter
def hourly(usd_per_hour: Decimal | None) -> str:
    """Show an hourly price to four places."""
    return usd(usd_per_hour, 4)


@register.filter
def percent(value: float | Decimal | None) -> str:
    """Show a percentage: whole unless under 10."""
    return NOT_KNOWN if value is None else formats.percent(value)


@register.filter
def percent_of(part: Decimal | float | None, whole: Decimal | float | None) -> str:
    """Show ``part`` as a percentage of ``whole``."""
    if part is None or not whole:
        return NOT_KNOWN
    return formats.percent(100 * Decimal(str(part)) / Decimal(str(whole)))


@register.filter
def cores(millis: int | None) -> str:
    """Show thousandths of a CPU as CPUs."""
    if millis is None:
        return NOT_KNOWN
    return f"{millis / 1000:,.2f}".rstrip("0").rstrip(".")


@register.filter
def gib(mib: int | None) -> str:
    """Show MiB as GiB."""
    return NOT_KNOWN if mib is None else f"{mib / 1024:,.1f}".removesuffix(".0")


@register.filter
def memory(mib: int | None) -> str:
    """Show an amount of memory in the unit that fits it."""
    if mib is None:
        return NOT_KNOWN
    return f"{mib} MiB" if mib < _MIB_PER_GIB else f"{gib(mib)} GiB"


@register.filter
def span(value: timedelta | None) -> str:
    """Show a length of time."""
    return NOT_KNOWN if value is None else formats.duration(value)


@register.filter
def permille(part: Decimal | float | None, whole: Decimal | float | None) -> int:
    """Return ``part`` of ``whole`` as 0 to 1000, the unit of our SVG bars."""
    if part is None or not whole:
        return 0
    return max(0, min(1000, round(1000 * float(part) / float(whole))))


@register.filter
def node_name(name: str) -> str:
    """Show a node's name without the domain that all nodes share."""
    return name.removesuffix(".compute.internal").partition(".")[0] if name.startswith("ip-") else name


@register.filter
def minus(whole: Any, part: Any) -> Any:
    """Return the difference of two numbers."""
    return whole - part


@register.filter
def pretty(document: object) -> str:
    """Show a document as indented JSON."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, default=str)


@register.simple_tag
def age(moment: datetime | None, missing: str = "never") -> str:
    """Show how long ago something was, with the absolute time on hover and focus."""
    if moment is None:
        return missing
    return format_html(
        '<time datetime="{}" title="{}" data-age>{}</time>',
        moment.isoformat(timespec="seconds"),
        formats.absolute(moment),
        formats.age(moment, utcnow()),
    )


@register.simple_tag
def sparkline(values: Sequence[float | Decimal], tone: str = "") -> str:
    """Draw the values as a line 96 by 24; nothing when there are fewer than two."""
    numbers = [float(value) for value in values]
    if len(numbers) < 2:  # noqa: PLR2004  # a line has two ends
        return ""
    low, extent = min(numbers), (max(numbers) - min(numbers)) or 1.0
    step, drop = _SPARK_WIDTH / (len(numbers) - 1), _SPARK_HEIGHT - 4
    points = " ".join(
        f"{i * step:.1f},{2 + drop - drop * (n - low) / extent:.1f}" for i, n in enumerate(numbers)
    )
    return format_html(
        '<svg class="spark {}" viewBox="0 0 {} {}" aria-hidden="true"><polyline points="{}"/></svg>',
        tone,
        _SPARK_WIDTH,
        _SPARK_HEIGHT,
        points,
    )


@register.simple_tag(takes_context=True)
def query(context: Context, **changes: object) -> str:
    """Return the page's query string with some parameters changed; None removes one."""
    request: HttpRequest = context["request"]
    parameters = request.GET.copy()
    for name, value in changes.items():
        parameters.pop(name, None)
        if value not in (None, ""):
            parameters[name] = str(value)
    return "?" + urlencode(sorted(parameters.items()))
