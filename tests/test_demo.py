"""The story that the README tells and tests/demo.sh plays."""

from __future__ import annotations

from fake_stripe import FakeStripe
from harness import demo


def test_the_story_ends_with_the_order_fulfilled(empty_db):
    with FakeStripe() as fake, demo.perform(empty_db, demo.environment_of(fake.about())) as playing:
        told = playing.stdout.read()
    assert playing.returncode == 0, told
    assert "violates row-level security policy" in told
    assert empty_db.execute("select user_id, status from public.orders").fetchall() == [("alice", "fulfilled")]
    assert empty_db.value("select count(*) from payments.payment_history") == 1
