"""What Stripe refuses or fails at, as it reaches a client: SQLSTATE, message, HINT, and the DETAIL for programs."""

from __future__ import annotations

import json
import time

import psycopg
import pytest


@pytest.fixture
def caller(db, stripe):
    """A connection that has a quarter of a second for Stripe."""
    connection = db.connect()
    connection.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
    connection.execute("set payments.http_timeout = '250ms'")
    return connection


@pytest.fixture
def call(caller, stripe):
    """Asks Stripe for a customer who is there, and returns what was raised: SQLSTATE, DETAIL, and the error."""
    customer = stripe.control.call("POST", "/v1/customers")["id"]

    def ask() -> tuple[str, dict, psycopg.Error]:
        with pytest.raises(psycopg.Error) as raised:
            caller.execute(
                "select payments.link_customer('test', %s, %s)", ('{"type": "user", "id": "1"}', customer)
            )
        error = raised.value
        return error.sqlstate, json.loads(error.diag.message_detail), error

    return ask


@pytest.mark.parametrize(
    ("fault", "options", "state", "code"),
    [
        ("card_declined", {}, "PT402", "card_refused"),
        ("status", {"status": 400, "body": '{"error": {"message": "No."}}'}, "PT400", "stripe_refused"),
        ("status", {"status": 400, "body": '{"error": {"type": "idempotency_error"}}'}, "23505", "key_reused"),
        ("status", {"status": 409, "body": "{}"}, "PT409", "stripe_busy"),
        ("rate_limit", {}, "PT429", "rate_limited"),
        ("forbidden", {}, "55000", "permission_missing"),
        ("server_error", {}, "PT502", "stripe_failed"),
        ("drop", {}, "PT502", "stripe_unreachable"),
        ("half", {}, "PT502", None),
        ("redirect", {}, "PT502", "stripe_redirected"),
        ("junk", {"style": "html"}, "PT502", "stripe_malformed"),
        ("junk", {"style": "truncated"}, "PT502", "stripe_malformed"),
        ("junk", {"style": "empty"}, "PT502", "stripe_malformed"),
        ("endless", {}, "PT502", "stripe_answer_too_large"),
        ("silent", {}, "PT504", "stripe_timed_out"),
        ("delay", {"after": 2}, "PT504", "stripe_timed_out"),
    ],
)
def test_every_failure_has_a_state_a_code_and_advice(stripe, caller, call, fault, options, state, code):
    if fault == "endless":
        caller.execute("set payments.http_timeout = '10s'; set payments.http_max_response_size = '64kB'")
    stripe.control.fault(fault, path="/v1/customers/*", times=None, **options)
    raised, detail, error = call()
    assert raised == state
    assert code in (None, detail["code"])
    assert error.diag.message_primary
    if fault != "status" or state != "PT400":
        assert error.diag.message_hint


def test_what_stripe_said_is_in_the_detail(stripe, call):
    stripe.control.fault("card_declined", path="/v1/customers/*")
    _, detail, error = call()
    assert detail["stripe_code"] == "card_declined"
    assert detail["type"] == "card_error"
    assert detail["decline_code"]
    assert detail["request_id"].startswith("req_")
    assert detail["doc_url"].startswith("https://stripe.com/docs/")
    assert error.diag.message_hint == f"See {detail['doc_url']}"


def test_a_missing_permission_is_named(stripe, call):
    stripe.control.fault("forbidden", path="/v1/customers/*", permission="customer_read")
    _, detail, error = call()
    assert detail["missing_permissions"] == ["rak_customer_read"]
    assert error.diag.message_primary == "the restricted key lacks the permission rak_customer_read"


def test_a_revoked_key_is_told_from_a_missing_one(stripe, call):
    stripe.control.revoke_key(stripe.test_key)
    state, detail, error = call()
    assert (state, detail["code"]) == ("55000", "key_revoked")
    assert "set_stripe_key" in error.diag.message_hint


def test_a_rate_limit_says_how_long_to_wait(stripe, call):
    stripe.control.fault("rate_limit", path="/v1/customers/*", times=None, retry_after=30)
    _, detail, _ = call()
    assert detail["retry_after"] == 30


def test_a_server_that_is_not_there(call, caller):
    caller.execute("set payments.stripe_api_base = 'http://127.0.0.1:1'")
    state, detail, error = call()
    assert (state, detail["code"]) == ("PT502", "stripe_unreachable")
    assert "payments.stripe_api_base" in error.diag.message_hint


def test_the_budget_bounds_the_whole_call(stripe, call):
    stripe.control.fault("server_error", path="/v1/customers/*", times=None)
    started = time.monotonic()
    call()
    assert time.monotonic() - started < 1
    assert len(stripe.control.requests("/v1/customers/*")) > 0


def test_a_failure_leaves_nothing_behind(stripe, call, db):
    stripe.control.fault("silent", path="/v1/customers/*", times=None)
    call()
    assert db.value("select count(*) from payments.customer_mappings") == 0
    assert db.value("select count(*) from payments.stripe_objects") == 0


def test_no_error_shows_the_key(stripe, call):
    for fault in ("card_declined", "forbidden", "server_error", "redirect", "junk"):
        stripe.control.clear_faults()
        stripe.control.fault(fault, path="/v1/customers/*", times=None)
        _, _, error = call()
        said = f"{error} {error.diag.message_detail} {error.diag.message_hint} {error.diag.context}"
        assert stripe.test_key.split("_")[-1] not in said
        assert "hidden by payments" not in said
