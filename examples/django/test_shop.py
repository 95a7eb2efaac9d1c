import threading

import pytest
from django.db import connection, transaction
from django.db.models import F, Sum
from shop.models import Account


@pytest.mark.django_db
@pytest.mark.parametrize("paid", [4, 6])
def test_in_a_transaction(paid):
    Account.objects.filter(name="ann").update(money=F("money") - paid)
    assert Account.objects.get(name="ann").money == 10 - paid


@pytest.mark.parametrize("paid", [4, 6])
def test_committed_and_seen_by_others(own_db, paid):
    with transaction.atomic():
        Account.objects.filter(name="ann").update(money=F("money") - paid)
        Account.objects.filter(name="bob").update(money=F("money") + paid)
    seen = []

    def look():
        seen.append(Account.objects.get(name="bob").money)
        connection.close()

    other = threading.Thread(target=look)
    other.start()
    other.join()
    assert seen == [paid]
    assert Account.objects.aggregate(Sum("money")) == {"money__sum": 10}
