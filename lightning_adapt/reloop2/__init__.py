"""ReLoop2: an error memory that adapts a served recommender without retraining (Zhu et al., KDD 2023, 2306.08808)."""

from lightning_adapt._shared.lazy import attach

# public name -> module of this package that defines it; read by the top level without importing torch
EXPORTS = {
    "AdaptiveErrorMemory": "adaptive",
    "CTRModule": "models.ctr_module",
    "DriftStream": "data.drift_stream",
    "ErrorMemory": "memory",
    "ErrorMemoryCallback": "callback",
    "ErrorMemoryPredictor": "serving.predictor",
    "IncrementalTraining": "incremental",
    "MovieLensDataModule": "data.movielens",
    "PrequentialDataModule": "data.datamodule",
    "PrequentialMetrics": "metrics",
}

__getattr__, __dir__, __all__ = attach(__name__, {name: f"{__name__}.{where}" for name, where in EXPORTS.items()})
