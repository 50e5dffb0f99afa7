"""A database as an app leaves it after a while: every table with rows, and the app's own things on them."""

from __future__ import annotations

from psycopg import sql
from psycopg.types.json import Jsonb

import story
from fake_stripe import FakeStripe
from harness.database import OWNER, Database

GRANTS = """
select payments.grant_app('authenticated');
select payments.grant_webhook('anon');
select payments.grant_admin('service_role');
"""

APP = f"""
select payments.open_to_apps('test');
{GRANTS}
create schema api;
grant usage on schema api to anon, authenticated;
select payments.expose('api');

create function public.user_id() returns text
language sql stable
return nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::json ->> 'sub';

create policy own_checkouts on payments.checkout_sessions for insert to authenticated
    with check (subject_type = 'user' and subject_id = public.user_id());
create policy own_portals on payments.customer_portal_sessions for insert to authenticated
    with check (subject_type = 'user' and subject_id = public.user_id());
create policy own_payments on payments.payment_history for select to authenticated
    using (subject_type = 'user' and subject_id = public.user_id());
grant select on payments.payment_history to authenticated;

create table public.receipts (
    environment text,
    payment_id uuid,
    primary key (environment, payment_id),
    foreign key (environment, payment_id) references payments.payment_history (environment, id)
);
grant select, insert on public.receipts to {OWNER};
create function public.write_receipt() returns trigger
language plpgsql set search_path = ''
as $$
begin
    insert into public.receipts values (new.environment, new.id) on conflict do nothing;
    return null;
end
$$;
alter function public.write_receipt() owner to {OWNER};
create trigger write_receipt after insert or update of status on payments.payment_history
    for each row when (new.type = 'one_time_payment' and new.status = 'succeeded')
    execute function public.write_receipt();
"""
"""Grants, a gateway's schema, policies, a trigger, and a foreign key onto one of our tables."""

CHECKOUT = """
    select *
    from api.create_checkout_session(
        mode => 'payment',
        line_items => %(line_items)s,
        success_url => 'https://shop.example/',
        cancel_url => 'https://shop.example/',
        subject => %(subject)s,
        idempotency_key => %(key)s
    )
"""

TABLES = (*story.TABLES, "customer_portal_sessions", "webhook_events", "sync_runs", "stripe_connections")
"""Every table of ours."""


def point_at(db: Database, stripe: FakeStripe) -> None:
    """Has every connection to come ask this fake."""
    statement = sql.SQL("alter database {} set payments.stripe_api_base = {}")
    db.execute(statement.format(sql.Identifier(db.name), sql.Literal(stripe.base_url)))
    db.disconnect()


def season(db: Database, stripe: FakeStripe) -> story.Shop:
    """Fills a database that has the extension and its tables: the shop that it is now."""
    db.execute(APP)
    for type in ("checkout.session.completed", "customer.subscription.created"):
        db.execute("select payments.simulate_event(%s, %s)", (type, Jsonb({"subject": {"type": "user", "id": "sim"}})))
    shop = connect(db, stripe)
    stripe.control.complete(checkout(db, "alice", shop.price, "order:1").stripe_checkout_session_id)
    story.year(shop, buyers=7, months=1)
    deliver(db, stripe)
    with db.request("alice") as request:
        request.execute("""select api.create_customer_portal_session(subject => '{"type": "user", "id": "alice"}')""")
    checkout(db, "alice", shop.price, "order:2")
    # Not all lists: Stripe would be asked about what is only simulated, and know nothing of it.
    db.execute("call payments.sync('test', array['products', 'prices'])")
    return shop


def connect(db: Database, stripe: FakeStripe) -> story.Shop:
    """Sets the key and the signing secret, which no dump brings."""
    point_at(db, stripe)
    shop = story.Shop(db, stripe)
    db.execute("select payments.set_webhook_secret('test', %s)", (stripe.webhook_secret,))
    return shop


def sell(db: Database) -> None:
    """Everything works, once the secrets are set again."""
    with FakeStripe() as stripe:
        sell_at(connect(db, stripe))


def sell_at(shop: story.Shop) -> None:
    """Everything works: a user's checkout, a refund, a subscription, webhooks, the app's trigger and policy, a sync."""
    db, control = shop.db, shop.stripe.control
    session = checkout(db, "bob", shop.price, "order:3")
    payment = control.complete(session.stripe_checkout_session_id)["payment_intent"]
    control.refund(payment, 500)
    subscription = control.complete(shop.checkout("subscription", "carol"))["subscription"]
    control.renew(subscription)
    assert set(deliver(db, shop.stripe)) <= {"processed", "ignored"}
    paid = db.execute(
        "select status from payments.payment_history join public.receipts "
        "on receipts.environment = payment_history.environment and payment_id = id "
        "where stripe_checkout_session_id = %s",
        (session.stripe_checkout_session_id,),
    ).fetchall()
    assert paid == [("partially_refunded",)]
    with db.request("bob") as request:
        assert len(request.execute("select from payments.payment_history").fetchall()) == 2
    assert db.value("select payments.has_access('user', 'carol', 'pro')")
    db.execute("call payments.sync('test')")
    assert db.value("select status from payments.status() where environment = 'test'") == "connected"


def columns(db: Database) -> dict[str, list[str]]:
    """The columns of every table."""
    names = "select attname::text from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped"
    return {table: [name for (name,) in db.execute(names, (f"payments.{table}",))] for table in TABLES}


def rows(db: Database, of: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
    """Every row, as text of these columns, by default of all."""
    return {
        table: [
            row
            for (row,) in db.execute(f"select row({', '.join(names)})::text from payments.{table} order by 1").fetchall()
        ]
        for table, names in (of or columns(db)).items()
    }


def checkout(db: Database, user: str, price: str, key: str):
    """A user's request for one piece: the row they get."""
    with db.request(user) as request:
        subject = Jsonb({"type": "user", "id": user})
        arguments = {"line_items": Jsonb([{"stripe_price_id": price}]), "subject": subject, "key": key}
        return request.execute(CHECKOUT, arguments).fetchone()


def deliver(db: Database, stripe: FakeStripe) -> list[str]:
    """Hands over the webhooks that wait at Stripe: what became of each."""
    statement = "select status from payments.handle_webhook('test', %s, %s)"
    waiting = stripe.control.deliveries()
    return [db.value(statement, (delivery["body"], delivery["signature"])) for delivery in waiting]
