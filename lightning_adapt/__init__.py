"""Research methods as PyTorch Lightning callbacks, samplers and modules for the Trainer you already have."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lightning_adapt._shared.lazy import attach

if TYPE_CHECKING:  # for type checkers and editors; at run time the names are imported at first use
    from lightning_adapt.divconq.callback import DiversitySelectionCallback as DiversitySelectionCallback
    from lightning_adapt.divconq.embed.embedders import PrecomputedEmbedder as PrecomputedEmbedder
    from lightning_adapt.divconq.embed.tfidf import TfidfEmbedder as TfidfEmbedder
    from lightning_adapt.divconq.embed.transformer import TransformerEmbedder as TransformerEmbedder
    from lightning_adapt.divconq.models.instruction_data import InstructionDataModule as InstructionDataModule
    from lightning_adapt.divconq.models.instruction_module import InstructionTuningModule as InstructionTuningModule
    from lightning_adapt.divconq.models.tiny import tiny_language_model as tiny_language_model
    from lightning_adapt.divconq.offline.file_selection import select_file as select_file
    from lightning_adapt.divconq.scoring.digits import DigitTokenQuality as DigitTokenQuality
    from lightning_adapt.divconq.scoring.judges import JudgeScorer as JudgeScorer
    from lightning_adapt.divconq.scoring.judges import RewardScorer as RewardScorer
    from lightning_adapt.divconq.scoring.likelihood import PerplexityScorer as PerplexityScorer
    from lightning_adapt.divconq.scoring.quality import RewardQuality as RewardQuality
    from lightning_adapt.divconq.scoring.scorers import EmbeddingRelevanceScorer as EmbeddingRelevanceScorer
    from lightning_adapt.divconq.selection import select_rows as select_rows
    from lightning_adapt.divconq.text.planted import planted_instructions as planted_instructions
    from lightning_adapt.divconq.training.round_files import read_round as read_round
    from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec as KMeansMelCodec
    from lightning_adapt.lina_speech.codecs.transformers_codec import TransformersCodec as TransformersCodec
    from lightning_adapt.lina_speech.codecs.wavtokenizer import WavTokenizerCodec as WavTokenizerCodec
    from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices as SynthesisedVoices
    from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule as TextSpeechDataModule
    from lightning_adapt.lina_speech.model.model import LinaModel as LinaModel
    from lightning_adapt.lina_speech.module import LinaSpeechModule as LinaSpeechModule
    from lightning_adapt.lina_speech.text.bpe import BPETokenizer as BPETokenizer
    from lightning_adapt.lina_speech.text.characters import CharacterTokenizer as CharacterTokenizer
    from lightning_adapt.lina_speech.text.phonemes import PhonemeTokenizer as PhonemeTokenizer
    from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning as InitialStateTuning
    from lightning_adapt.lina_speech.voices.voice import Voice as Voice
    from lightning_adapt.reloop2.adaptive import AdaptiveErrorMemory as AdaptiveErrorMemory
    from lightning_adapt.reloop2.callback import ErrorMemoryCallback as ErrorMemoryCallback
    from lightning_adapt.reloop2.data.datamodule import PrequentialDataModule as PrequentialDataModule
    from lightning_adapt.reloop2.data.drift_stream import DriftStream as DriftStream
    from lightning_adapt.reloop2.data.movielens import MovieLensDataModule as MovieLensDataModule
    from lightning_adapt.reloop2.incremental import IncrementalTraining as IncrementalTraining
    from lightning_adapt.reloop2.memory import ErrorMemory as ErrorMemory
    from lightning_adapt.reloop2.metrics import PrequentialMetrics as PrequentialMetrics
    from lightning_adapt.reloop2.models.ctr_module import CTRModule as CTRModule
    from lightning_adapt.reloop2.serving.predictor import ErrorMemoryPredictor as ErrorMemoryPredictor
    from lightning_adapt.rs2.callback import RS2Callback as RS2Callback
    from lightning_adapt.rs2.datamodule import RS2DataModule as RS2DataModule
    from lightning_adapt.rs2.loader import rs2_loader as rs2_loader
    from lightning_adapt.rs2.sampler import RS2Sampler as RS2Sampler
    from lightning_adapt.rs2.time_to_accuracy import TimeToAccuracy as TimeToAccuracy
    from lightning_adapt.saa.augment.rand_augment import BatchRandAugment as BatchRandAugment
    from lightning_adapt.saa.callback import SampleAdaptiveAugmentation as SampleAdaptiveAugmentation
    from lightning_adapt.saa.data.datamodule import SAADataModule as SAADataModule
    from lightning_adapt.saa.models.fixmatch import FixMatchModule as FixMatchModule
    from lightning_adapt.saa.models.flexmatch import FlexMatchModule as FlexMatchModule

__version__ = "0.1.0"

METHODS: tuple[str, ...] = (
    "rs2",
    "reloop2",
    "saa",
    "divconq",
    "lina_speech",
)  # one folder each; a new method is a folder and an entry here

_EXPORTS = {
    name: f"lightning_adapt.{method}.{where}"
    for method in METHODS
    for name, where in importlib.import_module(f"lightning_adapt.{method}").EXPORTS.items()
}
__getattr__, __dir__, __all__ = attach(__name__, _EXPORTS)
