"""The bench's own promises, on which other tests lean."""

from __future__ import annotations

import psycopg
import pytest

from harness.cluster import Cluster


def test_a_request_enters_as_the_gateway_and_becomes_the_user(db):
    with db.request(sub="alice", headers={"Stripe-Signature": "t=1"}) as connection:
        row = connection.execute(
            """
            select session_user, current_user,
                   current_setting('request.jwt.claims')::json ->> 'sub' as sub,
                   current_setting('request.headers')::json ->> 'stripe-signature' as signature
            """
        ).fetchone()
    assert row == ("authenticator", "authenticated", "alice", "t=1")


def test_a_request_without_a_subject_is_anonymous(db):
    with db.request() as connection:
        assert connection.execute("select current_user").fetchone() == ("anon",)


def test_a_request_commits_unless_it_raises(db):
    db.execute("create table public.notes (note text)")
    db.execute("grant insert on public.notes to anon")
    with db.request() as connection:
        connection.execute("insert into public.notes values ('kept')")
    with pytest.raises(psycopg.errors.DivisionByZero), db.request() as connection:
        connection.execute("insert into public.notes values ('lost')")
        connection.execute("select 1 / 0")
    assert db.execute("select note from public.notes").fetchall() == [("kept",)]


def test_connections_as_a_role_are_under_row_level_security(db):
    db.execute("create table public.notes (note text)")
    db.execute("alter table public.notes enable row level security")
    db.execute("grant select, insert on public.notes to authenticated")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect("authenticated").execute("insert into public.notes values ('forbidden')")


def test_a_killed_server_comes_back_with_what_was_committed(make_cluster):
    cluster: Cluster = make_cluster()
    dsn = f"{cluster.dsn} dbname=postgres"
    with psycopg.connect(dsn) as connection:
        connection.execute("create table notes as select 'kept' as note")
    postmaster = cluster.pid
    cluster.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)
    cluster.start()
    assert cluster.pid != postmaster
    assert "was not properly shut down" in cluster.log_text()
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select note from notes").fetchone() == ("kept",)


def test_a_servers_environment_is_its_own(make_cluster, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    cluster: Cluster = make_cluster(environment={"SSL_CERT_FILE": "/nowhere"})
    with open(f"/proc/{cluster.pid}/environ") as environ:
        names = {entry.split("=")[0] for entry in environ.read().split("\0")}
    assert "SSL_CERT_FILE" in names
    assert "https_proxy" not in names
