"""All pure functions of all methods in one flat place."""

from lightning_adapt.reloop2.functional import (
    base_prediction,
    compensate,
    error_estimate,
    simhash_codes,
    simhash_projections,
    sketch_read,
    sketch_write,
    softmax_readout,
)
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
    "base_prediction",
    "bootstrap_rows",
    "compensate",
    "error_estimate",
    "expected_coverage",
    "loss_weights",
    "most_owed",
    "permute",
    "round_size",
    "simhash_codes",
    "simhash_projections",
    "sketch_read",
    "sketch_write",
    "softmax_readout",
    "stratified_order",
    "weighted_order",
]
