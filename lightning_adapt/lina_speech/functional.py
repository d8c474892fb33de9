"""The pure functions of Lina-Speech: Gated Linear Attention, the delay pattern, sampling and alignment scores."""

from lightning_adapt.lina_speech.gla.backend import gla
from lightning_adapt.lina_speech.gla.chunked import chunked_gla
from lightning_adapt.lina_speech.gla.recurrent import gla_step, recurrent_gla
from lightning_adapt.lina_speech.inference.ranking import alignment_score, backward_share, text_coverage
from lightning_adapt.lina_speech.inference.sampling import kept_probabilities
from lightning_adapt.lina_speech.model.attention import sinusoids
from lightning_adapt.lina_speech.model.delay import delay_codes, undelay_codes

__all__ = [
    "alignment_score",
    "backward_share",
    "chunked_gla",
    "delay_codes",
    "gla",
    "gla_step",
    "kept_probabilities",
    "recurrent_gla",
    "sinusoids",
    "text_coverage",
    "undelay_codes",
]
