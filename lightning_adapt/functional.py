"""All pure functions of all methods in one flat place."""

from lightning_adapt.rs2.functional import (
    bootstrap_rows,
    expected_coverage,
    loss_weights,
    most_owed,
    permute,
    round_size,
    stratified_order,
    weighted_order,
)

__all__ = [
    "bootstrap_rows",
    "expected_coverage",
    "loss_weights",
    "most_owed",
    "permute",
    "round_size",
    "stratified_order",
    "weighted_order",
]
