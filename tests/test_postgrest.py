"""What PostgREST sends, statement by statement, and what its clients get."""

from __future__ import annotations

import json

import psycopg
import pytest
from fake_stripe.webhooks import HEADERS
from gateway import EXPOSED
from gateway.postgrest import PostgREST
from shop import URLS, Shop

ALICE = {"role": "authenticated", "claims": {"sub": "alice"}}
CHECKOUT = "create_checkout_session"
PORTAL = "create_customer_portal_session"


@pytest.fixture
def front(shop: Shop) -> PostgREST:
    shop.db.execute(EXPOSED)
    return PostgREST(shop.db, "api")


@pytest.fixture
def shirt(shop: Shop) -> dict:
    """What is sent to buy one."""
    return {"mode": "payment", "line_items": [{"stripe_price_id": shop.shirt}], **URLS}


def detail(response) -> dict:
    return json.loads(response.body["details"])


class TestWhatIsServed:
    def test_the_wrappers_and_nothing_else(self, front):
        assert sorted(each.name for each in front.functions) == [CHECKOUT, PORTAL, "stripe_webhook"]

    @pytest.mark.parametrize("function", ["status", "set_stripe_key", "handle_webhook", "has_access"])
    def test_what_is_not_exposed_is_not_there(self, front, function):
        assert front.rpc(function).body["code"] == "PGRST202"
        assert front.rpc(function, headers={"Content-Profile": "payments"}).status == 406

    def test_each_is_described(self, front):
        served = front.openapi()
        assert served[f"/rpc/{CHECKOUT}"]["summary"] == (
            "Creates a Stripe Checkout session and returns its row; redirect the buyer to its url."
        )
        assert served[f"/rpc/{CHECKOUT}"]["parameters"] == {
            **{"environment": "text", "mode": "text", "line_items": "jsonb", "success_url": "text"},
            **{"cancel_url": "text", "subject": "jsonb", "customer_email": "text", "metadata": "jsonb"},
            "idempotency_key": "text",
        }
        for path, described in served.items():
            for name in filter(None, described["parameters"]):
                assert f"\n{name} " in described["description"], (path, name)
            assert len(described["summary"]) < 100

    def test_the_gateway_is_told_to_look_again(self, empty_db):
        with empty_db.connect() as listener:
            listener.execute("listen pgrst")
            for statement in (
                "create extension payments; select payments.install('payments_owner')",
                "create schema api; select payments.expose('api')",
            ):
                empty_db.execute(statement)
                told = [notice.payload for notice in listener.notifies(timeout=2, stop_after=1)]
                assert told == ["reload schema"], statement


class TestACall:
    def test_named_arguments_are_the_keys_of_the_body(self, front, shop, shirt):
        response = front.rpc(CHECKOUT, {**shirt, "subject": {"type": "user", "id": "alice"}}, **ALICE)
        assert response.status == 200
        row = response.body
        assert (row["status"], row["mode"], row["subject_id"], row["requested_by"]) == (
            *("open", "payment", "alice", "alice"),
        )
        assert row["url"].startswith("http")
        [stored] = shop.sessions()
        assert (str(stored.id), stored.url) == (row["id"], row["url"])

    def test_every_argument_arrives(self, front, shop, shirt):
        everything = {
            **shirt,
            "environment": "test",
            "subject": {"type": "user", "id": "alice"},
            "customer_email": "alice@example.com",
            "metadata": {"order_id": "7"},
            "idempotency_key": "order:7",
        }
        row = front.rpc(CHECKOUT, everything, **ALICE).body
        assert {name: row[name] for name in everything if name != "subject"} == {
            **{name: value for name, value in everything.items() if name != "subject"},
            "line_items": row["line_items"],
        }
        assert row["line_items"] == [{"stripe_price_id": shop.shirt, "quantity": 1}]

    def test_null_is_as_good_as_absent(self, front, shirt):
        nothing = dict.fromkeys(("environment", "subject", "customer_email", "metadata", "idempotency_key"))
        assert front.rpc(CHECKOUT, {**shirt, **nothing}).status == 200

    def test_one_connection_serves_everybody(self, front, shop, shirt):
        """Plans are kept for the connection, and each request is somebody else's."""
        for name in ("alice", "bob", "carol") * 3:
            mine = {**shirt, "subject": {"type": "user", "id": name}}
            caller = {"role": "authenticated", "claims": {"sub": name}}
            assert front.rpc(CHECKOUT, mine, **caller).body["requested_by"] == name
            assert front.rpc(CHECKOUT, {**mine, "subject": {"type": "user", "id": "dave"}}, **caller).status == 403
            assert front.rpc(CHECKOUT, shirt).body["requested_by"] == "anon"
        assert len(shop.sessions()) == 18

    def test_nothing_of_a_request_outlives_it(self, front, shirt):
        front.rpc(CHECKOUT, {**shirt, "subject": {"type": "user", "id": "alice"}}, **ALICE)
        settings = ("role", "search_path", "statement_timeout", "lock_timeout", "payments.source", "request.jwt.claims")
        after = [front.connection.execute("select current_setting(%s)", (name,)).fetchone()[0] for name in settings]
        assert after == ["none", '"$user", public', "0", "0", "", ""]

    def test_reading_by_get_what_writes_is_not_allowed(self, front, shop, shirt):
        for function, arguments in (
            (CHECKOUT, {**shirt, "line_items": json.dumps(shirt["line_items"])}),
            (PORTAL, {"subject": '{"type": "user", "id": "alice"}'}),
        ):
            response = front.rpc(function, arguments, method="GET")
            assert (response.status, response.body["code"]) == (405, "25006")
            assert "POST" in response.body["hint"]
        assert shop.asked() == []

    def test_what_only_reads_works_in_a_read_only_transaction(self, front, shop):
        shop.buy("alice", mode="subscription")
        shop.db.execute(
            """
            grant select on payments.subscriptions to authenticated;
            create policy own on payments.subscriptions for select to authenticated
                using (subject_type = 'user' and subject_id = public.user_id());
            create function api.is_pro() returns boolean language sql stable set search_path = ''
            return payments.has_access('user', public.user_id(), 'pro_monthly');
            create function api.my_subscription() returns payments.subscription language sql stable set search_path = ''
            return payments.current_subscription('test', 'user', public.user_id());
            """
        )
        front.reload()
        for method in ("GET", "POST"):
            assert front.rpc("is_pro", method=method, **ALICE) == (200, True)
            assert front.rpc("is_pro", method=method, role="authenticated", claims={"sub": "bob"}) == (200, False)
            assert front.rpc("my_subscription", method=method, **ALICE).body["status"] == "active"


class TestWhatIsHoisted:
    def test_a_slow_stripe_may_take_longer_than_the_role_s_statements(self, front, shop, shirt):
        shop.db.execute("alter role anon set statement_timeout = '300ms'")
        try:
            front.reload()
            shop.stripe.control.fault("delay", path="/v1/checkout/sessions", before=0.6)
            assert front.rpc(CHECKOUT, shirt).status == 200
        finally:
            shop.db.execute("alter role anon reset statement_timeout")

    def test_a_role_s_isolation_level_is_not_taken(self, front, shop, shirt):
        """Under REPEATABLE READ two webhooks of one payment would not see each other, so it is refused."""
        shop.db.execute("alter role anon set default_transaction_isolation = 'serializable'")
        try:
            front.reload()
            assert front.rpc(CHECKOUT, shirt).status == 200
        finally:
            shop.db.execute("alter role anon reset default_transaction_isolation")


class TestErrors:
    def test_a_missing_argument_is_named(self, front, shirt):
        del shirt["mode"]
        response = front.rpc(CHECKOUT, shirt)
        assert (response.status, response.body["code"], detail(response)) == (
            *(400, "22023"),
            {"code": "invalid_argument", "argument": "mode"},
        )

    def test_a_misspelt_argument_is_not_found(self, front, shirt):
        """And differs from a subject without customer, which is 404 too, by its code."""
        response = front.rpc(CHECKOUT, {**shirt, "successUrl": "https://shop.example"})
        assert (response.status, response.body["code"]) == (404, "PGRST202")

    def test_no_customer(self, front):
        response = front.rpc(PORTAL, {"subject": {"type": "user", "id": "alice"}}, **ALICE)
        assert (response.status, response.body["code"], detail(response)["code"]) == (404, "PT404", "no_customer")

    @pytest.mark.parametrize(("role", "status"), [("anon", 401), ("authenticated", 403)])
    def test_refused_by_a_policy(self, front, shirt, role, status):
        response = front.rpc(CHECKOUT, {**shirt, "subject": {"type": "user", "id": "bob"}}, role=role)
        assert (response.status, response.body["code"]) == (status, "42501")

    def test_a_failure_that_is_recorded_is_answered_with_its_status(self, front, shop, shirt):
        shop.set("payments.on_stripe_error", "record")
        shop.stripe.control.fault("card_declined", path="/v1/checkout/sessions")
        front = PostgREST(shop.db, "api")
        response = front.rpc(CHECKOUT, shirt)
        assert (response.status, response.body["status"]) == (402, "failed")
        assert response.body["last_error"]
        assert [row.status for row in shop.sessions()] == ["failed"]


class TestWebhooks:
    @pytest.fixture
    def deliver(self, front):
        def deliver(body: str, signature: str, **headers: str):
            return front.rpc("stripe_webhook", body, headers={**HEADERS, "Stripe-Signature": signature, **headers})

        return deliver

    def test_a_payment_s_events_are_applied(self, front, shop, deliver, shirt):
        row = front.rpc(CHECKOUT, shirt).body
        shop.stripe.control.complete(row["stripe_checkout_session_id"])
        for delivery in shop.stripe.control.deliveries():
            response = deliver(delivery["body"], delivery["signature"])
            assert response.status == 200
            assert response.body["status"] in ("processed", "ignored")
        [session] = shop.sessions()
        assert (session.status, session.payment_status) == ("completed", "paid")

    @pytest.mark.parametrize(
        "name",
        [
            r'"\u0041\u00e9\ud83d\ude00 \"\\\/\b\f\n\r\t é 😀"',
            r'"a\u0000b"',
            r'"\ud800"',
            '  \r\n\t"spaced" ',
            '"once", "name": "twice"',
        ],
        ids=["escapes", "NUL", "lone surrogate", "white space", "duplicate key"],
    )
    def test_the_body_arrives_byte_for_byte(self, shop, deliver, name):
        product = '{"id": "prod_1", "object": "product", "created": 1, "name": %s}' % name
        body = '\n{"id": "evt_1", "object": "event", "type": "product.created", "created": 2, "livemode": false,'
        body += ' "data": {"object": %s}}\r\n' % product
        response = deliver(body, shop.stripe.control.sign(body))
        assert (response.status, response.body["status"]) == (200, "processed")
        assert shop.db.value("select payload::text from payments.webhook_events") == body

    def test_a_bad_signature_is_refused(self, shop, deliver):
        body = json.dumps({"id": "evt_1"})
        response = deliver(body, shop.stripe.control.sign(body, style="wrong"))
        assert (response.status, detail(response)["code"]) == (400, "bad_signature")

    def test_a_request_without_signature_is_refused(self, front):
        assert detail(front.rpc("stripe_webhook", "{}"))["code"] == "missing_signature"

    def test_what_an_app_s_trigger_refuses_is_kept_although_it_is_answered_with_500(self, shop, deliver):
        shop.db.execute(
            """
            create function refuse() returns trigger language plpgsql as $$ begin raise 'not today'; end $$;
            create trigger refuse before insert on payments.products for each row execute function refuse();
            """
        )
        shop.stripe.control.emit("product.created", {"id": "prod_1", "object": "product", "created": 1, "name": "Tea"})
        [delivery] = shop.stripe.control.deliveries(types=["product.created"])[-1:]
        response = deliver(delivery["body"], delivery["signature"])
        assert (response.status, response.body["status"], response.body["error"]) == (500, "failed", "not today")
        assert shop.db.value("select processing_status from payments.webhook_events") == "failed"

    def test_a_wait_that_is_too_long_is_no_fault(self, shop, deliver):
        body = json.dumps(
            {
                **{"id": "evt_1", "object": "event", "type": "product.created", "created": 2, "livemode": False},
                "data": {"object": {"id": "prod_1", "object": "product", "created": 1, "name": "Tea"}},
            }
        )
        with shop.db.connect(autocommit=False) as first:
            shop.receive({"body": body, "signature": shop.stripe.control.sign(body)}, first)
            assert deliver(body, shop.stripe.control.sign(body)).status == 503


def test_the_seam_is_not_more_than_a_gateway_s_login_may_do(front):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        front.connection.execute("select * from payments.checkout_sessions")
