"""Webhooks: which are believed, what is recorded of them, and what the sender is told."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from fake_stripe.webhooks import sign
from harness.database import OWNER
from postman import CREATED, LIVE_SECRET, SECRET, Postman, event, product

OTHER_SECRET = "whsec_of_another_endpoint"
BODY = json.dumps(event("product.created", product()), indent=2)


@pytest.fixture
def postman(db) -> Postman:
    return Postman(db)


def refusal(call) -> tuple[str, str]:
    """SQLSTATE and code of the error that a call raises."""
    with pytest.raises(psycopg.Error) as raised:
        call()
    return raised.value.sqlstate, json.loads(raised.value.diag.message_detail)["code"]


class TestVerifySignature:
    def verify(self, db, header, body=BODY, secret=SECRET, tolerance=None) -> bool:
        arguments = [body, header, secret] + ([tolerance] if tolerance else [])
        places = ", ".join(["%s"] * len(arguments))
        return db.value(f"select payments.verify_signature({places})", arguments)

    @pytest.mark.parametrize("style", ["plain", "v0", "reordered", "first_wrong", "spaced"])
    def test_a_header_with_the_right_signature_verifies_however_it_is_arranged(self, db, style):
        assert self.verify(db, sign(BODY, [SECRET], style=style))

    @pytest.mark.parametrize("style", ["only_v0", "no_timestamp", "wrong"])
    def test_a_header_without_the_right_signature_does_not(self, db, style):
        assert not self.verify(db, sign(BODY, [SECRET], style=style))

    def test_any_of_several_signatures_is_enough(self, db):
        header = sign(BODY, [OTHER_SECRET, SECRET])
        assert self.verify(db, header)
        assert self.verify(db, header, secret=OTHER_SECRET)
        assert not self.verify(db, header, secret=LIVE_SECRET)

    @pytest.mark.parametrize(
        "header",
        ["", " ", "junk", "t=", "t=1,v1=", "t=soon,v1=00", "v1=00,t=", "t=1,,=,v1=zz", "t=1;v1=00", "\N{SNOWMAN}=1"],
    )
    def test_a_header_that_is_none_does_not_verify(self, db, header):
        assert not self.verify(db, header)

    def test_a_truncated_signature_does_not_verify(self, db):
        assert not self.verify(db, sign(BODY, [SECRET])[:-2])

    def test_another_body_of_the_same_meaning_does_not_verify(self, db):
        header = sign(BODY, [SECRET])
        assert not self.verify(db, header, body=json.dumps(json.loads(BODY)))
        assert not self.verify(db, header, body=BODY + "\n")

    def test_a_signature_of_another_time_does_not_verify(self, db):
        header = sign(BODY, [SECRET], timestamp=CREATED)
        assert not self.verify(db, header.replace(str(CREATED), str(CREATED + 1)), tolerance="100 years")

    def test_an_old_signature_is_refused_and_one_from_the_future_is_not(self, db):
        def aged(seconds: int) -> str:
            return sign(BODY, [SECRET], timestamp=int(time.time()) - seconds)

        assert self.verify(db, aged(290))
        assert not self.verify(db, aged(310))
        assert self.verify(db, aged(310), tolerance="6 minutes")
        assert not self.verify(db, aged(30), tolerance="10 seconds")
        # A server whose clock lags must not lose events, and only Stripe can have signed them.
        assert self.verify(db, aged(-86_400))

    def test_what_is_no_signing_secret_is_an_error(self, db):
        assert refusal(lambda: self.verify(db, sign(BODY, ["sk_test_1"]), secret="sk_test_1")) == (
            "22023",
            "bad_secret",
        )


class TestWhatIsBelieved:
    def test_an_event_signed_with_the_secret_of_its_environment(self, postman):
        receipt = postman.deliver(BODY)
        assert (receipt.environment, receipt.status, receipt.duplicate, receipt.attempt_count, receipt.error) == (
            *("test", "processed", False, 1, None),
        )
        assert postman.mirrored() == [("product", "prod_1")]

    def test_with_any_secret_that_is_live(self, postman):
        postman.db.execute("select payments.set_webhook_secret('test', %s)", (OTHER_SECRET,))
        assert postman.deliver(event("product.created", product())).status == "processed"
        signature = sign(BODY, [OTHER_SECRET])
        assert postman.deliver(BODY, signature=signature).status == "processed"

    @pytest.mark.parametrize(
        "signature",
        [
            pytest.param(sign(BODY, [OTHER_SECRET]), id="another endpoint's secret"),
            pytest.param(sign(BODY, [SECRET], timestamp=int(time.time()) - 3600), id="an hour ago"),
            pytest.param(sign(BODY + " ", [SECRET]), id="another body's"),
            pytest.param("", id="empty"),
        ],
    )
    def test_a_bad_signature_changes_nothing(self, postman, signature):
        assert refusal(lambda: postman.deliver(BODY, signature=signature)) == ("22023", "bad_signature")
        assert postman.post(BODY, signature=signature)[:2] == (400, "22023")
        assert (postman.recorded(), postman.mirrored()) == ([], [])

    def test_a_request_without_a_signature_changes_nothing(self, postman):
        with postman.db.request(headers={}) as request:
            assert refusal(lambda: request.execute("select api.stripe_webhook(%s::json)", (BODY,))) == (
                "22023",
                "missing_signature",
            )
        assert postman.recorded() == []

    def test_outside_a_gateway_there_is_no_request(self, postman):
        assert refusal(lambda: postman.db.execute("select payments.stripe_webhook(%s::json)", (BODY,))) == (
            *("22023", "missing_signature"),
        )

    def test_the_environment_is_that_of_the_secret(self, postman):
        postman.db.execute("select payments.set_webhook_secret('live', %s)", (LIVE_SECRET,))
        live = json.dumps(event("product.created", product("prod_live"), livemode=True))
        assert postman.post(live, signature=sign(live, [LIVE_SECRET])).receipt.environment == "live"
        assert postman.post(BODY).receipt.environment == "test"
        products = postman.db.execute("select environment, stripe_product_id from payments.products order by 1")
        assert products.fetchall() == [("live", "prod_live"), ("test", "prod_1")]

    def test_the_other_environment_s_secret_is_refused(self, postman):
        postman.db.execute("select payments.set_webhook_secret('live', %s)", (LIVE_SECRET,))
        assert refusal(lambda: postman.deliver(BODY, environment="live")) == ("22023", "bad_signature")
        signature = sign(BODY, [LIVE_SECRET])
        assert refusal(lambda: postman.deliver(BODY, signature=signature)) == ("22023", "bad_signature")
        assert postman.recorded() == []

    def test_an_event_of_the_other_livemode_is_refused(self, postman):
        live = event("product.created", product(), livemode=True)
        assert refusal(lambda: postman.deliver(live)) == ("22023", "wrong_livemode")
        assert postman.post(live)[:2] == (400, "22023")
        assert (postman.recorded(), postman.mirrored()) == ([], [])

    def test_without_a_signing_secret_it_says_which_to_set(self, postman):
        with pytest.raises(psycopg.Error) as raised:
            postman.deliver(BODY, environment="live")
        assert raised.value.sqlstate == "55000"
        assert "payments.set_webhook_secret('live'" in raised.value.diag.message_hint

    @pytest.mark.parametrize("arguments", [("test", None, "t=1"), ("test", "{}", None), (None, "{}", "t=1")])
    def test_a_missing_argument_is_named(self, postman, arguments):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            postman.db.execute("select payments.handle_webhook(%s, %s, %s)", arguments)


class TestWhatIsRecorded:
    ESCAPES = r'"\"\\\/\b\f\n\r\t\u0041\u00e9\ud83d\ude00 é 😀 \u2028"'
    POISON = r'"a\u0000b \ud800 \udc00 \ud800x"'
    HUGE = "123456789012345678901234567890.10e+5"

    @pytest.mark.parametrize("deliver", ["deliver", "post"])
    @pytest.mark.parametrize(
        "description",
        [
            pytest.param(ESCAPES, id="escapes"),
            pytest.param(POISON, id="what jsonb cannot hold"),
            pytest.param(HUGE, id="huge number"),
            pytest.param(' \t\r\n "x" \n', id="white space"),
            pytest.param('"first", "description": "second"', id="duplicate key"),
            pytest.param('"<>&\x7f"', id="what encoders escape"),
            pytest.param("[" * 50 + "]" * 50, id="deep"),
        ],
    )
    def test_the_body_is_kept_byte_for_byte(self, postman, deliver, description):
        body = BODY.replace('"name": "Tea"', f'"name": "Tea", "description": {description}')
        body = f"\n\t {body} \r\n"
        getattr(postman, deliver)(body)
        [row] = postman.db.execute("select processing_status, payload::text from payments.webhook_events")
        assert row == ("processed", body)
        assert postman.db.value("select name from payments.products") == "Tea"

    def test_what_jsonb_cannot_hold_is_replaced_in_the_tables(self, postman):
        poison = json.loads(self.POISON)
        body = json.dumps(event("product.created", product(name=poison, metadata={poison: poison})))
        assert postman.deliver(body).status == "processed"
        name, metadata = postman.db.execute("select name, metadata from payments.products").fetchone()
        clean = "a\ufffdb \ufffd \ufffd \ufffdx"
        assert (name, metadata) == (clean, {clean: clean})

    def test_amounts_are_exact(self, postman):
        price = {"id": "price_1", "object": "price", "currency": "jpy", "unit_amount": 9_007_199_254_740_993}
        postman.deliver(event("price.created", price))
        assert postman.db.value("select unit_amount from payments.prices") == 9_007_199_254_740_993

    def test_a_body_up_to_the_limit_is_taken_and_no_larger_one(self, postman):
        limit = 1024 * 1024
        largest = json.dumps(event("product.created", product(description="x" * 1_000_000))).ljust(limit)
        assert postman.deliver(largest).status == "processed"
        assert postman.post(largest).receipt.duplicate
        assert refusal(lambda: postman.deliver(largest + " ")) == ("22023", "payload_too_large")
        assert postman.post(largest + " ")[:2] == (400, "22023")
        assert len(postman.recorded()) == 1

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "null",
            "[]",
            '"event"',
            "{}",
            '{"object": "event"}',
            BODY[:-2],
            BODY + "{}",
            BODY.replace('"id": "evt', '"id": 7, "was": "evt'),
            BODY.replace(f'"created": {CREATED},\n  "data"', '"created": "now",\n  "data"'),
            BODY.replace('"livemode": false', '"livemode": null'),
            BODY.replace('"livemode": false', '"livemode": false, "livemode": false'),
            json.dumps(event("product.created", [product()])),
            json.dumps(event("product.created", product(description=[[[None]]]))).replace("null", "[" * 90 + "]" * 90),
            json.dumps({"id": "evt_1", "object": "v2.core.event", "type": "v1.product.created", "livemode": False}),
        ],
        ids=lambda body: body[:24] or "empty",
    )
    def test_a_malformed_body_changes_nothing(self, postman, body):
        assert refusal(lambda: postman.deliver(body)) == ("22023", "malformed_event")
        assert (postman.recorded(), postman.mirrored()) == ([], [])

    def test_a_number_that_nothing_can_hold_is_refused_rather_than_lost(self, postman):
        body = BODY.replace('"active": true', '"active": 1e400')
        assert refusal(lambda: postman.deliver(body)) == ("22023", "malformed_event")
        assert postman.recorded() == []

    @pytest.mark.parametrize(
        ("event", "mirrored"),
        [
            pytest.param(event("invoice.upcoming", {"object": "invoice", "total": 5}), [], id="no id"),
            pytest.param(
                event("unicorn.tamed", {"id": "uni_1", "object": "unicorn"}), [("unicorn", "uni_1")], id="unknown type"
            ),
            pytest.param(event("product.created", product(), account="acct_9"), [], id="a connected account's"),
            pytest.param(event("plan.created", {"id": "price_1", "object": "plan"}), [], id="a plan"),
            pytest.param(event("balance.available", {"object": "balance", "available": []}), [], id="a balance"),
        ],
    )
    @pytest.mark.parametrize("deliver", ["deliver", "post"])
    def test_what_concerns_no_table_is_ignored(self, postman, deliver, event, mirrored):
        getattr(postman, deliver)(event)
        [row] = postman.recorded()
        assert (row.event_type, row.processing_status, row.attempt_count) == (event["type"], "ignored", 1)
        assert row.stripe_account_id == event.get("account")
        assert postman.mirrored() == mirrored
        again = postman.deliver(event)
        assert (again.status, again.duplicate, again.attempt_count) == ("ignored", True, 1)

    def test_the_log_says_what_the_event_says(self, postman):
        postman.deliver(event("product.created", product(), id="evt_9", api_version="2020-08-27"))
        [row] = postman.recorded()
        assert (row.environment, row.stripe_event_id, row.event_type, row.livemode) == (
            *("test", "evt_9", "product.created", False),
        )
        assert (row.api_version, row.object_type, row.object_id, row.source) == (
            *("2020-08-27", "product", "prod_1", "webhook"),
        )
        assert row.stripe_created_at.timestamp() == CREATED
        assert row.processed_at >= row.received_at
        assert (row.last_error, row.error) == (None, None)


class TestDuplicates:
    def test_an_event_is_applied_once(self, postman):
        count_changes(postman.db)
        first, second = postman.deliver(BODY), postman.deliver(BODY)
        assert (first.duplicate, second.duplicate, second.status) == (False, True, "processed")
        assert changes(postman.db) == 1

    def test_two_events_of_one_change_have_one_effect(self, postman):
        count_changes(postman.db)
        for _ in range(2):
            assert postman.deliver(event("product.created", product())).status == "processed"
        assert changes(postman.db) == 1

    def test_a_twin_waits_and_learns_that_it_is_one(self, postman):
        count_changes(postman.db)
        with postman.db.connect(autocommit=False) as first, ThreadPoolExecutor() as threads:
            assert not postman.deliver(BODY, connection=first).duplicate
            second = threads.submit(postman.post, BODY)
            waits_for(postman.db, first)
            first.commit()
            assert (second.result().status, second.result().receipt.duplicate) == (200, True)
        assert changes(postman.db) == 1

    def test_a_twin_takes_over_when_the_first_rolls_back(self, postman):
        count_changes(postman.db)
        with postman.db.connect(autocommit=False) as first, ThreadPoolExecutor() as threads:
            postman.deliver(BODY, connection=first)
            second = threads.submit(postman.post, BODY)
            waits_for(postman.db, first)
            first.rollback()
            assert second.result().receipt[3:6] == ("processed", False, 1)
        assert changes(postman.db) == 1

    def test_a_twin_tries_again_when_the_first_failed(self, postman):
        refuse_products(postman.db)
        with postman.db.connect(autocommit=False) as first, ThreadPoolExecutor() as threads:
            assert postman.deliver(BODY, connection=first).status == "failed"
            second = threads.submit(postman.post, BODY)
            waits_for(postman.db, first)
            first.commit()
            assert (second.result().status, second.result().receipt.attempt_count) == (500, 2)

    def test_a_delivery_that_waits_too_long_is_sent_away(self, postman):
        """Every waiting delivery holds a connection."""
        with postman.db.connect(autocommit=False) as first:
            postman.deliver(BODY, connection=first)
            started = time.monotonic()
            assert postman.post(BODY)[:2] == (503, "PT503")
            assert 3 < time.monotonic() - started < 8
            with postman.db.connect() as second:
                second.execute("set lock_timeout = '200ms'")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    postman.deliver(BODY, connection=second)
                assert second.execute("show lock_timeout").fetchone()[0] == "200ms"
        assert postman.post(BODY).status == 200

    def test_the_same_event_in_another_version_is_merged_and_the_log_keeps_the_first(self, postman):
        """While an endpoint is replaced by one of a newer version, both deliver, each in its own shapes."""
        old = event("product.created", product(), id="evt_1", api_version="2020-08-27")
        new = event("product.created", product(description="Green"), id="evt_1")
        assert postman.deliver(old).status == "processed"
        second = postman.deliver(new)
        assert (second.status, second.duplicate, second.attempt_count) == ("processed", False, 2)
        assert postman.db.value("select description from payments.products") == "Green"
        [row] = postman.recorded()
        assert (row.api_version, row.payload) == ("2020-08-27", old)
        assert postman.deliver(old).duplicate


class TestTheTransaction:
    def test_at_repeatable_read_it_is_refused(self, postman):
        with postman.db.connect(autocommit=False) as connection:
            for level in ("repeatable read", "serializable"):
                connection.execute(f"set transaction isolation level {level}")
                assert refusal(lambda: postman.deliver(BODY, connection=connection)) == ("25000", "wrong_transaction")
                connection.rollback()

    def test_a_read_only_transaction_is_refused(self, postman):
        with postman.db.connect(autocommit=False) as connection:
            connection.execute("set transaction read only")
            assert refusal(lambda: postman.deliver(BODY, connection=connection)) == ("25006", "wrong_transaction")

    def test_what_the_caller_did_stays_with_the_caller(self, postman):
        refuse_products(postman.db)
        postman.db.execute("create table mine (n int)")
        with postman.db.connect(autocommit=False) as connection:
            connection.execute("insert into mine values (1)")
            assert postman.deliver(BODY, connection=connection).status == "failed"
            connection.execute("insert into mine values (2)")
            connection.commit()
        assert postman.db.value("select count(*) from mine") == 2

    def test_it_leaves_the_caller_s_settings_as_they_were(self, postman):
        with postman.db.connect() as connection:
            connection.execute("set search_path = public, api; set lock_timeout = '7s'; set payments.source = 'x'")
            postman.deliver(BODY, connection=connection)
            assert connection.execute("show search_path").fetchone()[0] == "public, api"
            assert connection.execute("show lock_timeout").fetchone()[0] == "7s"
            assert connection.execute("show payments.source").fetchone()[0] == "x"
            assert connection.execute("select current_user = session_user").fetchone()[0]

    def test_a_role_without_the_grant_cannot_deliver(self, postman):
        assert postman.post(BODY, role="authenticated")[:2] == (403, "42501")
        with postman.db.connect("authenticated") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            postman.deliver(BODY, connection=connection)

    def test_the_role_that_delivers_can_read_nothing(self, postman):
        postman.post(BODY)
        with postman.db.connect("anon") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select * from payments.webhook_events")

    def test_row_level_security_does_not_hold_it_up_even_when_forced(self, postman):
        for table in ("products", "stripe_objects", "webhook_events"):
            postman.db.execute(f"alter table payments.{table} force row level security")
        assert postman.post(BODY).receipt.status == "processed"

    def test_a_killed_backend_leaves_nothing_and_the_event_can_come_again(self, postman):
        with postman.db.connect(autocommit=False) as connection:
            postman.deliver(BODY, connection=connection)
            postman.db.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))
            with pytest.raises(psycopg.OperationalError):
                connection.commit()
        assert postman.recorded() == []
        assert postman.deliver(BODY).attempt_count == 1


def count_changes(db) -> None:
    """Counts what an app's trigger sees."""
    db.execute(
        f"""
        create table changes (n bigint generated always as identity, source text);
        grant insert on changes to {OWNER};
        create function count_change() returns trigger language plpgsql as $$
        begin
            insert into public.changes (source) values (current_setting('payments.source'));
            return null;
        end $$;
        create trigger count_change after insert or update on payments.products
        for each row execute function count_change();
        """
    )


def changes(db) -> int:
    return db.value("select count(*) from changes")


def refuse_products(db) -> None:
    db.execute(
        """
        create function refuse() returns trigger language plpgsql as $$
        begin
            raise exception 'no products today';
        end $$;
        create trigger refuse after insert on payments.products for each row execute function refuse();
        """
    )


def waits_for(db, holder) -> None:
    """Returns once some backend waits for what `holder` holds."""
    blocked = "select count(*) from pg_stat_activity where %s = any (pg_blocking_pids(pid))"
    deadline = time.monotonic() + 10
    while db.value(blocked, (holder.info.backend_pid,)) == 0:
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.01)
