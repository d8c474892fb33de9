"""Hypothesis as these tests use it: few examples, always the same ones, nothing kept, no settings for other tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import torch
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**62)
SMALL = st.integers(1, 60)


def given(*strategies: Any, examples: int = 20) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`hypothesis.given` with our settings."""
    options: dict[str, Any] = {"deadline": None, "database": None, "derandomize": True}
    checks = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
    chosen = hypothesis.settings(max_examples=examples, suppress_health_check=checks, **options)
    return lambda test: chosen(hypothesis.given(*strategies)(test))


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, width=32, allow_subnormal=False)


def vectors(low: float = 0.0, high: float = 10.0, least: int = 1) -> st.SearchStrategy[torch.Tensor]:
    return st.lists(floats(low, high), min_size=least, max_size=30).map(torch.tensor)
