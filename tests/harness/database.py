"""Databases on a private server, and the ways in: as a role, as a gateway, as psql."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from harness.cluster import SUPERUSER, Cluster

OWNER = "payments_owner"
"""The ordinary role that owns the tables, as the documented set-up has it."""

GATEWAY_ROLES = """
create role anon nologin;
create role authenticated nologin;
create role service_role nologin;
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
"""
"""What a PostgREST-style gateway brings: it logs in as `authenticator` and becomes one of the others."""

TEMPLATE = "payments_template"

_numbers = itertools.count(1)


class Database:
    """One database; closing it ends its connections and drops it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self._connections: list[psycopg.Connection] = []
        self._admin: psycopg.Connection | None = None

    @property
    def dsn(self) -> str:
        """How a superuser connects."""
        return f"{self.cluster.dsn} dbname={self.name}"

    @property
    def environment(self) -> dict[str, str]:
        """How libpq's programs connect as a superuser without being told."""
        return {
            "PGHOST": str(self.cluster.directory),
            "PGPORT": "5432",
            "PGUSER": SUPERUSER,
            "PGDATABASE": self.name,
        }

    def connect(self, role: str | None = None, *, user: str | None = None, **options) -> psycopg.Connection:
        """A new connection, in autocommit, with rows as named tuples; closed with the database.

        `role` is a role to `SET ROLE` to (row-level security then applies); `user` logs in
        as another user than the superuser; `options` are libpq's and psycopg's.
        """
        options = {"autocommit": True, "row_factory": namedtuple_row, **options}
        connection = psycopg.connect(self.dsn, **({"user": user} if user else {}), **options)
        self._connections.append(connection)
        if role:
            connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            if not connection.autocommit:
                connection.commit()
        return connection

    def reconnect(self, timeout: float = 60) -> psycopg.Connection:
        """A new connection, once the server is back."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.connect()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def execute(self, statement: str, parameters: object = None) -> psycopg.Cursor:
        """Runs a statement as the superuser, on one connection kept for that."""
        if self._admin is None or self._admin.closed:
            self._admin = self.connect()
        return self._admin.execute(statement, parameters)

    def value(self, statement: str, parameters: object = None):
        """The first column of the first row, as the superuser."""
        return self.execute(statement, parameters).fetchone()[0]

    def request(self, sub: str | None = None, role: str | None = None, **details):
        """One request as PostgREST makes it: see `request` below."""
        return request(self.dsn, sub, role, **details)

    def psql(self, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
        """This Postgres's psql as the superuser, with errors and output in one stream, in order.

        `env` is added to the environment; other options are subprocess's.
        """
        return self._program("psql", "-X", *arguments, stderr=subprocess.STDOUT, **options)

    def dump(self, *arguments: object) -> str:
        """What pg_dump writes."""
        return self._dumped("pg_dump", *arguments)

    def dump_roles(self) -> str:
        """What pg_dumpall writes of the server's roles."""
        return self._dumped("pg_dumpall", "--roles-only")

    def restore(self, dump: str) -> None:
        """Feeds a plain dump to psql; the first error raises, with psql's output."""
        fed = self._program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", input=dump, stderr=subprocess.STDOUT)
        if fed.returncode:
            raise RuntimeError(fed.stdout)

    def disconnect(self) -> None:
        """Closes every connection made here."""
        for connection in self._connections:
            connection.close()

    def close(self) -> None:
        self.disconnect()
        with psycopg.connect(f"{self.cluster.dsn} dbname=postgres", autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(self.name)))

    def _dumped(self, program: str, *arguments: object) -> str:
        dumped = self._program(program, *arguments, stderr=subprocess.PIPE)
        dumped.check_returncode()
        return dumped.stdout

    def _program(self, name: str, *arguments: object, env: dict[str, str] | None = None, **options):
        return subprocess.run(
            [self.cluster.program(name), *map(str, arguments)],
            env={**os.environ, **self.environment, **(env or {})},
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )


@contextmanager
def request(
    dsn: str,
    sub: str | None = None,
    role: str | None = None,
    *,
    claims: dict | None = None,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    path: str = "/",
) -> Iterator[psycopg.Connection]:
    """One request as PostgREST makes it: one transaction, entered as `authenticator`.

    The role (`authenticated` if there is a `sub`, else `anon`), the claims and the
    request's settings are local to the transaction, which commits at the end of the
    block and rolls back if it raises.
    Source: https://docs.postgrest.org/en/stable/references/transactions.html
    """
    role = role or ("authenticated" if sub else "anon")
    claims = {"role": role, **({"sub": sub} if sub else {}), **(claims or {})}
    settings = {
        "role": role,
        "request.jwt.claims": json.dumps(claims),
        "request.headers": json.dumps({name.lower(): value for name, value in (headers or {}).items()}),
        "request.method": method,
        "request.path": path,
    }
    with psycopg.connect(dsn, user="authenticator", row_factory=namedtuple_row) as connection:
        for name, value in settings.items():
            connection.execute("select pg_catalog.set_config(%s, %s, true)", (name, value))
        yield connection


def furnish(cluster: Cluster) -> None:
    """Makes the roles, and the template with the extension and its tables that `create` copies."""
    with psycopg.connect(f"{cluster.dsn} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"create role {OWNER} nologin; {GATEWAY_ROLES}")
    template = create(cluster, TEMPLATE, template="template0")
    template.execute("create extension payments")
    template.execute("select payments.install(%s)", (OWNER,))
    template.disconnect()


def create(cluster: Cluster, name: str | None = None, template: str = TEMPLATE) -> Database:
    """A new database, with the extension and its tables unless another template is named."""
    name = name or f"db_{next(_numbers)}"
    with psycopg.connect(f"{cluster.dsn} dbname=postgres", autocommit=True) as connection:
        statement = sql.SQL("create database {} template {}")
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return Database(cluster, name)
