"""install(), the grants, expose() and the guard: who may set up what, and what it leaves alone."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from harness import extension
from harness.database import OWNER, Database

TABLES = {
    "checkout_sessions",
    "customer_portal_sessions",
    "customer_mappings",
    "customers",
    "products",
    "prices",
    "subscriptions",
    "subscription_items",
    "payment_history",
    "invoices",
    "disputes",
    "webhook_events",
    "stripe_objects",
    "stripe_connections",
    "sync_runs",
}


def notices(connection: psycopg.Connection, statement: str) -> list[str]:
    """What a statement says besides its result: the severity, then the message."""
    said: list[str] = []

    def listen(diagnostic: psycopg.errors.Diagnostic) -> None:
        said.append(f"{diagnostic.severity}: {diagnostic.message_primary}")

    connection.add_notice_handler(listen)
    connection.execute(statement)
    connection.remove_notice_handler(listen)
    return said


def definition(db: Database) -> str:
    """The tables as pg_dump sees them: with indexes, constraints, policies, triggers, grants."""
    return "\n".join(
        line
        for line in db.dump("--schema-only", "--schema=payments").splitlines()
        if line and not line.startswith(("--", "\\"))
    )


@pytest.fixture
def bare(empty_db: Database) -> Database:
    """A database with the extension, before install()."""
    empty_db.execute("create extension payments")
    return empty_db


@pytest.fixture
def owned(bare: Database):
    """A database with the extension that belongs to an ordinary role: `(db, connection as it)`."""
    role = f"owner_of_{bare.name}"
    bare.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
    bare.execute(sql.SQL("alter database {} owner to {}").format(sql.Identifier(bare.name), sql.Identifier(role)))
    yield bare, bare.connect(user=role)
    bare.execute(sql.SQL("alter database {} owner to postgres").format(sql.Identifier(bare.name)))


# Who may install


def test_a_superuser_installs(bare):
    said = notices(bare.connect(), f"select payments.install('{OWNER}')")
    assert [line for line in said if "WARNING" in line] == []
    assert {line.removeprefix("NOTICE: made payments.") for line in said} == TABLES | {"refunds"}
    owners = bare.execute(
        "select distinct relowner::regrole::text from pg_class "
        "where relnamespace = 'payments'::regnamespace and relkind in ('r', 'v') and relname <> 'secrets'"
    ).fetchall()
    assert owners == [(OWNER,)]


def test_it_returns_the_next_statements(bare):
    text = bare.value(f"select payments.install('{OWNER}')")
    assert [line.split("(")[0] for line in text.splitlines()] == [
        "select payments.grant_admin",
        "select payments.set_stripe_key",
        "select payments.grant_app",
    ]
    assert bare.value("select payments.install()") == "select * from payments.status();"
    assert len(bare.execute("select * from payments.status()").fetchall()) == 2


def test_every_table_has_row_level_security_and_no_policy(db):
    assert db.value("select bool_and(relrowsecurity) from pg_class where relname = any(%s)", [list(TABLES)])
    assert db.value("select count(*) from pg_policies where schemaname = 'payments'") == 0


def test_tables_have_the_columns_of_their_types_with_their_comments(db):
    for table, kind in {
        "checkout_sessions": "checkout_session",
        "customer_portal_sessions": "customer_portal_session",
        "customer_mappings": "customer_mapping",
        "customers": "customer",
        "products": "product",
        "prices": "price",
        "subscriptions": "subscription",
        "subscription_items": "subscription_item",
        "payment_history": "payment",
        "invoices": "invoice",
        "disputes": "dispute",
        "webhook_events": "webhook_event",
        "stripe_objects": "stripe_object",
        "stripe_connections": "connection",
    }.items():
        columns = (
            "select attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum) "
            "from pg_attribute where attrelid = %s::regclass and attnum > 0 order by attnum"
        )
        ours = db.execute(columns, [f"payments.{kind}"]).fetchall()
        assert db.execute(columns, [f"payments.{table}"]).fetchall() == ours
        assert all(comment for _, _, comment in ours)


def test_both_environments_have_a_connection(db):
    rows = db.execute("select environment, status, open_to_apps from payments.stripe_connections order by 1")
    assert rows.fetchall() == [("live", "unconfigured", False), ("test", "unconfigured", False)]


def test_bodies_are_compressed_with_lz4_where_the_server_has_it(db):
    has_lz4 = db.value("select 'lz4' = any(enumvals) from pg_settings where name = 'default_toast_compression'")
    compression = db.value(
        "select attcompression from pg_attribute where attrelid = 'payments.stripe_objects'::regclass and attname = 'body'"
    )
    assert compression == ("l" if has_lz4 else "")


def test_a_superuser_as_the_owner_draws_a_warning(bare):
    said = notices(bare.connect(), "select payments.install()")
    assert [line for line in said if line.startswith("WARNING")] == [
        'WARNING: the tables belong to "postgres", a superuser, and triggers on them run with its rights: '
        "better give them to an ordinary role by install('payments_owner')"
    ]
    # As that hint says:
    bare.execute(f"select payments.install('{OWNER}')")
    assert bare.value("select relowner::regrole::text from pg_class where relname = 'refunds'") == OWNER


def test_a_role_that_does_not_exist_is_made(bare):
    name = f"Made for {bare.name}"
    bare.execute("select payments.install(%s)", [name])
    assert bare.execute("select rolcanlogin, rolsuper from pg_roles where rolname = %s", [name]).fetchone() == (
        False,
        False,
    )
    bare.execute(f'drop owned by "{name}"')
    bare.execute(f'drop role "{name}"')


def test_the_owner_of_the_database_installs_as_a_member_of_the_owning_role(owned):
    db, connection = owned
    role = connection.info.user
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
        connection.execute(f"select payments.install('{OWNER}')")
    assert refusal.value.diag.message_hint == f"A superuser runs: grant {OWNER} to {role}"

    db.execute(f"grant {OWNER} to {role}")
    connection.execute(f"select payments.install('{OWNER}')")
    assert db.value("select relowner::regrole::text from pg_class where relname = 'payment_history'") == OWNER
    db.execute(f"revoke {OWNER} from {role}")


def test_the_owner_of_the_database_installs_for_itself(owned):
    db, connection = owned
    connection.execute("select payments.install()")
    connection.execute("select payments.grant_app('authenticated')")
    connection.execute("create policy everybody on payments.checkout_sessions for insert with check (true)")
    connection.execute("alter table payments.payment_history add column note text")
    assert db.value("select relowner::regrole::text from pg_class where relname = 'refunds'") == connection.info.user
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("create table payments.mine ()")


def test_the_owner_of_the_database_cannot_make_roles_through_it(owned):
    _, connection = owned
    with pytest.raises(psycopg.errors.UndefinedObject) as refusal:
        connection.execute("select payments.install('nobody_yet')")
    assert refusal.value.diag.message_hint == "create role nobody_yet nologin"


def test_nobody_else_installs_grants_or_exposes(db):
    for statement in (
        "install()",
        f"install('{OWNER}')",
        "grant_app('anon')",
        "grant_webhook('anon')",
        "grant_admin('anon')",
        "expose('public')",
    ):
        for role in (OWNER, "authenticated"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.connect(role).execute(f"select payments.{statement}")


def test_being_let_in_by_a_grant_does_not_suffice(db):
    db.execute("grant usage on schema payments to authenticated")
    db.execute("grant execute on function payments.install(text), payments.grant_app(text) to authenticated")
    for statement in ("install()", "grant_app('authenticated')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
            db.connect("authenticated").execute(f"select payments.{statement}")
        assert '"not_installer"' in refusal.value.diag.message_detail


def test_two_at_once_install_once(bare):
    def install(_) -> list[str]:
        return notices(bare.connect(), f"select payments.install('{OWNER}')")

    with ThreadPoolExecutor() as pool:
        said = list(pool.map(install, range(4)))
    assert sorted(map(len, said)) == [0, 0, 0, len(TABLES) + 1]


# Again


def test_again_it_changes_nothing(db):
    before = definition(db)
    assert notices(db.connect(), "select payments.install()") == []
    assert notices(db.connect(), f"select payments.install('{OWNER}')") == []
    assert definition(db) == before


def test_it_leaves_what_users_added(db):
    owner = db.connect(OWNER)
    owner.execute(
        """
        alter table payments.payment_history
            add column note text,
            add column seen boolean not null default false,
            add constraint note_is_short check (length(note) < 100);
        create policy own on payments.payment_history for select using (subject_id = current_user);
        alter table payments.customers force row level security
        """
    )
    db.execute(
        """
        create index on payments.payment_history (note);
        create function public.fulfil() returns trigger language plpgsql as 'begin return new; end';
        create trigger fulfil after insert or update on payments.payment_history
        for each row execute function public.fulfil();
        grant select on payments.payment_history to authenticated
        """
    )
    before = definition(db)
    assert notices(db.connect(), "select payments.install()") == []
    assert definition(db) == before


def test_it_mends_what_is_missing(db):
    before = definition(db)
    db.execute(
        """
        alter table payments.checkout_sessions
            drop column expires_at,
            drop constraint checkout_sessions_status_check,
            drop constraint checkout_sessions_stripe_id_key,
            alter status drop default,
            alter status drop not null,
            disable row level security,
            disable trigger guard_session;
        drop trigger guard_session on payments.customer_portal_sessions;
        drop index payments.payment_history_charge_idx, payments.prices_lookup_key_idx;
        create index prices_lookup_key_idx on payments.prices (lookup_key);
        alter table payments.invoices owner to postgres;
        drop table payments.disputes;
        drop view payments.refunds;
        comment on column payments.prices.currency is null;
        comment on table payments.prices is null;
        delete from payments.stripe_connections where environment = 'live'
        """
    )
    said = notices(db.connect(), f"select payments.install('{OWNER}')")
    assert sorted(said) == [
        "NOTICE: made payments.disputes",
        "NOTICE: made payments.refunds",
        "NOTICE: payments.checkout_sessions: added column expires_at",
        "NOTICE: payments.checkout_sessions: added constraint checkout_sessions_status_check",
        "NOTICE: payments.checkout_sessions: added constraint checkout_sessions_stripe_id_key",
        "NOTICE: payments.checkout_sessions: added trigger guard_session",
        "NOTICE: payments.checkout_sessions: enabled row-level security",
        "NOTICE: payments.checkout_sessions: set column status not null",
        "NOTICE: payments.checkout_sessions: set the default of column status",
        "NOTICE: payments.customer_portal_sessions: added trigger guard_session",
        f"NOTICE: payments.invoices now belongs to {OWNER}",
        "NOTICE: payments.payment_history: added index payment_history_charge_idx",
        "NOTICE: payments.prices: added index prices_lookup_key_idx",
    ]
    after = definition(db)
    # A column that comes back comes last.
    assert sorted(after.replace(",\n", "\n").splitlines()) == sorted(before.replace(",\n", "\n").splitlines())
    assert db.value("select count(*) from payments.stripe_connections") == 2
    assert notices(db.connect(), "select payments.install()") == []


def test_a_definition_of_an_older_version_is_replaced(db):
    before = definition(db)
    db.execute(
        """
        alter table payments.payment_history alter type set default 'refund';
        alter table payments.checkout_sessions
            drop constraint checkout_sessions_status_check,
            add constraint checkout_sessions_status_check check (status <> 'expired'),
            alter generation set default 0;
        alter view payments.refunds set (security_invoker = false);
        drop trigger guard_session on payments.checkout_sessions;
        create trigger guard_session before update on payments.checkout_sessions
        for each row execute function payments.guard_session()
        """
    )
    notices(db.connect(), "select payments.install()")
    after = definition(db)
    # A default where this version has none may be the users' own.
    assert "type text DEFAULT 'refund'::text NOT NULL" in after
    assert after.replace("type text DEFAULT 'refund'::text NOT NULL", "type text NOT NULL") == before


def test_it_warns_of_what_will_hurt(db):
    db.execute(
        """
        create role visitor;
        create schema visitors authorization visitor;
        create function visitors.look() returns trigger language plpgsql as 'begin return new; end';
        create function visitors.define() returns trigger language plpgsql security definer as 'begin return new; end';
        alter function visitors.look() owner to visitor;
        alter function visitors.define() owner to visitor;
        create trigger look after insert on payments.payment_history for each row execute function visitors.look();
        create trigger define after insert on payments.payment_history for each row execute function visitors.define();
        alter table payments.customers add column score integer not null
        """
    )
    said = notices(db.connect(), "select payments.install()")
    db.execute("drop schema visitors cascade; drop role visitor")
    assert said == [
        'WARNING: column "score" of payments.customers is not null and has no default: '
        "rows that payments writes will fail",
        'WARNING: trigger "look" of payments.payment_history runs visitors.look() with the rights of '
        '"payments_owner", though role "visitor" can change what it does',
    ]


# What somebody else prepared


@pytest.mark.parametrize(
    "prepared",
    [
        "create schema payments authorization authenticated",
        "create schema payments; grant create on schema payments to public",
        "create schema payments; create function payments.has_access(text) returns boolean language sql return true;"
        "alter function payments.has_access(text) owner to authenticated",
    ],
)
def test_a_schema_that_somebody_prepared_is_refused(empty_db, prepared):
    empty_db.execute(prepared)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refusal:
        empty_db.execute("create extension payments")
    assert refusal.value.diag.message_primary == 'schema "payments" was prepared by somebody else'


@pytest.mark.parametrize(("encoding", "sqlstate"), [("SQL_ASCII", "0A000"), ("LATIN1", "22P05")])
def test_a_database_of_another_encoding_is_refused(server, encoding, sqlstate):
    other = Database(server, encoding.lower())
    with psycopg.connect(f"{server.dsn} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"create database {other.name} encoding '{encoding}' locale 'C' template template0")
    try:
        with pytest.raises(psycopg.Error) as refusal:
            other.execute("create extension payments")
        assert refusal.value.sqlstate == sqlstate
    finally:
        other.close()


def test_an_empty_schema_of_a_superuser_is_taken(empty_db):
    empty_db.execute("create schema payments")
    empty_db.execute("create extension payments")


@pytest.mark.parametrize(
    ("prepared", "reason"),
    [
        ("create table payments.prices (like payments.price); alter table payments.prices owner to anon", "belongs to"),
        ("create table payments.prices of payments.price", "is tied to a type"),
        ("create view payments.prices as select", "is not an ordinary table"),
        ("create unlogged table payments.prices (like payments.price)", "is not an ordinary table"),
        ("create table payments.refunds ()", "is not a view"),
        ("create table public.p (like payments.price); create table payments.prices () inherits (public.p)", "inherits"),
        (
            "create table payments.prices (like payments.price);"
            "create rule r as on insert to payments.prices do also notify evil",
            "has rules",
        ),
        ("create table payments.prices (currency integer)", 'has a column "currency" of type integer'),
    ],
)
def test_a_table_that_it_would_not_have_made_is_refused(bare, prepared, reason):
    bare.execute(prepared)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refusal:
        bare.execute(f"select payments.install('{OWNER}')")
    assert reason in refusal.value.diag.message_primary
    assert refusal.value.diag.message_hint
    assert bare.value("select count(*) from pg_class where relname = 'checkout_sessions'") == 0


def test_its_own_writes_run_triggers_as_the_owner(db):
    db.execute(
        f"""
        create function public.who() returns trigger language plpgsql as
        $$ begin raise notice 'as %', current_user; return new; end $$;
        create trigger who before insert on payments.stripe_connections for each row execute function public.who();
        delete from payments.stripe_connections where environment = 'test'
        """
    )
    assert f"NOTICE: as {OWNER}" in notices(db.connect(), "select payments.install()")


# The extension's scripts


@pytest.fixture(scope="session")
def scripts(postgres) -> Path:
    """Where the extension's scripts are."""
    return extension.directory(postgres)


@pytest.fixture(scope="session")
def version(postgres) -> str:
    """Which of them is this version's."""
    return extension.version(postgres)


def test_the_script_is_safe_from_those_who_may_create_objects(scripts, version, tmp_path):
    script = (scripts / f"payments--{version}.sql").read_text()
    # pgspot gives up at a body that is parsed when it is created, so it gets the same as a string.
    readable = tmp_path / "payments.sql"
    readable.write_text(
        re.sub(r"^begin atomic$(.*?)^end;$", r"set search_path = pg_catalog, pg_temp as $body$\1$body$;", script, flags=re.M | re.S)
    )
    checked = subprocess.run(
        [Path(sys.executable).with_name("pgspot"), readable], capture_output=True, text=True
    )
    found = re.findall(r"^(PS\d+: .*?)(?: at line \d+)?$", checked.stdout, flags=re.M)
    # A procedure that commits cannot pin its search path; in these every name and operator is qualified.
    assert found == [
        "PS005: Function without explicit search_path: payments.sync(environment text,objects text[])",
        "PS005: Function without explicit search_path: payments.poll_events(environment text)",
    ], checked.stdout + checked.stderr
    assert "Errors: 0 Warnings: 2 Unknown: 0" in " ".join(checked.stdout.split())


@pytest.fixture
def update(scripts, version):
    """`update(db)`: updates the extension by a script that calls install(), as a later version's may."""
    script = scripts / f"payments--{version}--{version}test.sql"
    script.write_text(f"select payments.install('{OWNER}');")
    yield lambda db: db.execute(f"alter extension payments update to '{version}test'")
    script.unlink()


def test_tables_that_an_update_script_makes_do_not_become_members(bare, update):
    update(bare)
    members = bare.execute(
        "select relname from pg_depend join pg_class on pg_class.oid = objid "
        "where classid = 'pg_class'::regclass and deptype = 'e' and relkind in ('r', 'v') "
        "and relnamespace = 'payments'::regnamespace"
    ).fetchall()
    assert members == [("secrets",)]


def test_an_update_script_that_installs_costs_no_grant_in_a_dump(db, update):
    db.execute("select payments.grant_app('authenticated')")
    before = definition(db)
    assert "GRANT USAGE ON SCHEMA payments TO authenticated;" in before
    update(db)
    assert definition(db) == before


# Grants


def test_the_public_executes_harmless_helpers_alone(db):
    executable = db.execute(
        """
        select proname::text
        from pg_proc cross join lateral aclexplode(coalesce(proacl, acldefault('f', proowner)))
        where pronamespace = 'payments'::regnamespace and grantee = 0
        """
    ).fetchall()
    assert {name for (name,) in executable} == {"verify_signature"}


def test_everything_has_a_comment(db):
    uncommented = db.execute(
        """
        select pg_describe_object(classid, objid, 0)
        from pg_depend join pg_extension on refobjid = pg_extension.oid
        left join pg_type on pg_type.oid = objid and classid = 'pg_type'::regclass
        where extname = 'payments' and deptype = 'e'
            -- Array types, and the row type of the one table, are made by Postgres.
            and (typelem is null or typelem = 0 and typrelid <> 'payments.secrets'::regclass)
            and obj_description(objid, classid::regclass::name) is null
        """
    ).fetchall()
    assert uncommented == []
    columns = db.execute(
        """
        select attrelid::regclass::text || '.' || attname
        from pg_attribute join pg_class on pg_class.oid = attrelid
        where relnamespace = 'payments'::regnamespace and relkind in ('c', 'r') and attnum > 0
            and col_description(attrelid, attnum) is null
        """
    ).fetchall()
    assert columns == []


def test_default_privileges_hand_out_nothing(empty_db):
    for kind in ("tables", "functions"):
        empty_db.execute(f"alter default privileges grant all on {kind} to anon, public")
    empty_db.execute("create extension payments")
    empty_db.execute(f"select payments.install('{OWNER}')")
    granted = empty_db.execute(
        """
        select relname from pg_class cross join lateral aclexplode(relacl)
        where relnamespace = 'payments'::regnamespace and relkind in ('r', 'v') and grantee <> relowner
        union all
        select proname from pg_proc cross join lateral aclexplode(proacl)
        where pronamespace = 'payments'::regnamespace
            and grantee not in (proowner, 'pg_database_owner'::regrole)
        """
    ).fetchall()
    assert granted == [("verify_signature",)]


def test_an_app_role_may_insert_requests_and_nothing_else(db):
    db.execute("select payments.grant_app('authenticated')")
    granted = db.execute(
        "select table_name, privilege_type, array_agg(column_name::text order by column_name) "
        "from information_schema.column_privileges where grantee = 'authenticated' and table_schema = 'payments' "
        "group by 1, 2 order by 1"
    ).fetchall()
    assert [tuple(row) for row in granted] == [
        (
            "checkout_sessions",
            "INSERT",
            sorted(
                "id environment mode subject_type subject_id customer_email line_items success_url cancel_url "
                "idempotency_key metadata requested_by request_hash generation".split()
            ),
        ),
        (
            "customer_portal_sessions",
            "INSERT",
            sorted("id environment subject_type subject_id return_url configuration flow requested_by".split()),
        ),
    ]


def test_an_app_role_without_a_policy_is_mentioned(db):
    said = notices(db.connect(), "select payments.grant_app('authenticated')")
    assert [line.split(";")[0] for line in said] == [
        "NOTICE: no policy lets anybody insert into payments.checkout_sessions yet",
        "NOTICE: no policy lets anybody insert into payments.customer_portal_sessions yet",
    ]
    # As the notices say:
    for line in said:
        db.execute(line.partition("one could be: ")[2])
    assert notices(db.connect(), "select payments.grant_app('authenticated')") == []


def test_each_role_executes_what_it_needs(db):
    executable = """
        select distinct proname::text from pg_proc
        where pronamespace = 'payments'::regnamespace and has_function_privilege(%s, oid, 'execute')
    """
    public = {name for (name,) in db.execute(executable, [OWNER])}
    for audience, role, expected in (
        (
            "app",
            "authenticated",
            "create_checkout_session create_customer_portal_session has_access current_subscription",
        ),
        ("webhook", "anon", "stripe_webhook handle_webhook"),
        (
            "admin",
            "service_role",
            "set_stripe_key remove_stripe_key set_webhook_secret open_to_apps link_customer status has_access "
            "catalog create_product update_product delete_product create_price update_price archive_price "
            "cancel_subscription update_subscription refund_payment "
            "current_subscription handle_webhook replay_event failed_events replay_failed prune_webhook_events rebuild "
            "sync sync_step sync_next poll_events poll_step poll_page poll_event poll_due configure_webhook "
            "configure_checkout simulate_event remove_simulated",
        ),
    ):
        db.execute(f"select payments.grant_{audience}('{role}')")
        assert {name for (name,) in db.execute(executable, [role])} - public == set(expected.split())


def test_every_function_is_for_somebody(db):
    for audience in ("app", "webhook", "admin"):
        db.execute(f"select payments.grant_{audience}('service_role')")
    left = db.execute(
        """
        select proname::text from pg_proc
        where pronamespace = 'payments'::regnamespace
            and not has_function_privilege('service_role', oid, 'execute')
            and not has_function_privilege('pg_database_owner', oid, 'execute')
        """
    ).fetchall()
    assert left == [("guard_session",)]


def test_an_admin_may_read_the_tables_but_not_attach_triggers_or_see_secrets(db):
    said = notices(db.connect(), "select payments.grant_admin('service_role')")
    assert len(said) == 1 and "only where a policy lets it" in said[0]
    privileges = db.execute(
        "select table_name, privilege_type from information_schema.role_table_grants where grantee = 'service_role'"
    ).fetchall()
    assert set(privileges) == {(table, "SELECT") for table in TABLES | {"refunds"}}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect("service_role").execute("select from payments.secrets")


def test_granting_twice_changes_nothing(db):
    grants = [f"select payments.{function}('authenticated')" for function in ("grant_app", "grant_webhook", "grant_admin")]
    for statement in grants:
        db.execute(statement)
    before = definition(db)
    for statement in grants:
        db.execute(statement)
    assert definition(db) == before


def test_a_grant_to_nobody_is_refused(db):
    with pytest.raises(psycopg.errors.UndefinedObject):
        db.execute("select payments.grant_app('nobody_yet')")


def test_grants_before_install_say_so(bare):
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refusal:
        bare.execute("select payments.grant_app('authenticated')")
    assert "payments.install" in refusal.value.diag.message_hint


# The guard

REQUEST = (
    "insert into payments.checkout_sessions (id, environment, mode) "
    "values ('00000000-0000-4000-8000-000000000001', 'test', 'payment')"
)


def test_an_app_role_cannot_insert_by_itself(db):
    db.execute("select payments.grant_app('authenticated')")
    db.execute("create policy anything on payments.checkout_sessions for all using (true) with check (true)")
    db.execute("create policy anything on payments.customer_portal_sessions for all using (true) with check (true)")
    connection = db.connect("authenticated")
    for statement, function in (
        (REQUEST, "create_checkout_session"),
        (
            "insert into payments.customer_portal_sessions (id, environment) "
            "values ('00000000-0000-4000-8000-000000000001', 'test')",
            "create_customer_portal_session",
        ),
        ("insert into payments.checkout_sessions (environment) values ('test')", "create_checkout_session"),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
            connection.execute(statement)
        assert '"direct_insert"' in refusal.value.diag.message_detail
        assert refusal.value.diag.message_hint == f"Call payments.{function}() instead."


def test_an_app_role_cannot_forge_columns(db):
    db.execute("select payments.grant_app('authenticated')")
    db.execute("create policy anything on payments.checkout_sessions for insert with check (true)")
    for column in ("status", "url", "stripe_checkout_session_id", "stripe_customer_id", "created_at"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.connect("authenticated").execute(
                f"insert into payments.checkout_sessions (environment, {column}) values ('test', null)"
            )


def test_a_table_wide_grant_does_not_open_the_guard(db):
    db.execute("grant usage on schema payments to authenticated")
    db.execute("grant all on payments.checkout_sessions to authenticated")
    db.execute("create policy anything on payments.checkout_sessions for all using (true) with check (true)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
        db.connect("authenticated").execute(REQUEST)
    assert '"direct_insert"' in refusal.value.diag.message_detail


def test_the_owner_and_superusers_insert_what_they_like(db):
    db.connect(OWNER).execute(REQUEST)
    db.execute("insert into payments.checkout_sessions (id, environment, status) values (gen_random_uuid(), 'live', 'open')")
    assert db.value("select count(*) from payments.checkout_sessions") == 2


# Exposed to a gateway

EXPOSED = {"create_checkout_session", "create_customer_portal_session", "stripe_webhook"}


@pytest.fixture
def api(db: Database) -> Database:
    """A database with a schema `api` that a gateway serves, and roles that were granted to."""
    db.execute("create schema api; grant usage on schema api to anon, authenticated")
    db.execute("select payments.grant_app('authenticated')")
    db.execute("select payments.grant_webhook('anon')")
    return db


def functions(db: Database, schema: str) -> dict[str, tuple]:
    """By name: arguments, result and comment."""
    rows = db.execute(
        "select proname::text, pg_get_function_arguments(oid), pg_get_function_result(oid), "
        "obj_description(oid, 'pg_proc') from pg_proc where pronamespace = %s::regnamespace",
        [schema],
    )
    return {name: tuple(rest) for name, *rest in rows}


def test_exposed_functions_are_called_as_the_inner_ones_are(api):
    api.execute("select payments.expose('api')")
    inner = functions(api, "payments")
    assert functions(api, "api") == {name: inner[name] for name in EXPOSED}


def test_exposed_functions_run_as_the_caller_and_are_no_part_of_the_extension(api):
    api.execute("select payments.expose('api')")
    assert api.value("select bool_or(prosecdef) from pg_proc where pronamespace = 'api'::regnamespace") is False
    api.execute("drop function api.stripe_webhook(json)")
    assert "CREATE FUNCTION api.create_checkout_session(" in api.dump("--schema-only")


def test_who_may_call_the_inner_function_may_call_the_exposed_one(api):
    def may_call() -> set[tuple[str, str]]:
        return set(
            api.execute(
                "select r::text, proname::text from pg_proc, unnest(array['anon', 'authenticated', 'service_role']) r "
                "where pronamespace = 'api'::regnamespace and has_function_privilege(r, oid, 'execute')"
            )
        )

    api.execute("select payments.expose('api')")
    expected = {
        ("anon", "stripe_webhook"),
        ("authenticated", "create_checkout_session"),
        ("authenticated", "create_customer_portal_session"),
    }
    assert may_call() == expected
    api.execute("select payments.grant_app('anon')")
    assert may_call() == expected | {("anon", "create_checkout_session"), ("anon", "create_customer_portal_session")}


def test_a_grant_does_not_open_a_function_that_lends_rights(api):
    api.execute(
        "create function api.stripe_webhook(json) returns payments.webhook_receipt language sql security definer "
        "as 'select payments.stripe_webhook($1)'; revoke execute on function api.stripe_webhook(json) from public"
    )
    api.execute("select payments.grant_webhook('anon')")
    assert not api.value("select has_function_privilege('anon', 'api.stripe_webhook(json)', 'execute')")


def test_two_grants_at_once_both_succeed(db):
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda role: db.connect().execute(f"select payments.grant_app('{role}')"), ["anon", "authenticated"] * 4))


def test_a_gateway_reaches_the_inner_function(api):
    api.execute("select payments.expose('api')")
    with pytest.raises(psycopg.Error) as refusal, api.request() as connection:
        connection.execute("select api.stripe_webhook('{}')")
    assert '"code"' in refusal.value.diag.message_detail
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal, api.request("1") as connection:
        connection.execute("select api.create_checkout_session(environment => 'live', mode => 'payment')")
    assert '"environment_closed"' in refusal.value.diag.message_detail


def test_a_gateway_is_told_to_reload(api):
    listener = api.connect()
    listener.execute("listen pgrst")
    api.execute("select payments.expose('api')")
    assert [(n.channel, n.payload) for n in listener.notifies(timeout=5, stop_after=1)] == [("pgrst", "reload schema")]


def test_a_gateway_gives_exposed_functions_the_time_that_stripe_needs(api):
    api.execute("select payments.expose('api')")
    settings = api.execute("select distinct proconfig from pg_proc where pronamespace = 'api'::regnamespace").fetchall()
    assert settings == [(['search_path=""', "statement_timeout=15s", "default_transaction_isolation=read committed"],)]


def test_exposing_again_changes_nothing(api):
    api.execute("select payments.expose('api')")
    api.execute("grant execute on function api.stripe_webhook(json) to service_role")
    present = "select oid, proacl from pg_proc where pronamespace = 'api'::regnamespace order by 1"
    before = api.execute(present).fetchall()
    api.execute("select payments.expose('api')")
    assert api.execute(present).fetchall() == before


def test_a_wrapper_of_an_older_version_is_replaced(api):
    api.execute(
        "create function api.create_checkout_session(mode text) returns payments.checkout_session language sql "
        "as 'select payments.create_checkout_session(null, $1)'"
    )
    api.execute("select payments.expose('api')")
    assert functions(api, "api")["create_checkout_session"] == functions(api, "payments")["create_checkout_session"]


@pytest.mark.parametrize(
    "prepared",
    [
        "create function api.stripe_webhook(jsonb) returns integer language sql as 'select 1'",
        "create function api.stripe_webhook(json) returns payments.webhook_receipt language sql security definer "
        "as 'select payments.stripe_webhook($1)'",
        "create function api.stripe_webhook(json) returns payments.webhook_receipt language sql "
        "as 'select payments.stripe_webhook($1)'; alter function api.stripe_webhook(json) owner to authenticated",
    ],
)
def test_a_function_that_somebody_else_made_is_not_replaced(api, prepared):
    api.execute(prepared)
    with pytest.raises(psycopg.errors.DuplicateFunction) as refusal:
        api.execute("select payments.expose('api')")
    assert refusal.value.diag.message_hint == "Drop or rename it, then run expose() again."
    assert api.value("select count(*) from pg_proc where pronamespace = 'api'::regnamespace") == 1


def test_exposing_takes_the_right_to_create_functions_there(owned):
    db, connection = owned
    db.execute("create schema theirs")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select payments.expose('theirs')")
    connection.execute("create schema mine")
    connection.execute("select payments.expose('mine')")
    assert set(functions(db, "mine")) == EXPOSED
