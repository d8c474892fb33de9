"""One good call of every public function, and for each of its arguments values that it cannot take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from lightning_adapt.lina_speech.inference.sampling import SamplingOptions

Call = Callable[[], dict[str, Any]]
_RANDOM = torch.Generator()


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_RANDOM.manual_seed(sum(shape)))


def _gla() -> dict[str, Any]:
    shape = (2, 5, 1, 4)
    return {
        "q_BTHK": _normal(*shape),
        "k_BTHK": _normal(*shape),
        "v_BTHV": _normal(2, 5, 1, 3),
        "log_decay_BTHK": -_normal(*shape).abs(),
    }


def _step() -> dict[str, Any]:
    q, k, v, decay = (part[:, 0] for part in _gla().values())
    return {"q_BHK": q, "k_BHK": k, "v_BHV": v, "log_decay_BHK": decay, "state_BHKV": torch.zeros(2, 1, 4, 3)}


_ALIGNMENT: Call = lambda: {"alignment_NM": torch.softmax(_normal(6, 4), 1)}  # noqa: E731
CALLS: dict[str, Call] = {
    "permute": lambda: {"index": torch.arange(5), "n": 7, "seed": 1, "cycle": 2, "method": "auto"},
    "round_size": lambda: {"n": 100, "ratio": 0.3, "multiple": 4},
    "expected_coverage": lambda: {"rounds": 3, "n": 100, "k": 10, "mode": "independent"},
    "bootstrap_rows": lambda: {"position": torch.arange(6), "n": 9, "seed": 1, "round_index": 2},
    "stratified_order": lambda: {"targets": torch.tensor([0, 1, 1, 2, 0]), "seed": 1, "cycle": 0},
    "weighted_order": lambda: {"weights": torch.tensor([0.1, 0.0, 3.0, 1.0]), "k": 2, "seed": 1, "round_index": 0},
    "loss_weights": lambda: {
        "losses": torch.tensor([1.0, math.nan, 2.0, 9.0]), "power": 1.0, "loss_cap": 0.75, "uniform_mix": 0.1,
        "targets": torch.tensor([0, 1, 0, 1]),
    },
    "most_owed": lambda: {
        "owed": torch.zeros(4), "weights": torch.tensor([0.1, 0.2, 0.3, 0.4]), "k": 2, "seed": 1, "round_index": 0
    },
    "simhash_projections": lambda: {"dim": 4, "n_tables": 3, "n_bits": 2, "seed": 0},
    "simhash_codes": lambda: {"keys": _normal(5, 4), "projections": _normal(4, 6), "n_tables": 3},
    "sketch_write": lambda: {
        "cells": torch.zeros(3, 4, 3), "codes": torch.tensor([[0, 1, 2], [3, 3, 3]]), "labels": torch.ones(2),
        "base": torch.tensor([0.5, 0.25]), "weight": 1.0,
    },
    "sketch_read": lambda: {"cells": torch.ones(3, 4, 3), "codes": torch.tensor([[0, 1, 2], [3, 3, 3]]), "weight": 1.0},
    "softmax_readout": lambda: {
        "similarity": _normal(2, 3), "labels": torch.ones(2, 3), "base": torch.ones(2, 3), "tau": 0.1,
        "valid": torch.ones(2, 3, dtype=torch.bool),
    },
    "error_estimate": lambda: {
        "ybar": torch.tensor([0.5]), "pbar": torch.tensor([0.25]), "p_base": torch.tensor([0.75]), "gamma": 0.5
    },
    "base_prediction": lambda: {"output": _normal(4), "kind": "logit"},
    "compensate": lambda: {
        "output": torch.tensor([0.5, 0.9]), "error": torch.tensor([0.5, 0.0]), "lam": 0.4,
        "kind": "probability", "eps": 1e-6,
    },
    "update_history": lambda: {
        "history": torch.full((4,), math.nan, dtype=torch.float64), "index": torch.tensor([0, 2]),
        "losses": torch.tensor([1.0, 2.0]), "decay": 0.1,
    },
    "otsu_threshold": lambda: {"values": _normal(30), "n_bins": 16, "clip_quantile": 0.9},
    "naive_flags": lambda: {"history": _normal(4), "threshold": 0.1, "flags": torch.zeros(4, dtype=torch.bool)},
    "regroup": lambda: {
        "first": _normal(2, 1, 4, 4), "second": _normal(2, 1, 4, 4), "orientation": torch.tensor([0, 1]), "pieces": 2
    },
    "pseudo_labels": lambda: {"logits": _normal(3, 4)},
    "consistency_loss": lambda: {"logits": _normal(3, 4), "label": torch.tensor([0, 3, 1])},
    "fixmatch_loss": lambda: {"sample_loss": _normal(3).abs(), "mask": torch.tensor([True, False, True])},
    "class_effect": lambda: {"counts": torch.tensor([4, 1, 2]), "warm": True},
    "flexmatch_thresholds": lambda: {"effect": torch.ones(2), "label": torch.tensor([0, 1]), "threshold": 0.9},
    "cluster_quotas": lambda: {
        "budget": 5, "weights": torch.tensor([0.5, 0.3, 0.2]), "available": torch.tensor([2, 9, 9]), "key": 3
    },
    "draw_rows": lambda: {
        "labels": torch.tensor([0, 1, 1, 0, -1]), "quotas": torch.tensor([1, 1]), "log_weights": torch.zeros(5),
        "available": torch.ones(5, dtype=torch.bool), "key": 3,
    },
    "gumbel_top_k": lambda: {"log_weights": torch.zeros(4), "count": 2, "noise": torch.tensor([0.1, 0.2, 0.3, 0.4])},
    "resolve_budget": lambda: {"budget": "5%", "n": 100},
    "round_sizes": lambda: {"budget": 10, "rounds": 3},
    "quality_log_weights": lambda: {
        "quality": torch.tensor([1.0, 3.0, 7.0]), "labels": torch.tensor([0, 0, 1]), "tau": 1.0, "mode": "softmax"
    },
    "shrunk_cluster_scores": lambda: {
        "clusters": torch.tensor([0, 0, 1]), "scores": torch.tensor([1.0, math.nan, 3.0]), "k": 3, "shrink": 4.0
    },
    "reweight_clusters": lambda: {
        "log_weights": torch.zeros(3), "scores": torch.tensor([3.0, 1.0, 2.0]), "update": "exp", "tau": 1.0
    },
    "drop_light_clusters": lambda: {"log_weights": torch.tensor([0.8, 0.16, 0.04]).log(), "drop_below": 0.2},
    "weight_entropy": lambda: {"log_weights": torch.tensor([0.5, 0.5]).log()},
    "choose_k": lambda: {"vectors": _normal(80, 3), "budget": 40, "engine": "torch", "seed": 1, "sample": 80},
    "silhouette": lambda: {"vectors": _normal(6, 2), "labelings": [torch.tensor([0, 0, 1, 1, 2, 2])]},
    "exact_duplicates": lambda: {"keys": [b"a", b"b", b"a"]},
    "near_duplicates": lambda: {"vectors": _normal(6, 3), "threshold": 0.9, "labels": torch.zeros(6).long()},
    "farthest_rows": lambda: {"vectors": _normal(6, 2), "count": 3, "first": 1},
    "gla": lambda: {**_gla(), "backend": "auto", "scale": 0.5},
    "chunked_gla": lambda: {**_gla(), "chunk_size": 16},
    "recurrent_gla": lambda: {**_gla(), "scale": 0.5},
    "gla_step": _step,
    "alignment_score": _ALIGNMENT,
    "backward_share": _ALIGNMENT,
    "text_coverage": _ALIGNMENT,
    "kept_probabilities": lambda: {"logits": _normal(2, 5), "options": SamplingOptions(top_k=2)},
    "sinusoids": lambda: {"n_places": 5, "width": 6},
    "delay_codes": lambda: {"codes_BQN": torch.ones(2, 3, 4, dtype=torch.int64), "lengths_B": torch.tensor([4, 2])},
    "undelay_codes": lambda: {"ids_TQ": torch.tensor([[1, 1], [8, 1], [9, 11], [2, 12], [2, 2]])},
}  # fmt: skip
NUMBERS: tuple[Any, ...] = ("x", None, [], -1, 0, 1.5, math.nan, math.inf, -math.inf, True, 10**30, "5%", b"1", 1j)
TENSORS: tuple[Any, ...] = ("x", None, 3, torch.zeros(0), torch.zeros(3, 3, 3), torch.tensor(5), torch.full((5,), -7))
