"""Forms of the cluster pages: they check shape, services check rules."""

from django import forms


class RoleForm(forms.Form):
    """The role that the customer created."""

    role_arn = forms.CharField(
        label="Role ARN",
        max_length=255,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "arn:aws:iam::…:role/…"}
        ),
        help_text="On the stack's Outputs tab, once it says CREATE_COMPLETE.",
    )
