"""SAA: more diverse views for what is learnt already (Gui et al., ICCV 2023, arXiv 2309.03598); FixMatch below it."""

from lightning_adapt._shared.lazy import attach

# public name -> module of this package that defines it; read by the top level without importing torch
EXPORTS = {
    "BatchRandAugment": "augment.rand_augment",
    "FixMatchModule": "models.fixmatch",
    "FlexMatchModule": "models.flexmatch",
    "SAADataModule": "data.datamodule",
    "SampleAdaptiveAugmentation": "callback",
}

__getattr__, __dir__, __all__ = attach(__name__, {name: f"{__name__}.{where}" for name, where in EXPORTS.items()})
