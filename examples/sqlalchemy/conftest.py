"""Each test has a session on a database of its own, which may commit whatever it likes."""

import pytest
from models import Account, Base
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import Session


@pytest.fixture(scope="session")
def pagestore_prepare():
    """Once a run; with Alembic, `command.upgrade(config, "head")` stands here."""

    def prepare(url):
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([Account(name="ann", money=10), Account(name="bob", money=0)])
            session.commit()
        engine.dispose()

    return prepare


@pytest.fixture
def session(pagestore_db):
    engine = pagestore_db.sqlalchemy()
    with Session(engine) as session:
        yield session
    engine.dispose()
