"""Through HTTP: a gateway that runs, a browser's client, curl, and Stripe's postman."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_stripe import webhooks
from gateway import EXPOSED
from gateway.postgrest import PostgREST
from gateway.postrust import Postrust, token
from harness import npm, toolchain
from postman import event, product
from shop import URLS, Shop

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
EXAMPLE = HERE / "gateway" / "example"
CHECKOUT = "create_checkout_session"
PORTAL = "create_customer_portal_session"
SESSIONS = "/v1/checkout/sessions"


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if not (toolchain.TOOLS / "bin" / "postrust").exists():
        pytest.skip("postrust is not in target/tools: tests/run.sh installs it, unless --quick")


@pytest.fixture
def served(shop: Shop) -> Shop:
    """A shop whose functions are exposed."""
    shop.db.execute(EXPOSED)
    return shop


@pytest.fixture
def gateway(served: Shop):
    with Postrust(served.db, "api") as gateway:
        yield gateway


@pytest.fixture
def shirt(shop: Shop) -> dict:
    """What is sent to buy one."""
    return {"mode": "payment", "line_items": [{"stripe_price_id": shop.shirt}], **URLS}


def detail(response) -> dict:
    return json.loads(response.body["details"])


class TestTheExample:
    @pytest.fixture
    def compiled(self, tmp_path) -> Path:
        """The TypeScript of the example and its tests, compiled."""
        if reason := npm.missing():
            pytest.skip(f"the example needs npm and node 20 or newer: {reason}")
        modules = npm.install(EXAMPLE)
        (tmp_path / "node_modules").symlink_to(modules)
        (tmp_path / "package.json").write_text('{"type": "module"}')
        compiler = [modules / ".bin" / "tsc", "-p", EXAMPLE, "--outDir", tmp_path]
        judged = subprocess.run(compiler, capture_output=True, text=True, timeout=120)
        assert judged.returncode == 0, judged.stdout
        return tmp_path

    @pytest.mark.timeout(400)
    def test_an_app_does_with_it_what_the_seeds_promise(self, served, compiled):
        served.db.execute((HERE / "gateway" / "app.sql").read_text())
        with Postrust(served.db, "api") as gateway:
            environment = {
                **os.environ,
                "GATEWAY_URL": gateway.url,
                "FAKE_STRIPE_CONTROL": served.stripe.control_url,
                "SHIRT": served.shirt,
                **{name.upper(): token("authenticated", name) for name in ("alice", "bob", "carol")},
            }
            judged = subprocess.run(
                ["node", "--test", "--test-reporter=tap", compiled / "seeds.test.js"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
        assert judged.returncode == 0, judged.stdout + judged.stderr
        assert "# pass 7\n" in judged.stdout


class TestCurl:
    @pytest.fixture
    def curl(self, gateway):
        if not shutil.which("curl"):
            pytest.skip("there is no curl")

        def curl(path: str, *options: str) -> tuple[int, dict]:
            command = ["curl", "--silent", "--noproxy", "*", "--write-out", "\n%{http_code}", gateway.url + path]
            said = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=True).stdout
            body, _, status = said.rpartition("\n")
            return int(status), json.loads(body)

        return curl

    def test_a_visitor_buys(self, served, curl):
        status, session = curl(
            f"/rpc/{CHECKOUT}",
            *("--json", json.dumps({"mode": "payment", "line_items": [{"stripePriceId": served.shirt}], **URLS})),
        )
        assert (status, session["status"]) == (200, "open")
        assert session["url"].startswith("https://checkout.stripe.com/")

    def test_a_user_opens_the_portal(self, served, curl):
        served.buy("alice")
        status, session = curl(
            f"/rpc/{PORTAL}",
            *("-H", f"Authorization: Bearer {token('authenticated', 'alice')}"),
            *("--json", '{"subject": {"type": "user", "id": "alice"}}'),
        )
        assert (status, session["status"]) == (200, "created")

    def test_a_forged_token_is_nobody_s(self, curl):
        forged = token("authenticated", "alice")[:-4] + "AAAA"
        status, error = curl(f"/rpc/{PORTAL}", "-H", f"Authorization: Bearer {forged}", "--json", "{}")
        assert status == 401
        assert error["code"].startswith("PGRST")


class TestWhoCalls:
    def test_only_what_is_exposed_is_there(self, gateway):
        admin = token("service_role")
        for function in ("status", "set_stripe_key", "handle_webhook", "has_access"):
            assert gateway.rpc(function, jwt=admin).status == 404
            assert gateway.rpc(function, jwt=admin, headers={"Content-Profile": "payments"}).status == 406
        for table in ("webhook_events", "stripe_connections", "secrets"):
            assert gateway.request("GET", f"/{table}", jwt=admin).status == 404

    def test_an_admin_looks_after_the_shop_through_wrappers_of_the_app(self, served):
        """`payments` stays hidden; what an operator's page needs, the app exposes itself, to its admins."""
        served.db.execute(
            """
            select payments.grant_admin('service_role');
            create schema operators;
            grant usage on schema operators to service_role;
            create function operators.payments_status() returns jsonb language sql stable
            return (select pg_catalog.jsonb_agg(pg_catalog.to_jsonb(s)) from payments.status() as s);
            """
        )
        with Postrust(served.db, "operators") as gateway:
            answer = gateway.rpc("payments_status", method="GET", jwt=token("service_role"))
            assert answer.status == 200
            assert {row["environment"] for row in answer.body} >= {"test", "live"}
            assert gateway.rpc("payments_status", method="GET", jwt=token("authenticated", "alice")).status == 401

    def test_the_token_says_who_it_is(self, served, gateway, shirt):
        mine = {**shirt, "subject": {"type": "user", "id": "alice"}}
        assert gateway.rpc(CHECKOUT, mine, jwt=token("authenticated", "alice")).body["requested_by"] == "alice"
        assert gateway.rpc(CHECKOUT, mine, jwt=token("authenticated", "bob")).body["code"] == "42501"
        assert gateway.rpc(CHECKOUT, mine).body["code"] == "42501"
        assert gateway.rpc(CHECKOUT, shirt).body["requested_by"] == "anon"
        assert len(served.sessions()) == 2

    def test_what_is_exposed_while_it_runs_is_served(self, shop, shirt):
        """`expose` tells the gateway, which needs no restart."""
        shop.db.execute("create schema api; grant usage on schema api to anon")
        with Postrust(shop.db, "api") as gateway:
            assert gateway.rpc(CHECKOUT, shirt).status == 404
            deadline = time.monotonic() + 10
            # It serves before it listens, and what is told before that nobody hears.
            while not shop.db.value("select count(*) from pg_stat_activity where query ilike 'listen %'"):
                assert time.monotonic() < deadline, "the gateway does not listen"
                time.sleep(0.05)
            shop.db.execute("select payments.expose('api')")
            while (status := gateway.rpc(CHECKOUT, shirt).status) == 404 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert status == 200


@pytest.fixture(params=["postrust", "PostgREST"])
def call(request, served: Shop):
    """A gateway of either kind: `call(function, arguments, sub)`, with an answer that has status and body.

    It connects when it is first called, so that settings made before hold.
    """
    started: list[Postrust | PostgREST] = []

    def front():
        if not started:
            if request.param == "postrust":
                started.append(Postrust(served.db, "api").__enter__())
            else:
                started.append(PostgREST(served.db, "api"))
        return started[0]

    def call(function: str, arguments: dict, sub: str | None = None):
        gateway = front()
        if isinstance(gateway, Postrust):
            return gateway.rpc(function, arguments, jwt=token("authenticated", sub) if sub else None)
        who = {"role": "authenticated", "claims": {"sub": sub}} if sub else {}
        return gateway.rpc(function, arguments, **who)

    call.tells_refused_from_anonymous = request.param == "PostgREST"
    yield call
    for gateway in started:
        if isinstance(gateway, Postrust):
            gateway.__exit__()


class TestErrors:
    """Each as a browser gets it: the status, and `code` and `details` to branch on."""

    def check(self, response, status: int, sqlstate: str, code: str | None) -> None:
        assert (response.status, response.body["code"]) == (status, sqlstate), response
        assert sorted(response.body) == ["code", "details", "hint", "message"]
        assert response.body["message"]
        if code:
            assert detail(response)["code"] == code

    def test_a_bad_argument(self, call, shirt):
        response = call(CHECKOUT, {**shirt, "mode": "gift"})
        self.check(response, 400, "22023", "invalid_argument")
        assert detail(response)["argument"] == "mode"

    def test_refused_by_a_policy(self, call, shirt):
        others = {**shirt, "subject": {"type": "user", "id": "bob"}}
        self.check(call(CHECKOUT, others), 401, "42501", None)
        signed_in = 403 if call.tells_refused_from_anonymous else 401
        self.check(call(CHECKOUT, others, "alice"), signed_in, "42501", None)
        self.check(call(PORTAL, {"subject": {"type": "user", "id": "bob"}}, "alice"), signed_in, "42501", None)

    def test_the_closed_environment(self, call, shirt):
        status = 403 if call.tells_refused_from_anonymous else 401
        response = call(CHECKOUT, {**shirt, "environment": "live", "subject": {"type": "user", "id": "alice"}}, "alice")
        self.check(response, status, "42501", "environment_closed")

    def test_no_customer(self, call):
        response = call(PORTAL, {"subject": {"type": "user", "id": "alice"}}, "alice")
        self.check(response, 404, "PT404", "no_customer")

    def test_a_key_that_was_used_for_something_else(self, call, shirt):
        assert call(CHECKOUT, {**shirt, "idempotency_key": "order:1"}).status == 200
        response = call(CHECKOUT, {**shirt, "idempotency_key": "order:1", "metadata": {"size": "L"}})
        self.check(response, 409, "23505", "key_reused")

    def test_stripe_refuses(self, call, served, shirt):
        error = {"type": "invalid_request_error", "code": "url_invalid", "param": "success_url", "message": "Not a URL"}
        served.stripe.control.fault("status", path=SESSIONS, status=400, body=json.dumps({"error": error}))
        response = call(CHECKOUT, shirt)
        self.check(response, 400, "PT400", "stripe_refused")
        assert detail(response)["stripe_code"] == "url_invalid"
        assert detail(response)["param"] == "success_url"

    def test_a_price_that_is_not_there(self, call, shirt):
        response = call(CHECKOUT, {**shirt, "line_items": [{"stripe_price_id": "price_none"}]})
        self.check(response, 400, "22023", "invalid_argument")

    def test_a_declined_card(self, call, served, shirt):
        served.stripe.control.fault("card_declined", path=SESSIONS)
        self.check(call(CHECKOUT, shirt), 402, "PT402", "card_refused")

    def test_a_rate_limit(self, call, served, shirt):
        served.set("payments.http_timeout", "1s")
        served.stripe.control.fault("rate_limit", path=SESSIONS, times=None, retry_after=30)
        self.check(call(CHECKOUT, shirt), 429, "PT429", "rate_limited")

    def test_stripe_fails(self, call, served, shirt):
        served.set("payments.http_timeout", "1s")
        served.stripe.control.fault("server_error", path=SESSIONS, times=None, should_retry=False)
        self.check(call(CHECKOUT, shirt), 502, "PT502", "stripe_failed")

    def test_stripe_is_silent(self, call, served, shirt):
        served.set("payments.http_timeout", "500ms")
        served.stripe.control.fault("silent", path=SESSIONS, times=None)
        self.check(call(CHECKOUT, shirt), 504, "PT504", "stripe_timed_out")

    def test_the_key_was_revoked(self, call, served, shirt):
        served.stripe.control.revoke_key(served.stripe.test_key)
        self.check(call(CHECKOUT, shirt), 500, "55000", "key_revoked")

    def test_no_key_is_set(self, call, served, shirt):
        """Without its key, no environment is open."""
        served.db.execute("select payments.remove_stripe_key('test')")
        self.check(call(CHECKOUT, shirt), 401, "42501", "environment_closed")

    def test_cancelled(self, call, served, shirt):
        served.stripe.control.fault("silent", path=SESSIONS, times=None)
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(call, CHECKOUT, shirt)
            served.stripe.control.wait_for_requests(1, SESSIONS)
            served.db.execute(
                """
                select pg_cancel_backend(pid) from pg_stat_activity
                where usename = 'authenticator' and state = 'active'
                """
            )
            self.check(waiting.result(timeout=30), 500, "57014", None)

    def test_nothing_is_left_of_what_failed(self, call, served, shirt):
        served.stripe.control.fault("card_declined", path=SESSIONS)
        assert call(CHECKOUT, {**shirt, "idempotency_key": "order:1"}).status == 402
        assert served.sessions() == []
        assert call(CHECKOUT, {**shirt, "idempotency_key": "order:1"}).status == 200


class TestWebhooks:
    @pytest.fixture
    def url(self, gateway) -> str:
        return f"{gateway.url}/rpc/stripe_webhook"

    def post(self, served, url: str, body: str, **options) -> tuple[int, dict]:
        signature = served.stripe.control.sign(body, **options)
        answer = webhooks.post(url, body, signature)
        return answer["status"], json.loads(answer["body"])

    def test_a_payment(self, served, gateway, url, shirt):
        session = gateway.rpc(CHECKOUT, shirt).body
        served.stripe.control.complete(session["stripe_checkout_session_id"])
        sent = served.stripe.control.send(url)
        assert {attempt["status"] for one in sent for attempt in one["attempts"]} == {200}
        [row] = served.sessions()
        assert (row.status, row.payment_status) == ("completed", "paid")

    @pytest.mark.parametrize(
        "description",
        [
            pytest.param(r'"\u0041\u00e9\ud83d\ude00 \"\\\/\b\f\n\r\t é 😀"', id="escapes"),
            pytest.param(r'"a\u0000b"', id="NUL"),
            pytest.param('\r\n\t "x" \r\n', id="white space"),
            pytest.param('"once", "description": "twice"', id="duplicate key"),
            pytest.param("123456789012345678901234567890.10e+5", id="large number"),
            pytest.param('"<>&\x7f\u2028"', id="what encoders escape"),
            pytest.param("[" * 50 + "]" * 50, id="deep"),
        ],
    )
    def test_unusual_but_legal_json(self, served, url, description):
        body = json.dumps(event("product.created", product()))
        body = f"\n {body} \r\n".replace('"name": "Tea"', f'"name": "Tea", "description": {description}')
        assert self.post(served, url, body)[0] == 200
        [row] = served.db.execute("select processing_status, payload::text from payments.webhook_events")
        assert row == ("processed", body)

    @pytest.mark.parametrize(
        ("description", "sqlstate"),
        [(r'"\ud800"', "PGRST102"), ("nonsense", "PGRST102"), ("1e400", "22023")],
        ids=["lone surrogate", "no JSON", "a number that nothing can hold"],
    )
    def test_what_cannot_be_read_changes_nothing(self, served, url, description, sqlstate):
        """A gateway reads the body for its keys first, and refuses by itself what it cannot read."""
        body = json.dumps(event("product.created", product())).replace('"Tea"', description)
        status, answer = self.post(served, url, body)
        assert (status, answer["code"]) == (400, sqlstate)
        assert served.db.value("select count(*) from payments.webhook_events") == 0

    def test_a_megabyte_is_taken_and_more_is_refused_unread(self, served, url):
        megabyte = json.dumps(event("product.created", product(description="x" * 1_000_000))).ljust(1024 * 1024)
        assert self.post(served, url, megabyte)[0] == 200
        status, answer = self.post(served, url, '{"not": "an event"}'.ljust(1024 * 1024 + 1), style="wrong")
        assert (status, detail_of(answer)) == (400, "payload_too_large")

    @pytest.mark.parametrize("style", ["wrong", "only_v0", "no_timestamp"])
    def test_a_bad_signature(self, served, url, style):
        status, answer = self.post(served, url, json.dumps(event("product.created", product())), style=style)
        assert (status, detail_of(answer)) == (400, "bad_signature")
        assert served.db.value("select count(*) from payments.webhook_events") == 0

    def test_an_old_signature(self, served, url):
        body = json.dumps(event("product.created", product()))
        assert self.post(served, url, body, timestamp=1_700_000_000)[0] == 400

    def test_the_other_environment_s_event(self, served, url):
        status, answer = self.post(served, url, json.dumps(event("product.created", product(), livemode=True)))
        assert (status, detail_of(answer)) == (400, "wrong_livemode")

    def test_a_failure_is_kept_and_stripe_s_retries_end_it(self, served, url):
        served.db.execute(
            """
            create sequence tries; grant usage on sequence tries to public;
            create function balk() returns trigger language plpgsql as $$
            begin
                if nextval('public.tries') < 3 then raise 'not yet'; end if;
                return new;
            end $$;
            create trigger balk before insert on payments.products for each row execute function balk();
            """
        )
        served.stripe.control.deliveries()
        served.stripe.control.call("POST", "/v1/products", {"name": "Tea"})
        [sent] = served.stripe.control.send(url, retries=5)
        assert [attempt["status"] for attempt in sent["attempts"]] == [500, 500, 200]
        assert json.loads(sent["attempts"][0]["body"])["error"] == "not yet"
        [row] = served.db.execute("select processing_status, attempt_count from payments.webhook_events")
        assert row == ("processed", 3)

    def test_stripe_is_not_asked_for_ever(self, served, url):
        """An endpoint that fails for days is switched off; by then the event waits for `replay_failed`."""
        served.db.execute(
            """
            create function balk() returns trigger language plpgsql as $$ begin raise 'never'; end $$;
            create trigger balk before insert on payments.products for each row execute function balk();
            """
        )
        served.stripe.control.deliveries()
        served.stripe.control.call("POST", "/v1/products", {"name": "Tea"})
        [sent] = served.stripe.control.send(url, retries=20)
        assert [attempt["status"] for attempt in sent["attempts"]] == [500] * 5 + [200]
        served.db.execute("drop trigger balk on payments.products")
        served.db.execute("select payments.replay_failed('test')")
        assert served.db.value("select name from payments.products where name = 'Tea'") == "Tea"

    def test_an_open_checkout_and_its_webhooks_share_a_small_pool(self, served, shirt):
        """A delivery may wait for a checkout's transaction; the pool must not run dry of that."""
        served.stripe.control.fault("delay", path=SESSIONS, after=0.5, times=None)
        with Postrust(served.db, "api", pool=3) as gateway, ThreadPoolExecutor(8) as threads:
            checkouts = [threads.submit(gateway.rpc, CHECKOUT, shirt) for _ in range(4)]
            served.stripe.control.wait_for_requests(2, SESSIONS)
            sent = served.stripe.control.send(f"{gateway.url}/rpc/stripe_webhook")
            assert {attempt["status"] for one in sent for attempt in one["attempts"]} == {200}
            assert {each.result().status for each in checkouts} == {200}


def detail_of(answer: dict) -> str:
    return json.loads(answer["details"])["code"]


class TestWhatUsersRead:
    @pytest.fixture
    def app(self, served):
        served.db.execute((HERE / "gateway" / "app.sql").read_text())
        served.buy("alice", mode="subscription")
        served.buy("bob")
        with Postrust(served.db, "api") as gateway:
            def get(path: str, name: str | None = None):
                return gateway.request("GET", path, jwt=token("authenticated", name) if name else None)

            yield get

    def test_their_own_subscription_and_payments(self, app):
        assert app("/my_subscriptions?select=subject_id,status", "alice").body == [
            {"subject_id": "alice", "status": "active"}
        ]
        assert app("/my_subscriptions", "bob").body == []
        assert app("/my_payments?select=type,amount", "bob").body == [{"type": "one_time_payment", "amount": 1900}]
        assert app("/my_payments", "carol").body == []
        assert app("/my_payments").status == 401

    def test_rows_that_only_subscribers_see(self, app):
        titles = "/articles?select=title&order=id"
        assert [row["title"] for row in app(titles, "alice").body] == ["For everybody", "For subscribers"]
        assert [row["title"] for row in app(titles, "bob").body] == ["For everybody"]
        assert [row["title"] for row in app(titles).body] == ["For everybody"]
