"""What has_access() and current_subscription() cost inside row-level security policies, beside none: plans and times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness import database, say
from harness.database import Database

if TYPE_CHECKING:
    from harness.bench import Bench

ROWS = 1_000_000

FILL = """
insert into payments.products (environment, stripe_product_id, deleted) values ('test', 'prod_1', false);
insert into payments.prices (environment, stripe_price_id, stripe_product_id, lookup_key, deleted)
select 'test', 'price_' || n, 'prod_1', 'plan_' || n, false from generate_series(1, 1000) as n;

insert into payments.subscriptions
    (environment, stripe_subscription_id, stripe_customer_id, status, subject_type, subject_id, created_at)
select 'test', 'sub_' || n, 'cus_' || n, case when n % 10 = 0 then 'canceled' else 'active' end,
    'user', n::text, now()
from generate_series(1, {rows}) as n;

insert into payments.subscription_items
    (environment, stripe_subscription_item_id, stripe_subscription_id, stripe_price_id, stripe_product_id, lookup_key)
select 'test', 'si_' || n, 'sub_' || n, 'price_1', 'prod_1', 'plan_1' from generate_series(1, {rows}) as n;

create table public.posts (id bigint primary key, owner text not null, body text not null);
insert into public.posts select n, n::text, repeat('x', 100) from generate_series(1, {rows}) as n;
alter table public.posts enable row level security;
grant select on public.posts to authenticated;
grant select on payments.subscriptions to authenticated;
create policy everybody on payments.subscriptions for select to authenticated using (true);

select payments.open_to_apps('test');
select payments.grant_app('authenticated');
"""

POLICIES = {
    "no access asked for": "true",
    "has_access, once a statement": "(select payments.has_access('user', '7', 'plan_1'))",
    "has_access, once a row": "payments.has_access('user', owner, 'plan_1')",
    "current_subscription, once a row": "(payments.current_subscription('test', 'user', owner)).status = 'active'",
}


def measure(bench: Bench) -> None:
    rows = 20_000 if bench.quick else ROWS
    with bench.cluster(fsync="off", jit="off") as cluster:
        database.furnish(cluster)
        shop = database.create(cluster)
        say(f"filling in {rows} subscriptions and {rows} rows of an app")
        for statement in FILL.format(rows=rows).split(";\n"):
            shop.execute(statement)
        shop.execute("vacuum analyze")
        say("the statement inside has_access")
        print(inner_plan(shop))
        least = 0.0
        for name, policy in POLICIES.items():
            say(f"{name}: using ({policy})")
            microseconds = _read(shop, policy) / rows * 1e6
            least = least or microseconds
            bench.add("access", f"{name}, {rows} rows", "reading", "µs/row", microseconds, least)


def inner_plan(shop: Database) -> str:
    """The plan of the statement that has_access runs, as auto_explain tells it."""
    plans: list[str] = []
    with shop.connect() as connection:
        connection.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
        for setting in (
            "load 'auto_explain'",
            "set client_min_messages = log",
            "set auto_explain.log_min_duration = 0",
            "set auto_explain.log_nested_statements = on",
            "set auto_explain.log_analyze = on",
        ):
            connection.execute(setting)
        # Five plans for the values at hand come before the one that is kept.
        for subject in range(1, 8):
            connection.execute("select payments.has_access('user', %s, 'plan_1')", (str(subject),))
    return [plan for plan in plans if "stripe_connections" in plan and "Index" in plan][-1]


def _read(shop: Database, policy: str) -> float:
    """Reads every row under the policy, and prints the plan: seconds."""
    shop.execute("drop policy if exists readers on public.posts")
    shop.execute(f"create policy readers on public.posts for select to authenticated using ({policy})")
    connection = shop.connect("authenticated")
    connection.execute("set max_parallel_workers_per_gather = 0")
    for (line,) in connection.execute("explain (costs off) select count(*) from public.posts"):
        print(line)
    started = time.monotonic()
    connection.execute("select count(*) from public.posts")
    return time.monotonic() - started
