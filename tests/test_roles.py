"""Who gets through, by every way in: every role against everything that the catalog says is there.

What is new in the catalog fails these tests until it is entered here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from harness.database import OWNER, Database
from shop import Shop

APP = {"authenticated", "anon"}
WEBHOOK = {"gateway"}
ADMIN = {"service_role"}
INSTALLER = {"postgres_owner"}
ROLES = sorted({"stranger", OWNER} | APP | WEBHOOK | ADMIN | INSTALLER)
"""
`stranger` may look into the schema and no more; `postgres_owner` owns the database. `payments_owner`
owns the tables and is no superuser.
"""

FUNCTIONS = {
    "archive_price": ADMIN,
    "cancel_subscription": ADMIN,
    "catalog": ADMIN,
    "configure_checkout": ADMIN,
    "configure_webhook": ADMIN,
    "create_checkout_session": APP,
    "create_customer_portal_session": APP,
    "create_price": ADMIN,
    "create_product": ADMIN,
    "current_subscription": APP | ADMIN,
    "delete_product": ADMIN,
    "expose": INSTALLER,
    "failed_events": ADMIN,
    "grant_admin": INSTALLER,
    "grant_app": INSTALLER,
    "grant_webhook": INSTALLER,
    "guard_session": set(),
    "handle_webhook": WEBHOOK | ADMIN,
    "has_access": APP | ADMIN,
    "install": INSTALLER,
    "link_customer": ADMIN,
    "open_to_apps": ADMIN,
    "poll_due": ADMIN,
    "poll_event": ADMIN,
    "poll_events": ADMIN,
    "poll_page": ADMIN,
    "poll_step": ADMIN,
    "prune_webhook_events": ADMIN,
    "rebuild": ADMIN,
    "refund_payment": ADMIN,
    "remove_simulated": ADMIN,
    "remove_stripe_key": ADMIN,
    "replay_event": ADMIN,
    "replay_failed": ADMIN,
    "set_stripe_key": ADMIN,
    "set_webhook_secret": ADMIN,
    "simulate_event": ADMIN,
    "status": ADMIN,
    "stripe_webhook": WEBHOOK,
    "sync": ADMIN,
    "sync_next": ADMIN,
    "sync_step": ADMIN,
    "update_price": ADMIN,
    "update_product": ADMIN,
    "update_subscription": ADMIN,
    "verify_signature": set(ROLES),
}
"""Which roles execute what."""

READ_BY_ADMIN = {
    "checkout_sessions",
    "customer_mappings",
    "customer_portal_sessions",
    "customers",
    "disputes",
    "invoices",
    "payment_history",
    "prices",
    "products",
    "refunds",
    "stripe_connections",
    "stripe_objects",
    "subscription_items",
    "subscriptions",
    "sync_runs",
    "webhook_events",
}
READ_BY_NOBODY = {"secrets"}

WAYS_INTO_A_TABLE = {
    "select": "select * from {table}",
    "select for update": "select * from {table} for update",
    "copy": "copy (table {table}) to stdout",
    "insert": "insert into {table} default values",
    "insert returning": "insert into {table} default values returning *",
    "update": "update {table} set {column} = {column}",
    "delete": "delete from {table}",
    "truncate": "truncate {table}",
    "lock": "lock table {table} in access exclusive mode",
    "trigger": "create trigger sly before insert on {table} for each statement execute function trap.sly()",
    "rule": "create rule sly as on insert to {table} do also notify sly",
    "policy": "create policy sly on {table} using (true)",
    "alter": "alter table {table} disable row level security",
    "no force": "alter table {table} no force row level security",
    "owner": "alter table {table} owner to current_user",
    "drop": "drop table {table}",
    "inherit": "create table trap.child () inherits ({table})",
    "index": "create index on {table} ({column})",
    "comment": "comment on table {table} is ''",
    "view": "create view trap.seen as table {table}; table trap.seen",
    "definer": "create function trap.seen() returns bigint security definer language sql "
    "as 'select count(*) from {table}'; select trap.seen()",
}

SETTABLE = {"payments.on_stripe_error"}
"""The settings that say nothing of whom we trust."""


@pytest.fixture
def populated(db: Database) -> Iterator[Database]:
    """Everybody has what the documented grants give them, and the tables have rows."""
    db.execute(
        """
        do $$
        declare
            wanted name;
        begin
            foreach wanted in array array['stranger', 'gateway', 'postgres_owner'] loop
                if to_regrole(wanted) is null then
                    execute format('create role %I nologin', wanted);
                end if;
            end loop;
        end $$
        """
    )
    db.execute(sql.SQL("alter database {} owner to postgres_owner").format(sql.Identifier(db.name)))
    db.execute("grant usage on schema payments to stranger")
    for role in APP:
        db.execute("select payments.grant_app(%s)", [role])
    db.execute("select payments.grant_webhook('gateway'), payments.grant_admin('service_role')")
    db.execute(f"grant {OWNER} to postgres_owner")
    for event in ("checkout.session.completed", "customer.subscription.created", "charge.refunded"):
        db.execute("select payments.simulate_event(%s)", [event])
    db.execute(
        """
        create schema trap;
        grant usage, create on schema trap to public;
        create function trap.sly() returns trigger language plpgsql as 'begin return null; end';
        """
    )
    yield db
    db.execute(sql.SQL("alter database {} owner to postgres").format(sql.Identifier(db.name)))
    db.execute(f"revoke {OWNER} from postgres_owner")


def outcome(connection: psycopg.Connection, statement: str, parameters: object = None) -> psycopg.Error | None:
    """What becomes of a statement that leaves no trace: the error it raises."""
    try:
        with connection.transaction(force_rollback=True):
            cursor = connection.cursor()
            if statement.startswith("copy"):
                with cursor.copy(statement) as copied:
                    list(copied)
            else:
                cursor.execute(statement, parameters)
    except psycopg.Error as error:
        return error
    return None


def is_refused(error: psycopg.Error | None) -> bool:
    """By Postgres itself, before anything of ours has run: our own refusals have a DETAIL."""
    return isinstance(error, psycopg.errors.InsufficientPrivilege) and error.diag.message_detail is None


# Functions


def routines(db: Database) -> list:
    """Every function of ours, and a call of it with nothing but nulls.

    A strict one is never called with nulls, so that nobody would be refused.
    """
    return db.execute(
        """
        select proname::text as name, oid::regprocedure::text as signature,
               format('%s payments.%I(%s)', case prokind when 'p' then 'call' else 'select' end, proname,
                      (select string_agg(
                                  case when not proisstrict then 'null'
                                       when type = 'text'::regtype then quote_literal('x')
                                       else quote_literal('0')
                                  end || '::' || format_type(type, null),
                                  ', ' order by place)
                         from unnest(proargtypes) with ordinality as argument (type, place))) as call,
               prorettype = 'trigger'::regtype as is_trigger
          from pg_proc
         where pronamespace = 'payments'::regnamespace
         order by proname
        """
    ).fetchall()


def test_every_function_is_executed_by_those_it_is_for_and_nobody_else(populated):
    found = routines(populated)
    assert {routine.name for routine in found} == FUNCTIONS.keys(), "enter here who may call it"
    wrong = []
    for role in ROLES:
        connection = populated.connect(role)
        for routine in found:
            expected = role in FUNCTIONS[routine.name]
            may = connection.execute("select has_function_privilege(%s, 'execute')", [routine.signature]).fetchone()[0]
            # A trigger function is not called before it is known to be one.
            called = expected if routine.is_trigger else not is_refused(outcome(connection, routine.call))
            if (may, called) != (expected, expected):
                wrong.append((role, routine.name, may, called))
    assert wrong == []


def test_nulls_are_refused_by_name_and_never_surprise(populated):
    """An internal error would be a case that nobody thought of."""
    connection = populated.connect()
    surprises = []
    for routine in routines(populated):
        # Whoever could call the trigger function could have it called as one.
        error = None if routine.is_trigger else outcome(connection, routine.call)
        if error is not None and (error.sqlstate or "XX").startswith("XX"):
            surprises.append((routine.name, error.sqlstate, str(error)))
    assert surprises == []


# Tables


def test_every_table_is_closed_but_for_what_is_granted(populated):
    relations = populated.execute(
        """
        select relname::text as name, relkind::text as kind, array_agg(attname::text order by attnum) as columns
          from pg_class join pg_attribute on attrelid = pg_class.oid and attnum > 0 and not attisdropped
         where relnamespace = 'payments'::regnamespace and relkind in ('r', 'v', 'm', 'p', 'f')
         group by 1, 2
        """
    ).fetchall()
    assert {relation.name for relation in relations} == READ_BY_ADMIN | READ_BY_NOBODY, "enter here who may read it"
    assert populated.value("select count(*) from payments.payment_history") > 0
    open_doors = []
    for role in ROLES:
        if role in (OWNER, "postgres_owner"):
            continue
        connection = populated.connect(role)
        for relation in relations:
            for way, statement in WAYS_INTO_A_TABLE.items():
                error = outcome(
                    connection,
                    statement.format(table=f"payments.{relation.name}", column=relation.columns[0]),
                )
                granted = (
                    role in ADMIN
                    and relation.name in READ_BY_ADMIN
                    and way in ("select", "copy", "view", "definer")
                )
                # What makes no sense for a view is refused for that.
                misfit = relation.kind == "v" and isinstance(error, psycopg.errors.WrongObjectType)
                refused = isinstance(error, psycopg.errors.InsufficientPrivilege) or misfit
                if error is not None if granted else not refused:
                    open_doors.append((role, relation.name, way, repr(error)))
            for passed_on in ("references", "select with grant option", "insert with grant option"):
                asked = "select has_any_column_privilege(%s, %s, %s)"
                if populated.value(asked, (role, f"payments.{relation.name}", passed_on)):
                    open_doors.append((role, relation.name, passed_on, ""))
    assert open_doors == []


def test_without_a_policy_nobody_but_the_owner_sees_a_row(populated):
    for table in READ_BY_ADMIN - {"refunds"}:
        assert populated.connect("service_role").execute(f"select from payments.{table}").fetchall() == [], table
    counted = "select count(*) from payments.payment_history"
    owner = populated.connect(OWNER)
    assert owner.execute(counted).fetchone()[0] > 0
    populated.execute("alter table payments.payment_history force row level security")
    assert owner.execute(counted).fetchone()[0] == 0


def test_not_even_the_owner_of_the_tables_sees_secrets(populated):
    for role in ROLES:
        for statement in ("table payments.secrets", "delete from payments.secrets"):
            assert is_refused(outcome(populated.connect(role), statement)), role


def test_no_column_of_an_answer_can_be_written(populated):
    """Every column but those of a request, of every table, whatever a policy allows."""
    requests = {
        "checkout_sessions": "id environment mode subject_type subject_id customer_email line_items success_url "
        "cancel_url idempotency_key metadata requested_by request_hash generation",
        "customer_portal_sessions": "id environment subject_type subject_id return_url configuration flow requested_by",
    }
    columns = populated.execute(
        "select relname::text as table, attname::text as name from pg_attribute "
        "join pg_class on pg_class.oid = attrelid "
        "where relnamespace = 'payments'::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped"
    ).fetchall()
    for table in requests:
        populated.execute(f"create policy all_of_it on payments.{table} using (true) with check (true)")
    for role in sorted(APP):
        connection = populated.connect(role)
        for column in columns:
            of_request = column.name in requests.get(column.table, "").split()
            inserted = outcome(connection, f"insert into payments.{column.table} ({column.name}) values (null)")
            assert is_refused(inserted) != of_request, (role, column, inserted)
            # What may be inserted may still not be inserted by hand.
            assert isinstance(inserted, psycopg.Error), (role, column)
            updated = outcome(connection, f"update payments.{column.table} set {column.name} = null")
            assert is_refused(updated), (role, column, updated)


# Settings


def test_nobody_turns_a_setting_that_says_whom_we_trust(populated):
    populated.execute("load 'payments'")
    names = {name for (name,) in populated.execute("select name from pg_settings where name like 'payments.%%'", [])}
    assert SETTABLE < names
    for role in ROLES:
        # A session of a role's own, in which nothing of ours has run.
        connection = populated.connect(role)
        connection.execute("select payments.verify_signature('', '', 'whsec_x')")
        for name in sorted(names) + ["payments.made_up", "session_replication_role"]:
            error = outcome(connection, f"set {name} = '1'")
            if name in SETTABLE:
                assert error.sqlstate == "22023", (role, name)
            else:
                assert error.sqlstate in ("42501", "42602"), (role, name, error)
                again = outcome(connection, "select set_config(%s, '1', false)", [name])
                assert again.sqlstate == error.sqlstate, (role, name, again)


@pytest.mark.parametrize("how", ["set", "options"])
def test_a_setting_made_before_the_library_is_loaded_does_not_divert_the_key(shop, how):
    """Until then Postgres takes any name with a dot, from anybody."""
    forged = {"payments.stripe_api_base": "http://127.0.0.1:1", "payments.source": "webhook", "payments.key_file": "/k"}
    passed = " ".join(f"-c {name}={value}" for name, value in forged.items())
    connection = shop.db.connect(user="authenticator", options=passed if how == "options" else "")
    if how == "set":
        for name, value in forged.items():
            # One that the database sets is known to be a superuser's already.
            error = None
            try:
                connection.execute("select pg_catalog.set_config(%s, %s, false)", (name, value))
            except psycopg.errors.InsufficientPrivilege as refused:
                error = refused
            assert error is None or name == "payments.stripe_api_base"
    connection.execute("set role authenticated")
    connection.execute("select payments.has_access('user', 'alice', 'pro_monthly')")
    base = connection.execute("show payments.stripe_api_base").fetchone()[0]
    assert base in (shop.stripe.base_url, "https://api.stripe.com")
    assert connection.execute("show payments.source").fetchone()[0] == ""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("show payments.key_file")
    assert shop.db.value("show payments.key_file") == ""


# Names that stand before ours


SHADOWS = """
create schema evil;
grant usage on schema evil to public;

create function evil.spy() returns void language plpgsql set search_path = pg_catalog as $spy$
begin
    if current_user <> current_setting('role') then
        raise exception 'a function of the caller ran as %', current_user using errcode = 'ZZ666';
    end if;
end $spy$;

do $do$
declare
    theirs record;
begin
    for theirs in
        select proname, prorettype,
               (select string_agg(format_type(type, null), ', ' order by place)
                  from unnest(proargtypes) with ordinality as argument (type, place)) as arguments,
               (select string_agg('$' || place, ', ' order by place)
                  from generate_series(1, pronargs) as place) as passed
          from pg_catalog.pg_proc
         where pronamespace = 'pg_catalog'::regnamespace
           and prokind = 'f' and not proretset and provariadic = 0
           and not exists (select from pg_type
                            where pg_type.oid = any (proargtypes::oid[] || prorettype) and typtype = 'p')
    loop
        execute format(
            'create function evil.%I(%s) returns %s language plpgsql as '
            '$f$ begin perform evil.spy(); return pg_catalog.%I(%s); end $f$',
            theirs.proname, theirs.arguments, format_type(theirs.prorettype, null), theirs.proname, theirs.passed);
    end loop;
    for theirs in
        select oprname, oprleft, oprright, proname
          from pg_catalog.pg_operator
          join pg_catalog.pg_proc ours on ours.oid = oprcode
         where oprnamespace = 'pg_catalog'::regnamespace and oprkind = 'b'
           and exists (select from pg_catalog.pg_proc shadow
                        where shadow.pronamespace = 'evil'::regnamespace and shadow.proname = ours.proname
                          and shadow.proargtypes = ours.proargtypes)
    loop
        execute format(
            'create operator evil.%s (function = evil.%I, leftarg = %s, rightarg = %s)',
            theirs.oprname, theirs.proname, format_type(theirs.oprleft, null), format_type(theirs.oprright, null));
    end loop;
end $do$;
"""
"""
Everything of pg_catalog that can be said in SQL, once more: it does the same, but tells when it runs
as somebody else than the caller.
"""

TEMPORARY = """
do $$
declare
    theirs record;
begin
    for theirs in
        select relname, oid::regclass as relation,
               (select string_agg(format('theirs.%I', attname), ', ') from pg_catalog.pg_attribute
                 where attrelid = pg_class.oid and attnum > 0 and not attisdropped
                   and atttypid <> all ('{anyarray,pg_statistic[]}'::regtype[])) as columns
          from pg_catalog.pg_class
         where relnamespace in ('pg_catalog'::regnamespace, 'payments'::regnamespace) and relkind in ('r', 'v')
           and relname <> 'secrets'
    loop
        execute format(
            'create temporary view %I as select %s from %s as theirs, lateral evil.spy() as spied',
            theirs.relname, theirs.columns, theirs.relation);
    end loop;
end $$;
"""
"""The same of every table."""


@pytest.fixture
def shadowed(shop: Shop) -> Shop:
    shop.db.execute(SHADOWS)
    shop.db.execute("select payments.grant_webhook('anon'), payments.grant_admin('service_role')")
    assert shop.db.value("select count(*) from pg_proc where pronamespace = 'evil'::regnamespace") > 1000
    assert shop.db.value("select count(*) from pg_operator where oprnamespace = 'evil'::regnamespace") > 500
    return shop


def trapped(db: Database, role: str, sub: str | None = None) -> psycopg.Connection:
    """A connection of a role on which every name means what the caller says."""
    connection = db.connect()
    connection.execute(TEMPORARY)
    connection.execute("select set_config('request.jwt.claims', %s, false)", [json.dumps({"sub": sub})])
    connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    connection.execute("set search_path = evil, pg_temp, pg_catalog, public")
    return connection


def test_the_trap_snaps(shadowed):
    """Else the tests below would show nothing."""
    connection = trapped(shadowed.db, "authenticated")
    shadowed.db.execute(
        "create function public.careless() returns boolean security definer language sql as $$ select 1 = 1 $$"
    )
    assert outcome(connection, "select public.careless()").sqlstate == "ZZ666"
    shadowed.db.execute(
        "create or replace function public.careless() returns boolean security definer language sql "
        "as $$ select exists (select from pg_class) $$"
    )
    assert outcome(connection, "select public.careless()").sqlstate == "ZZ666"


def test_no_name_of_the_callers_runs_with_rights_of_ours(shadowed):
    shop = shadowed
    user = trapped(shop.db, "authenticated", "alice")
    session = shop.checkout(user, mode="subscription", subject={"type": "user", "id": "alice"}, idempotency_key="1")
    again = shop.checkout(user, mode="subscription", subject={"type": "user", "id": "alice"}, idempotency_key="1")
    assert (session.id, session.url) == (again.id, again.url)
    shop.stripe.control.complete(session.stripe_checkout_session_id)

    # What somebody reads by name runs with their own rights.
    shop.db.execute(
        """
        grant select on payments.subscriptions to authenticated;
        create policy own on payments.subscriptions for select to authenticated
            using (subject_type = 'user' and subject_id = public.user_id());
        """
    )
    visitor = trapped(shop.db, "anon")
    for delivery in shop.stripe.control.deliveries():
        assert shop.receive(delivery, visitor).status in ("processed", "ignored")

    assert user.execute("select payments.has_access('user', 'alice', 'pro_monthly')").fetchone()[0] is True
    found = user.execute("select * from payments.current_subscription('test', 'user', 'alice')").fetchone()
    assert found.status == "active"
    assert shop.portal(user, subject={"type": "user", "id": "alice"}, return_url="https://shop.example/").url


def administration(shop: Shop) -> dict[str, tuple]:
    """What an administrator calls, with arguments that mean something, in an order that does."""
    shop.buy("alice", mode="subscription")
    item = shop.db.execute("select * from payments.subscription_items").fetchone()
    event = shop.db.value("select stripe_event_id from payments.webhook_events limit 1")
    row = shop.db.execute("select * from payments.subscriptions").fetchone()
    payment = shop.db.value("select id from payments.payment_history limit 1")
    return {
        "set_stripe_key": ("test", shop.stripe.test_key),
        "set_webhook_secret": ("test", "whsec_" + "b" * 32),
        "configure_webhook": ("test", "https://shop.example/rpc/stripe_webhook"),
        "configure_checkout": ("test", '{"locale": "fr"}'),
        "open_to_apps": ("test",),
        "link_customer": ("test", json.dumps({"type": "user", "id": "alice"}), row.stripe_customer_id),
        "catalog": ("test",),
        "create_product": ("test", "Hat"),
        "update_product": ("test", item.stripe_product_id, '{"name": "Cap"}'),
        "create_price": ("test", item.stripe_product_id, "usd", 500),
        "update_price": ("test", item.stripe_price_id, '{"metadata": {"size": "xl"}}'),
        "archive_price": ("test", item.stripe_price_id),
        "delete_product": ("test", item.stripe_product_id),
        "update_subscription": ("test", row.stripe_subscription_id, '{"quantity": 2}'),
        "cancel_subscription": ("test", row.stripe_subscription_id),
        "refund_payment": ("test", payment),
        "status": (),
        "has_access": ("user", "alice", "pro_monthly"),
        "current_subscription": ("test", "user", "alice"),
        "replay_event": ("test", event),
        "failed_events": ("test",),
        "replay_failed": ("test",),
        "simulate_event": ("checkout.session.completed",),
        "remove_simulated": (),
        "rebuild": ("test",),
        "sync_step": ("test",),
        "sync_next": ("test",),
        "sync": ("test",),
        "poll_step": ("test",),
        "poll_page": ("test",),
        "poll_event": ("test",),
        "poll_due": ("test",),
        "poll_events": ("test",),
        "prune_webhook_events": ("0 seconds",),
        "remove_stripe_key": ("test",),
    }


def fails(connection: psycopg.Connection, calls: dict[str, tuple]) -> dict[str, tuple]:
    """Which of the calls fail, and with what."""
    failed = {}
    for name, arguments in calls.items():
        verb = "call" if name in ("sync", "poll_events") else "select"
        marks = ", ".join(["%s"] * len(arguments))
        try:
            connection.execute(f"{verb} payments.{name}({marks})", arguments)
        except psycopg.Error as error:
            failed[name] = (error.sqlstate, str(error))
    return failed


def test_no_name_of_an_administrators_runs_with_rights_of_ours(shadowed):
    """Who runs the payments does not own the tables, and must not become who does."""
    calls = administration(shadowed)
    for_admins = {name for name, roles in FUNCTIONS.items() if ADMIN & roles and roles != set(ROLES)}
    # Webhooks come in by the test above.
    assert calls.keys() == for_admins - {"handle_webhook"}
    assert fails(trapped(shadowed.db, "service_role"), calls) == {}


def test_forced_row_level_security_holds_up_no_function(shop):
    """The owner of the tables is then held to policies like everybody, and there are none for it."""
    shop.db.execute("select payments.grant_webhook('anon'), payments.grant_admin('service_role')")
    for table in READ_BY_ADMIN - {"refunds"}:
        shop.db.execute(f"alter table payments.{table} force row level security")
    assert shop.db.connect(OWNER).execute("select count(*) from payments.stripe_connections").fetchone()[0] == 0
    assert fails(shop.db.connect("service_role"), administration(shop)) == {}
    bought = "select count(*) from payments.payment_history where subject_id = 'alice'"
    assert shop.db.value(bought) > 0


@pytest.mark.parametrize(
    ("role", "call"), [("authenticated", "access"), ("authenticated", "checkout"), ("anon", "webhook")]
)
def test_a_trigger_of_the_callers_that_waits_runs_as_the_caller(shadowed, role, call):
    """Until Postgres 17 it would run as whoever is in charge when it fires."""
    shop = shadowed
    shop.db.execute("create schema own; grant all on schema own to authenticated, anon")
    connection = shop.db.connect(role)
    connection.execute(
        """
        create table own.notes (id integer);
        create function own.late() returns trigger language plpgsql as 'begin perform evil.spy(); return null; end';
        create constraint trigger late after insert on own.notes deferrable initially deferred
            for each row execute function own.late();
        select set_config('request.jwt.claims', '{"sub": "alice"}', false);
        """
    )
    with connection.transaction():
        connection.execute("insert into own.notes values (1)")
        if call == "access":
            connection.execute("select payments.has_access('user', 'alice', 'pro_monthly')")
        elif call == "checkout":
            assert shop.checkout(connection, subject={"type": "user", "id": "alice"}).url
        else:
            received = shop.stripe.control.deliveries()
            assert received
            for delivery in received:
                assert shop.receive(delivery, connection).status in ("processed", "ignored")


# Tenants and environments


def test_every_function_of_an_apps_refuses_the_environment_that_is_closed_to_it(shop):
    asked = shop.db.execute(
        """
        select proname::text as name,
               format('select payments.%%I(%%s)', proname,
                      (select string_agg(
                                  case when argument = 'environment' then quote_literal('live')
                                       when type in ('json'::regtype, 'jsonb'::regtype)
                                       then quote_literal('{"type": "user", "id": "alice"}')
                                       else quote_literal('x')
                                  end || '::' || format_type(type, null),
                                  ', ' order by place)
                         from unnest(proargnames[:pronargs], proargtypes::oid[])
                              with ordinality as given (argument, type, place))) as call
          from pg_proc
         where pronamespace = 'payments'::regnamespace and 'environment' = any (proargnames[:pronargs])
        """,
        [],
    ).fetchall()
    of_apps = [function for function in asked if APP & FUNCTIONS[function.name]]
    assert len(of_apps) >= 3
    for role in sorted(APP):
        connection = shop.db.connect(role)
        connection.execute("select set_config('request.jwt.claims', '{\"sub\": \"alice\"}', false)")
        for function in of_apps:
            error = outcome(connection, function.call)
            assert error is not None, (role, function.name)
            detail = json.loads(error.diag.message_detail or "{}")
            assert (error.sqlstate, detail.get("code")) == ("42501", "environment_closed"), (role, function, error)
    assert shop.sessions() == []


def test_a_tenant_meets_nothing_of_anothers_in_any_table_or_view(shop):
    """Under the policy that the README shows, on everything that names a subject."""
    tables = [
        name
        for (name,) in shop.db.execute(
            "select relname::text from pg_class join pg_attribute on attrelid = pg_class.oid "
            "where relnamespace = 'payments'::regnamespace and relkind in ('r', 'v') and attname = 'subject_id'"
        )
    ]
    assert "refunds" in tables
    for table in tables:
        shop.db.execute(f"grant select on payments.{table} to authenticated")
        if table != "refunds":
            shop.db.execute(
                f"create policy own on payments.{table} for select to authenticated "
                "using (subject_type = 'user' and subject_id = public.user_id())"
            )
    shop.buy("alice", mode="subscription")
    payment = shop.buy("alice")
    shop.portal("alice", return_url="https://shop.example/")
    row = shop.db.execute(
        "select id from payments.payment_history where stripe_checkout_session_id = %s",
        (payment.stripe_checkout_session_id,),
    ).fetchone()
    shop.db.execute("select payments.refund_payment('test', %s)", (row.id,))
    for user, sees in (("alice", True), ("bob", False)):
        with shop.db.request(user) as request:
            for table in tables:
                found = request.execute(f"select subject_id from payments.{table}").fetchall()
                assert bool(found) is sees, (user, table)
                assert {one.subject_id for one in found} <= {"alice"}
    for function in (shop.checkout, shop.portal):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            function("bob", subject={"type": "user", "id": "alice"})


# Forged requests


@pytest.mark.parametrize(
    "forged",
    ["", "null", "[]", "{", '"x"', "{}", '{"sub": {}}', '{"sub": ["bob"]}', '{"role": "service_role"}', "\\u0000"],
)
def test_a_forged_request_gets_nothing(shop, forged):
    """Whatever the settings of a gateway hold: no row, no internal error, nothing asked of Stripe."""
    shop.db.execute("select payments.grant_webhook('anon')")
    for role, statement in (
        ("anon", "select payments.stripe_webhook('{\"id\": \"evt_1\"}')"),
        (
            "authenticated",
            "select payments.create_checkout_session(environment => 'test', mode => 'payment', "
            "line_items => '[{\"stripe_price_id\": \"price_1\"}]', success_url => 'https://shop.example/', "
            "subject => '{\"type\": \"user\", \"id\": \"alice\"}')",
        ),
    ):
        connection = shop.db.connect(role)
        for name in ("request.jwt.claims", "request.headers", "request.method", "request.path"):
            connection.execute("select set_config(%s, %s, false)", (name, forged))
        error = outcome(connection, statement)
        assert error is not None and not error.sqlstate.startswith("XX"), (role, error)
    assert shop.sessions() == []
    assert shop.db.value("select count(*) from payments.webhook_events") == 0
    assert shop.asked() == []
