"""Stripe keys and signing secrets: who may set them, what Stripe says of them, and where they never appear."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psycopg
import pytest

from harness import database

OTHER_ACCOUNT = "acct_1SomebodyElse001"

EVERYTHING = [
    "accounts_kyc_basic_read",
    "charge_write",
    "checkout_session_write",
    "customer_portal_write",
    "customer_write",
    "dispute_read",
    "event_read",
    "invoice_read",
    "payment_intent_read",
    "plan_write",
    "product_write",
    "subscription_write",
    "webhook_write",
]


def set_key(connection, key: str, environment: str = "test"):
    return connection.execute(
        "select * from payments.set_stripe_key(%s, %s)", (environment, key)
    ).fetchone()


def set_secret(connection, secret: str, environment: str = "test"):
    return connection.execute(
        "select * from payments.set_webhook_secret(%s, %s)", (environment, secret)
    ).fetchone()


def raised(error: psycopg.Error) -> tuple[str, dict]:
    """The SQLSTATE, and the DETAIL as the object it is."""
    return error.sqlstate, json.loads(error.diag.message_detail)


def secrets(db, environment: str = "test") -> list:
    return db.execute(
        "select * from payments.secrets where environment = %s order by created_at, id", (environment,)
    ).fetchall()


# What a key does


def test_a_key_connects_its_environment(db, stripe):
    connection = set_key(db.connect(), f"  {stripe.test_key}\n")

    assert (connection.environment, connection.status) == ("test", "connected")
    assert connection.stripe_account_id == stripe.account
    assert connection.stripe_account_email.startswith("owner@")
    assert connection.account_livemode is False
    assert connection.masked_key == "sk_test_****" + stripe.test_key[-4:]
    assert connection.key_set_at is not None
    assert connection.missing_permissions is None
    assert connection.open_to_apps is False
    stored = db.execute("select * from payments.stripe_connections where environment = 'test'").fetchone()
    assert stored.masked_key == connection.masked_key
    assert db.value("select status from payments.stripe_connections where environment = 'live'") == "unconfigured"


def test_test_and_live_have_keys_of_their_own(db, stripe):
    set_key(db.connect(), stripe.test_key)
    live = set_key(db.connect(), stripe.live_key, "live")
    assert (live.status, live.account_livemode) == ("connected", True)
    assert [len(secrets(db, environment)) for environment in ("test", "live")] == [1, 1]


def test_the_same_key_again_refreshes_the_account_and_nothing_else(db, stripe):
    before = set_key(db.connect(), stripe.test_key)
    sealed = secrets(db)
    db.execute("update payments.stripe_connections set stripe_account_email = 'old@example.com'")

    after = set_key(db.connect(), stripe.test_key)

    assert after.stripe_account_email == before.stripe_account_email
    assert after.key_set_at == before.key_set_at
    assert secrets(db) == sealed


def test_another_key_of_the_account_takes_the_place_of_the_first(db, stripe):
    set_key(db.connect(), stripe.test_key)
    stripe.control.add_key("sk_test_rolled0123456789")
    first = secrets(db)

    connection = set_key(db.connect(), "sk_test_rolled0123456789")

    assert connection.masked_key == "sk_test_****6789"
    (stored,) = secrets(db)
    assert stored.id != first[0].id


def test_what_to_do_next_is_said(db, stripe):
    said = []
    connection = db.connect()
    connection.add_notice_handler(lambda notice: said.append((notice.message_primary, notice.message_hint)))
    set_key(connection, stripe.test_key)
    assert said == [
        (
            f'the environment "test" is connected to {stripe.account}',
            "Have Stripe send webhooks: "
            "SELECT payments.configure_webhook('test', 'https://…/rpc/stripe_webhook'); "
            "or accept those of an endpoint that is there, with its whsec_… bound to $1: "
            "SELECT payments.set_webhook_secret('test', $1);",
        ),
        ("what the account has from before comes in by CALL payments.sync('test')", None),
    ]
    db.execute("call payments.sync('test')")
    said.clear()
    set_key(connection, stripe.test_key)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("environment", "key", "code"),
    [
        ("test", "sk_live_0123456789abcdef", "not_a_stripe_key"),
        ("live", "rk_test_0123456789abcdef", "not_a_stripe_key"),
        ("test", "pk_test_0123456789abcdef", "not_a_stripe_key"),
        ("test", "whsec_0123456789abcdef", "not_a_stripe_key"),
        ("test", "", "not_a_stripe_key"),
        ("test", None, "not_a_stripe_key"),
        ("production", "sk_test_0123456789abcdef", "unknown_environment"),
        (None, "sk_test_0123456789abcdef", "unknown_environment"),
    ],
)
def test_what_is_no_key_of_the_environment_is_refused_before_stripe_is_asked(db, stripe, environment, key, code):
    with pytest.raises(psycopg.Error) as refused:
        set_key(db.connect(), key, environment)
    state, detail = raised(refused.value)
    assert (state, detail["code"]) == ("22023", code)
    assert stripe.control.requests() == []


def test_a_key_that_stripe_does_not_know_is_not_stored(db, stripe):
    with pytest.raises(psycopg.Error) as refused:
        set_key(db.connect(), "sk_test_revoked0123456789")
    state, detail = raised(refused.value)
    assert (state, detail["code"]) == ("55000", "key_revoked")
    assert refused.value.diag.message_hint
    assert secrets(db) == []
    assert db.value("select status from payments.stripe_connections where environment = 'test'") == "unconfigured"


def test_a_read_only_transaction_is_refused_before_stripe_is_asked(db, stripe):
    connection = db.connect()
    connection.execute("set default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        set_key(connection, stripe.test_key)
    assert stripe.control.requests() == []


def test_before_install_the_error_says_to_install(empty_db):
    empty_db.execute("create extension payments")
    with pytest.raises(psycopg.Error) as refused:
        empty_db.execute("select payments.open_to_apps('test')")
    state, detail = raised(refused.value)
    assert (state, detail["code"]) == ("55000", "not_installed")
    assert "payments.install(" in refused.value.diag.message_hint


# Restricted keys


def test_a_restricted_key_with_every_permission_lacks_none(db, stripe):
    stripe.control.add_key("rk_test_all0123456789", permissions=EVERYTHING)
    connection = set_key(db.connect(), "rk_test_all0123456789")
    assert connection.missing_permissions is None
    assert connection.stripe_account_id == stripe.account


def test_asking_for_permissions_changes_nothing_at_stripe(db, stripe):
    stripe.control.add_key("rk_test_all0123456789", permissions=EVERYTHING)
    set_key(db.connect(), "rk_test_all0123456789")
    asked = [request for request in stripe.control.requests() if request["path"] != "/v1/account"]
    assert len(asked) == len(EVERYTHING) - 1
    assert {request["status"] for request in asked} == {404}


def test_what_a_restricted_key_lacks_is_listed_and_linked(db, stripe):
    granted = [name for name in EVERYTHING if name not in ("customer_write", "dispute_read", "product_write")]
    stripe.control.add_key("rk_test_some0123456789", permissions=granted)
    warned = []
    connection = db.connect()
    connection.add_notice_handler(
        lambda notice: warned.append((notice.severity, notice.message_primary, notice.message_hint))
    )

    stored = set_key(connection, "rk_test_some0123456789")

    assert stored.status == "connected"
    assert sorted(stored.missing_permissions) == ["rak_customer_write", "rak_dispute_read", "rak_product_write"]
    severity, message, hint = warned[-1]
    assert severity == "WARNING"
    assert "rak_dispute_read" in message
    assert "https://dashboard.stripe.com/test/apikeys/create?" in hint
    assert "permissions[]=rak_customer_write" in hint


def test_a_key_that_may_not_see_its_account_is_known_by_the_refusal(db, stripe):
    granted = [name for name in EVERYTHING if name != "accounts_kyc_basic_read"]
    stripe.control.add_key("rk_test_blind0123456789", permissions=granted)
    connection = set_key(db.connect(), "rk_test_blind0123456789")
    assert connection.stripe_account_id == stripe.account
    assert connection.stripe_account_email is None
    assert connection.missing_permissions == ["rak_accounts_kyc_basic_read"]


# One account an environment


@pytest.fixture
def other_key(stripe) -> str:
    key = "sk_test_other0123456789"
    stripe.control.add_key(key, OTHER_ACCOUNT)
    return key


def add_object(db, environment: str = "test") -> None:
    db.execute(
        """
        insert into payments.stripe_objects (environment, object_type, object_id, body, as_of, deleted)
        values (%s, 'customer', 'cus_1', '{}', now(), false)
        """,
        (environment,),
    )


def test_another_account_may_follow_while_there_is_no_data(db, stripe, other_key):
    set_key(db.connect(), stripe.test_key)
    assert set_key(db.connect(), other_key).stripe_account_id == OTHER_ACCOUNT


def test_the_data_of_one_account_does_not_take_the_key_of_another(db, stripe, other_key):
    set_key(db.connect(), stripe.test_key)
    add_object(db)
    sealed = secrets(db)

    with pytest.raises(psycopg.Error) as refused:
        set_key(db.connect(), other_key)

    state, detail = raised(refused.value)
    assert (state, detail["code"]) == ("55000", "other_account")
    assert (detail["stripe_account_id"], detail["data_of"]) == (OTHER_ACCOUNT, stripe.account)
    assert stripe.account in refused.value.diag.message_hint
    assert secrets(db) == sealed


def test_data_of_the_other_environment_does_not_count(db, stripe, other_key):
    set_key(db.connect(), stripe.test_key)
    add_object(db, "live")
    assert set_key(db.connect(), other_key).stripe_account_id == OTHER_ACCOUNT


def test_whose_data_it_is_outlives_the_key(db, stripe, other_key):
    set_key(db.connect(), stripe.test_key)
    add_object(db)
    db.execute("select payments.remove_stripe_key('test')")
    with pytest.raises(psycopg.Error) as refused:
        set_key(db.connect(), other_key)
    assert raised(refused.value)[1]["code"] == "other_account"
    assert set_key(db.connect(), stripe.test_key).status == "connected"


# Removing


def test_removing_a_key_forgets_the_secrets_and_closes_the_environment(db, stripe):
    set_key(db.connect(), stripe.test_key)
    set_key(db.connect(), stripe.live_key, "live")
    set_secret(db.connect(), "whsec_first0123456789")
    db.execute("select payments.open_to_apps('test')")
    add_object(db)

    connection = db.execute("select * from payments.remove_stripe_key('test')").fetchone()

    assert (connection.status, connection.masked_key, connection.open_to_apps) == ("unconfigured", None, False)
    assert connection.stripe_account_id == stripe.account
    assert secrets(db) == []
    assert len(secrets(db, "live")) == 1
    assert db.value("select count(*) from payments.stripe_objects") == 1


# Signing secrets


def test_an_older_signing_secret_lives_for_a_day_after_a_newer_one(db):
    set_secret(db.connect(), "whsec_first0123456789")
    set_secret(db.connect(), "whsec_second0123456789")
    set_secret(db.connect(), "whsec_other0123456789", "live")

    first, second = secrets(db)
    assert db.value("select %s::timestamptz between now() + '23:59' and now() + '24:00'", (first.expires_at,))
    assert second.expires_at is None
    assert [secret.expires_at for secret in secrets(db, "live")] == [None]


def test_a_third_signing_secret_does_not_lengthen_the_life_of_the_first(db):
    set_secret(db.connect(), "whsec_first0123456789")
    set_secret(db.connect(), "whsec_second0123456789")
    db.execute("update payments.secrets set expires_at = now() + '1 hour' where expires_at is not null")
    before = secrets(db)[0].expires_at
    set_secret(db.connect(), "whsec_third0123456789")
    first, second, third = secrets(db)
    assert first.expires_at == before
    assert second.expires_at is not None
    assert third.expires_at is None


def test_the_same_signing_secret_again_is_no_second_one(db):
    set_secret(db.connect(), "whsec_first0123456789")
    set_secret(db.connect(), "whsec_second0123456789")
    set_secret(db.connect(), "  whsec_first0123456789 ")
    first, second = secrets(db)
    assert first.expires_at is None
    assert second.expires_at is not None


def test_an_expired_signing_secret_is_forgotten_when_another_is_set(db):
    set_secret(db.connect(), "whsec_first0123456789")
    set_secret(db.connect(), "whsec_second0123456789")
    db.execute("update payments.secrets set expires_at = now() - '1 second'::interval where expires_at is not null")
    set_secret(db.connect(), "whsec_second0123456789")
    assert len(secrets(db)) == 1


@pytest.mark.parametrize("secret", ["sk_test_0123456789abcdef", "whsec_", "hello", "", None])
def test_what_is_no_signing_secret_is_refused(db, secret):
    with pytest.raises(psycopg.Error) as refused:
        set_secret(db.connect(), secret)
    state, detail = raised(refused.value)
    assert (state, detail["code"]) == ("22023", "not_a_signing_secret")
    assert secrets(db) == []


# Opening an environment


def open_environments(db) -> list[str]:
    found = db.execute("select environment from payments.stripe_connections where open_to_apps")
    return [environment for (environment,) in found]


def test_exactly_one_environment_is_open(db, stripe):
    set_key(db.connect(), stripe.live_key, "live")
    db.execute("select payments.open_to_apps('test')")
    assert open_environments(db) == ["test"]
    connection = db.execute("select * from payments.open_to_apps('live')").fetchone()
    assert (connection.environment, connection.open_to_apps) == ("live", True)
    assert open_environments(db) == ["live"]
    assert db.value("select payments.open_to_apps(null)") is None
    assert open_environments(db) == []


def test_live_opens_with_its_key_alone(db, stripe):
    set_key(db.connect(), stripe.test_key)
    with pytest.raises(psycopg.Error) as refused:
        db.execute("select payments.open_to_apps('live')")
    state, detail = raised(refused.value)
    assert (state, detail["code"], detail["environment"]) == ("55000", "not_configured", "live")
    assert "set_stripe_key('live'" in refused.value.diag.message_hint
    assert open_environments(db) == []


def test_opening_test_beside_a_live_key_is_warned_of(db, stripe):
    set_key(db.connect(), stripe.live_key, "live")
    connection = db.connect()
    warned = []
    connection.add_notice_handler(lambda notice: warned.append(notice.severity))
    connection.execute("select payments.open_to_apps('test')")
    assert warned == ["WARNING"]


def test_two_who_open_at_once_leave_one_open(db, stripe):
    set_key(db.connect(), stripe.live_key, "live")
    first, second = db.connect(autocommit=False), db.connect()
    first.execute("select payments.open_to_apps('test')")
    second.execute("set lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        second.execute("select payments.open_to_apps('live')")
    first.commit()
    second.execute("select payments.open_to_apps('live')")
    assert open_environments(db) == ["live"]


# Who may


ADMINISTRATION = [
    "set_stripe_key(text, text)",
    "remove_stripe_key(text)",
    "set_webhook_secret(text, text)",
    "configure_webhook(text, text, text[])",
    "configure_checkout(text, jsonb)",
    "open_to_apps(text)",
    "status()",
]


@pytest.mark.parametrize("role", ["anon", "authenticated", "authenticator", database.OWNER])
@pytest.mark.parametrize("function", ADMINISTRATION)
def test_nobody_may_administer_unasked(db, role, function):
    may = "select has_function_privilege(%s, %s, 'execute')"
    assert db.value(may, (role, f"payments.{function}")) is False


def test_who_is_granted_the_functions_needs_no_right_on_the_tables(db, stripe):
    db.execute("grant usage on schema payments to service_role")
    for function in ADMINISTRATION:
        db.execute(f"grant execute on function payments.{function} to service_role")
    admin = db.connect("service_role")
    assert set_key(admin, stripe.test_key).status == "connected"
    set_secret(admin, "whsec_first0123456789")
    admin.execute("select payments.open_to_apps('test')")
    assert len(admin.execute("select * from payments.status()").fetchall()) == 2
    admin.execute("select payments.remove_stripe_key('test')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        admin.execute("select * from payments.stripe_connections")


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role", database.OWNER])
def test_nobody_reads_even_the_sealed_form(db, role):
    db.execute(f"grant usage on schema payments to {role}")
    set_secret(db.connect(), "whsec_first0123456789")
    connection = db.connect(role)
    for statement in (
        "select sealed from payments.secrets",
        "select id from payments.secrets",
        "delete from payments.secrets",
        "copy payments.secrets to stdout",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


# Where a key never appears


KEY = "sk_test_FindMeIfYouCan0123456789"
UNKNOWN_KEY = "sk_test_NobodyKnowsMe0123456789"
RESTRICTED_KEY = "rk_test_SomebodyLimitsMe0123456789"
SIGNING_SECRET = "whsec_FindMeToo0123456789"
GIVEN = (KEY, UNKNOWN_KEY, RESTRICTED_KEY, SIGNING_SECRET)


@pytest.fixture(scope="module")
def talkative(make_cluster):
    """A server that logs whatever it can be told to log."""
    cluster = make_cluster(
        settings={
            "log_statement": "all",
            "log_min_duration_statement": "0",
            "log_min_error_statement": "debug5",
            "log_min_messages": "debug1",
            "log_parameter_max_length": "-1",
            "log_parameter_max_length_on_error": "-1",
            "log_error_verbosity": "verbose",
            "log_lock_waits": "on",
            "wal_level": "logical",
        }
    )
    database.furnish(cluster)
    return cluster


@pytest.fixture
def overheard(talkative):
    db = database.create(talkative)
    yield db
    db.close()


def with_literal(connection, key: str, secret: str) -> None:
    """As a literal, in a backend that has the library: it was loaded by the first call."""
    connection.execute("select * from payments.status()")
    connection.execute(f"select payments.set_stripe_key('test', '{key}')")
    connection.execute(f"select payments.set_webhook_secret('test', '{secret}')")


def with_parameter(connection, key: str, secret: str) -> None:
    """As a bind parameter, in a backend that never called anything of ours."""
    set_key(connection, key)
    set_secret(connection, secret)


def everything_on_disk(cluster) -> bytes:
    files = [path for path in Path(cluster.directory).rglob("*") if path.is_file()]
    return b"\0".join(path.read_bytes() for path in files if os.access(path, os.R_OK))


@pytest.mark.parametrize("give", [with_literal, with_parameter])
def test_no_key_is_on_disk_in_the_log_or_in_a_dump(overheard, talkative, give):
    from fake_stripe import FakeStripe

    errors, notices = [], []
    with FakeStripe() as fake:
        overheard.execute(f"alter database {overheard.name} set payments.stripe_api_base = '{fake.base_url}'")
        account = fake.account
        fake.control.add_key(KEY)
        fake.control.add_key(RESTRICTED_KEY, permissions=["customer_write"])
        connection = overheard.connect()
        connection.add_notice_handler(lambda notice: notices.append(str(vars(notice))))
        give(connection, RESTRICTED_KEY, SIGNING_SECRET)
        give(connection, KEY, SIGNING_SECRET)
        for failing in (
            (UNKNOWN_KEY, SIGNING_SECRET),
            (KEY.replace("sk_test", "sk_live"), SIGNING_SECRET),
            (SIGNING_SECRET, KEY),
        ):
            with pytest.raises(psycopg.Error) as refused:
                give(connection, *failing)
            errors.append(refused.value)
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("select payments.set_webhook_secret('test', %s)", (KEY,))
        errors.append(refused.value)

    talkative.stop()
    talkative.start()

    places = {
        "disk": everything_on_disk(talkative),
        "log": talkative.log_text().encode(),
        "dump": overheard.dump().encode(),
        "notices": "".join(notices).encode(),
        "errors": "".join(f"{error} {vars(error)} {error.diag.message_hint}" for error in errors).encode(),
        "connections": repr(overheard.connect().execute("select * from payments.stripe_connections").fetchall()).encode(),
    }
    # What may be found is.
    assert account.encode() in places["disk"]
    assert b"alter database" in places["log"]
    assert b"stripe_connections" in places["dump"]
    for place, content in places.items():
        for secret in GIVEN:
            # What is after the prefix: a prefix alone gives nothing away.
            tail = secret.split("_")[-1].encode()
            assert tail not in content, f"{secret} is in the {place}"


def test_the_sealed_form_is_in_no_dump(overheard):
    set_secret(overheard.connect(), SIGNING_SECRET)
    sealed = overheard.value("select encode(sealed, 'hex') from payments.secrets")
    assert sealed not in overheard.dump()
    assert "payments.secrets" not in overheard.dump()


def test_others_see_no_bound_key_in_the_statements_that_run(overheard):
    connection = overheard.connect()
    connection.execute("select payments.set_webhook_secret('test', %s)", (SIGNING_SECRET,))
    shown = overheard.execute("select query from pg_stat_activity where pid = %s", (connection.info.backend_pid,))
    (query,) = shown.fetchone()
    assert "set_webhook_secret" in query
    assert "FindMeToo" not in query


# After a restore, and with a key file gone wrong


def test_after_a_restore_the_error_says_to_set_the_key_again(db, empty_db, stripe):
    set_key(db.connect(), stripe.live_key, "live")
    set_secret(db.connect(), "whsec_first0123456789", "live")
    empty_db.restore(db.dump())

    with pytest.raises(psycopg.Error) as refused:
        empty_db.execute("select payments.open_to_apps('live')")

    state, detail = raised(refused.value)
    assert (state, detail["code"]) == ("55000", "secret_missing")
    assert "set_stripe_key('live'" in refused.value.diag.message_hint
    test, live = empty_db.execute("select * from payments.status()").fetchall()
    assert (live.status, live.key_readable, live.signing_secrets) == ("error", False, 0)
    assert "set_stripe_key('live'" in live.next_step


def test_a_key_under_another_key_file_is_told_and_replaced(db, stripe):
    set_key(db.connect(), stripe.test_key)
    db.execute(f"alter database {db.name} set payments.key_file = 'another.key'")

    test, _ = db.connect().execute("select * from payments.status()").fetchall()
    assert (test.status, test.key_readable) == ("error", False)

    assert set_key(db.connect(), stripe.test_key).status == "connected"
    test, _ = db.connect().execute("select * from payments.status()").fetchall()
    assert (test.status, test.key_readable) == ("connected", True)


def test_a_sealed_key_does_not_open_in_the_place_of_another(db, stripe):
    set_key(db.connect(), stripe.test_key)
    set_key(db.connect(), stripe.live_key, "live")
    db.execute(
        """
        update payments.secrets set sealed = (select sealed from payments.secrets where environment = 'live')
        where environment = 'test'
        """
    )
    test, live = db.execute("select * from payments.status()").fetchall()
    assert (test.key_readable, live.key_readable) == (False, True)
