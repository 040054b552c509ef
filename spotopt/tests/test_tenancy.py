from uuid import uuid4

import pytest

from accounts.models import Account
from spotopt.core.tenancy import TenantRequired, tenant


def test_given_no_tenant_when_queried_then_it_refuses(db):
    with pytest.raises(TenantRequired):
        Account.objects.exists()


def test_given_another_tenant_when_queried_then_the_row_is_not_there(in_acme):
    account = Account.objects.create(organization=in_acme, alias="main")

    with tenant(uuid4()):
        assert not Account.objects.filter(pk=account.pk).exists()


def test_given_another_tenant_when_saved_then_it_refuses(in_acme, rival):
    with pytest.raises(TenantRequired):
        Account.objects.create(organization=rival, alias="theirs")
