\set ECHO none
\o /dev/null
-- An app whose users order goods and whose teams subscribe, connected to the fake Stripe.
-- The roles anon and authenticated come with the server; :stripe_key and :signing_secret stay
-- set for the script that includes this file.

set client_min_messages = warning;
\getenv stripe_key STRIPE_SECRET_KEY
\getenv signing_secret STRIPE_WEBHOOK_SECRET

select payments.set_stripe_key('test', :'stripe_key');
select payments.set_webhook_secret('test', :'signing_secret');
select payments.open_to_apps('test');
select payments.grant_app('authenticated');
select payments.grant_app('anon');
select payments.grant_webhook('anon');

create schema api;
grant usage on schema api to anon, authenticated;
select payments.expose('api');

create function public.user_id() returns text
language sql stable
return nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::json ->> 'sub';

create table public.team_members (
    team_id text not null,
    user_id text not null,
    primary key (team_id, user_id)
);
insert into public.team_members values ('red', 'alice'), ('blue', 'bob');
grant select on public.team_members to authenticated;

create table public.orders (
    id integer generated always as identity primary key,
    user_id text not null default public.user_id(),
    status text not null default 'pending',
    paid_at timestamptz
);
alter table public.orders enable row level security;
grant select on public.orders to authenticated;
grant insert (user_id) on public.orders to authenticated;
create policy own_orders on public.orders to authenticated
    using (user_id = public.user_id())
    with check (user_id = public.user_id() and status = 'pending');

-- Users buy for themselves and for their teams, visitors for nobody in particular.
create policy checkouts on payments.checkout_sessions for insert to authenticated
    with check (
        environment = 'test'
        and (
            subject_type = 'user' and subject_id = public.user_id()
            or subject_type = 'team' and exists (
                select from public.team_members m
                where m.team_id = subject_id and m.user_id = public.user_id()
            )
        )
    );
create policy visitors on payments.checkout_sessions for insert to anon
    with check (environment = 'test' and subject_type is null and mode = 'payment');
create policy portals on payments.customer_portal_sessions for insert to authenticated
    with check (
        environment = 'test'
        and subject_type = 'team'
        and exists (
            select from public.team_members m
            where m.team_id = subject_id and m.user_id = public.user_id()
        )
    );

reset client_min_messages;
\o
\set ECHO all
