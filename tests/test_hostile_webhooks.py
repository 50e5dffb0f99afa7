"""Webhooks that nobody should send: from those who cannot sign, and from a Stripe that signs anything."""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

import psycopg
import pytest

from backend import resident
from fake_stripe import FakeStripe
from fake_stripe.webhooks import sign
from postman import CREATED, LIVE_SECRET, SECRET, Postman, event, product
from shop import Shop

CASES = int(os.environ.get("PAYMENTS_CASES", "400"))
"""How many disturbed events are delivered."""

MEMORY = 128 << 10
"""Kilobytes that a backend may grow by: a body is at most a thousand."""


@pytest.fixture
def postman(db) -> Postman:
    return Postman(db)


def code(call) -> str:
    """The code of the error that a call raises."""
    with pytest.raises(psycopg.Error) as raised:
        call()
    return json.loads(raised.value.diag.message_detail)["code"]


def nothing_came_in(postman: Postman) -> bool:
    return (postman.recorded(), postman.mirrored()) == ([], [])


# Who cannot sign


def test_no_environment_takes_what_the_other_signed(postman):
    """Neither with its own livemode nor with the other's."""
    postman.db.execute("select payments.set_webhook_secret('live', %s)", (LIVE_SECRET,))
    for livemode in (False, True):
        body = json.dumps(event("product.created", product(), livemode=livemode))
        for environment, secret in (("test", LIVE_SECRET), ("live", SECRET)):
            signed = sign(body, [secret])
            wrong = code(lambda b=body, s=signed, e=environment: postman.deliver(b, signature=s, environment=e))
            assert wrong == "bad_signature"
        signer = SECRET if livemode else LIVE_SECRET
        assert postman.post(body, signature=sign(body, [signer]))[:2] == (400, "22023")
    assert nothing_came_in(postman)


def test_a_secret_that_was_replaced_signs_for_a_day_and_no_longer(postman):
    body = json.dumps(event("product.created", product()))
    postman.db.execute("select payments.set_webhook_secret('test', 'whsec_the_next_one')")
    assert postman.deliver(body, signature=sign(body, [SECRET])).status == "processed"
    postman.db.execute("update payments.secrets set expires_at = now() where expires_at is not null")
    again = json.dumps(event("product.updated", product()))
    assert code(lambda: postman.deliver(again, signature=sign(again, [SECRET]))) == "bad_signature"
    assert postman.deliver(again, signature=sign(again, ["whsec_the_next_one"])).status == "processed"


@pytest.mark.parametrize("way", ["deliver", "post"])
def test_what_was_overheard_does_nothing_new_and_soon_is_refused(postman, way):
    body = json.dumps(event("product.created", product()))
    overheard = postman.sign(body)
    postman.deliver(body, signature=overheard)
    later = event("product.updated", product(name="Coffee"), created=CREATED + 60)
    postman.deliver(later)
    getattr(postman, way)(body, signature=overheard)
    assert postman.db.value("select name from payments.products") == "Coffee"
    assert len(postman.recorded()) == 2

    old = sign(body, [SECRET], timestamp=int(time.time()) - 301)
    assert code(lambda: postman.deliver(body, signature=old)) == "bad_signature"
    postman.db.execute(f"alter database {postman.db.name} set payments.webhook_tolerance = '10min'")
    with postman.db.connect() as patient:
        assert postman.deliver(body, signature=old, connection=patient).duplicate
    # A new time needs a new signature.
    fresh = old.replace(old.split(",")[0], f"t={int(time.time())}")
    assert code(lambda: postman.deliver(body, signature=fresh)) == "bad_signature"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("t=1," + ",".join(["v1=" + "0" * 64] * 15_000), id="a thousand thousand digits"),
        pytest.param(",".join(f"t={n}" for n in range(100_000)), id="many times"),
        pytest.param("v1=" * 300_000, id="one long item"),
        pytest.param("," * 1_000_000, id="nothing but commas"),
        pytest.param(f"t={'9' * 1_000_000},v1=00", id="a time without end"),
    ],
)
def test_a_header_without_end_is_refused_at_once(postman, header):
    body = json.dumps(event("product.created", product()))
    began = time.monotonic()
    assert code(lambda: postman.deliver(body, signature=header)) == "bad_signature"
    assert time.monotonic() - began < 2
    assert postman.post(body, signature=header)[:2] == (400, "22023")
    assert nothing_came_in(postman)


@pytest.mark.parametrize(
    "headers",
    [
        {"stripe-signature": None},
        {"stripe-signature": ["t=1,v1=00"]},
        {"stripe-signature": {"v1": "00"}},
        {"stripe-signature": 1},
        {"Stripe-Signature": "t=1,v1=00"},
        {"stripe-signature ": "t=1,v1=00"},
        [["stripe-signature", "t=1,v1=00"]],
        "stripe-signature",
        {},
    ],
    ids=json.dumps,
)
def test_headers_of_another_shape_are_no_signature(postman, headers):
    connection = postman.db.connect("anon")
    connection.execute("select set_config('request.headers', %s, false)", (json.dumps(headers),))
    body = json.dumps(event("product.created", product()))
    refused = code(lambda: connection.execute("select api.stripe_webhook(%s::json)", (body,)))
    assert refused in ("missing_signature", "bad_signature")
    assert nothing_came_in(postman)


# A Stripe that signs anything


@pytest.mark.parametrize("account", ["acct_9", "", "acct_1FakeStripe00001", "\u0000"])
@pytest.mark.parametrize("livemode", [False, True])
def test_a_connected_account_changes_nothing_of_ours(postman, account, livemode):
    postman.db.execute("select payments.set_webhook_secret('live', %s)", (LIVE_SECRET,))
    theirs = json.dumps(event("product.created", product(), account=account, livemode=livemode))
    answer = postman.post(theirs, signature=sign(theirs, [LIVE_SECRET if livemode else SECRET]))
    assert (answer.status, answer.receipt.status) == (200, "ignored")
    assert postman.mirrored() == []


@pytest.mark.parametrize("created", [0, 1, CREATED + 10**9, 253_402_300_799])
def test_an_event_of_any_time_is_taken(postman, created):
    assert postman.deliver(event("product.created", product(created=created), created=created)).status == "processed"


@pytest.mark.parametrize("created", [-1, 253_402_300_800, 2**62, -(2**62), 2**63 - 1, -(2**63), 2**64])
def test_what_is_no_time_is_refused_or_left_out(postman, created):
    told = event("product.created", product(), created=created)
    assert code(lambda: postman.deliver(told)) == "malformed_event"
    assert nothing_came_in(postman)
    told = event("product.created", product(created=created))
    assert postman.deliver(told).status == "processed"
    # And the next one is taken as ever.
    assert postman.deliver(event("product.created", product("prod_2"))).status == "processed"


def test_one_id_is_one_event_in_each_environment(postman):
    postman.db.execute("select payments.set_webhook_secret('live', %s)", (LIVE_SECRET,))
    for livemode, secret, environment in ((False, SECRET, "test"), (True, LIVE_SECRET, "live")):
        body = json.dumps(event("product.created", product(), id="evt_same", livemode=livemode))
        receipt = postman.deliver(body, signature=sign(body, [secret]), environment=environment)
        assert (receipt.status, receipt.duplicate) == ("processed", False)
    # What comes under an id that is known already is not looked at.
    other = json.dumps(event("product.deleted", product(), id="evt_same", created=CREATED + 60))
    assert postman.deliver(other).duplicate
    assert postman.db.value("select count(*) from payments.products where not deleted") == 2


def a_thousand(kind: str, **fields: Any) -> dict[str, Any]:
    return {"id": "x_1", "object": kind, "created": CREATED, "metadata": {}, **fields}


@pytest.mark.parametrize(
    ("kind", "object"),
    [
        ("product.created", product(metadata={f"key {n}": n for n in range(40_000)})),
        ("product.created", product(padding=list(range(140_000)))),
        ("product.created", product(padding="x" * 1_000_000)),
        ("product.created", product(**{f"field {n}": None for n in range(40_000)})),
        ("product.created", product(padding=json.loads("[" * 55 + "]" * 55))),
        ("unicorn.tamed", {"id": "u" * 900_000, "object": "unicorn"}),
        ("x" * 500_000, {"id": "x", "object": "x" * 400_000}),
        ("charge.refunded", a_thousand("charge", refunds={"data": [{"id": "re_1", "object": "refund"}] * 20_000})),
        (
            "customer.subscription.updated",
            a_thousand(
                "subscription",
                items={"data": [{"id": f"si_{n}", "object": "subscription_item"} for n in range(1000)]},
            ),
        ),
        ("payment_intent.succeeded", a_thousand("payment_intent", charges={"data": [None, 1, "x", []] * 40_000})),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_the_largest_event_of_any_shape_is_bounded(postman, kind, object):
    connection = postman.db.connect()
    postman.deliver(event("product.created", product("prod_warm")), connection=connection)
    memory = resident(connection.info.backend_pid)
    began = time.monotonic()
    try:
        assert postman.deliver(event(kind, object), connection=connection).status in ("processed", "ignored")
    except psycopg.Error as error:
        # A key that no index can hold.
        assert error.sqlstate in ("54000", "22023"), error
    assert time.monotonic() - began < 10
    assert resident(connection.info.backend_pid) < memory + MEMORY
    assert postman.deliver(event("product.created", product("prod_2")), connection=connection).status == "processed"


def test_five_hundred_updates_of_one_object_in_one_second(postman):
    began = time.monotonic()
    with postman.db.connect() as connection:
        for n in range(500):
            told = event("product.updated", product(name=f"Tea {n}"))
            told["data"]["previous_attributes"] = {"name": f"Tea {n - 1}"}
            assert postman.deliver(told, connection=connection).status == "processed"
    assert time.monotonic() - began < 30
    [mirrored] = postman.db.execute("select due, octet_length(evidence::text) as kept from payments.stripe_objects")
    assert mirrored.due == "undecided"
    assert mirrored.kept < 16_000
    # Another second settles it.
    postman.deliver(event("product.updated", product(name="Coffee"), created=CREATED + 1))
    assert postman.db.execute("select name, due from payments.products, payments.stripe_objects").fetchall() == [
        ("Coffee", None)
    ]


WORDS = [
    *(None, True, False, 0, 1, -1, 2**53 + 1, 2**63, -(2**63), 1e308, 0.1, "", " ", "null", "\x00", "\ud800", "😀"),
    *([], {}, [None], {"id": None}, {"object": "list", "data": None}, {"": ""}, "x" * 1000, [[[[[[]]]]]]),
    *("active", "canceled", "complete", "deleted", "open", "paid", "succeeded", "usd", "cus_1", "in_1", "2026-01-01"),
]


def disturbed(dice: random.Random, value: Any) -> Any:
    """The same with some of it replaced, gone, doubled or swapped."""
    if dice.random() < 0.04:
        return dice.choice(WORDS)
    if isinstance(value, dict):
        kept = {name: disturbed(dice, below) for name, below in value.items() if dice.random() > 0.02}
        if kept and dice.random() < 0.05:
            kept[dice.choice(list(kept))] = dice.choice(list(kept.values()))
        return kept
    if isinstance(value, list):
        return [disturbed(dice, below) for below in value for _ in range(dice.choice((0, 1, 1, 1, 1, 2)))]
    return value


def test_no_event_brings_the_server_to_its_knees(shop: Shop, stripe: FakeStripe):
    """Events of a shop's, disturbed at random and signed all the same: each is taken, ignored, left as failed or
    refused; the backend lives, grows by nothing to speak of, and takes the undisturbed ones afterwards."""
    shop.buy("alice")
    session = shop.checkout("bob", mode="subscription")
    stripe.control.complete(session.stripe_checkout_session_id)
    genuine = stripe.control.deliveries(new=False)
    assert len(genuine) > 10
    seed = int(os.environ.get("PAYMENTS_SEED", time.time_ns() % 1_000_000))
    dice = random.Random(seed)
    connection = shop.db.connect()
    pid, memory, outcomes = connection.info.backend_pid, None, {}
    for case in range(CASES):
        told = json.loads(dice.choice(genuine)["body"])
        # Another event each time, or it would be known already.
        told["id"] = f"evt_{case}" if dice.random() < 0.9 else told["id"]
        # What is around the object matters more than its share of the bytes.
        told["data"] = disturbed(dice, told["data"])
        body = json.dumps(told if dice.random() < 0.7 else disturbed(dice, told))
        delivery = {"body": body, "signature": sign(body, [stripe.webhook_secret])}
        try:
            outcome = shop.receive(delivery, connection).status
        except psycopg.Error as error:
            outcome = error.sqlstate
            assert outcome in ("22023", "54000"), (seed, case, error, body)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if case == 100:
            memory = resident(pid)
    assert connection.info.backend_pid == pid
    assert memory is None or resident(pid) < memory + MEMORY
    assert outcomes.get("processed", 0) > CASES / 10, outcomes
    print(f"\n{CASES} disturbed events, seed {seed}: {outcomes}")
    for body in (delivery["body"] for delivery in genuine):
        # Signed again: of many cases, the first signatures are too old by now.
        delivery = {"body": body, "signature": sign(body, [stripe.webhook_secret])}
        assert shop.receive(delivery, connection).status in ("processed", "ignored"), seed
