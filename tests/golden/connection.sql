\i setup.sql
-- The setup connected the test environment. Every step says the next one.

set client_min_messages = notice;
select environment, status, masked_key, stripe_account_email, open_to_apps
from payments.set_stripe_key('test', :'stripe_key');

select environment, status, masked_key, stripe_account_email
from payments.remove_stripe_key('test');

select environment, status, open_to_apps, next_step from payments.status();

-- What is no key of the environment is told apart.
select payments.set_stripe_key('live', :'stripe_key');
select payments.set_stripe_key('test', 'pk_test_TYooMQauvdEDq54NiTphI7jx');
select payments.set_stripe_key('test', 'sk_test_NobodyKnowsThisOne0123');
select payments.set_stripe_key('sandbox', :'stripe_key');
select payments.set_webhook_secret('test', :'stripe_key');

-- Live goods are sold with a live key alone.
select payments.open_to_apps('live');

-- An app role administers nothing, and reads no secret.
set role authenticated;
select payments.open_to_apps('test');
select * from payments.status();
select * from payments.secrets;
reset role;

-- With no environment open, apps are refused and administrators have to name one.
set role authenticated;
select status
from payments.create_checkout_session(
    mode => 'payment',
    line_items => '[{"lookup_key": "tshirt"}]',
    success_url => 'https://shop.example/'
);
reset role;
select payments.current_subscription(null, 'user', 'alice');

-- A secret that looks like none is not repeated, and what is wrong is said all the same.
select payments.set_stripe_key('test', 'swordfish');
select payments.set_webhook_secret('test', 'swordfish');
