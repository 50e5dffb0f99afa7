"""`payments.status()`: both environments at a glance, and the one thing to do next."""

from __future__ import annotations

from datetime import timedelta

import pytest



def status(db, environment: str = "test"):
    return db.execute("select * from payments.status() where environment = %s", (environment,)).fetchone()


def connect(db, stripe, environment: str = "test") -> None:
    key = stripe.test_key if environment == "test" else stripe.live_key
    db.execute("select payments.set_stripe_key(%s, %s)", (environment, key))


def receive(db, event: str, processing_status: str, minutes_ago: int, environment: str = "test") -> None:
    db.execute(
        """
        insert into payments.webhook_events (environment, stripe_event_id, event_type, livemode, source,
            processing_status, attempt_count, payload, received_at)
        values (%s, %s, 'customer.created', false, 'webhook', %s, 1, '{}', now() - make_interval(mins => %s))
        """,
        (environment, event, processing_status, minutes_ago),
    )


def subscribe(db, subscription: str, subject: tuple[str, str] | None, state: str = "active") -> None:
    db.execute(
        """
        insert into payments.subscriptions (environment, stripe_subscription_id, status, subject_type, subject_id)
        values ('test', %s, %s, %s, %s)
        """,
        (subscription, state, *(subject or (None, None))),
    )


def test_both_environments_are_there_before_anything_is_set(db):
    test, live = db.execute("select * from payments.status()").fetchall()
    assert (test.environment, live.environment) == ("test", "live")
    for environment in (test, live):
        assert environment.status == "unconfigured"
        assert environment.key_readable is None
        assert environment.open_to_apps is False
        assert (environment.signing_secrets, environment.failed_events, environment.objects_due) == (0, 0, 0)
        assert environment.last_event_at is None
        assert environment.tables_without_policy is None
        assert environment.api_version == "2026-10-28.endive"
        assert f"payments.set_stripe_key('{environment.environment}'" in environment.next_step


def test_a_connected_environment_shows_its_account(db, stripe):
    connect(db, stripe)
    shown = status(db)
    assert (shown.status, shown.key_readable) == ("connected", True)
    assert shown.masked_key == "sk_test_****" + stripe.test_key[-4:]
    assert shown.stripe_account_id == stripe.account
    assert status(db, "live").status == "unconfigured"


def test_signing_secrets_are_counted_with_the_next_to_expire(db):
    for secret in ("whsec_first0123456789", "whsec_second0123456789"):
        db.execute("select payments.set_webhook_secret('test', %s)", (secret,))
    shown = status(db)
    assert shown.signing_secrets == 2
    assert db.value("select %s::timestamptz - now() between '23:59' and '24:00'", (shown.signing_secret_expires_at,))
    assert status(db, "live").signing_secrets == 0

    db.execute("update payments.secrets set expires_at = now() - '1 second'::interval where expires_at is not null")
    shown = status(db)
    assert (shown.signing_secrets, shown.signing_secret_expires_at) == (1, None)


def test_a_signing_secret_that_does_not_open_is_not_counted(db):
    db.execute("select payments.set_webhook_secret('test', 'whsec_first0123456789')")
    db.execute("update payments.secrets set sealed = set_byte(sealed, 60, get_byte(sealed, 60) # 1)")
    assert status(db).signing_secrets == 0


def test_events_are_told_by_environment_and_age(db):
    receive(db, "evt_1", "processed", 30)
    receive(db, "evt_2", "failed", 20)
    receive(db, "evt_3", "failed", 10)
    receive(db, "evt_4", "processed", 5)
    receive(db, "evt_5", "failed", 1, "live")

    test, live = status(db), status(db, "live")

    assert timedelta(minutes=5) <= test.last_event_age < timedelta(minutes=6)
    assert test.last_event_at == db.value(
        "select received_at from payments.webhook_events where stripe_event_id = 'evt_4'"
    )
    assert test.failed_events == 2
    assert test.oldest_failed_event_at == db.value(
        "select received_at from payments.webhook_events where stripe_event_id = 'evt_2'"
    )
    assert live.failed_events == 1


def test_what_stripe_must_be_asked_for_is_counted(db):
    for number, due in ((1, "undecided"), (2, None)):
        db.execute(
            """
            insert into payments.stripe_objects (environment, object_type, object_id, body, as_of, deleted, due)
            values ('test', 'customer', %s, '{}', now(), false, %s)
            """,
            (f"cus_{number}", due),
        )
    assert (status(db).objects_due, status(db, "live").objects_due) == (1, 0)


def test_running_subscriptions_of_nobody_are_counted(db):
    subscribe(db, "sub_1", None)
    subscribe(db, "sub_2", None, "past_due")
    subscribe(db, "sub_3", None, "canceled")
    subscribe(db, "sub_4", ("user", "1"))
    assert status(db).unmapped_subscriptions == 2


def test_a_granted_table_without_a_policy_is_named(db):
    db.execute("select payments.grant_app('authenticated')")
    assert status(db).tables_without_policy == ["checkout_sessions", "customer_portal_sessions"]
    db.execute("create policy own on payments.checkout_sessions for insert to authenticated with check (true)")
    assert status(db).tables_without_policy == ["customer_portal_sessions"]


def test_a_role_that_sees_every_row_needs_no_policy(db):
    db.execute("create role auditor bypassrls")
    try:
        db.execute("grant select on payments.payment_history to auditor")
        assert status(db).tables_without_policy is None
    finally:
        db.execute("drop owned by auditor")
        db.execute("drop role auditor")


def test_the_next_step_leads_from_nothing_to_a_checkout(db, stripe):
    """Follows what is said until there is nothing left to say."""

    def step() -> str | None:
        return status(db).next_step

    assert "payments.set_stripe_key('test'" in step()
    connect(db, stripe)
    assert "payments.set_webhook_secret('test'" in step()
    db.execute("select payments.set_webhook_secret('test', 'whsec_first0123456789')")
    assert "payments.open_to_apps('test')" in step()
    db.execute("select payments.open_to_apps('test')")
    assert "payments.grant_app(" in step()
    db.execute("select payments.grant_app('authenticated')")
    assert "CREATE POLICY" in step()
    db.execute("create policy own on payments.checkout_sessions for insert to authenticated with check (true)")
    assert "CALL payments.sync('test')" in step()
    db.execute("call payments.sync('test')")
    assert step() is None


def test_when_it_was_last_in_step_is_said(db, stripe):
    connect(db, stripe)
    assert (status(db).last_sync_at, status(db).last_poll_at) == (None, None)
    db.execute("call payments.poll_events('test')")
    polled = status(db)
    assert (polled.last_sync_at, polled.last_poll_at is None) == (None, False)
    db.execute("call payments.sync('test', array['prices'])")
    assert status(db).last_sync_at is None
    db.execute("call payments.sync('test')")
    assert polled.last_poll_at < status(db).last_sync_at <= db.value("select clock_timestamp()")


@pytest.fixture
def running(db, stripe):
    """An environment in which there is nothing left to do."""
    connect(db, stripe)
    db.execute("select payments.set_webhook_secret('test', 'whsec_first0123456789')")
    db.execute("select payments.open_to_apps('test')")
    db.execute("select payments.grant_app('authenticated')")
    db.execute("create policy own on payments.checkout_sessions for insert to authenticated with check (true)")
    return db


def test_the_environment_that_apps_do_not_use_asks_for_nothing(running):
    assert status(running, "live").next_step is None


def test_a_failed_event_comes_before_the_rest(running):
    receive(running, "evt_1", "failed", 1)
    assert "payments.webhook_events" in status(running).next_step


def test_a_subscription_of_nobody_is_to_be_linked(running):
    subscribe(running, "sub_1", None)
    assert "payments.link_customer('test'" in status(running).next_step


def test_a_missing_permission_is_to_be_given(running, stripe):
    stripe.control.add_key("rk_test_little0123456789", permissions=["accounts_kyc_basic_read"])
    running.execute("select payments.set_stripe_key('test', 'rk_test_little0123456789')")
    shown = status(running)
    assert "rak_customer_write" in shown.missing_permissions
    assert "permissions" in shown.next_step


def test_an_admin_reads_it_without_rights_on_the_tables(running):
    running.execute("select payments.grant_admin('service_role')")
    running.execute("revoke select on all tables in schema payments from service_role")
    shown = running.connect("service_role").execute("select * from payments.status()").fetchall()
    assert [row.status for row in shown] == ["connected", "unconfigured"]


def test_users_columns_do_not_disturb_it(running):
    running.execute("alter table payments.stripe_connections add column note text default 'mine'")
    assert status(running).status == "connected"
    again = running.execute("select * from payments.open_to_apps('test')").fetchone()
    assert again.open_to_apps is True
    assert not hasattr(again, "note")
