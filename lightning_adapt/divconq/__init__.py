"""Diversify and Conquer: the instruction data worth fine-tuning on (Yu et al., 2024, arXiv 2409.11378)."""

from lightning_adapt._shared.lazy import attach

# public name -> module of this package that defines it; read by the top level without importing torch
EXPORTS = {
    "DigitTokenQuality": "scoring.digits",
    "DiversitySelectionCallback": "callback",
    "EmbeddingRelevanceScorer": "scoring.scorers",
    "InstructionDataModule": "models.instruction_data",
    "InstructionTuningModule": "models.instruction_module",
    "JudgeScorer": "scoring.judges",
    "PerplexityScorer": "scoring.likelihood",
    "PrecomputedEmbedder": "embed.embedders",
    "RewardQuality": "scoring.quality",
    "RewardScorer": "scoring.judges",
    "TfidfEmbedder": "embed.tfidf",
    "TransformerEmbedder": "embed.transformer",
    "planted_instructions": "text.planted",
    "read_round": "training.round_files",
    "select_file": "offline.file_selection",
    "select_rows": "selection",
    "tiny_language_model": "models.tiny",
}

__getattr__, __dir__, __all__ = attach(__name__, {name: f"{__name__}.{where}" for name, where in EXPORTS.items()})
