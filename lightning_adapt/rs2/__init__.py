"""RS2: train each epoch on a fresh random share of the data (Okanovic et al., ICLR 2024, arXiv 2305.18424)."""

from lightning_adapt._shared.lazy import attach

# public name -> module of this package that defines it; read by the top level without importing torch
EXPORTS = {
    "RS2Callback": "callback",
    "RS2DataModule": "datamodule",
    "RS2Sampler": "sampler",
    "TimeToAccuracy": "time_to_accuracy",
    "rs2_loader": "loader",
}

__getattr__, __dir__, __all__ = attach(__name__, {name: f"{__name__}.{where}" for name, where in EXPORTS.items()})
