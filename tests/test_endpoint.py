"""`payments.configure_webhook`: the endpoint at Stripe, and that no event is lost while it changes."""

from __future__ import annotations

import psycopg
import pytest

from shop import Task, refused, waits_for_a_lock

URL = "https://api.shop.example/rpc/stripe_webhook?apikey=anon"
OTHER_URL = "https://api.shop.example/v2/stripe_webhook"
VERSION = "2026-10-28.endive"
OLD_VERSION = "2025-03-31.basil"
ENDPOINTS = "/v1/webhook_endpoints"


@pytest.fixture
def admin(db, stripe):
    """A database that is connected, and has no endpoint yet."""
    db.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
    stripe.control.clear_requests()
    return db


def configure(connection, url: str = URL, events: list[str] | None = None, environment: str = "test"):
    return connection.execute(
        "select * from payments.configure_webhook(%s, %s, %s)", (environment, url, events)
    ).fetchone()


def endpoints(stripe) -> list[dict]:
    return stripe.control.call("GET", ENDPOINTS)["data"]


def writes(stripe) -> list[str]:
    """What Stripe was asked to change."""
    asked = [request for request in stripe.control.requests() if request["method"] != "GET"]
    stripe.control.clear_requests()
    return [f"{request['method']} {request['path']}" for request in asked]


def accepts(db, stripe) -> dict[str, bool]:
    """For every endpoint at Stripe, whether what is sent there is accepted."""
    stripe.control.price(1900)
    event = stripe.control.events()[-1]["id"]
    accepted = {}
    for endpoint in endpoints(stripe):
        sent = stripe.control.delivery(event, [secret_of(stripe, endpoint["id"])])
        try:
            db.execute("select payments.handle_webhook('test', %s, %s)", (sent["body"], sent["signature"]))
            accepted[endpoint["id"]] = True
        except psycopg.Error as error:
            assert "signature" in error.diag.message_primary, error
            accepted[endpoint["id"]] = False
    return accepted


def secret_of(stripe, endpoint: str) -> str:
    return stripe.world.stores[stripe.account, False].notes[endpoint]["secret"]


def told(connection) -> list[tuple[str, str]]:
    notices: list[tuple[str, str]] = []
    connection.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
    return notices


def test_the_endpoint_is_pinned_marked_and_has_the_events_that_the_tables_are_made_of(admin, stripe):
    row = configure(admin)
    [endpoint] = endpoints(stripe)
    assert (endpoint["url"], endpoint["status"], endpoint["api_version"]) == (URL, "enabled", VERSION)
    assert list(endpoint["metadata"]) == ["payments_endpoint_of"]
    events = set(endpoint["enabled_events"])
    assert {"invoice.paid", "invoice_payment.paid", "price.updated", "charge.dispute.closed"} < events
    assert not [event for event in events if event == "invoice.created" or event.startswith("plan.") or event == "*"]
    assert (row.webhook_endpoint_id, row.webhook_endpoint_url) == (endpoint["id"], URL)
    assert (row.webhook_endpoint_status, row.webhook_api_version) == ("enabled", VERSION)
    assert row.webhook_configured_at is not None
    assert all(accepts(admin, stripe).values())


def test_the_same_again_changes_nothing(admin, stripe):
    first = configure(admin)
    assert writes(stripe) == [f"POST {ENDPOINTS}"]
    again = configure(admin)
    assert writes(stripe) == []
    assert again.webhook_configured_at == first.webhook_configured_at
    assert admin.value("select count(*) from payments.secrets where kind = 'signing_secret'") == 1


@pytest.mark.parametrize(
    ("difference", "change"),
    [
        ({"url": OTHER_URL}, {"url": OTHER_URL}),
        ({"events": ["charge.failed"]}, {"enabled_events": ["charge.failed"]}),
    ],
)
def test_what_differs_is_changed_in_place(admin, stripe, difference, change):
    before = configure(admin)
    stripe.control.clear_requests()
    row = configure(admin, **difference)
    [request] = [request for request in stripe.control.requests() if request["method"] == "POST"]
    assert (request["path"], request["params"]) == (f"{ENDPOINTS}/{before.webhook_endpoint_id}", change)
    assert row.webhook_endpoint_id == before.webhook_endpoint_id
    assert row.webhook_endpoint_url == difference.get("url", URL)
    if "events" not in difference:
        assert all(accepts(admin, stripe).values())


def test_a_disabled_endpoint_is_enabled(admin, stripe):
    row = configure(admin)
    stripe.control.call("POST", f"{ENDPOINTS}/{row.webhook_endpoint_id}", {"disabled": "true"})
    admin.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
    seen = admin.execute("select * from payments.status() where environment = 'test'").fetchone()
    assert seen.webhook_endpoint_status == "disabled"
    assert f"payments.configure_webhook('test', '{URL}')" in seen.next_step
    assert configure(admin).webhook_endpoint_status == "enabled"
    assert endpoints(stripe)[0]["status"] == "enabled"


def test_an_endpoint_that_somebody_deleted_is_noticed_and_made_again(admin, stripe):
    row = configure(admin)
    stripe.control.call("DELETE", f"{ENDPOINTS}/{row.webhook_endpoint_id}")
    admin.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
    seen = admin.execute("select * from payments.status() where environment = 'test'").fetchone()
    assert seen.webhook_endpoint_status == "deleted"
    again = configure(admin)
    assert again.webhook_endpoint_id != row.webhook_endpoint_id
    assert all(accepts(admin, stripe).values())


def outdated(stripe, endpoint: str) -> None:
    """Makes an endpoint one of an earlier release of the extension."""
    with stripe.world.lock:
        stripe.world.stores[stripe.account, False].require("webhook_endpoint", endpoint)["api_version"] = OLD_VERSION


def test_an_endpoint_of_another_version_is_replaced_and_its_secret_lives_for_a_day(admin, stripe):
    old = configure(admin).webhook_endpoint_id
    outdated(stripe, old)
    stripe.control.price(500)
    on_its_way = [
        stripe.control.delivery(event["id"], [secret_of(stripe, old)]) for event in stripe.control.events()
    ]
    stripe.control.clear_requests()
    new = configure(admin).webhook_endpoint_id
    assert new != old
    assert writes(stripe) == [f"POST {ENDPOINTS}", f"DELETE {ENDPOINTS}/{old}"]
    assert [endpoint["id"] for endpoint in endpoints(stripe)] == [new]
    lives = dict(
        admin.execute(
            "select webhook_endpoint_id, expires_at - now() from payments.secrets where kind = 'signing_secret'"
        ).fetchall()
    )
    assert lives[new] is None
    assert 23 < lives[old].total_seconds() / 3600 <= 24
    for delivery in on_its_way:
        admin.execute("select payments.handle_webhook('test', %s, %s)", (delivery["body"], delivery["signature"]))
    assert all(accepts(admin, stripe).values())


def test_endpoints_that_are_not_ours_are_never_touched(admin, stripe):
    params = {"url": URL, "enabled_events": ["charge.failed"], "api_version": OLD_VERSION}
    stripe.control.call("POST", ENDPOINTS, params)
    stripe.control.call("POST", ENDPOINTS, {**params, "metadata": {"payments_endpoint_of": "another database"}})
    foreign = endpoints(stripe)
    stripe.control.clear_requests()
    configure(admin)
    configure(admin, OTHER_URL)
    admin.execute("select payments.remove_stripe_key('test')")
    assert endpoints(stripe) == foreign


def test_a_copy_of_the_database_makes_an_endpoint_of_its_own(admin, stripe):
    """A dump carries the id of the endpoint, and must not lead a copy to production's."""
    row = configure(admin)
    admin.execute("delete from payments.secrets where kind = 'signing_secret'")
    name = admin.name
    admin.disconnect()
    with psycopg.connect(f"{admin.cluster.dsn} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"alter database {name} rename to {name}_copy")
    admin.name = f"{name}_copy"
    copy = configure(admin.connect())
    assert copy.webhook_endpoint_id != row.webhook_endpoint_id
    assert {endpoint["id"] for endpoint in endpoints(stripe)} == {copy.webhook_endpoint_id, row.webhook_endpoint_id}


# What can go wrong on the way


FAULTS = {
    "list fails": dict(kind="server_error", method="GET", path=ENDPOINTS, should_retry=False),
    "creation refused": dict(kind="status", method="POST", path=ENDPOINTS, status=400, body="{}"),
    "creation fails, and that is kept": dict(
        kind="server_error", method="POST", path=ENDPOINTS, stored=True, should_retry=False
    ),
    "answer lost": dict(kind="status", method="POST", path=ENDPOINTS, status=400, body="{}", processed=True),
    "answer garbled": dict(kind="junk", style="html", method="POST", path=ENDPOINTS),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_failure_before_the_secret_is_stored_leaves_the_old_endpoint_at_work(admin, stripe, fault):
    old = configure(admin).webhook_endpoint_id
    outdated(stripe, old)
    stripe.control.fault(**fault)
    try:
        configure(admin)
    except psycopg.Error:
        assert old in {endpoint["id"] for endpoint in endpoints(stripe)}
        kept = admin.value("select webhook_endpoint_id from payments.stripe_connections where environment = 'test'")
        assert kept == old
    stripe.control.clear_faults()
    new = configure(admin).webhook_endpoint_id
    assert [endpoint["id"] for endpoint in endpoints(stripe)] == [new]
    assert new != old
    assert all(accepts(admin, stripe).values())


def test_an_old_endpoint_that_cannot_be_removed_is_told_of_and_removed_the_next_time(admin, stripe):
    old = configure(admin).webhook_endpoint_id
    outdated(stripe, old)
    stripe.control.fault("forbidden", method="DELETE", permission="webhook_write")
    connection = admin.connect()
    notices = told(connection)
    new = configure(connection).webhook_endpoint_id
    assert [severity for severity, _ in notices] == ["WARNING", "NOTICE"]
    assert f"endpoint {old} is still at Stripe" in notices[0][1]
    assert {endpoint["id"] for endpoint in endpoints(stripe)} == {old, new}
    assert all(accepts(admin, stripe).values())
    configure(admin)
    assert [endpoint["id"] for endpoint in endpoints(stripe)] == [new]


def test_a_rolled_back_call_is_made_up_for_by_the_next(admin, stripe):
    """What Stripe sends in between is refused, and accepted when Stripe sends it again."""
    old = configure(admin).webhook_endpoint_id
    outdated(stripe, old)
    connection = admin.connect(autocommit=False)
    lost = configure(connection).webhook_endpoint_id
    connection.rollback()
    assert accepts(admin, stripe) == {lost: False}
    in_between = stripe.control.events()[-1]["id"]
    new = configure(admin).webhook_endpoint_id
    retried = stripe.control.delivery(in_between, [secret_of(stripe, new)])
    admin.execute("select payments.handle_webhook('test', %s, %s)", (retried["body"], retried["signature"]))
    assert new == lost
    assert [endpoint["id"] for endpoint in endpoints(stripe)] == [new]
    assert all(accepts(admin, stripe).values())


def test_an_endpoint_whose_making_was_forgotten_is_replaced(admin, stripe):
    connection = admin.connect(autocommit=False)
    lost = configure(connection).webhook_endpoint_id
    connection.rollback()
    stripe.control.clock(advance=25 * 60 * 60)
    new = configure(admin).webhook_endpoint_id
    assert [endpoint["id"] for endpoint in endpoints(stripe)] == [new] != [lost]
    assert all(accepts(admin, stripe).values())


def test_an_endpoint_that_was_made_and_deleted_under_the_same_key_is_made_anew(admin, stripe):
    connection = admin.connect(autocommit=False)
    lost = configure(connection).webhook_endpoint_id
    connection.rollback()
    stripe.control.call("DELETE", f"{ENDPOINTS}/{lost}")
    new = configure(admin).webhook_endpoint_id
    assert new != lost
    assert all(accepts(admin, stripe).values())


def test_after_a_restore_the_endpoint_is_replaced(admin, stripe):
    old = configure(admin).webhook_endpoint_id
    admin.execute("delete from payments.secrets")
    admin.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
    new = configure(admin).webhook_endpoint_id
    assert new != old
    assert [endpoint["id"] for endpoint in endpoints(stripe)] == [new]
    assert all(accepts(admin, stripe).values())


# Removing


def test_removing_the_key_removes_the_endpoint(admin, stripe):
    configure(admin)
    row = admin.execute("select * from payments.remove_stripe_key('test')").fetchone()
    assert endpoints(stripe) == []
    assert (row.webhook_endpoint_id, row.webhook_endpoint_url, row.webhook_endpoint_status) == (None, None, None)
    admin.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
    configure(admin)
    assert all(accepts(admin, stripe).values())


def test_removing_a_key_that_was_revoked_says_what_stays(admin, stripe):
    endpoint = configure(admin).webhook_endpoint_id
    stripe.control.revoke_key(stripe.test_key)
    connection = admin.connect()
    notices = told(connection)
    row = connection.execute("select * from payments.remove_stripe_key('test')").fetchone()
    assert row.status == "unconfigured"
    [(severity, message)] = notices
    assert severity == "WARNING" and f"endpoint {endpoint} may still be at Stripe" in message


# Secrets beside


def test_a_secret_that_is_handed_over_does_not_end_that_of_the_endpoint(admin, stripe):
    configure(admin)
    admin.execute("select payments.set_webhook_secret('test', 'whsec_listen0123456789')")
    assert admin.value("select count(*) from payments.secrets where expires_at is not null") == 0
    configure(admin, OTHER_URL)
    assert admin.value("select count(*) from payments.secrets where expires_at is not null") == 0


def test_the_secret_is_in_no_table_and_no_message(admin, stripe):
    connection = admin.connect()
    notices = told(connection)
    row = configure(connection)
    secret = secret_of(stripe, row.webhook_endpoint_id)
    assert secret.startswith("whsec_")
    assert secret not in str(row) + str(notices) + admin.dump()
    assert secret.encode() not in admin.value("select string_agg(sealed, '') from payments.secrets")


# What may be asked for


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"url": "http://api.shop.example/"}, "url"),
        ({"url": "https://user@shop.example/"}, "url"),
        ({"url": "shop.example"}, "url"),
        ({"url": None}, "url"),
        ({"events": []}, "enabled_events"),
        ({"events": ["*"]}, "enabled_events"),
        ({"events": ["charge.failed", "invoice.created"]}, "enabled_events"),
        ({"events": ["plan.updated"]}, "enabled_events"),
    ],
)
def test_what_cannot_be_is_refused_before_stripe_is_asked(admin, stripe, arguments, argument):
    with refused("22023", "invalid_argument", argument=argument):
        configure(admin, **arguments)
    assert stripe.control.requests() == []


def test_an_event_that_stripe_does_not_know_is_refused_by_stripe(admin, stripe):
    with refused("PT400", "stripe_refused"):
        configure(admin, events=["charge.exploded"])
    assert endpoints(stripe) == []


def test_events_that_are_left_out_are_told_of(admin):
    connection = admin.connect()
    notices = told(connection)
    configure(connection, events=["charge.failed"])
    assert notices[0][0] == "WARNING" and "invoice.paid" in notices[0][1] and "charge.failed" not in notices[0][1]


def test_http_is_for_this_machine(admin, stripe):
    assert configure(admin, "http://127.0.0.1:3000/rpc/stripe_webhook").webhook_endpoint_status == "enabled"


def test_without_a_key_there_is_nothing_to_configure(db, stripe):
    with refused("55000", "not_configured"):
        configure(db)
    assert stripe.control.requests() == []


def test_app_roles_may_not(admin):
    admin.execute("select payments.grant_app('authenticated')")
    with refused("42501"):
        configure(admin.connect("authenticated"))


def test_two_admins_at_once_make_one_endpoint(admin, stripe):
    stripe.control.fault("delay", method="POST", path=ENDPOINTS, before=0.5)
    first = Task(lambda: configure(admin.connect()))
    stripe.control.wait_for_requests(1, ENDPOINTS, "POST")
    connection = admin.connect()
    second = Task(lambda: configure(connection))
    assert waits_for_a_lock(admin, connection.info.backend_pid)
    assert first.result().webhook_endpoint_id == second.result().webhook_endpoint_id
    assert len(endpoints(stripe)) == 1
