"""From every release to this version: an updated database is a new one with its rows, and works on."""

from __future__ import annotations

import difflib
import gzip
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

import catalog
import seasoned
import story
from fake_stripe import FakeStripe
from harness import ROOT, database, extension
from harness.cluster import Cluster
from harness.database import Database
from harness.postgres import Postgres
from harness.release import RELEASES
from shop import refused

RELEASED = sorted(
    (release.name for release in RELEASES.iterdir()), key=lambda name: [int(part) for part in name.split(".")]
)
SCRIPTS = sorted((ROOT / "sql").glob("payments--*--*.sql"))


@pytest.fixture(scope="session")
def version(postgres: Postgres) -> str:
    """This version."""
    return extension.version(postgres)


@pytest.fixture(scope="module", autouse=True)
def old_scripts(postgres: Postgres) -> None:
    """Puts the releases' scripts beside this version's. They are not shipped: nobody should begin with one."""
    for release in RELEASED:
        script = (RELEASES / release / "extension.sql").read_text()
        (extension.directory(postgres) / f"payments--{release}.sql").write_text(script)


def dump_of(release: str) -> str:
    return gzip.decompress((RELEASES / release / "database.sql.gz").read_bytes()).decode()


@pytest.fixture(scope="module", params=RELEASED)
def origin(request: pytest.FixtureRequest, server: Cluster) -> Iterator[str]:
    """The name of the database that `old` copies."""
    restored = database.create(server, template="template0")
    dump = dump_of(request.param)
    create = "CREATE EXTENSION IF NOT EXISTS payments WITH SCHEMA payments"
    assert create in dump
    restored.restore(dump.replace(create, f"{create} VERSION '{request.param}'"))
    # The dump leaves out how columns are compressed, for which it takes a Postgres that can.
    for (statement,) in restored.execute(COMPRESSION).fetchall():
        restored.execute(statement)
    restored.disconnect()
    yield restored.name
    restored.close()


@pytest.fixture
def old(origin: str, server: Cluster) -> Iterator[Database]:
    """A database that lived with a release, as that left it; the library is this version's."""
    copy = database.create(server, template=origin)
    yield copy
    copy.close()


COMPRESSION = """
select format('alter table %s alter %I set compression lz4', attrelid::regclass, attname)
from pg_attribute join pg_class on pg_class.oid = attrelid
where relnamespace = 'payments'::regnamespace and relkind = 'r' and relname <> 'secrets'
    and atttypid in ('json'::regtype, 'jsonb'::regtype)
    and exists (select from pg_settings where name = 'default_toast_compression' and 'lz4' = any (enumvals))
"""


@pytest.fixture
def new(db: Database) -> Database:
    """A new database of this version, with what apps add."""
    db.execute(seasoned.APP)
    return db


def update(db: Database) -> None:
    try:
        db.execute("alter extension payments update")
    except psycopg.Error as error:
        pytest.fail(f"ALTER EXTENSION payments UPDATE fails: {error.diag.message_primary}", pytrace=False)


def test_the_scripts_are_safe_from_those_who_may_create_objects():
    checked = subprocess.run(
        [Path(sys.executable).with_name("pgspot"), *SCRIPTS], capture_output=True, text=True, check=False
    )
    assert "Errors: 0 Warnings: 0 Unknown: 0" in checked.stdout, checked.stdout


def test_there_is_a_script_from_the_last_release(version):
    assert RELEASED[-1] == version or ROOT / f"sql/payments--{RELEASED[-1]}--{version}.sql" in SCRIPTS


def test_an_updated_database_is_like_a_new_one(old, new, version):
    try:
        old.execute("alter extension payments update")
        failure = ""
    except psycopg.Error as error:
        failure = f"It fails: {error.diag.message_primary}\n"
    # What is new is nobody's until it is granted again.
    old.execute(seasoned.GRANTS)
    difference = difflib.unified_diff(
        *(catalog.entries(old.connect()), catalog.entries(new.connect())),
        *("updated", "new"),
        lineterm="",
        n=2,
    )
    if lines := list(difference):
        script = f"sql/payments--{RELEASED[-1]}--{version}.sql"
        advice = (
            f"{script} does not do all that a new installation does.\n{failure}"
            "Below, + is what only a new one has, - what it has no longer.\n"
            f"Write what makes the one from the other into {script}; its head says how.\n\n"
        )
        pytest.fail(advice + "\n".join(lines), pytrace=False)


CHANGES = """
comment on function payments.status() is 'How it is.'
alter function payments.status() cost 7
alter procedure payments.sync(text, text[]) set work_mem = '4MB'
create function payments.more() returns int language sql return 1
grant execute on function payments.catalog(text) to public
alter type payments.price owner to service_role
alter type payments.price add attribute rank integer
comment on column payments.price.currency is 'Which.'
alter table payments.prices add column rank integer
alter table payments.prices alter active set default true
alter table payments.prices alter active set not null
alter table payments.prices alter active set statistics 500
alter table payments.stripe_objects alter body set storage external
alter table payments.prices set (fillfactor = 70)
alter table payments.prices set (toast.autovacuum_enabled = off)
alter table payments.prices add check (unit_amount >= 0)
alter table payments.prices disable row level security
alter table payments.prices replica identity full
alter table payments.prices owner to service_role
grant select on payments.prices to anon
grant select (currency) on payments.prices to anon
create index on payments.prices (active)
alter index payments.prices_product_idx set (fillfactor = 50)
drop index payments.prices_product_idx
create statistics payments.related on environment, type from payments.prices
alter table payments.checkout_sessions enable always trigger guard_session
alter view payments.refunds reset (security_invoker)
create or replace view payments.refunds as select * from payments.payment_history where type = 'refund' and amount > 0
create policy everybody on payments.prices using (true)
alter extension payments add table payments.prices
alter extension payments drop function payments.status()
alter schema payments owner to payments_owner
update pg_extension set extconfig = array['payments.prices'::regclass], extcondition = array[''] where extname = 'payments'
"""


def test_the_comparison_sees_whatever_can_differ(db):
    connection = db.connect(autocommit=False)
    before = catalog.entries(connection)
    connection.commit()
    for change in CHANGES.strip().splitlines():
        connection.execute(change)
        assert catalog.entries(connection) != before, change
        connection.rollback()


def test_an_update_keeps_every_row(old):
    columns = seasoned.columns(old)
    before = seasoned.rows(old)
    assert all(before.values())
    update(old)
    assert seasoned.rows(old, columns) == before


def test_install_after_an_update_changes_nothing(old):
    update(old)
    before = catalog.entries(old.connect())
    old.execute("select payments.install()")
    assert catalog.entries(old.connect()) == before


@pytest.mark.parametrize("release", RELEASED)
def test_install_completes_the_dump_of_a_release(release, empty_db, new):
    """Restored where this version is, without an update: nothing that a new database has is missing."""
    empty_db.restore(dump_of(release))
    before, columns = seasoned.rows(empty_db), seasoned.columns(empty_db)
    empty_db.execute("select payments.install()")
    empty_db.execute(seasoned.GRANTS)
    assert seasoned.rows(empty_db, columns) == before
    missing = set(essential(catalog.entries(new.connect()))) - set(essential(catalog.entries(empty_db.connect())))
    assert missing == set()
    seasoned.sell(empty_db)


def essential(entries: list[str]) -> list[str]:
    """Less how columns are stored, which a dump says or leaves open."""
    return [re.sub(r" options .*| storage .*", "", line) for line in entries]


def test_install_locks_no_table_that_it_does_not_change(db):
    connection = db.connect(autocommit=False)
    connection.execute("drop index payments.prices_product_idx")
    connection.commit()
    connection.execute("select payments.install()")
    locked = connection.execute(
        """
        select distinct relation::regclass::text
        from pg_locks
        where pid = pg_backend_pid() and mode <> 'AccessShareLock'
            and relation in (
                select oid from pg_class where relnamespace = 'payments'::regnamespace and relkind in ('r', 'v')
            )
        order by 1
        """
    ).fetchall()
    # The rows for test and live, if they are not there.
    assert locked == [("payments.prices",), ("payments.stripe_connections",)]


def test_an_update_keeps_what_users_added(old):
    old.execute(
        """
        alter table payments.payment_history add column note text;
        update payments.payment_history set note = 'mine';
        create index mine on payments.payment_history (note);
        alter table payments.prices force row level security
        """
    )
    update(old)
    assert old.value("select bool_and(note = 'mine') from payments.payment_history")
    assert old.value("select to_regclass('payments.mine') is not null")
    assert old.value("select relforcerowsecurity from pg_class where oid = 'payments.prices'::regclass")


def test_an_update_keeps_foreign_keys_onto_every_key_of_ours(old):
    """What they depend on stays as it is, though this version would write it otherwise."""
    old.execute(
        """
        do $$
        declare
            key record;
        begin
            for key in
                select conrelid::regclass as table, conname as name, pg_get_constraintdef(oid) as definition,
                    substring(pg_get_constraintdef(oid) from '\\(.*\\)') as columns
                from pg_constraint
                where connamespace = 'payments'::regnamespace and contype in ('p', 'u')
                    and conrelid <> 'payments.secrets'::regclass
            loop
                execute format('create table public.%I (like %s)', 'of_' || key.name, key.table);
                execute format(
                    'alter table public.%I add foreign key %s references %s %2$s', 'of_' || key.name, key.columns, key.table);
            end loop;
        end
        $$
        """
    )
    foreign_keys = "select pg_get_constraintdef(oid) from pg_constraint where contype = 'f' order by 1"
    before = old.execute(foreign_keys).fetchall()
    assert len(before) > len(seasoned.TABLES)
    update(old)
    assert old.execute(foreign_keys).fetchall() == before
    seasoned.sell(old)


def test_an_update_before_install_makes_no_table(empty_db):
    for release in RELEASED:
        empty_db.execute(f"create extension payments version '{release}'")
        update(empty_db)
        assert empty_db.value("select to_regclass('payments.stripe_connections')") is None
        empty_db.execute("drop extension payments; drop schema if exists payments")


def test_an_update_keeps_the_grants(old):
    """`create or replace` does; `drop` and `create` would not."""
    granted = """
        select pg_describe_object(classid, oid, part), grantee::regrole::text, privilege_type
        from (
            select 'pg_proc'::regclass, oid, 0, proacl from pg_proc where pronamespace = 'payments'::regnamespace
            union all
            select 'pg_class'::regclass, oid, 0, relacl from pg_class where relnamespace = 'payments'::regnamespace
            union all
            select 'pg_class'::regclass, attrelid, attnum, attacl from pg_attribute
        ) as object (classid, oid, part, acl)
        cross join lateral aclexplode(acl)
    """
    before = set(old.execute(granted).fetchall())
    update(old)
    assert before - set(old.execute(granted).fetchall()) == set()


def test_an_update_hands_out_no_new_function(old):
    """Not even where ALTER DEFAULT PRIVILEGES hands out all that is new."""
    old.execute("alter default privileges grant execute on functions to anon")
    granted = """
        select proname::text, coalesce(rolname, 'public')
        from pg_proc
        cross join lateral aclexplode(coalesce(proacl, acldefault('f', proowner)))
        left join pg_roles on pg_roles.oid = grantee
        where pronamespace = 'payments'::regnamespace and coalesce(rolname, 'public') in ('public', 'anon')
    """
    before = set(old.execute(granted).fetchall())
    update(old)
    assert set(old.execute(granted).fetchall()) == before


def test_an_update_warns_of_connections_that_keep_the_old_library(old):
    warnings: list[str] = []
    connection = old.connect()
    connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    old.connect("authenticated")
    old.connect("authenticated")
    others = old.value("select count(*) from pg_stat_activity where datname = current_database()") - 1
    connection.execute("alter extension payments update")
    assert warnings == [f"{others} other connections may have the old library of payments"]


def test_everything_works_after_an_update(old):
    update(old)
    seasoned.sell(old)


def test_an_update_amid_webhooks(old):
    """Tables that are locked for a while, and Stripe that sends again what failed: nothing is lost."""
    with FakeStripe() as stripe:
        shop = seasoned.connect(old, stripe)
        for number in range(6):
            session = seasoned.checkout(old, f"user{number}", shop.price, "order:1")
            payment = stripe.control.complete(session.stripe_checkout_session_id)["payment_intent"]
            stripe.control.refund(payment, 500)
        deliveries = stripe.control.deliveries() * 3
        # As if this version had brought them: columns that are null by now, and indexes.
        old.execute(
            """
            drop index payments.payment_history_subject_idx, payments.stripe_objects_charge_idx;
            alter table payments.checkout_sessions drop column last_error;
            alter table payments.customer_mappings drop column linked_at;
            alter table payments.stripe_objects drop column due;
            alter table payments.webhook_events drop column error
            """
        )
        assert len(deliveries) > 100

        def carry(delivery: dict[str, str]) -> str:
            arguments = (delivery["body"], delivery["signature"])
            for _ in range(200):
                try:
                    with psycopg.connect(old.dsn) as connection:
                        receipt = connection.execute(
                            "select status from payments.handle_webhook('test', %s, %s)", arguments
                        ).fetchone()
                    if receipt[0] != "failed":
                        return receipt[0]
                except psycopg.Error as error:
                    problems.append(error.sqlstate)
                time.sleep(0.02)
            return "lost"

        problems: list[str] = []
        with ThreadPoolExecutor(4) as stripes:
            outcomes = [stripes.submit(carry, delivery) for delivery in deliveries]
            time.sleep(0.5)
            update_when_possible(old)
            became = {outcome.result() for outcome in outcomes}
        assert became == {"processed"}
        # Before the update; while it held the tables; and when the two waited for each other.
        assert "55000" in problems and set(problems) <= {"55000", "55P03", "40P01"}
        paid = "select count(*) from payments.payment_history where subject_id like 'user_' and type = 'one_time_payment'"
        assert old.value(f"{paid} and status = 'partially_refunded'") == 6
        assert old.value("select payments.rebuild('test')") == 0


def update_when_possible(db: Database) -> None:
    """As the README has it: what waits too long, or meets a webhook that waits for it, is tried again."""
    db.execute("set lock_timeout = '5s'")
    for _ in range(10):
        try:
            db.execute("alter extension payments update")
            return
        except (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable):
            pass
    pytest.fail("no update in ten tries")


def test_what_was_recorded_before_an_update_leads_to_the_same_rows(old):
    columns = seasoned.columns(old)
    before = seasoned.rows(old)
    update(old)
    events = old.execute("select environment, stripe_event_id from payments.webhook_events order by received_at").fetchall()
    for event in events:
        assert old.execute("select status from payments.replay_event(%s, %s)", event).fetchone() == ("processed",)
    assert old.value("select payments.rebuild('test')") == 0
    of_stripe = {table: columns[table] for table in story.TABLES if table != "stripe_objects"}
    assert seasoned.rows(old, of_stripe) == {table: before[table] for table in of_stripe}


# Between the package and the update: a new library, and what an old release made.

ALICE = """'{"type": "user", "id": "alice"}'"""
PLAUSIBLE = {
    "archive_price": "'test', (select max(stripe_price_id) from payments.prices)",
    "cancel_subscription": "'test', (select max(stripe_subscription_id) from payments.subscriptions)",
    "catalog": "'test'",
    "configure_checkout": """'test', '{"allow_promotion_codes": true}'""",
    "configure_webhook": "'test', 'https://shop.example/rpc/stripe_webhook'",
    "create_checkout_session": f"'test', 'payment', {ALICE}, 'https://shop.example/', 'https://shop.example/'",
    "create_customer_portal_session": f"'test', {ALICE}",
    "create_price": "'test', (select max(stripe_product_id) from payments.products), 'usd', 500",
    "create_product": "'test', 'Tea'",
    "current_subscription": "'test', 'user', 'buyer0'",
    "delete_product": "'test', (select max(stripe_product_id) from payments.products)",
    "expose": "'api'",
    "failed_events": "'test'",
    "grant_admin": "'service_role'",
    "grant_app": "'authenticated'",
    "grant_webhook": "'anon'",
    "handle_webhook": "'test', '{}', 't=1,v1=0'",
    "has_access": "'user', 'buyer0', 'pro'",
    "install": "",
    "link_customer": f"'test', {ALICE}, (select max(stripe_customer_id) from payments.customers)",
    "open_to_apps": "'test'",
    "poll_due": "'test'",
    "poll_event": "'test'",
    "poll_events": "'test'",
    "poll_page": "'test'",
    "poll_step": "'test'",
    "prune_webhook_events": "interval '100 years'",
    "rebuild": "'test'",
    "refund_payment": "'test', (select id from payments.payment_history where amount > 0 and paid_at is not null limit 1)",
    "remove_simulated": "",
    "remove_stripe_key": "'test'",
    "replay_event": "'test', (select max(stripe_event_id) from payments.webhook_events)",
    "replay_failed": "'test'",
    "set_stripe_key": "'test', 'sk_test_wrong'",
    "set_webhook_secret": "'test', 'whsec_another'",
    "simulate_event": "'charge.refunded'",
    "status": "",
    "stripe_webhook": "'{}'",
    "sync": "'test'",
    "sync_next": "'test'",
    "sync_step": "'test'",
    "update_price": """'test', (select max(stripe_price_id) from payments.prices), '{"active": true}'""",
    "update_product": """'test', (select max(stripe_product_id) from payments.products), '{"name": "Tea"}'""",
    "update_subscription": """'test', (select max(stripe_subscription_id) from payments.subscriptions), '{"quantity": 1}'""",
    "verify_signature": "'{}', 't=1,v1=0', 'whsec_another'",
}
"""Arguments for every function that anybody could call."""


def test_no_function_of_a_release_fails_without_saying_what_to_run(old):
    functions = old.execute(
        "select proname::text, prokind from pg_proc where pronamespace = 'payments'::regnamespace "
        "and prorettype <> 'trigger'::regtype order by 1"
    ).fetchall()
    assert {name for name, _ in functions} <= set(PLAUSIBLE)
    with FakeStripe() as stripe:
        seasoned.connect(old, stripe)
        for name, kind in functions:
            statement = f"payments.{name}({PLAUSIBLE[name]})"
            try:
                old.connect().execute(f"call {statement}" if kind == "p" else f"select * from {statement}")
            except psycopg.Error as error:
                # Names and types that are not there are an update that is not made.
                assert error.sqlstate[:2] not in ("42", "XX"), f"{statement}: {error}"
                if "update_pending" in str(error):
                    assert error.diag.message_hint == "A superuser runs: alter extension payments update"


def test_with_the_new_library_a_release_sells_on_or_says_what_to_run(old):
    with FakeStripe() as stripe:
        shop = seasoned.connect(old, stripe)
        try:
            session = seasoned.checkout(old, "bob", shop.price, "order:3")
            stripe.control.complete(session.stripe_checkout_session_id)
            assert set(seasoned.deliver(old, stripe)) == {"processed"}
        except psycopg.Error as error:
            assert (error.sqlstate, json.loads(error.diag.message_detail)["code"]) == ("55000", "update_pending")
        update(old)
        session = seasoned.checkout(old, "bob", shop.price, "order:4")
        stripe.control.complete(session.stripe_checkout_session_id)
        for event in stripe.control.events():
            delivery = stripe.control.delivery(event["id"])
            arguments = (delivery["body"], delivery["signature"])
            assert old.execute("select status from payments.handle_webhook('test', %s, %s)", arguments).fetchone() == ("processed",)


def test_the_status_says_that_an_update_is_to_be_made(old):
    steps = "select distinct next_step from payments.status()"
    try:
        assert old.execute(steps).fetchall() == [
            ("Bring the database up to date with the library: ALTER EXTENSION payments UPDATE;",)
        ]
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        assert error.diag.message_hint == "A superuser runs: alter extension payments update"
    update(old)
    assert "ALTER EXTENSION" not in str(old.execute(steps).fetchall())


@pytest.mark.parametrize("column", ["webhook_events.attempt_count", "payment_history.paid_at", "stripe_objects.due"])
def test_what_needs_a_newer_table_says_so_and_leaves_nothing_behind(old, column):
    """As if the column had come with this version: nothing is written, nothing recorded as failed."""
    table, name = column.split(".")
    with FakeStripe() as stripe:
        shop = seasoned.connect(old, stripe)
        session = seasoned.checkout(old, "bob", shop.price, "order:3")
        stripe.control.complete(session.stripe_checkout_session_id)
        old.disconnect()
        old.execute(f"alter table payments.{table} drop column {name} cascade")
        before = seasoned.rows(old)
        charge = next(event for event in stripe.control.events() if event["type"] == "charge.succeeded")
        delivery = stripe.control.delivery(charge["id"])
        receive = "select status from payments.handle_webhook('test', %s, %s)"
        with refused("55000", "update_pending", library=extension.version(old.cluster.postgres)) as refusal:
            old.execute(receive, (delivery["body"], delivery["signature"]))
        assert refusal.hint == "A superuser runs: alter extension payments update"
        assert refusal.message.endswith("made in this database")
        assert name in refusal.detail["error"]
        assert seasoned.rows(old) == before

        # In the same connection, too.
        update(old)
        assert old.value(receive, (delivery["body"], delivery["signature"])) == "processed"


def test_what_needs_a_newer_type_says_so(old):
    with FakeStripe() as stripe:
        shop = seasoned.connect(old, stripe)
        stripe.control.complete(seasoned.checkout(old, "bob", shop.price, "order:3").stripe_checkout_session_id)
        old.execute("alter type payments.webhook_receipt drop attribute error_detail")
        before = seasoned.rows(old)
        with refused("55000", "update_pending"):
            seasoned.deliver(old, stripe)
        assert seasoned.rows(old) == before


def test_a_connection_with_the_library_of_before_an_update_says_so(db, stripe, version):
    shop = seasoned.connect(db, stripe)
    stripe.control.complete(shop.checkout())
    connection = db.connect()
    assert len(connection.execute("select * from payments.status()").fetchall()) == 2
    # As the script of a later version would.
    db.execute("update pg_extension set extversion = '99.0.0' where extname = 'payments'")
    db.execute("alter type payments.webhook_receipt add attribute more text")
    delivery = stripe.control.deliveries()[0]
    arguments = (delivery["body"], delivery["signature"])
    with refused("55000", "library_outdated", library=version, database="99.0.0") as refusal:
        connection.execute("select status from payments.handle_webhook('test', %s, %s)", arguments)
    assert refusal.hint == "Connect again."
    assert db.value("select count(*) from payments.webhook_events") == 0
    # What needs no more than there is goes on.
    assert len(connection.execute("select * from payments.status()").fetchall()) == 2
