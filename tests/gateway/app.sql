-- What an app adds beside what is exposed: its own orders, and what users read of their own.
-- The roles' policies on payments.checkout_sessions and customer_portal_sessions are there already.

create policy buyers on payments.checkout_sessions for insert to authenticated
    with check (subject_type is null and mode = 'payment');

create function public.my_teams() returns setof text
language sql stable
begin atomic
    select unnest(array['red']) where public.user_id() in ('alice', 'bob');
end;

-- Users see their own rows of the projections, through views in the schema that is served.
grant select on payments.subscriptions, payments.payment_history to authenticated;
create policy own on payments.subscriptions for select to authenticated
    using (
        environment = 'test'
        and (
            subject_type = 'user' and subject_id = (select public.user_id())
            or subject_type = 'team' and subject_id in (select public.my_teams())
        )
    );
create policy own on payments.payment_history for select to authenticated
    using (
        environment = 'test'
        and (
            subject_type = 'user' and subject_id = (select public.user_id())
            or subject_type = 'team' and subject_id in (select public.my_teams())
        )
    );
create view api.my_subscriptions with (security_invoker) as
    select subject_type, subject_id, status, current_period_end, cancel_at_period_end
    from payments.subscriptions;
create view api.my_payments with (security_invoker) as
    select type, status, amount, amount_refunded, currency, description, paid_at
    from payments.payment_history;
grant select on api.my_subscriptions, api.my_payments to authenticated;

-- Rows of the app that only subscribers read.
create function api.is_pro() returns boolean
language sql stable set search_path = ''
return payments.has_access('user', public.user_id(), 'pro_monthly')
    or exists (
        select from public.my_teams() as team
        where payments.has_access('team', team, 'pro_monthly')
    );
create table api.articles (id integer primary key, title text not null, is_pro boolean not null);
insert into api.articles values (1, 'For everybody', false), (2, 'For subscribers', true);
alter table api.articles enable row level security;
grant select on api.articles to anon, authenticated;
create policy free on api.articles for select using (not is_pro);
create policy pro on api.articles for select to authenticated using ((select api.is_pro()));

-- A table of the app that a trigger on the projections keeps.
create table api.orders (
    id integer generated always as identity primary key,
    user_id text not null,
    status text not null,
    paid_at timestamptz
);
alter table api.orders enable row level security;
grant select, insert (user_id, status) on api.orders to authenticated;
create policy own on api.orders to authenticated
    using (user_id = (select public.user_id()))
    with check (user_id = (select public.user_id()) and status = 'pending');

create function public.fulfil_order() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    update api.orders
    set status = 'paid', paid_at = new.paid_at
    where id::text = new.metadata ->> 'order_id' and status = 'pending';
    return null;
end
$$;
create trigger fulfil_order after insert or update on payments.payment_history
for each row when (new.environment = 'test' and new.type = 'one_time_payment' and new.status = 'succeeded')
execute function public.fulfil_order();
