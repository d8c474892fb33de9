"""A small stream for the tests of ReLoop2's benchmark scripts; each is trained once and shared by all tests."""

from functools import lru_cache

from lightning_adapt import DriftStream


def small_log(kind, seed=0):
    """A log with few ids, so that 12,000 rows teach a base model and 4,000 rows show its drift."""
    sizes = {"n_users": 60, "n_items": 40, "n_categories": 6, "n_groups": 2}
    return DriftStream(kind, seed=seed, n_train=12_000, n_stream=4_000, batch_size=64, test_batch_size=100, **sizes)


def keep_streams(monkeypatch, script, make):
    """Let a script reuse its streams, so that a second run of it costs only the rows that are replaced."""
    monkeypatch.setattr(script, "stream_of", lru_cache(make))
