create function payments.rebuild(environment text, fire_triggers boolean default false)
    returns bigint
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'rebuild_wrapper';

comment on function payments.rebuild(text, boolean) is
'Computes every row of an environment afresh from payments.stripe_objects, without asking Stripe, and
returns how many rows had to be written or removed: after an update that repairs a projection, or
when somebody changed rows by hand.

Rows that are right are not touched. Rows that nothing at Stripe supports are removed, but for those
that callers asked for: checkout and portal sessions, and customers who were linked. Columns that you
added keep their values.

fire_triggers  whether triggers fire on what is written. By default none does, as if by
               session_replication_role = replica. They always do on what is removed, as foreign
               keys depend on it, and can read current_setting(''payments.source''): rebuild.

Other writers of the environment wait until the transaction ends; webhooks, not for long: Stripe sends
them again. Tells its progress as NOTICE. Errors: 25000 at another isolation level than READ COMMITTED.';
