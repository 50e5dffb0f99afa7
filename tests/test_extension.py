"""The extension as an object in a database: how it is created, and what it leaves to whom."""

from __future__ import annotations

import psycopg
import pytest


def test_it_lives_in_its_own_schema_and_cannot_move(db):
    schema, relocatable = db.execute(
        """
        select nspname, extrelocatable
        from pg_extension join pg_namespace on pg_namespace.oid = extnamespace
        where extname = 'payments'
        """
    ).fetchone()
    assert (schema, relocatable) == ("payments", False)


def test_an_ordinary_user_cannot_create_it(empty_db):
    with empty_db.connect("authenticated") as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("create extension payments")


def test_dropping_it_and_creating_it_again_works(db):
    db.execute("drop extension payments cascade")
    db.execute("create extension payments")
    assert db.value("select count(*) from pg_extension where extname = 'payments'") == 1
