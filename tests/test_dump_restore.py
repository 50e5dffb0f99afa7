"""A dump brings back everything that users rely on, and no secret."""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

import catalog
import seasoned
from fake_stripe import FakeStripe
from harness import database
from harness.cluster import SUPERUSER, Cluster, account
from harness.database import OWNER, Database

ROWS = """
insert into payments.checkout_sessions (environment, id, status, subject_type, subject_id)
values ('test', '00000000-0000-4000-8000-000000000001', 'completed', 'user', '7');
insert into payments.customer_portal_sessions (environment, id)
values ('test', '00000000-0000-4000-8000-000000000002');
insert into payments.customer_mappings (environment, subject_type, subject_id, stripe_customer_id)
values ('test', 'user', '7', 'cus_1');
insert into payments.customers (environment, stripe_customer_id) values ('test', 'cus_1');
insert into payments.products (environment, stripe_product_id) values ('test', 'prod_1');
insert into payments.prices (environment, stripe_price_id) values ('test', 'price_1');
insert into payments.subscriptions (environment, stripe_subscription_id) values ('test', 'sub_1');
insert into payments.subscription_items (environment, stripe_subscription_item_id) values ('test', 'si_1');
insert into payments.payment_history (environment, id, type, status, amount, subject_id)
values ('test', '00000000-0000-4000-8000-000000000003', 'refund', 'refunded', 500, 'authenticated');
insert into payments.invoices (environment, stripe_invoice_id) values ('test', 'in_1');
insert into payments.disputes (environment, stripe_dispute_id) values ('test', 'dp_1');
insert into payments.webhook_events (environment, stripe_event_id, payload)
values ('test', 'evt_1', '{"b": 1,  "a": "\\u0000"}');
insert into payments.stripe_objects (environment, object_type, object_id, body, as_of)
values ('test', 'customer', 'cus_1', '{}', '2026-01-01');
insert into payments.sync_runs (environment, object, status, cursor) values ('test', 'prices', 'complete', '"complete"');
update payments.stripe_connections set status = 'connected', masked_key = 'sk_test_****last4' where environment = 'test';
insert into payments.secrets (id, environment, kind, sealed)
values ('00000000-0000-4000-8000-000000000004', 'test', 'stripe_key', 'sealed');
"""

SETUP = f"""
select payments.grant_app('authenticated');
select payments.grant_webhook('anon');
select payments.grant_admin('service_role');
create policy own on payments.payment_history for select to authenticated using (subject_id = current_user);
create policy buy on payments.checkout_sessions for insert to authenticated with check (subject_type = 'user');
alter table payments.payment_history add column note text;
create index payment_history_note_idx on payments.payment_history (note);
create table public.orders (payment_id uuid primary key);
grant all on public.orders to {OWNER};
create function public.fulfil() returns trigger language plpgsql set search_path = '' as $$
begin
    insert into public.orders values (new.id) on conflict do nothing;
    return new;
end
$$;
create trigger fulfil after insert or update of status on payments.payment_history
for each row execute function public.fulfil();
grant select on payments.payment_history to authenticated;
"""


def contents(db: Database) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    tables = db.execute(
        "select oid::regclass::text from pg_class where relnamespace = 'payments'::regnamespace "
        "and relkind in ('r', 'v') and relname <> 'secrets'"
    ).fetchall()
    return {table: db.execute(f"select t::text from {table} t order by 1").fetchall() for (table,) in tables}


def schema(db: Database) -> list[str]:
    """The definition of everything, as pg_dump writes it; grants in any order."""
    lines = [line for line in db.dump("--schema-only").splitlines() if not line.startswith(("--", "\\"))]
    return [line for line in lines if line and not line.startswith("GRANT")] + sorted(
        line for line in lines if line.startswith("GRANT")
    )


@pytest.fixture
def used(db: Database) -> Database:
    """A database as users leave it: rows everywhere, policies, a trigger, an index, a column, grants."""
    db.execute(SETUP)
    db.execute(ROWS)
    assert all(contents(db).values())
    return db


@pytest.fixture
def restored(used: Database, empty_db: Database) -> Database:
    empty_db.restore(used.dump())
    return empty_db


def test_a_restored_dump_has_every_row(used, restored):
    assert contents(restored) == contents(used)


def test_a_restored_dump_has_policies_triggers_indexes_and_grants(used, restored):
    assert schema(restored) == schema(used)
    kinds = ("CREATE POLICY own", "CREATE TRIGGER fulfil", "CREATE INDEX payment_history_note_idx", "    note text")
    for kind in kinds:
        assert any(line.startswith(kind) for line in schema(restored)), kind
    assert "GRANT SELECT ON TABLE payments.payment_history TO service_role;" in schema(restored)


def test_a_restored_dump_enforces_its_policies_and_fires_its_triggers(restored):
    assert restored.connect("authenticated").execute("select amount from payments.payment_history").fetchall() == [(500,)]
    restored.execute("truncate public.orders")
    restored.execute("update payments.payment_history set status = 'succeeded'")
    assert restored.value("select count(*) from public.orders") == 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        restored.connect("authenticated").execute(
            "insert into payments.checkout_sessions (id, environment, subject_type) "
            "values (gen_random_uuid(), 'test', 'user')"
        )


def test_a_dump_holds_no_secret(used, restored):
    assert b"sealed".hex() not in used.dump()
    assert restored.value("select count(*) from payments.secrets") == 0


def test_install_after_a_restore_changes_nothing(restored):
    before = schema(restored)
    restored.execute("select payments.install()")
    assert schema(restored) == before


def test_install_completes_the_restore_of_an_older_dump(used, empty_db):
    used.execute("alter table payments.subscriptions drop column trial_end")
    used.execute("drop table payments.disputes")
    empty_db.restore(used.dump())
    assert empty_db.value("select to_regclass('payments.disputes')") is None
    empty_db.execute("select payments.install()")
    assert empty_db.execute("select trial_end, created_at from payments.subscriptions").fetchall() == [(None, None)]
    assert empty_db.value("select count(*) from payments.disputes") == 0


def test_a_restore_without_owners_is_adopted(used, empty_db):
    empty_db.restore(used.dump("--no-owner"))
    assert empty_db.value("select relowner::regrole::text from pg_class where relname = 'payment_history'") == "postgres"
    empty_db.execute("select payments.install(%s)", [OWNER])
    assert contents(empty_db) == contents(used)
    assert schema(empty_db) == schema(used)


def test_dropping_the_extension_loses_no_row(used):
    rows, definition = contents(used), schema(used)
    used.execute("drop extension payments cascade")
    assert contents(used) == rows

    used.execute("create extension payments")
    used.execute("select payments.install()")
    assert contents(used) == rows
    for grant in ("app('authenticated')", "webhook('anon')", "admin('service_role')"):
        used.execute(f"select payments.grant_{grant}")
    assert schema(used) == definition


def test_the_dump_of_a_dropped_extension_still_restores(used, empty_db):
    rows = contents(used)
    used.execute("drop extension payments cascade")
    empty_db.restore(used.dump())
    assert contents(empty_db) == rows
    empty_db.execute("create extension payments")
    empty_db.execute("select payments.install()")
    assert contents(empty_db) == rows


@pytest.fixture(scope="module")
def origin(server: Cluster) -> Iterator[str]:
    """The name of the database that `lived` copies."""
    db = database.create(server)
    with FakeStripe() as stripe:
        seasoned.season(db, stripe)
    db.disconnect()
    yield db.name
    db.close()


@pytest.fixture
def lived(origin: str, server: Cluster) -> Iterator[Database]:
    """A database that sold for a while: with a policy, a trigger, and a foreign key onto a table of ours."""
    copy = database.create(server, template=origin)
    yield copy
    copy.close()


def test_a_restored_dump_sells_on(lived, empty_db):
    before = seasoned.rows(lived)
    empty_db.restore(lived.dump())
    assert seasoned.rows(empty_db) == before
    empty_db.execute("select payments.install()")
    assert catalog.entries(empty_db.connect()) == catalog.entries(lived.connect())
    assert seasoned.rows(empty_db) == before
    seasoned.sell(empty_db)


def test_a_restored_dump_says_which_secrets_to_set(lived, empty_db):
    empty_db.restore(lived.dump())
    assert empty_db.execute("select status, next_step from payments.status() where environment = 'test'").fetchone() == (
        "error",
        "Set the key again, since it is not here or does not open: SELECT payments.set_stripe_key('test', $1);",
    )
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="secret"):
        empty_db.execute("select payments.handle_webhook('test', '{}', 't=1,v1=0')")


@pytest.mark.parametrize("major", [15, 16])
def test_a_dump_moves_to_a_newer_postgres(major, older, make_cluster, db):
    """With roles, by the older Postgres's own pg_dumpall and pg_dump."""
    with Cluster(older(major)) as source, FakeStripe() as stripe:
        database.furnish(source)
        lived = database.create(source)
        seasoned.season(lived, stripe)
        before = seasoned.rows(lived)
        # It is written for every role, also for the one that begins a server.
        roles = re.sub(r"^CREATE ROLE postgres;$", "", lived.dump_roles(), flags=re.MULTILINE)
        # Not every Postgres is built with every compression.
        dump = lived.dump("--no-toast-compression")

    target = make_cluster()
    Database(target, "postgres").restore(roles)
    moved = database.create(target, template="template0")
    moved.restore(dump)
    assert seasoned.rows(moved) == before
    moved.execute("select payments.install()")
    db.execute(seasoned.APP)
    difference = difflib.unified_diff(
        catalog.entries(moved.connect()), catalog.entries(db.connect()), "moved", "new", lineterm="", n=2
    )
    assert "\n".join(difference) == ""
    assert seasoned.rows(moved) == before
    seasoned.sell(moved)
    target.remove()


def test_a_standby_reads_and_takes_over(server, postgres, db):
    """It is a physical copy, with the key file, so that it needs nothing set again."""
    with FakeStripe() as stripe, Cluster(postgres) as standby:
        shop = seasoned.season(db, stripe)
        standby.stop()
        shutil.rmtree(standby.data)
        options = ("-h", server.directory, "-U", SUPERUSER, "-D", standby.data, "--checkpoint=fast", "--no-sync", "-R")
        backup = subprocess.run(
            [server.program("pg_basebackup"), *map(str, options)], cwd="/", capture_output=True, text=True, **account()
        )
        assert backup.returncode == 0, backup.stderr
        with (standby.data / "postgresql.conf").open("a") as conf:
            conf.write(f"unix_socket_directories = '{standby.directory}'\n")
        standby.start()

        shop.db = copy = Database(standby, db.name)
        assert seasoned.rows(copy) == seasoned.rows(db)
        assert copy.value("select payments.has_access('user', 'buyer0', 'pro')")
        assert copy.value("select status from payments.status() where environment = 'test'") == "connected"
        for refused in (
            lambda: seasoned.checkout(copy, "bob", shop.price, "order:3"),
            lambda: seasoned.deliver(copy, stripe),
        ):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                refused()

        copy.execute("select pg_promote()")
        seasoned.sell_at(shop)
        copy.disconnect()


def test_dropping_the_extension_takes_no_row_from_the_app_either(lived):
    """What goes is what is made of its functions: the guard, wrappers, and policies that call them."""
    lived.execute(
        """
        create table public.members_only (id integer);
        insert into public.members_only values (1);
        alter table public.members_only enable row level security;
        grant select on public.members_only to authenticated;
        create policy members on public.members_only to authenticated
            using ((select payments.has_access('user', public.user_id(), 'pro')));
        create table public.kept (request payments.checkout_session, note text);
        insert into public.kept values (null, 'mine')
        """
    )
    before, receipts = seasoned.rows(lived), lived.execute("select * from public.receipts order by 2").fetchall()
    assert receipts
    described = catalog.entries(lived.connect())
    lived.execute("drop extension payments cascade")
    assert seasoned.rows(lived) == before
    # Closed, not open, without the policy.
    with lived.request("alice") as request:
        assert request.execute("select * from public.members_only").fetchall() == []
    assert lived.execute("select note from public.kept").fetchall() == [("mine",)]
    foreign_keys = "select count(*) from pg_constraint where contype = 'f' and confrelid = 'payments.payment_history'::regclass"
    assert lived.value(foreign_keys) == 1

    lived.execute("create extension payments; select payments.install()")
    assert seasoned.rows(lived) == before
    assert lived.execute("select * from public.receipts order by 2").fetchall() == receipts
    lived.execute(seasoned.GRANTS)
    lived.execute("select payments.expose('api')")
    assert catalog.entries(lived.connect()) == described
    seasoned.sell(lived)
