"""Customers who were at Stripe before the extension was: linked many at a time, and linked for good."""

from __future__ import annotations

import json

import psycopg
import pytest

TEAMS = 12

ALL_AT_ONCE = """
select mapping.*
  from teams
 cross join lateral payments.link_customer(
           'test', jsonb_build_object('type', 'team', 'id', teams.id::text), teams.stripe_customer_id) as mapping
 where teams.stripe_customer_id is not null
"""

ONE_BY_ONE = """
do $$
declare
    team record;
begin
    for team in
        select t.id::text as id, t.stripe_customer_id
          from teams as t
         where t.stripe_customer_id is not null
           and not exists (
               select from payments.customer_mappings as m
                where m.environment = 'test'
                  and m.stripe_customer_id = t.stripe_customer_id
                  and m.linked_at is not null)
         order by t.id
    loop
        perform payments.link_customer(
            'test', jsonb_build_object('type', 'team', 'id', team.id), team.stripe_customer_id);
        commit;
    end loop;
end $$
"""

LINKS = """
select subject_type, subject_id, stripe_customer_id, linked_at
  from payments.customer_mappings order by stripe_customer_id
"""


@pytest.fixture
def teams(db, stripe) -> list[str]:
    """An app that knows which of its teams is which customer; the ids of the customers."""
    db.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
    db.execute("create table teams (id int generated always as identity primary key, stripe_customer_id text)")
    customers = [stripe.control.call("POST", "/v1/customers", {"name": f"Team {n}"})["id"] for n in range(TEAMS)]
    for customer in [*customers, None]:
        db.execute("insert into teams (stripe_customer_id) values (%s)", (customer,))
    stripe.control.clear_requests()
    return customers


def linked(db) -> list[str]:
    return [row.stripe_customer_id for row in db.execute(LINKS)]


@pytest.mark.parametrize("statement", [ALL_AT_ONCE, ONE_BY_ONE])
def test_every_team_is_linked_by_one_statement(db, teams, statement):
    db.execute(statement)
    assert linked(db) == sorted(teams)
    assert db.value(
        """
        select count(*)
        from payments.customer_mappings m join teams t on t.id::text = m.subject_id
        where m.subject_type = 'team' and m.stripe_customer_id = t.stripe_customer_id
        """
    ) == TEAMS


def test_all_at_once_is_all_or_none(db, teams):
    db.execute("insert into teams (stripe_customer_id) values ('cus_unknown')")
    with pytest.raises(psycopg.Error) as refused:
        db.execute(ALL_AT_ONCE)
    detail = json.loads(refused.value.diag.message_detail)
    assert (refused.value.sqlstate, detail["code"], detail["stripe_customer_id"]) == (
        "PT404",
        "no_such_customer",
        "cus_unknown",
    )
    assert linked(db) == []


def test_one_by_one_goes_on_where_it_stopped(db, stripe, teams):
    stripe.control.fault("rate_limit", path="/v1/customers/*", skip=5, times=None, should_retry=False)
    with pytest.raises(psycopg.Error) as refused:
        db.execute(ONE_BY_ONE)
    assert refused.value.sqlstate == "PT429"
    assert linked(db) == sorted(teams[:5])

    stripe.control.clear_faults()
    stripe.control.clear_requests()
    db.execute(ONE_BY_ONE)

    assert linked(db) == sorted(teams)
    assert len(stripe.control.requests()) == TEAMS - 5


def test_links_outlive_rebuild_dump_and_restore(db, empty_db, teams):
    db.execute(ALL_AT_ONCE)
    before = db.execute(LINKS).fetchall()
    db.execute("select payments.rebuild('test')")
    assert db.execute(LINKS).fetchall() == before

    empty_db.restore(db.dump())
    assert empty_db.execute(LINKS).fetchall() == before
    empty_db.execute("select payments.rebuild('test')")
    assert empty_db.execute(LINKS).fetchall() == before


def test_what_a_subject_bought_before_is_known_once_it_is_linked(db, stripe, teams):
    price = stripe.control.price(900, interval="month", lookup_key="pro")["id"]
    session = {"mode": "subscription", "customer": teams[0], "line_items": [{"price": price, "quantity": 1}]}
    pages = {"success_url": "https://shop.example/", "cancel_url": "https://shop.example/"}
    stripe.control.complete(stripe.control.call("POST", "/v1/checkout/sessions", {**session, **pages})["id"])
    db.execute("select payments.set_webhook_secret('test', %s)", (stripe.webhook_secret,))
    db.execute("select payments.open_to_apps('test')")
    for delivery in stripe.control.deliveries():
        db.execute("select payments.handle_webhook('test', %(body)s, %(signature)s)", delivery)

    db.execute(ALL_AT_ONCE)

    team = db.value("select id::text from teams where stripe_customer_id = %s", (teams[0],))
    assert db.value("select payments.has_access('team', %s, 'pro')", (team,)) is True
    db.execute("select payments.rebuild('test')")
    assert db.value("select payments.has_access('team', %s, 'pro')", (team,)) is True


def test_apps_may_not_link(db, teams):
    db.execute("select payments.grant_app('authenticated')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"):
        with db.request(sub="1") as request:
            request.execute("""select payments.link_customer('test', '{"type": "team", "id": "1"}', 'cus_1')""")
