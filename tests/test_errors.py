"""When the app's own triggers fail: what is kept, what is told, and what Stripe is asked to do."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from harness.database import OWNER
from postman import Postman, event, product
from test_webhook import waits_for

APP = f"""
create table orders (id int primary key, note text check (note <> 'forbidden'), buyer int);
create table buyers (id int primary key);
alter table orders add constraint orders_buyer_fkey foreign key (buyer) references buyers deferrable initially deferred;
grant select, insert, update on orders to {OWNER};
grant select on buyers to {OWNER};

create function on_product() returns trigger language plpgsql as $$
begin
    BODY
    return null;
end $$;
create constraint trigger on_product after insert or update on payments.products
deferrable initially TIMING for each row execute function on_product();
"""

CONFLICT = """
raise exception 'stock is gone' using errcode = 'PT409', detail = 'SKU 7', hint = 'Order more.',
    schema = 's', table = 't', column = 'c', constraint = 'enough_stock';
"""


@pytest.fixture
def postman(db) -> Postman:
    return Postman(db)


def app(db, body: str, timing: str = "immediate") -> None:
    """An app whose trigger on products does this."""
    db.execute(APP.replace("BODY", body).replace("TIMING", timing))


def repair(db) -> None:
    db.execute(
        "create or replace function on_product() returns trigger language plpgsql as "
        "$$ begin insert into public.orders (id) values (1); return null; end $$"
    )


@pytest.mark.parametrize("timing", ["immediate", "deferred"])
class TestAFailureIsRecorded:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            pytest.param(
                CONFLICT,
                {
                    "sqlstate": "PT409",
                    "message": "stock is gone",
                    "detail": "SKU 7",
                    "hint": "Order more.",
                    "schema": "s",
                    "table": "t",
                    "column": "c",
                    "constraint": "enough_stock",
                },
                id="raised",
            ),
            pytest.param(
                "insert into public.orders values (1, 'forbidden');",
                {"sqlstate": "23514", "schema": "public", "table": "orders", "constraint": "orders_note_check"},
                id="a check",
            ),
            pytest.param(
                "insert into public.orders values (1, null, 9); set constraints all immediate;",
                {"sqlstate": "23503", "schema": "public", "table": "orders", "constraint": "orders_buyer_fkey"},
                id="a foreign key",
            ),
            pytest.param(
                "perform 1 from orders;",
                {"sqlstate": "42P01", "message": 'relation "orders" does not exist'},
                id="an unqualified name",
            ),
            pytest.param("perform 1 / 0;", {"sqlstate": "22012", "message": "division by zero"}, id="a slip"),
        ],
    )
    def test_whole_and_in_the_receipt(self, postman, timing, body, expected):
        app(postman.db, body, timing)
        receipt = postman.deliver(event("product.created", product()))
        [row] = postman.recorded()
        assert (row.processing_status, row.attempt_count, row.processed_at) == ("failed", 1, None)
        assert expected.items() <= row.error.items()
        assert "on_product() line" in row.error["context"]
        assert row.last_error == row.error["message"]
        assert (receipt.status, receipt.error, receipt.error_detail) == ("failed", row.last_error, row.error)

    def test_and_what_it_said_is_mirrored_though_no_row_is_written(self, postman, timing):
        app(postman.db, "insert into public.orders values (2);" + CONFLICT, timing)
        assert postman.post(event("product.created", product())).status == 500
        assert postman.mirrored() == [("product", "prod_1")]
        assert postman.db.value("select count(*) from payments.products") == 0
        assert postman.db.value("select count(*) from orders") == 0


class TestAFailureAtTheEnd:
    def test_a_deferred_check_of_the_app_s_own_tables_fails_the_event_not_the_commit(self, postman):
        app(postman.db, "insert into public.orders values (1, null, 9);")
        assert postman.post(event("product.created", product())).status == 500
        [row] = postman.recorded()
        assert (row.processing_status, row.error["constraint"]) == ("failed", "orders_buyer_fkey")

    def test_deferred_triggers_see_the_whole_change(self, postman):
        """A price brings its product: the trigger on one can look up the other."""
        app(postman.db, "insert into public.orders select 1 from payments.prices;", "deferred")
        price = {"id": "price_1", "object": "price", "unit_amount": 5, "currency": "usd", "product": product()}
        assert postman.post(event("price.created", price)).status == 200
        assert postman.db.value("select count(*) from orders") == 1

    def test_so_they_do_for_every_event_of_a_transaction(self, postman):
        app(postman.db, "insert into public.orders select 1 from payments.prices;", "deferred")
        prices = [
            {
                "id": f"price_{n}",
                "object": "price",
                "unit_amount": 5,
                "currency": "usd",
                "product": product(f"prod_{n}"),
            }
            for n in (1, 2)
        ]
        with postman.db.connect(autocommit=False) as connection:
            postman.deliver(event("price.created", prices[0]), connection=connection)
            connection.execute("delete from orders; delete from payments.prices")
            assert postman.deliver(event("price.created", prices[1]), connection=connection).error is None
            assert connection.execute("select count(*) from orders").fetchone()[0] == 1


class TestWhatStripeIsAskedToDo:
    def test_five_times_to_send_it_again_and_then_no_more(self, postman):
        """Stripe disables an endpoint that keeps failing, and then nothing comes in at all."""
        app(postman.db, CONFLICT)
        failing = event("product.created", product())
        assert [postman.post(failing).status for _ in range(7)] == [500] * 5 + [200] * 2
        [row] = postman.recorded()
        assert (row.processing_status, row.attempt_count) == ("failed", 7)

    def test_after_a_repair_the_next_delivery_succeeds_and_fires_once(self, postman):
        app(postman.db, CONFLICT)
        failing = event("product.created", product())
        for _ in range(2):
            assert postman.post(failing).status == 500
        repair(postman.db)
        status, _, receipt = postman.post(failing)
        assert (status, receipt.status, receipt.duplicate, receipt.attempt_count) == (200, "processed", False, 3)
        [row] = postman.recorded()
        assert (row.processing_status, row.last_error, row.error) == ("processed", None, None)
        assert row.processed_at is not None
        assert postman.post(failing).receipt.duplicate
        assert postman.db.value("select count(*) from orders") == 1

    def test_another_event_of_the_object_brings_what_failed_too(self, postman):
        app(postman.db, CONFLICT)
        postman.post(event("product.created", product()))
        repair(postman.db)
        later = product(name="Green tea")
        assert postman.post(event("product.updated", later, created=1_790_000_009)).status == 200
        assert postman.db.value("select name from payments.products") == "Green tea"
        assert postman.db.value("select count(*) from orders") == 1

    def test_other_events_are_not_held_up(self, postman):
        app(postman.db, "if new.stripe_product_id = 'prod_1' then raise exception 'no'; end if;")
        assert postman.post(event("product.created", product())).status == 500
        assert postman.post(event("product.created", product("prod_2"))).status == 200

    def test_invoice_created_is_never_answered_with_an_error(self, postman):
        """Until it has a 2xx Stripe does not finalise the invoice, for up to three days."""
        postman.db.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;"
            "create trigger refuse before insert on payments.invoices for each row execute function refuse();"
        )
        invoice = {"id": "in_1", "object": "invoice", "status": "draft", "currency": "usd", "total": 5}
        created = postman.post(event("invoice.created", invoice))
        assert (created.status, created.receipt.status) == (200, "failed")
        assert postman.post(event("invoice.finalized", invoice)).status == 500


class TestWhatPassesThrough:
    """What concerns the whole transaction is not the event's failure: nothing is recorded, and Stripe sends again."""

    def nothing_is_left(self, postman) -> bool:
        return (postman.recorded(), postman.mirrored()) == ([], [])

    def test_a_statement_timeout(self, postman):
        app(postman.db, "perform pg_sleep(30);")
        with postman.db.connect() as connection:
            connection.execute("set statement_timeout = '300ms'")
            started = time.monotonic()
            with pytest.raises(psycopg.errors.QueryCanceled):
                postman.deliver(event("product.created", product()), connection=connection)
            assert time.monotonic() - started < 5
            assert connection.execute("select current_user").fetchone()[0] == "postgres"
        assert self.nothing_is_left(postman)

    def test_a_cancel(self, postman):
        app(postman.db, "perform pg_sleep(30);", "deferred")
        with postman.db.connect() as connection:
            threading.Timer(0.5, connection.cancel).start()
            with pytest.raises(psycopg.errors.QueryCanceled):
                postman.deliver(event("product.created", product()), connection=connection)
        assert self.nothing_is_left(postman)

    def test_a_lock_timeout(self, postman):
        app(postman.db, "update public.orders set note = 'x' where id = 1;")
        postman.db.execute("insert into orders values (1)")
        with postman.db.connect(autocommit=False) as holder:
            holder.execute("select from orders for update")
            with postman.db.connect() as connection:
                connection.execute("set lock_timeout = '200ms'")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    postman.deliver(event("product.created", product()), connection=connection)
            assert postman.post(event("product.created", product()))[:2] == (503, "PT503")
        assert self.nothing_is_left(postman)
        assert postman.post(event("product.created", product())).status == 200

    @pytest.mark.parametrize("sqlstate", ["40001", "40P01", "53200", "57014", "55P03", "XX000"])
    def test_an_error_of_these_classes(self, postman, sqlstate):
        app(postman.db, f"raise exception 'no' using errcode = '{sqlstate}';")
        with pytest.raises(psycopg.Error) as raised:
            postman.deliver(event("product.created", product()))
        assert (raised.value.sqlstate, raised.value.diag.message_primary) == (sqlstate, "no")
        assert self.nothing_is_left(postman)

    def test_but_a_deadlock_is_tried_once_more(self, postman):
        app(postman.db, "update public.orders set note = 'paid' where id = 1;")
        postman.db.execute("insert into orders values (1)")
        created = event("product.created", product())
        with postman.db.connect(autocommit=False) as other, postman.db.connect() as connection:
            other.execute("set deadlock_timeout = '30s'")
            other.execute("update orders set note = 'packing'")
            with ThreadPoolExecutor() as threads:
                delivery = threads.submit(postman.deliver, created, connection=connection)
                waits_for(postman.db, other)
                # It meets the product's row, which is there but not committed.
                other.execute(
                    "insert into payments.products (environment, stripe_product_id) values ('test', 'prod_1')"
                )
                other.rollback()
                assert delivery.result().status == "processed"
        assert postman.db.value("select note from orders") == "paid"
        assert postman.recorded()[0].attempt_count == 1


class TestWhoseRights:
    """The app's triggers run as the tables' owner, whoever delivered."""

    def witness(self, db, timing: str) -> None:
        db.execute(
            f"create table seen (who text, source text, path text); grant insert on seen to {OWNER};"
            + APP.replace("TIMING", timing).replace(
                "BODY",
                "insert into public.seen values "
                "(current_user, current_setting('payments.source'), current_setting('search_path'));",
            )
        )

    @pytest.mark.parametrize("timing", ["immediate", "deferred"])
    @pytest.mark.parametrize("deliver", ["deliver", "post"])
    def test_the_owner_s_with_the_path_pinned_and_the_source_told(self, postman, deliver, timing):
        self.witness(postman.db, timing)
        assert getattr(postman, deliver)(event("product.created", product())) is not None
        seen = postman.db.execute("select * from seen").fetchall()
        assert seen == [(OWNER, "webhook", "pg_catalog, pg_temp")]

    def test_a_trigger_cannot_become_who_delivered(self, postman):
        app(postman.db, "execute 'reset role';")
        assert postman.deliver(event("product.created", product())).error_detail["sqlstate"] == "42501"
        postman.db.execute("drop table orders cascade; drop function on_product cascade")

    def test_what_a_trigger_sets_does_not_outlive_it(self, postman):
        app(postman.db, "perform set_config('search_path', 'evil', false), set_config('work_mem', '64kB', false);")
        with postman.db.connect() as connection:
            assert postman.deliver(event("product.created", product()), connection=connection).status == "processed"
            assert connection.execute("show search_path").fetchone()[0] == '"$user", public'
            assert connection.execute("show work_mem").fetchone()[0] == "4MB"

    @pytest.mark.parametrize("call", ["handle_webhook", "replay_event"])
    def test_what_the_caller_left_for_the_end_never_runs_as_the_owner(self, postman, call):
        """Until Postgres 17 a deferred trigger runs as whoever has it fire."""
        postman.deliver(event("product.created", product(), id="evt_1"))
        db = postman.db
        db.execute("create role clerk; select payments.grant_admin('clerk'); create schema desk authorization clerk")
        with db.connect("clerk", autocommit=False) as clerk:
            clerk.execute(
                """
                create table desk.trap (who text);
                create table desk.caught (who text);
                create function desk.spring() returns trigger language plpgsql as
                $$ begin insert into desk.caught values (current_user); return null; end $$;
                create constraint trigger spring after insert on desk.trap
                deferrable initially deferred for each row execute function desk.spring();
                """
            )
            clerk.commit()
            clerk.execute("insert into desk.trap values ('x')")
            if call == "handle_webhook":
                body = event("product.updated", product(name="Coffee"), created=1_790_000_009)
                assert postman.deliver(body, connection=clerk).status == "processed"
            else:
                clerk.execute("select payments.replay_event('test', 'evt_1')")
            clerk.commit()
        assert db.execute("select who from desk.caught").fetchall() == [("clerk",)]
        db.execute("drop owned by clerk; drop role clerk")

    def test_a_check_that_the_caller_deferred_fails_the_caller_not_the_event(self, postman):
        app(postman.db, "null;")
        with postman.db.connect(autocommit=False) as connection:
            connection.execute("insert into orders values (1, null, 9)")
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                postman.deliver(event("product.created", product()), connection=connection)
        assert postman.recorded() == []
