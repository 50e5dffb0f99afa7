\i setup.sql

-- The extension goes and comes back; the tables stay, with everything on them.
drop extension payments cascade;
create extension payments;
select payments.install();
select policyname from pg_policies where tablename = 'checkout_sessions' order by 1;

-- Grants on functions went with the functions, so nobody gets at them by accident.
select payments.grant_app('authenticated');
select payments.grant_app('nobody');
select payments.grant_admin('service_role');
select payments.expose('api');

-- Only a superuser or the database's owner sets up.
set role authenticated;
select payments.install();
reset role;
grant execute on function payments.install(text) to authenticated;
set role authenticated;
select payments.install();
reset role;

-- A table that install() did not make is not adopted.
alter table payments.disputes rename to old_disputes;
create table payments.disputes (currency integer);
select payments.install();
drop table payments.disputes;
alter table payments.old_disputes rename to disputes;
alter table payments.disputes owner to service_role;
select payments.install();
alter table payments.disputes owner to payments_owner;

-- What was taken away comes back.
alter table payments.payment_history drop column dispute_status cascade;
drop index payments.payment_history_charge_idx;
alter table payments.checkout_sessions disable trigger guard_session;
select payments.install();

-- An app role adds sessions through the functions alone, however much it was granted.
grant insert on payments.checkout_sessions to authenticated;
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice"}';
insert into payments.checkout_sessions (id, environment, mode, subject_type, subject_id, status)
values ('00000000-0000-4000-8000-000000000001', 'test', 'payment', 'user', 'alice', 'completed');
rollback;

-- Nor can a trigger that comes before the guard make a request look paid for.
create function public.forge() returns trigger language plpgsql as $$
begin
    new.payment_status := 'paid';
    return new;
end
$$;
create trigger forge before insert on payments.checkout_sessions for each row execute function public.forge();
select stripe_account_id, masked_key from payments.set_stripe_key('test', :'stripe_key');
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice"}';
select status
from payments.create_checkout_session(
    mode => 'payment',
    line_items => '[{"stripe_price_id": "price_mug"}]',
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing',
    subject => '{"type": "user", "id": "alice"}'
);
rollback;

-- A function that somebody else made is not ours to replace.
drop function api.stripe_webhook(json);
create function api.stripe_webhook(jsonb) returns text language sql return 'theirs';
select payments.expose('api');
