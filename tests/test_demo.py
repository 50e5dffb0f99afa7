"""The story that the README tells and tests/demo.sh plays."""

from __future__ import annotations

from harness import demo


def test_the_story_ends_with_the_order_fulfilled(empty_db, tmp_path):
    fake = demo.start_fake(tmp_path / "stripe.json")
    try:
        with demo.perform(empty_db, demo.environment_of(fake, tmp_path / "stripe.json")) as playing:
            told = playing.stdout.read()
    finally:
        fake.terminate()
        fake.wait()
    assert playing.returncode == 0, told
    assert "violates row-level security policy" in told
    assert empty_db.execute("select user_id, status from public.orders").fetchall() == [("alice", "fulfilled")]
    assert empty_db.value("select count(*) from payments.payment_history") == 1
