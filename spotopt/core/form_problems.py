"""Show a service's refusal beside the field that it is about."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from django import forms

from spotopt.core.errors import SpotOptError


@contextmanager
def problems_on(form: forms.Form) -> Iterator[list[SpotOptError]]:
    """Turn a SpotOptError inside the block into errors of the form: by field where it names one.

    Yields a list that holds the error afterwards, for pages that show more of it.
    """
    caught: list[SpotOptError] = []
    try:
        yield caught
    except SpotOptError as problem:
        caught.append(problem)
        errors = cast(Mapping[str, list[str]], problem.extra.get("errors", {}))
        named = {field: messages for field, messages in errors.items() if field in form.fields}
        for field, messages in named.items():
            for message in messages:
                form.add_error(field, message)
        if not named:
            form.add_error(str(problem.extra.get("field", "")) or None, problem.detail)
