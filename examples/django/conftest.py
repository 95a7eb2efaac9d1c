"""Django's migrations run once a run. Then two ways, which can stand side by side:

- `@pytest.mark.django_db`: as ever, a transaction a test, on a branch that the run has for itself;
- the fixture `own_db`: a branch a test, in which everything may be committed, and seen by other
  connections, threads and processes.
"""

import pytest
from django.core.management import call_command
from django.db import connections
from psycopg.conninfo import conninfo_to_dict


def point(url):
    """From now on this is Django's default database."""
    connections.close_all()
    words = conninfo_to_dict(url)
    settings = connections["default"].settings_dict
    settings.update(
        NAME=words["dbname"],
        USER=words["user"],
        PASSWORD=words["password"],
        HOST=words["host"],
        PORT=words["port"],
    )


@pytest.fixture(scope="session")
def pagestore_prepare(django_db_blocker):
    def migrate(url):
        with django_db_blocker.unblock():
            point(url)
            call_command("migrate", verbosity=0)
            connections.close_all()

    return migrate


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker, pagestore_session_db):
    """In place of pytest-django's, which would make a database and migrate that."""
    with django_db_blocker.unblock():
        point(pagestore_session_db.url)
        yield
        connections.close_all()


@pytest.fixture
def own_db(django_db_setup, django_db_blocker, pagestore_session_db, pagestore_db):
    with django_db_blocker.unblock():
        point(pagestore_db.url)
        yield
        point(pagestore_session_db.url)
