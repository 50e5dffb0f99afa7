"""The fake Stripe itself: its idempotency, clock, faults, events and remote control.

That its API is Stripe's is for Stripe's official client to say, in `stripe_sdk/`.
"""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest

from fake_stripe import FakeStripe, form, schema
from fake_stripe.control import RemoteControl
from fake_stripe.errors import StripeError
from fake_stripe.resources.subscriptions import later
from harness import npm

HERE = Path(__file__).parent


@pytest.fixture
def stripe():
    with FakeStripe() as fake:
        yield fake


class Client:
    """One keep-alive connection to the fake."""

    def __init__(self, stripe, key=None, timeout=5):
        address = urllib.parse.urlsplit(stripe.base_url)
        if stripe.ca_file:
            context = ssl.create_default_context(cafile=stripe.ca_file)
            self.http = http.client.HTTPSConnection(address.hostname, address.port, timeout=timeout, context=context)
        else:
            self.http = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
        self.key = stripe.test_key if key is None else key

    def send(self, method, path, params=None, **headers):
        """The answer with its JSON body as `json`, or its bytes as `body`."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key:
            headers.setdefault("Authorization", "Bearer " + self.key)
        body = params if isinstance(params, (str, bytes)) else form.encode(params or {})
        if method == "GET":
            path, body = path + "?" + body, None
        else:
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        self.http.request(method, path, body, headers)
        answer = self.http.getresponse()
        answer.body = answer.read()
        try:
            answer.json = json.loads(answer.body)
        except (ValueError, RecursionError):
            answer.json = None
        return answer

    def get(self, path, params=None, **headers):
        return self.send("GET", path, params, **headers)

    def post(self, path, params=None, key=None, **headers):
        if key:
            headers["Idempotency-Key"] = key
        return self.send("POST", path, params, **headers)


@pytest.fixture
def client(stripe):
    return Client(stripe)


def error(answer):
    return answer.status, answer.json["error"].get("code"), answer.json["error"].get("param")


def open_session(stripe, mode="payment", quantity=1, unit_amount=1900, **params):
    price = stripe.control.price(unit_amount, interval="month" if mode == "subscription" else None)
    given = {
        "mode": mode,
        "line_items": [{"price": price["id"], "quantity": quantity}],
        "success_url": "https://shop.example/done",
        **params,
    }
    return stripe.control.call("POST", "/v1/checkout/sessions", given)["id"]


def types(stripe, after=None):
    return [event["type"] for event in stripe.control.events(after)]


def last_event(stripe):
    return stripe.control.events()[-1]["id"]


@pytest.mark.parametrize(
    "text, tree",
    [
        ("a=1&b=", {"a": "1", "b": ""}),
        ("a[b][c]=1&a[b][d]=2", {"a": {"b": {"c": "1", "d": "2"}}}),
        ("a[0][x]=1&a[1][x]=2", {"a": [{"x": "1"}, {"x": "2"}]}),
        ("a[10]=c&a[9]=b", {"a": ["b", "c"]}),
        ("a[]=1&a[]=2", {"a": ["1", "2"]}),
        ("a[][x]=1&a[][y]=2&a[][x]=3", {"a": [{"x": "1", "y": "2"}, {"x": "3"}]}),
        ("a=%7BCHECKOUT_SESSION_ID%7D&b=x+y", {"a": "{CHECKOUT_SESSION_ID}", "b": "x y"}),
        ("metadata%5Bname%5D=Zo%C3%AB", {"metadata": {"name": "Zoë"}}),
    ],
)
def test_form_decoding(text, tree):
    assert form.decode(text) == tree


@pytest.mark.parametrize("text", ["a=1&a[b]=2", "a[b=1", "a=%ff"])
def test_malformed_forms_are_refused(text):
    with pytest.raises(StripeError):
        form.decode(text)


def test_form_encoding_is_the_inverse():
    tree = {"a": [{"x": "1"}, {"x": "ä&="}], "m": {"k": "v"}}
    assert form.decode(form.encode(tree)) == tree
    assert form.encode({"active": True, "cleared": None}) == "active=true&cleared="


def test_metadata_keys_that_are_numbers_stay_keys():
    assert schema.Metadata().read(form.decode("m[0]=a&m[1]=b")["m"], "m") == {"0": "a", "1": "b"}


@pytest.mark.parametrize(
    "params, refusal",
    [
        ("unit_amount=abc", (400, "parameter_invalid_integer", "unit_amount")),
        ("currency=", (400, "parameter_invalid_empty", "currency")),
        ("currency=usd&product[x]=1", (400, None, "product")),
        ("active=yes", (400, None, "active")),
        ("recurring[interval]=hour", (400, None, "recurring[interval]")),
        ("recurring[colour]=red", (400, "parameter_unknown", "recurring[colour]")),
        ("metadata[k]=" + "v" * 501, (400, None, "metadata")),
        ("expand=product&currency=usd", (400, None, "expand")),
    ],
)
def test_parameters_are_checked(client, params, refusal):
    assert error(client.post("/v1/prices", params)) == refusal


def test_an_empty_string_clears_what_can_be_cleared(client):
    customer = client.post("/v1/customers", {"name": "a", "address": {"city": "Rome"}}).json
    cleared = client.post("/v1/customers/" + customer["id"], "name=&address=&metadata=").json
    assert (cleared["name"], cleared["address"], cleared["metadata"]) == (None, None, {})


def test_json_bodies_are_refused(client):
    answer = client.post("/v1/customers", '{"name": "a"}', Content_Type="application/json")
    assert answer.status == 400
    assert "check that your POST content type" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "params, param",
    [
        ({"success_url": "ftp://shop.example"}, "success_url"),
        ({"customer_email": "nobody"}, "customer_email"),
        ({"subscription_data": {"description": "x"}}, "subscription_data"),
        ({"customer_update": {"name": "auto"}}, "customer_update"),
        ({"expires_at": 1}, "expires_at"),
        ({"line_items": []}, "line_items"),
        ({"payment_method_types": ["card"]}, "payment_method_types"),
        ({"return_url": "https://shop.example"}, "return_url"),
    ],
)
def test_sessions_refuse_what_does_not_fit(stripe, params, param):
    with pytest.raises(StripeError) as refused:
        open_session(stripe, **params)
    assert refused.value.error["param"] == param


def test_recurring_prices_need_subscription_mode(stripe):
    price = stripe.control.price(1900, interval="month")
    with pytest.raises(StripeError, match="passed a recurring price"):
        open_session(stripe, line_items=[{"price": price["id"], "quantity": 1}])
    once = stripe.control.price(1900)
    with pytest.raises(StripeError, match="at least one recurring price"):
        open_session(stripe, "subscription", line_items=[{"price": once["id"], "quantity": 1}])


@pytest.mark.parametrize(
    "path, refused",
    [
        ("payment_intent.latest_charge.refunds.data", False),
        ("payment_intent.latest_charge.payment_intent.latest_charge", False),
        ("payment_intent.latest_charge.payment_intent.latest_charge.refunds", True),
        ("status", True),
        ("colour", True),
        ("payment_intent.colour", True),
        ("subscription", False),
    ],
)
def test_expansion_knows_its_limits(stripe, client, path, refused):
    session = open_session(stripe)
    stripe.control.complete(session)
    answer = client.get("/v1/checkout/sessions/" + session, {"expand": [path]})
    assert answer.status == (400 if refused else 200)


def test_bearer_and_basic_authentication(stripe, client):
    assert client.get("/v1/account").json["id"] == stripe.account
    basic = "Basic " + base64.b64encode((stripe.test_key + ":").encode()).decode()
    assert client.get("/v1/account", Authorization=basic).status == 200
    assert Client(stripe, key="").get("/v1/account").status == 401
    assert Client(stripe, key="pk_test_x").get("/v1/account").json["error"]["code"] == "secret_key_required"


def test_modes_and_accounts_are_apart(stripe, client):
    customer = client.post("/v1/customers", {"name": "a"}).json
    live = Client(stripe, stripe.live_key)
    refused = live.get("/v1/customers/" + customer["id"])
    assert refused.status == 404
    assert "a similar object exists in test mode" in refused.json["error"]["message"]
    stripe.control.add_key("sk_test_other", account="acct_1Other")
    other = Client(stripe, "sk_test_other")
    assert other.get("/v1/account").json["id"] == "acct_1Other"
    assert "similar object" not in other.get("/v1/customers/" + customer["id"]).json["error"]["message"]


def test_restricted_and_revoked_keys(stripe):
    stripe.control.add_key("rk_test_reader", permissions=["customer_read"])
    reader = Client(stripe, "rk_test_reader")
    assert reader.get("/v1/customers").status == 200
    refused = reader.post("/v1/customers")
    assert refused.status == 403
    assert "Having the 'rak_customer_write' permission would" in refused.json["error"]["message"]
    stripe.control.revoke_key("rk_test_reader")
    assert error(reader.get("/v1/customers"))[:2] == (401, "api_key_expired")


def test_permissions_are_asked_before_existence(stripe):
    stripe.control.add_key("rk_test_nothing", permissions=[])
    stripe.control.add_key("rk_test_charges", permissions=["charge_write"])
    path = "/v1/charges/ch_none"
    assert Client(stripe, "rk_test_nothing").post(path).status == 403
    assert Client(stripe, "rk_test_charges").post(path).status == 404


def test_portal_configurations(stripe, client):
    made = client.post("/v1/billing_portal/configurations", {"name": "plain", "features": {"invoice_history": {}}}).json
    assert (made["name"], made["is_default"], made["active"]) == ("plain", False, True)
    changed = client.post("/v1/billing_portal/configurations/" + made["id"], {"active": False}).json
    assert changed["active"] is False
    customer = client.post("/v1/customers").json["id"]
    params = {"customer": customer, "return_url": "https://shop.example"}
    default = client.post("/v1/billing_portal/sessions", params).json["configuration"]
    assert default not in (None, made["id"])
    refused = client.post("/v1/billing_portal/sessions", {**params, "configuration": made["id"]})
    assert refused.status == 400


def test_answers_are_replayed_word_for_word(client):
    first = client.post("/v1/customers", {"name": "a"}, key="k")
    again = client.post("/v1/customers", {"name": "a"}, key="k")
    assert again.body == first.body
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Original-Request"] == first.headers["Request-Id"] != again.headers["Request-Id"]


def test_changed_parameters_and_other_endpoints_are_refused(client):
    client.post("/v1/customers", {"metadata": {"a": "1"}}, key="k")
    for answer in (
        client.post("/v1/customers", {"metadata": {"a": "2"}}, key="k"),
        client.post("/v1/products", {"name": "x"}, key="k"),
    ):
        assert answer.status == 400
        assert answer.json["error"]["type"] == "idempotency_error"


def test_keys_belong_to_an_account_and_mode(stripe, client):
    first = client.post("/v1/customers", {}, key="k").json["id"]
    assert Client(stripe, stripe.live_key).post("/v1/customers", {}, key="k").json["id"] != first


def test_refusals_before_execution_are_not_kept(stripe, client):
    assert client.post("/v1/products", {}, key="k").status == 400
    assert client.post("/v1/products", {"name": "a"}, key="k").status == 200
    stripe.control.fault("rate_limit")
    assert client.post("/v1/customers", {}, key="l").status == 429
    assert client.post("/v1/customers", {}, key="l").status == 200


def test_refusals_of_execution_are_kept(stripe, client):
    params = {"customer": "cus_later", "return_url": "https://shop.example"}
    first = client.post("/v1/billing_portal/sessions", params, key="k")
    assert error(first) == (400, "resource_missing", "customer")
    assert client.post("/v1/billing_portal/sessions", params, key="k").body == first.body


def test_stored_and_unstored_outages(stripe, client):
    stripe.control.fault("server_error", stored=True)
    first = client.post("/v1/customers", {}, key="k")
    again = client.post("/v1/customers", {}, key="k")
    assert first.status == again.status == 500
    assert again.headers["Stripe-Should-Retry"] == "false"
    assert again.headers["Idempotent-Replayed"] == "true"
    stripe.control.fault("server_error")
    assert client.post("/v1/customers", {}, key="l").status == 500
    assert client.post("/v1/customers", {}, key="l").status == 200


def test_an_outage_after_the_fact(stripe, client):
    stripe.control.fault("server_error", processed=True, stored=False)
    assert client.post("/v1/customers", {}, key="k").status == 500
    assert len(client.get("/v1/customers").json["data"]) == 1


def test_keys_are_forgotten_after_a_day(stripe, client):
    first = client.post("/v1/customers", {}, key="k").json["id"]
    stripe.control.clock(advance=24 * 3600 - 1)
    assert client.post("/v1/customers", {}, key="k").json["id"] == first
    stripe.control.clock(advance=2)
    assert client.post("/v1/customers", {}, key="k").json["id"] != first


def test_a_twin_in_flight_is_a_conflict(stripe):
    stripe.control.fault("delay", before=0.5)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(Client(stripe).post, "/v1/customers", {}, "k")
        stripe.control.wait_for_requests(1)
        time.sleep(0.1)
        twin = Client(stripe).post("/v1/customers", {}, key="k")
    assert error(twin)[:2] == (409, "idempotency_key_in_use")
    assert first.result().status == 200
    replayed = Client(stripe).post("/v1/customers", {}, key="k")
    assert replayed.json["id"] == first.result().json["id"]


def test_a_race_makes_one_object(stripe):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: Client(stripe).post("/v1/customers", {}, key="k"), range(64)))
    assert {answer.status for answer in answers} <= {200, 409}
    assert len({answer.json["id"] for answer in answers if answer.status == 200}) == 1
    assert len(Client(stripe).get("/v1/customers").json["data"]) == 1


def test_the_clock_rules_created_date_and_expiry(stripe, client):
    stripe.control.clock(at=1_900_000_000, freeze=True)
    session = open_session(stripe)
    answer = client.get("/v1/checkout/sessions/" + session)
    assert answer.json["created"] == 1_900_000_000
    assert answer.json["expires_at"] == 1_900_000_000 + 86400
    assert answer.headers["Date"] == "Sun, 17 Mar 2030 17:46:40 GMT"
    stripe.control.clock(advance=86400)
    expired = client.get("/v1/checkout/sessions/" + session).json
    assert (expired["status"], expired["url"]) == ("expired", None)
    assert types(stripe)[-1] == "checkout.session.expired"
    assert stripe.control.clock(unfreeze=True) in (1_900_086_400, 1_900_086_401)


def test_drop_before_and_after(stripe):
    stripe.control.fault("drop", processed=False)
    with pytest.raises(http.client.RemoteDisconnected):
        Client(stripe).post("/v1/customers", {}, key="k")
    assert Client(stripe).get("/v1/customers").json["data"] == []
    stripe.control.fault("drop")
    with pytest.raises(http.client.RemoteDisconnected):
        Client(stripe).post("/v1/customers", {}, key="k")
    replayed = Client(stripe).post("/v1/customers", {}, key="k")
    assert replayed.headers["Idempotent-Replayed"] == "true"
    stripe.control.fault("drop", style="reset")
    with pytest.raises(ConnectionResetError):
        Client(stripe).get("/v1/customers")


def test_half_a_body(stripe, client):
    stripe.control.fault("half")
    with pytest.raises(http.client.IncompleteRead):
        client.get("/v1/account")


def test_drip(stripe, client):
    stripe.control.fault("drip", seconds=0.01, bytes=100)
    started = time.monotonic()
    assert client.get("/v1/account").json["id"] == stripe.account
    assert time.monotonic() - started > 0.1


@pytest.mark.parametrize("style", ["chunked", "length"])
def test_an_endless_body(stripe, client, style):
    stripe.control.fault("endless", style=style)
    client.http.request("GET", "/v1/account", headers={"Authorization": "Bearer " + client.key})
    answer = client.http.getresponse()
    assert len(answer.read(10_000_000)) == 10_000_000
    client.http.close()


def test_silence(stripe):
    stripe.control.fault("silent")
    with pytest.raises(socket.timeout):
        Client(stripe, timeout=0.3).get("/v1/account")
    assert stripe.control.requests()[0]["status"] == 0
    stripe.control.fault("no_handshake")
    with pytest.raises(socket.timeout):
        Client(stripe, timeout=0.3).get("/v1/account")
    assert Client(stripe).get("/v1/account").status == 200


def test_silence_ends_when_the_client_leaves(stripe):
    stripe.control.fault("silent")
    with pytest.raises(socket.timeout):
        leaving = Client(stripe, timeout=0.2)
        leaving.get("/v1/account")
    leaving.http.close()
    deadline = time.monotonic() + 5
    while stripe.control.connections()["open"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert stripe.control.connections()["open"] == 0


def test_delays(stripe, client):
    for when in ("before", "after"):
        stripe.control.fault("delay", **{when: 0.3})
        started = time.monotonic()
        assert client.get("/v1/account").status == 200
        assert time.monotonic() - started >= 0.3


def test_wrong_lengths(stripe):
    stripe.control.fault("wrong_length", style="shorter")
    assert Client(stripe).get("/v1/account").json is None
    stripe.control.fault("wrong_length", style="longer")
    with pytest.raises(socket.timeout):
        Client(stripe, timeout=0.3).get("/v1/account")


@pytest.mark.parametrize("style", ["html", "truncated", "empty", "list", "deep"])
def test_junk(stripe, client, style):
    stripe.control.fault("junk", style=style)
    answer = client.get("/v1/account")
    assert answer.status == 200
    assert not isinstance(answer.json, dict)


def test_junk_of_every_wrong_type(stripe, client):
    stripe.control.fault("junk", style="types")
    wrong = client.get("/v1/account").json
    assert wrong["id"] == len(stripe.account)
    assert wrong["created"].isdigit()
    assert wrong["charges_enabled"] == "True"


def test_errors_and_redirects_on_demand(stripe, client):
    stripe.control.fault("forbidden", permission="checkout_session_write")
    assert "rak_checkout_session_write" in client.get("/v1/account").json["error"]["message"]
    stripe.control.fault("redirect", location="https://elsewhere.example/")
    moved = client.get("/v1/account")
    assert (moved.status, moved.headers["Location"]) == (302, "https://elsewhere.example/")
    stripe.control.fault("status", status=418, body="teapot", headers={"X-Tea": "1"})
    odd = client.get("/v1/account")
    assert (odd.status, odd.body, odd.headers["X-Tea"]) == (418, b"teapot", "1")
    stripe.control.fault("rate_limit", retry_after=2, should_retry=True)
    limited = client.get("/v1/account")
    assert (limited.headers["Retry-After"], limited.headers["Stripe-Should-Retry"]) == ("2", "true")


def test_a_declined_card_is_kept_for_its_key(stripe, client):
    stripe.control.fault("card_declined")
    assert client.post("/v1/customers", {}, key="k").status == 402
    assert client.post("/v1/customers", {}, key="k").status == 402


def test_faults_choose_their_requests(stripe, client):
    stripe.control.fault("server_error", path="/v1/customers*", method="GET", skip=1, times=2)
    statuses = [client.get("/v1/customers").status for _ in range(4)]
    assert statuses == [200, 500, 500, 200]
    stripe.control.fault("server_error", path="/v1/customers")
    assert client.get("/v1/account").status == 200
    assert [fault["kind"] for fault in stripe.control.faults()] == ["server_error"]
    stripe.control.clear_faults()
    assert client.get("/v1/customers").status == 200
    with pytest.raises(ValueError, match="no such fault"):
        stripe.control.fault("earthquake")


def test_the_log_tells_what_came(stripe, client):
    client.post("/v1/customers", {"metadata": {"a": "1"}}, key="k", Stripe_Version="2026-10-28.endive")
    client.post("/v1/customers", {"metadata": {"a": "1"}}, key="k")
    client.get("/v1/nothing")
    first, second, third = stripe.control.requests()
    assert first["params"] == {"metadata": {"a": "1"}}
    assert (first["key"], first["idempotency_key"]) == (stripe.test_key, "k")
    assert first["stripe_version"] == "2026-10-28.endive"
    assert (first["replayed"], second["replayed"]) == (False, True)
    assert (third["method"], third["path"], third["status"]) == ("GET", "/v1/nothing", 404)
    assert first["connection"] == third["connection"]
    assert len(stripe.control.requests(path="/v1/cust*")) == 2
    stripe.control.clear_requests()
    assert stripe.control.requests() == []


def test_tls_with_its_own_authority():
    with FakeStripe(tls=True) as stripe:
        client = Client(stripe)
        assert client.get("/v1/account").status == client.get("/v1/account").status == 200
        another = Client(stripe)
        assert another.get("/v1/account").status == 200
        assert stripe.control.connections() == {"accepted": 2, "handshakes": 2, "open": 2}
        assert [entry["connection"] for entry in stripe.control.requests()] == [1, 1, 2]
        address = urllib.parse.urlsplit(stripe.base_url)
        untrusting = http.client.HTTPSConnection(address.hostname, address.port, context=ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            untrusting.request("GET", "/v1/account")
        stripe.control.fault("no_handshake")
        with pytest.raises(socket.timeout):
            Client(stripe, timeout=0.3).get("/v1/account")
        assert Path(stripe.ca_file).stat().st_mode & 0o004
    assert not Path(stripe.ca_file).exists()


def test_stopping_ends_every_connection():
    with FakeStripe() as stripe:
        stripe.control.fault("silent")
        waiting = Client(stripe)
        with ThreadPoolExecutor() as pool:
            held = pool.submit(waiting.get, "/v1/account")
            stripe.control.wait_for_requests(1)
            stripe.stop()
            with pytest.raises((http.client.HTTPException, OSError)):
                held.result(5)
        stripe.start()


def test_a_payment_and_its_events(stripe):
    session = open_session(stripe, customer_creation="always", payment_intent_data={"metadata": {"order": "7"}})
    before = last_event(stripe)
    stripe.control.complete(session, email="buyer@example.com")
    assert types(stripe, before) == [
        "customer.created",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]
    done = stripe.control.get(session)
    charge = stripe.control.get(stripe.control.get(done["payment_intent"])["latest_charge"])
    assert charge["metadata"] == {"order": "7"}
    assert charge["billing_details"]["email"] == done["customer_details"]["email"] == "buyer@example.com"
    with pytest.raises(StripeError, match="complete, not open"):
        stripe.control.complete(session)


def test_a_guest_pays(stripe):
    session = open_session(stripe)
    stripe.control.complete(session)
    assert stripe.control.get(session)["customer"] is None


def test_a_declined_card_and_another_try(stripe):
    session = open_session(stripe)
    stripe.control.decline(session, "insufficient_funds")
    intent = stripe.control.get(stripe.control.get(session)["payment_intent"])
    assert intent["last_payment_error"]["decline_code"] == "insufficient_funds"
    stripe.control.complete(session)
    paid = stripe.control.get(intent["id"])
    assert paid["status"] == "succeeded"
    assert paid["latest_charge"] != intent["latest_charge"]


@pytest.mark.parametrize("succeeded", [True, False])
@pytest.mark.parametrize("mode", ["payment", "subscription"])
def test_bank_debits_take_days(stripe, mode, succeeded):
    session = open_session(stripe, mode)
    stripe.control.complete(session, outcome="processing")
    waiting = stripe.control.get(session)
    assert (waiting["status"], waiting["payment_status"]) == ("complete", "unpaid")
    stripe.control.clock(advance=3 * 86400)
    stripe.control.settle(session, succeeded=succeeded)
    word = "succeeded" if succeeded else "failed"
    assert types(stripe)[-1] == "checkout.session.async_payment_" + word
    assert stripe.control.get(session)["payment_status"] == ("paid" if succeeded else "unpaid")
    if mode == "subscription":
        status = stripe.control.get(waiting["subscription"])["status"]
        assert status == ("active" if succeeded else "past_due")


def test_free_sessions_have_no_intent(stripe):
    for session, outcome in ((open_session(stripe, unit_amount=0), "paid"), (open_session(stripe), "free")):
        stripe.control.complete(session, outcome=outcome)
        done = stripe.control.get(session)
        assert (done["payment_status"], done["payment_intent"]) == ("no_payment_required", None)
        assert done["amount_total"] == 0


def test_manual_capture(stripe):
    session = open_session(stripe, payment_intent_data={"capture_method": "manual"})
    stripe.control.complete(session)
    intent = stripe.control.get(session)["payment_intent"]
    charge = stripe.control.get(stripe.control.get(intent)["latest_charge"])
    assert (charge["paid"], charge["captured"], charge["amount_captured"]) == (True, False, 0)
    stripe.control.capture(intent, amount=1000)
    assert stripe.control.get(intent)["amount_received"] == 1000


def test_invoice_creation_keeps_the_payment_a_payment(stripe):
    session = open_session(stripe, invoice_creation={"enabled": True})
    stripe.control.complete(session)
    done = stripe.control.get(session)
    invoice = stripe.control.get(done["invoice"])
    assert (invoice["parent"], invoice["status"], invoice["billing_reason"]) == (None, "paid", "manual")
    payments = stripe.control.call("GET", "/v1/invoice_payments", {"invoice": invoice["id"]})
    assert payments["data"][0]["payment"]["payment_intent"] == done["payment_intent"]


def subscribe(stripe, **params):
    session = open_session(stripe, "subscription", **params)
    stripe.control.complete(session)
    return stripe.control.get(session)["subscription"]


def test_a_subscription_and_its_events(stripe):
    session = open_session(stripe, "subscription", subscription_data={"metadata": {"team": "a"}})
    before = last_event(stripe)
    stripe.control.complete(session)
    assert types(stripe, before) == [
        "customer.created",
        "customer.subscription.created",
        "invoice.created",
        "invoice.finalized",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice.updated",
        "invoice.paid",
        "invoice.payment_succeeded",
        "invoice_payment.paid",
        "customer.subscription.updated",
        "checkout.session.completed",
    ]
    updated = stripe.control.events(before, ["customer.subscription.updated"])[0]
    assert updated["data"]["previous_attributes"]["status"] == "incomplete"
    assert updated["request"] == {"id": None, "idempotency_key": None}
    paid = stripe.control.events(before, ["invoice.paid"])[0]["data"]["object"]
    assert "payment_intent" not in paid
    assert paid["parent"]["subscription_details"]["metadata"] == {"team": "a"}


def test_trials_cost_nothing_yet(stripe):
    subscription = subscribe(stripe, subscription_data={"trial_period_days": 14})
    trial = stripe.control.get(subscription)
    assert trial["status"] == "trialing"
    assert stripe.control.get(trial["latest_invoice"])["amount_paid"] == 0
    assert trial["items"]["data"][0]["current_period_end"] == trial["trial_end"]
    stripe.control.renew(subscription)
    running = stripe.control.get(subscription)
    assert running["status"] == "active"
    assert stripe.control.get(running["latest_invoice"])["amount_paid"] == 1900


def test_renewals_succeed_fail_and_recover(stripe):
    subscription = subscribe(stripe)
    first = stripe.control.get(subscription)["items"]["data"][0]
    before = last_event(stripe)
    assert stripe.control.renew(subscription)["billing_reason"] == "subscription_cycle"
    item = stripe.control.get(subscription)["items"]["data"][0]
    assert item["current_period_start"] == first["current_period_end"]
    rolled = stripe.control.events(before, ["customer.subscription.updated"])[0]["data"]["previous_attributes"]
    assert rolled["items"]["data"][0]["current_period_end"] == first["current_period_end"]

    invoice = stripe.control.renew(subscription, succeeded=False)
    assert stripe.control.get(subscription)["status"] == "past_due"
    stripe.control.pay_invoice(invoice["id"], succeeded=False)
    stripe.control.pay_invoice(invoice["id"])
    assert stripe.control.get(subscription)["status"] == "active"
    payments = stripe.control.call("GET", "/v1/invoice_payments", {"invoice": invoice["id"]})
    assert [payment["status"] for payment in payments["data"]] == ["paid"]

    stripe.control.renew(subscription, succeeded=False)
    stripe.control.give_up(subscription, "unpaid")
    stripe.control.give_up(subscription)
    ended = stripe.control.get(subscription)
    assert (ended["status"], ended["cancellation_details"]["reason"]) == ("canceled", "payment_failed")


def test_months_keep_their_day_or_take_the_last():
    def at(*date):
        return int(datetime(*date, tzinfo=timezone.utc).timestamp())

    assert later(at(2027, 1, 31), "month", 1) == at(2027, 2, 28)
    assert later(at(2027, 11, 15), "month", 3) == at(2028, 2, 15)
    assert later(at(2028, 2, 29), "year", 1) == at(2029, 2, 28)
    assert later(at(2027, 1, 1), "week", 2) == at(2027, 1, 15)


def test_cancelling_now_later_and_not(stripe):
    subscription = subscribe(stripe)
    stripe.control.cancel(subscription, at_period_end=True)
    canceling = stripe.control.get(subscription)
    # Billing is flexible: the portal sets the time and leaves the flag alone.
    assert canceling["cancel_at"] and not canceling["cancel_at_period_end"]
    stripe.control.resume(subscription)
    assert stripe.control.get(subscription)["cancel_at"] is None
    stripe.control.cancel(subscription, at_period_end=True)
    stripe.control.renew(subscription)
    assert types(stripe)[-1] == "customer.subscription.deleted"
    other = subscribe(stripe)
    stripe.control.cancel(other)
    assert stripe.control.get(other)["status"] == "canceled"


def test_more_items_than_one_page(stripe):
    prices = [stripe.control.price(100 + number, interval="month")["id"] for number in range(12)]
    subscription = subscribe(stripe, line_items=[{"price": price, "quantity": 1} for price in prices])
    shown = stripe.control.get(subscription)["items"]
    assert (len(shown["data"]), shown["has_more"]) == (10, True)
    path, params = "/v1/subscription_items", {"subscription": subscription, "limit": 7}
    first = stripe.control.call("GET", path, params)
    rest = stripe.control.call("GET", path, {**params, "starting_after": first["data"][-1]["id"]})
    assert [item["price"]["id"] for item in first["data"] + rest["data"]] == prices
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_plan_changes(stripe):
    subscription = subscribe(stripe)
    item = stripe.control.get(subscription)["items"]["data"][0]
    dearer = stripe.control.price(4900, interval="month")["id"]
    changed = stripe.control.update(subscription, {"items": [{"id": item["id"], "price": dearer, "quantity": 2}]})
    after = changed["items"]["data"][0]
    assert (after["id"], after["price"]["id"], after["quantity"]) == (item["id"], dearer, 2)
    assert after["current_period_end"] == item["current_period_end"]
    previous = stripe.control.events()[-1]["data"]["previous_attributes"]
    assert previous["items"]["data"][0]["price"]["id"] == item["price"]["id"]


def paid_charge(stripe):
    session = open_session(stripe)
    stripe.control.complete(session)
    intent = stripe.control.get(session)["payment_intent"]
    return intent, stripe.control.get(intent)["latest_charge"]


def test_refunds_in_part_in_full_and_in_vain(stripe):
    intent, charge = paid_charge(stripe)
    before = last_event(stripe)
    stripe.control.refund(charge, 500)
    assert types(stripe, before) == ["charge.refunded", "refund.created"]
    rest = stripe.control.refund(intent)
    assert rest["amount"] == 1400
    assert stripe.control.get(charge)["refunded"] is True
    with pytest.raises(StripeError, match="already been refunded"):
        stripe.control.refund(charge)
    stripe.control.fail_refund(rest["id"])
    assert types(stripe)[-2:] == ["refund.failed", "charge.refund.updated"]
    assert stripe.control.get(charge)["amount_refunded"] == 500
    pending = stripe.control.refund(charge, 100, status="pending")
    assert stripe.control.settle_refund(pending["id"])["status"] == "succeeded"


def test_disputes_lost_and_won(stripe):
    _, charge = paid_charge(stripe)
    before = last_event(stripe)
    dispute = stripe.control.dispute(charge)["id"]
    stripe.control.update_dispute(dispute, "under_review")
    stripe.control.close_dispute(dispute, "won")
    assert types(stripe, before) == [
        "charge.updated",
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.updated",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]
    assert sum(moved["amount"] for moved in stripe.control.get(dispute)["balance_transactions"]) == 0


def test_deleting_a_customer_ends_their_subscriptions(stripe):
    subscription = subscribe(stripe)
    customer = stripe.control.get(subscription)["customer"]
    stripe.control.delete(customer)
    assert types(stripe)[-2:] == ["customer.subscription.deleted", "customer.deleted"]
    assert stripe.control.call("GET", "/v1/customers/" + customer) == {
        "id": customer,
        "object": "customer",
        "deleted": True,
    }
    expanded = stripe.control.call("GET", "/v1/subscriptions/" + subscription)
    assert expanded["customer"] == customer


def test_products_with_prices_stay(stripe):
    product = stripe.control.price(1900)["product"]
    with pytest.raises(StripeError, match="user-created prices"):
        stripe.control.delete(product)
    stripe.control.update(product, {"active": False})
    previous = stripe.control.events()[-1]["data"]["previous_attributes"]
    assert previous["active"] is True


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers what it is told and remembers what came."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((dict(self.headers), body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.received, server.statuses = [], []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_events_are_posted_as_stripe_posts_them(stripe, receiver):
    stripe.control.call("POST", "/v1/customers", {"name": "Zoë"})
    (sent,) = stripe.control.send(receiver.url)
    assert [attempt["status"] for attempt in sent["attempts"]] == [200]
    ((headers, body),) = receiver.received
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["Accept"] == "*/*; q=0.5, application/xml"
    assert headers["User-Agent"] == "Stripe/1.0 (+https://stripe.com/docs/webhooks)"
    assert '  "object": "event",\n' in body.decode() and "Zoë" in body.decode()
    timestamp = int(headers["Stripe-Signature"].split(",")[0][2:])
    again = stripe.control.sign(body.decode(), timestamp=timestamp)
    assert again == headers["Stripe-Signature"]
    assert stripe.control.send(receiver.url) == []
    assert len(stripe.control.send(receiver.url, new=False)) == 1


def test_posts_are_repeated_until_accepted(stripe, receiver):
    receiver.statuses = [500, 302, 200]
    stripe.control.call("POST", "/v1/customers", {})
    (sent,) = stripe.control.send(receiver.url, retries=5)
    assert [attempt["status"] for attempt in sent["attempts"]] == [500, 302, 200]
    assert len({body for _, body in receiver.received}) == 1


def test_registered_endpoints_are_posted_to(receiver):
    with FakeStripe(deliver=True) as stripe:
        stripe.control.call(
            "POST", "/v1/webhook_endpoints", {"url": receiver.url, "enabled_events": ["customer.created"]}
        )
        customer = stripe.control.call("POST", "/v1/customers", {})
        stripe.control.update(customer["id"], {"name": "b"})
        deadline = time.monotonic() + 5
        while not receiver.received and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
    assert [json.loads(body)["type"] for _, body in receiver.received] == ["customer.created"]


def test_events_of_any_kind(stripe):
    stripe.control.emit("invoice.upcoming", {"object": "invoice", "amount_due": 1900})
    stripe.control.emit("charge.succeeded", {"id": "ch_1", "object": "charge"}, fields={"account": "acct_1Connected"})
    upcoming, connected = (json.loads(event["body"]) for event in stripe.control.deliveries())
    assert "id" not in upcoming["data"]["object"]
    assert connected["account"] == "acct_1Connected"


def test_events_arrive_late_in_the_events_api(stripe):
    stripe.control.lag_events(60)
    stripe.control.call("POST", "/v1/customers", {})
    assert stripe.control.call("GET", "/v1/events")["data"] == []
    stripe.control.clock(advance=61)
    assert len(stripe.control.call("GET", "/v1/events")["data"]) == 1
    stripe.control.clock(advance=31 * 86400)
    assert stripe.control.call("GET", "/v1/events")["data"] == []


def test_years_of_business_are_listed_page_by_page(stripe):
    counts = stripe.control.populate(2000)
    assert sum(counts.values()) >= 2000 and min(counts.values()) > 1
    assert stripe.control.events() == []
    client, seen, after = Client(stripe), [], None
    while True:
        page = client.get("/v1/charges", {"limit": 100, **({"starting_after": after} if after else {})}).json
        seen += page["data"]
        if not page["has_more"]:
            break
        after = page["data"][-1]["id"]
    assert len({charge["id"] for charge in seen}) == len(seen) == counts["charge"]
    moments = [charge["created"] for charge in seen]
    assert moments == sorted(moments, reverse=True)
    assert moments[0] - moments[-1] > 2.9 * 365 * 86400
    middle = moments[len(moments) // 2]
    older = client.get("/v1/charges", {"limit": 1, "created": {"lte": middle}}).json["data"]
    assert [charge["created"] for charge in older] == [middle]
    intent = client.get(f"/v1/payment_intents/{seen[0]['payment_intent']}").json
    assert intent["latest_charge"] == seen[0]["id"]


def test_too_many_requests_a_second_are_refused(stripe):
    stripe.control.limit_rate(5)
    client = Client(stripe)
    statuses = [client.get("/v1/customers").status for _ in range(20)]
    assert statuses[:5] == [200] * 5 and 429 in statuses
    stripe.control.limit_rate(None)
    assert client.get("/v1/customers").status == 200


def test_the_same_seed_gives_the_same_ids():
    def run():
        with FakeStripe(seed=7) as stripe:
            return open_session(stripe)

    assert run() == run()


def test_the_control_speaks_json(stripe):
    assert RemoteControl(stripe.base_url).about() == stripe.about()
    remote = RemoteControl(stripe.control_url)
    price = remote.price(unit_amount=1900)
    assert stripe.control.get(price["id"]) == price
    assert "complete" in remote.help()
    with pytest.raises(RuntimeError, match="no such action"):
        remote.explode()
    with pytest.raises(RuntimeError, match="unexpected keyword argument"):
        remote.price(unit_amount=1, colour="red")


def test_the_command_line(tmp_path):
    def control(*arguments):
        command = [sys.executable, "-m", "fake_stripe.control", about["control_url"], *arguments]
        return subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=30)

    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "fake_stripe", "--seed", "1", "--ready-file", ready, "--key", "sk_test_mine"]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) as served:
        try:
            said = [served.stdout.readline().split(maxsplit=1) for _ in range(2)]
            while not ready.exists():
                time.sleep(0.02)
            about = json.loads(ready.read_text())
            assert said == [["base_url", about["base_url"] + "\n"], ["control_url", about["control_url"] + "\n"]]
            mine = urllib.request.Request(
                about["base_url"] + "/v1/account", headers={"Authorization": "Bearer sk_test_mine"}
            )
            assert json.load(urllib.request.urlopen(mine))["id"] == about["account"]
            price = control("--field", "id", "price", "1900", "--lookup-key", "pro").stdout.strip()
            assert price.startswith("price_")
            params = "mode=payment&success_url=https://a.example&line_items[0][price]={}&line_items[0][quantity]=1"
            session = json.loads(
                control("call", "POST", "/v1/checkout/sessions", "--params", params.format(price)).stdout
            )
            assert json.loads(control("complete", session["id"]).stdout)["payment_status"] == "paid"
            events = json.loads(control("deliveries", "--types", "checkout.*,customer.*").stdout)
            assert [event["type"] for event in events] == ["checkout.session.completed"]
            assert json.loads(control("fault", "drop", "path=/v1/*", "times=3").stdout)["times"] == 3
            failed = control("complete", "cs_test_none")
            assert failed.returncode == 1 and "cs_test_none" in failed.stderr
            assert failed.stderr.count("\n") == 1
            assert "The buyer completes" in control("--help").stdout
        finally:
            served.terminate()
    assert served.returncode == 0


@pytest.fixture(scope="module")
def official():
    """The directory with Stripe's official client in it."""
    if reason := npm.missing():
        pytest.skip(f"Stripe's official client, which judges the fake, needs npm and node 20 or newer: {reason}")
    return npm.install(HERE / "stripe_sdk").parent


@pytest.mark.timeout(400)
def test_stripes_official_client(stripe, official):
    environment = {**os.environ, "FAKE_BASE_URL": stripe.base_url, "FAKE_CONTROL_URL": stripe.control_url}
    judged = subprocess.run(
        ["node", "--test"], cwd=official, env=environment, capture_output=True, text=True, timeout=120
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr


def typed(value):
    """A value as it is after Stripe's client read it: it makes its own type of decimals."""
    if isinstance(value, dict):
        decimal = ("unit_amount_decimal", "amount_decimal", "quantity_decimal")
        return {name: None if name in decimal else typed(below) for name, below in value.items()}
    return [typed(below) for below in value] if isinstance(value, list) else value


@pytest.mark.timeout(400)
def test_objects_have_stripes_types(stripe, official, tmp_path):
    control = stripe.control
    control.call("POST", "/v1/webhook_endpoints", {"url": "https://a.example", "enabled_events": ["*"]})
    bought = open_session(stripe, customer_creation="always", invoice_creation={"enabled": True})
    control.decline(bought)
    control.complete(bought)
    debited = open_session(stripe)
    control.complete(debited, outcome="processing")
    control.settle(debited, succeeded=False)
    control.expire(open_session(stripe))
    subscription = subscribe(stripe)
    control.renew(subscription)
    control.pay_invoice(control.renew(subscription, succeeded=False)["id"])
    control.cancel(subscription, at_period_end=True)
    charge = control.get(control.get(bought)["payment_intent"])["latest_charge"]
    control.fail_refund(control.refund(charge, 100)["id"])
    control.close_dispute(control.dispute(charge)["id"], "won")
    flow = {"type": "subscription_update", "subscription_update": {"subscription": subscription}}
    customer = control.get(subscription)["customer"]
    control.call("POST", "/v1/billing_portal/sessions", {"customer": customer, "flow_data": flow})

    objects = [event["data"]["object"] for event in control.events()]
    for path in (
        "account",
        "billing_portal/configurations",
        "webhook_endpoints",
        "invoice_payments",
        "checkout/sessions",
    ):
        answer = control.call("GET", "/v1/" + path)
        objects += answer.get("data", [answer])
    expand = {"expand": ["line_items", "payment_intent.latest_charge.refunds", "customer"]}
    objects.append(control.call("GET", "/v1/checkout/sessions/" + bought, expand))

    lines = ["import Stripe from 'stripe';"]
    for number, one in enumerate(objects):
        namespace, _, rest = one["object"].rpartition(".")
        name = "".join(word.capitalize() for word in rest.split("_"))
        space = "".join(word.capitalize() for word in namespace.split("_"))
        kind = "Stripe." + (space + "." if space else "") + name
        lines.append(f"export const v{number}: {kind} = {json.dumps(typed(one))};")
    (tmp_path / "objects.ts").write_text("\n".join(lines))
    options = {
        "strict": True,
        "noEmit": True,
        "module": "nodenext",
        "target": "es2022",
        "skipLibCheck": True,
        "types": [],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": ["objects.ts"]}))
    (tmp_path / "node_modules").symlink_to(official / "node_modules")
    compiler = official / "node_modules" / ".bin" / "tsc"
    judged = subprocess.run([compiler, "-p", tmp_path], capture_output=True, text=True, timeout=120)
    assert judged.returncode == 0, judged.stdout
    assert {one["object"] for one in objects} >= {"charge", "customer", "dispute", "invoice", "refund", "subscription"}
