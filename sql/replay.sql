create function payments.replay_event(environment text, stripe_event_id text)
    returns payments.webhook_receipt
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'replay_event_wrapper';

comment on function payments.replay_event(text, text) is
'Applies a recorded event once more, whatever became of it before, and returns its receipt.

Doing an event again changes only what is not as the event says, so it is always safe. Errors:
PT404 no_event.';

create function payments.failed_events(environment text)
    returns setof text
    language c stable parallel unsafe
    as 'MODULE_PATHNAME', 'failed_events_wrapper';

comment on function payments.failed_events(text) is
'The ids of the events whose processing failed, in the order in which they happened.';

create function payments.replay_failed(environment text)
    returns setof payments.webhook_receipt
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'replay_failed_wrapper';

comment on function payments.replay_failed(text) is
'Applies every failed event once more, oldest first, and returns their receipts: after a trigger was
repaired. Other writers of the environment wait until the transaction ends.';

create function payments.prune_webhook_events(older_than interval)
    returns bigint
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'prune_webhook_events_wrapper';

comment on function payments.prune_webhook_events(interval) is
'Deletes the log of events received longer ago than this, but not of those that failed, and returns
how many they were. The tables stay as they are: they do not depend on the log.';
