"""LinaSpeechModule: trains Lina-Speech on text and codes, and speaks (Lemerle et al., 2024, arXiv 2410.23320)."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lightning_adapt._shared.checks import check_flag, check_integer, check_not_negative, check_positive, check_share
from lightning_adapt._shared.hashing import derive_key
from lightning_adapt._shared.state import to_plain
from lightning_adapt.lina_speech.batches import check_batch
from lightning_adapt.lina_speech.inference.speaker import Speaker
from lightning_adapt.lina_speech.inference.speaking import Speaking
from lightning_adapt.lina_speech.inference.speech import Speech
from lightning_adapt.lina_speech.model.config import LinaConfig
from lightning_adapt.lina_speech.model.config import preset as config_of
from lightning_adapt.lina_speech.model.model import LinaModel
from lightning_adapt.lina_speech.model.state import State
from lightning_adapt.lina_speech.module_parts import MaybeCompiled, SpeechParts, checked_overrides, seeded
from lightning_adapt.lina_speech.optimizer import check_betas, decay_groups, warmed_up_cosine
from lightning_adapt.lina_speech.samples import Samples
from lightning_adapt.lina_speech.speech_metrics import SpeechMetrics, counted_targets
from lightning_adapt.lina_speech.starting import StartsFromStates
from lightning_adapt.lina_speech.tuning.hold import SUBMODULE

__all__ = ["LinaSpeechModule"]


class LinaSpeechModule(Speaking, StartsFromStates, LightningModule):
    """Text-to-speech with Gated Linear Attention: trains on text and codec tokens, and speaks.

    The loss is the mean cross-entropy over all codes and ends of the batch of one process. A step returns {"loss",
    "sample_loss" (mean per utterance, shape (B,)), "index"}. Logs `train_loss`, and of validation `val_loss`,
    `lina/val_loss_q0`.., `lina/val_accuracy_q0`.. (share of codes that were the most probable), `lina/val_ends_found`
    and `lina/val_false_ends`, with equal weight for every target of the whole set on all processes; `test` likewise.
    After a validation of a fit, the first texts of the validation set are spoken on rank 0 and logged as audio, with
    `lina/stopped_share` and, of those that stopped, `lina/seconds_per_character`; not while initial states are tuned.
    Several loaders count as one set.

    Codec and tokenizer come from the DataModule, if they are not given. A checkpoint holds them: `load_from_checkpoint`
    needs nothing else to speak, and another codec or tokenizer is refused.

    AdamW; norms, biases and embeddings do not decay. The learning rate rises over `warmup_steps` (of a short run, over
    half of it), then falls along half a cosine wave to the end of the run; in a run without end it stays. Dropout
    draws from numbers of (seed, process, batch), so that with `TextSpeechDataModule` a resumed run goes on exactly,
    inside an epoch, too; the global random state stays as it is. For `lightning.pytorch` only.

    Args:
        preset: "tiny" (1.3 M parameters), "60m", "169m", "230m" or "359m".
        overrides: Further arguments of `LinaConfig`, such as {"dropout": 0.1}.
        small_state: A smaller recurrent state: a quarter of the memory of a voice, fewer parameters.
        n_codebooks: Codebooks of the codec.
        codebook_size: Codes per codebook.
        text_vocab_size: Text ids, the special ones included.
        codec: A codec, its file, or a name such as "encodec:NAME" (see `as_codec`). None: the DataModule's.
        tokenizer: A tokenizer, "characters", "phonemes" or the file of one. None: the DataModule's.
        learning_rate: Highest learning rate.
        warmup_steps: Optimizer steps in which it rises.
        weight_decay: Of the matrices, >= 0.
        betas: Of AdamW.
        min_learning_rate_ratio: Share of the learning rate at the end of the run, in [0, 1].
        checkpoint_activations: Compute activations again in the backward pass: less memory, more time.
        compile_model: Train through `torch.compile`; where that fails, it says so once and trains without.
        backend: Of Gated Linear Attention: "auto", "chunked", "recurrent" or "fla".
        n_audio_samples: Texts of the validation set that are spoken after a validation; 0 for none.
        audio_every_n_epochs: Epochs between two such validations.
        log_figure: Log a figure of the attention, too (extra `figures`).
        max_seconds: Longest audio of a text.
        seed: Of dropout.

    Attributes:
        initial_state: A `State` that all utterances start from, in training, evaluation and speech without a voice; of
            one stream; None for zeros. Set it, or override it by a property in a subclass, of parameters if you like;
            as a plain attribute it is in no checkpoint. Of a `Voice` it is `voice.state(module.model)`. While something
            such as `InitialStateTuning` has called `use_initial_states`, its states go before.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, codec or tokenizer do not fit the model, or a checkpoint was made
            with others.
        MisconfigurationException: If what the DataModule offers as codec or tokenizer is not one, is another one, or
            does not fit; if a batch has another form.
    """

    initial_state: State | None = None

    def __init__(
        self,
        preset: Literal["tiny", "60m", "169m", "230m", "359m"] = "tiny",
        *,
        overrides: dict[str, Any] | None = None,
        small_state: bool = False,
        n_codebooks: int = 1,
        codebook_size: int = 512,
        text_vocab_size: int = 256,
        codec: Any = None,
        tokenizer: Any = None,
        learning_rate: float = 5e-4,
        warmup_steps: int = 500,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        min_learning_rate_ratio: float = 0.0,
        checkpoint_activations: bool = False,
        compile_model: bool = False,
        backend: Literal["auto", "chunked", "recurrent", "fla"] = "auto",
        n_audio_samples: int = 2,
        audio_every_n_epochs: int = 1,
        log_figure: bool = False,
        max_seconds: float = 20.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.learning_rate = check_positive("learning_rate", learning_rate, "Pass 5e-4.")
        self.warmup_steps = check_integer("warmup_steps", warmup_steps, "Pass 500, or 0 for none.")
        self.weight_decay = check_not_negative("weight_decay", weight_decay, "Pass 0.1, or 0 for none.")
        self.betas = check_betas(betas)
        ratio = check_share("min_learning_rate_ratio", min_learning_rate_ratio, "Pass 0.0.")
        self.min_learning_rate_ratio = ratio
        recompute = check_flag("checkpoint_activations", checkpoint_activations, "Pass True.")
        compiled = check_flag("compile_model", compile_model, "Pass True.")
        wanted = check_integer("n_audio_samples", n_audio_samples, "Pass 2, or 0 for none.")
        every = check_integer("audio_every_n_epochs", audio_every_n_epochs, "Pass 1.", minimum=1)
        self._samples = Samples(wanted, check_flag("log_figure", log_figure, "Pass True."), every)
        self.max_seconds = check_positive("max_seconds", max_seconds, "Pass 20.")
        self.seed = check_integer("seed", seed, "Pass 0.")
        self.save_hyperparameters(ignore=["codec", "tokenizer"])  # checkpoints hold them, names might not be there
        for name in ("betas", "learning_rate", "weight_decay", "min_learning_rate_ratio", "max_seconds"):
            self.hparams[name] = to_plain(getattr(self, name))  # plain, to load with weights_only=True
        sizes = {"n_codebooks": n_codebooks, "codebook_size": codebook_size, "text_vocab_size": text_vocab_size}
        self.hparams["overrides"] = None if overrides is None else checked_overrides(overrides)
        config = config_of(preset, small_state=small_state, **{**sizes, **checked_overrides(overrides)})
        self._parts = SpeechParts(config, codec, tokenizer)  # not an attribute: a codec may be a module, too
        self.model = LinaModel(config, backend=backend, checkpoint_activations=recompute)
        self._run = MaybeCompiled(compiled, rank_zero_warn)
        self._metrics = SpeechMetrics(config.n_codebooks)

    @property
    def config(self) -> LinaConfig:
        """Sizes of the model."""
        return self.model.config

    @property
    def codec(self) -> Any:
        """Turns codes into audio; None until one is given, adopted from a DataModule or loaded."""
        return self._parts.codec

    @property
    def tokenizer(self) -> Any:
        """Turns texts into ids; None until one is given, adopted from a DataModule or loaded."""
        return self._parts.tokenizer

    # -- training -------------------------------------------------------------------------------------------------
    @override
    def setup(self, stage: str) -> None:
        try:
            self._parts.adopt(getattr(self.trainer, "datamodule", None))
        except (TypeError, ValueError, OSError) as error:
            raise MisconfigurationException(str(error)) from error
        if stage == "fit":
            self._samples.warn(self.trainer, self.codec is not None)

    @override
    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        inputs: Tensor,
        lengths: Tensor | None = None,
        state: State | None = None,
    ) -> Tensor:
        """Return the scores of the next column of ids.

        Args:
            text: Text ids, padded on the right. Shape (B, M), dtype int64.
            text_lengths: Ids per text. Shape (B,).
            inputs: Columns of ids, the first one of BOA. Shape (B, T, Q), dtype int64.
            lengths: Columns per row; None for all. Shape (B,).
            state: State before the first column, of B streams or of one for all; None for zeros.

        Returns:
            Logits. Shape (B, T, Q, codebook_size + 3).
        """
        logits: Tensor = self._run(self.model, text, text_lengths, inputs, lengths, state=state).logits
        return logits

    @override
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        with self._own_dropout(batch_idx):
            _, targets, losses = self._predicted(batch)
        counts = counted_targets(targets).sum((1, 2))
        loss = losses.sum() / counts.sum().clamp(min=1)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(targets))
        made = {"loss": loss, "sample_loss": (losses.sum((1, 2)) / counts.clamp(min=1)).detach()}
        return {**made, "index": batch["index"]} if "index" in batch else made

    def _own_dropout(self, batch_idx: int) -> AbstractContextManager[None]:
        with suppress(RuntimeError):  # what Lightning says without a Trainer
            batch_idx = self.trainer.fit_loop.total_batch_idx if self.trainer.training else batch_idx
        return seeded(derive_key(self.seed, self.global_rank, batch_idx), self.device)

    # -- validation and test --------------------------------------------------------------------------------------
    @override
    def on_validation_epoch_start(self) -> None:
        self._metrics.reset()
        self._samples.shown = []

    @override
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        logits, targets, losses = self._predicted(batch)
        self._metrics.update(logits, targets, losses)
        if self.global_rank == 0:
            self._samples.collect(batch)

    @override
    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")
        # a voice is validated every few steps: speech would take longer than tuning
        tuned = self._in_use is not None or hasattr(self, SUBMODULE)  # between batches of several voices none is in use
        if not tuned and self._samples.due(self.trainer, self.codec is not None):
            found: dict[str, float] = {}
            if self.global_rank == 0:
                found = self._samples.show(self.trainer, self._speaker(), self.max_seconds)
            found = self.trainer.strategy.broadcast(found, src=0)  # so that any rank can monitor it
            self.log_dict({f"lina/{quantity}": value for quantity, value in found.items()}, sync_dist=True)

    @override
    def on_test_epoch_start(self) -> None:
        self._metrics.reset()

    @override
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._metrics.update(*self._predicted(batch))

    @override
    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, name: str) -> None:
        found = self._metrics.compute()  # over all processes
        logged = {f"lina/{name}_{quantity}": value for quantity, value in found.items() if quantity != "loss"}
        # equal on all processes already; `sync_dist` says so to Lightning
        self.log(f"{name}_loss", found["loss"], prog_bar=True, sync_dist=True)
        self.log_dict(logged, sync_dist=True)

    # -- speech ---------------------------------------------------------------------------------------------------
    @override
    def speaker(self) -> Speaker:
        """Return what speaks: the model with its codec and tokenizer.

        Raises:
            ValueError: If one of them is missing.
        """
        return self._speaker("codec", "tokenizer")

    def _speaker(self, *needed: str) -> Speaker:
        return self._parts.speaker(self.model, *needed, initial_state=self._beginning_of_one())

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[Speech]:
        speaker = self._speaker("codec")
        check_batch(batch, self.config.n_codebooks)
        ids = [row[:length] for row, length in zip(batch["text"].tolist(), batch["text_lengths"].tolist(), strict=True)]
        texts = ["" if self.tokenizer is None else self.tokenizer.decode(row) for row in ids]
        seeds = batch["index"].tolist() if "index" in batch else list(range(len(ids)))
        options: dict[str, Any] = {"texts": texts, "max_seconds": self.max_seconds, "seed": seeds}
        return speaker.speak_ids(ids, voice=self._in_use, **options)

    # -- optimizer ------------------------------------------------------------------------------------------------
    @override
    def configure_optimizers(self) -> Any:
        groups = decay_groups(self, self.weight_decay)  # with what a subclass adds, such as states to start from
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas)
        factor = warmed_up_cosine(
            lambda: float(self.trainer.estimated_stepping_batches),
            warmup_steps=self.warmup_steps,
            minimum=self.min_learning_rate_ratio,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # -- checkpoints ----------------------------------------------------------------------------------------------
    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._parts.save(checkpoint)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._parts.load(checkpoint)
