import pytest
from models import Account
from sqlalchemy import func, select


@pytest.mark.parametrize("paid", [4, 6])
def test_a_payment_is_committed_and_the_next_test_does_not_see_it(session, paid):
    ann, bob = session.get(Account, "ann"), session.get(Account, "bob")
    ann.money -= paid
    bob.money += paid
    session.commit()
    assert session.scalar(select(func.sum(Account.money))) == 10
    assert (ann.money, bob.money) == (10 - paid, paid)
