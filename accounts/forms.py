"""Forms of the account pages: they check shape, services check rules."""

from django import forms
from django.core.validators import RegexValidator

from accounts.domain.regions import REGIONS
from accounts.models import Account

_TWELVE_DIGITS = RegexValidator(r"\A[0-9]{12}\Z", "Type the 12 digits.")


def _password(label: str, autocomplete: str, min_length: int | None = None) -> forms.CharField:
    widget = forms.PasswordInput(attrs={"autocomplete": autocomplete})
    return forms.CharField(label=label, max_length=128, strip=False, min_length=min_length, widget=widget)


class SignUpForm(forms.Form):
    """A new organization and its owner."""

    organization_name = forms.CharField(
        label="Organization",
        min_length=3,
        max_length=100,
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )
    email = forms.EmailField(
        label="E-mail", max_length=255, widget=forms.EmailInput(attrs={"autocomplete": "email"})
    )
    password = _password("Password", "new-password", min_length=8)


class SignInForm(forms.Form):
    """An address and a password."""

    email = forms.EmailField(
        label="E-mail", max_length=255, widget=forms.EmailInput(attrs={"autocomplete": "username"})
    )
    password = _password("Password", "current-password")


class ChangePasswordForm(forms.Form):
    """The old password and the next."""

    old_password = _password("Old password", "current-password")
    new_password = _password("New password", "new-password", min_length=8)


class ProfileForm(forms.Form):
    """What a person is called."""

    name = forms.CharField(label="Name", max_length=150, required=False)


class LinkForm(forms.Form):
    """The AWS account to link."""

    aws_account_id = forms.CharField(
        label="AWS account id",
        validators=[_TWELVE_DIGITS],
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )
    alias = forms.CharField(label="Name", max_length=100, required=False)
    region = forms.ChoiceField(label="Main region", choices=list(REGIONS.items()), initial="us-east-1")
    permission_mode = forms.ChoiceField(
        label="Access",
        choices=Account.PermissionMode.choices,
        initial=Account.PermissionMode.FULL_ACCESS,
        widget=forms.RadioSelect,
    )


class RenameAccountForm(forms.Form):
    """An account's display name."""

    alias = forms.CharField(label="Name", min_length=1, max_length=100)


class DisconnectForm(forms.Form):
    """The account's name, typed to confirm."""

    confirmation = forms.CharField(label="Name of the account", max_length=100)
