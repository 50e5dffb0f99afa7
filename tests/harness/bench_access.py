"""`tests/bench_access.sh`: what access costs inside policies, on a private server with the release build."""

from __future__ import annotations

import sys
import time

import psycopg

from harness import command_line, database, extension, postgres, say, toolchain
from harness.cluster import Cluster
from harness.database import Database

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


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    toolchain.prepare()
    installation = postgres.preferred()
    extension.install(installation, release=True)
    settings = {"shared_buffers": "'512MB'", "max_wal_size": "'4GB'", "jit": "off"}
    with Cluster(installation, settings=settings) as cluster:
        database.furnish(cluster)
        shop = database.create(cluster)
        say(f"filling in {rows} subscriptions and {rows} rows of an app, on {installation.label}")
        for statement in FILL.format(rows=rows).split(";\n"):
            shop.execute(statement)
        shop.execute("vacuum analyze")
        say("the statement inside has_access")
        print(inner_plan(shop))
        for name, policy in POLICIES.items():
            say(f"{name}: using ({policy})")
            measure(shop, policy, rows)


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


def measure(shop: Database, policy: str, rows: int) -> None:
    """Reads every row under the policy, and prints the plan and what the policy costs a row."""
    shop.execute("drop policy if exists readers on public.posts")
    shop.execute(f"create policy readers on public.posts for select to authenticated using ({policy})")
    connection = shop.connect("authenticated")
    connection.execute("set max_parallel_workers_per_gather = 0")
    for (line,) in connection.execute("explain (costs off) select count(*) from public.posts"):
        print(line)
    visible, seconds = timed(connection)
    print(f"{visible} of {rows} rows visible, {seconds:.3f} s, {seconds / rows * 1e6:.2f} µs a row")


def timed(connection: psycopg.Connection) -> tuple[int, float]:
    started = time.monotonic()
    visible = connection.execute("select count(*) from public.posts").fetchone()
    return visible[0] if visible else 0, time.monotonic() - started


if __name__ == "__main__":
    command_line(main)
