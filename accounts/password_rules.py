"""The composition rule of passwords (spec readings, C22)."""

from django.core.exceptions import ValidationError


class MixedCharactersValidator:
    """Requires an upper-case letter, a lower-case letter and a digit, naming each that is missing."""

    def validate(self, password: str, user: object = None) -> None:
        """Raise ValidationError with one message for each unmet rule."""
        rules = [
            (str.isupper, "Use at least one upper-case letter."),
            (str.islower, "Use at least one lower-case letter."),
            (str.isdigit, "Use at least one digit."),
        ]
        unmet = [message for rule, message in rules if not any(map(rule, password))]
        if unmet:
            raise ValidationError(unmet, code="password_composition")

    def get_help_text(self) -> str:
        """Return the rule in one sentence."""
        return "At least 8 characters, with an upper-case letter, a lower-case letter and a digit."
