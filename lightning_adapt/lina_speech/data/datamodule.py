"""TextSpeechDataModule: recordings with texts as batches of codes; encoded once, resumed exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_adapt._shared import compat
from lightning_adapt._shared.checks import check_flag, check_held_out, check_integer, problem
from lightning_adapt._shared.collate import as_is
from lightning_adapt._shared.optional_hooks import OptionalHooks
from lightning_adapt._shared.resumable_data import ResumableData
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt.lina_speech.data.batch_plan import check_batching
from lightning_adapt.lina_speech.data.encode import Preparation
from lightning_adapt.lina_speech.data.left_out import Report
from lightning_adapt.lina_speech.data.length_sampler import FixedBatches, LengthBatchSampler
from lightning_adapt.lina_speech.data.sets import SpeechSets
from lightning_adapt.lina_speech.data.utterances import Utterances, describe_utterances

__all__ = ["TextSpeechDataModule"]

_STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("val",)}


class TextSpeechDataModule(OptionalHooks, ResumableData, LightningDataModule):
    """Recordings with their texts, encoded to codes once and batched by length.

    Sources are a manifest (jsonl, CSV with a header, LJSpeech's metadata.csv, a folder like LibriTTS's; see
    `read_manifest`) or rows {"audio", "text", "speaker", "id"}: "audio" is a path, or samples with "sample_rate_hz".
    Recordings are mixed down, resampled, cut free of silence at both ends and encoded by the first process of each
    machine. Codes are kept under a hash of the recording, the codec and the trimming, so that each is encoded once;
    work that was cut off goes on where it was. What cannot be used (files that are missing, broken, empty or silent,
    too short, too long, without text) is left out, listed in `report` and in a JSON file, and counted in one warning.

    Batches are {"text" (B, M), "text_lengths" (B,), "codes" (B, Q, N), "code_lengths" (B,), "index" (B,), "speaker"
    (B,)}, all int64, 0 after the end of each row. "index" is the (first) row of the set; "speaker" is a number among
    `speakers`, -1 for a speaker that is not there. Training batches are planned by `LengthBatchSampler`: at most
    `tokens_per_batch` padded frames, and some items are joins of utterances of one speaker, up to `max_seconds`; where
    no row names its speaker, all are taken for one.
    Evaluation batches are in the order of the rows, without joins, none left out.

    The rows of `data` are sorted by id, so that their order in the source does not count. The order of an epoch
    follows from (`seed`, epoch) alone: a run resumes exactly, also inside an epoch, and a checkpoint is refused when
    data, codec, tokenizer or the global batch (of all processes) differ. `predict` goes through the validation rows, or
    the training rows if there are none. For `lightning.pytorch` only.

    Args:
        data: Manifest or rows to train on.
        val: Rows to validate on: a share of `data` in (0, 1) (at least one recording), a manifest, or rows; 0 or None
            for none.
        test: Manifest or rows to test on; None for none.
        codec: A codec, the file of one, or the name of one of transformers such as "encodec:facebook/encodec_24khz"
            (see `as_codec`). None: a `KMeansMelCodec` is fitted to at most ten minutes of the training recordings and
            kept in the cache.
        n_codebooks: Codebooks of a codec that is fitted.
        codebook_size: Codes per codebook of a codec that is fitted.
        tokenizer: "characters", "phonemes", the path of a tokenizer's file, or a tokenizer.
        tokens_per_batch: Most frames of a batch of one process, padding included.
        max_batch_size: Most items of a batch.
        min_seconds: Shortest recording, after trimming.
        max_seconds: Longest recording, after trimming; also the longest join.
        join_probability: Share of the training items that are joins.
        max_joined: Most utterances of a join.
        trim_silence_db: Silence is what is so far below the loudest 10 ms; None to trim nothing.
        cache_dir: Folder for codes and codec, to be seen by all processes of a machine; None for
            `lightning_adapt/lina_speech` under the user's cache.
        num_workers: Worker processes; the codes are in memory, so that 0 is fast, too.
        pin_memory: As in `DataLoader`.
        seed: Seed of the order, the joins, the split and the fit.
        progress: Whether to show a progress bar while the codec is fitted and recordings are encoded.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; in `prepare_data` or `setup`, if a manifest has a broken row or
            no recording is usable.
        OSError: If the cache cannot be written to.
        MisconfigurationException: On resume, if the saved position belongs to other data.
    """

    def __init__(
        self,
        data: Any,
        *,
        val: Any = 0.05,
        test: Any = None,
        codec: Any = None,
        n_codebooks: int = 1,
        codebook_size: int = 512,
        tokenizer: Any = "characters",
        tokens_per_batch: int = 4000,
        max_batch_size: int = 64,
        min_seconds: float = 0.3,
        max_seconds: float = 20.0,
        join_probability: float = 0.5,
        max_joined: int = 3,
        trim_silence_db: float | None = 40.0,
        cache_dir: str | Path | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        super().__init__()
        checked = check_batching(tokens_per_batch, max_batch_size, join_probability, max_joined)
        self.tokens_per_batch, self.max_batch_size, self.join_probability, self.max_joined = checked
        self.num_workers = check_integer("num_workers", num_workers, "Pass 0 for none.")
        self.pin_memory = check_flag("pin_memory", pin_memory, "Pass True on a CUDA machine.")
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**62)
        fitting = {
            "n_codebooks": check_integer("n_codebooks", n_codebooks, "Pass 1.", minimum=1),
            "codebook_size": check_integer("codebook_size", codebook_size, "Pass 512.", minimum=2),
            "seed": self.seed,
        }
        self._sets = SpeechSets(
            {"data": data, "val": check_held_out("val", val, "manifest"), "test": test},
            codec=codec,
            tokenizer=tokenizer,
            preparation=Preparation.checked(min_seconds, max_seconds, trim_silence_db),
            fit_options=fitting,
            cache_dir=cache_dir,
            progress=check_flag("progress", progress, "Pass False for no progress bars."),
        )
        self._warned: set[str] = set()
        if self._sets.origin("val") is None and type(self).val_dataloader is TextSpeechDataModule.val_dataloader:
            self.hide_hook("val_dataloader")

    # -- the data -------------------------------------------------------------------------------------------------
    @override
    def prepare_data(self) -> None:
        overfit = getattr(self.trainer, "overfit_batches", 0)
        if overfit:  # Lightning would put samplers of rows in the place of those of batches
            remedy = "Use `limit_train_batches` and `limit_val_batches` instead."
            raise MisconfigurationException(problem("overfit_batches", "0 with this DataModule", overfit, remedy))
        running = None if self.trainer is None else self.trainer.state.fn
        self._sets.prepare(self._needed(running), may_write=True)

    @override
    def setup(self, stage: str | None = None) -> None:
        needed = self._needed(stage)
        self._sets.prepare(needed, may_write=self._may_write)  # all at once: they share the names of the speakers
        for name in needed:
            self._rows(name)
        self._warn()

    def _needed(self, stage: str | None) -> list[str]:
        names = [name for name in _STAGES.get(stage or "", ("train", "val", "test")) if self._sets.origin(name)]
        return names or ["train"]

    @property
    def _may_write(self) -> bool:
        return self.trainer is None or self.trainer.local_rank == 0

    def _rows(self, name: str) -> Utterances | None:
        return self._sets.utterances(name, may_write=self._may_write)

    def _warn(self) -> None:
        for origin, report in self._sets.reports().items():
            if report.left_out and origin not in self._warned:
                rank_zero_warn(
                    f"TextSpeechDataModule: {len(report.left_out)} of {report.rows} recordings of `{origin}` are left "
                    f"out: {report.summary()}. Each is listed in {report.path}."
                )
            self._warned.add(origin)

    @property
    def codec(self) -> Any:
        """The codec; a fitted one is fitted, or read from the cache, at the first use."""
        return self._sets.codec(may_write=self._may_write)

    @property
    def tokenizer(self) -> Any:
        """What turns texts into token ids."""
        return self._sets.tokenizer

    @property
    def train_set(self) -> Utterances:
        """The rows to train on; these and the others are read, and encoded if need be, at their first use."""
        rows = self._rows("train")
        if rows is None:
            raise RuntimeError("There are no rows to train on.")
        return rows

    @property
    def val_set(self) -> Utterances | None:
        """The rows to validate on; None if there are none."""
        return self._rows("val")

    @property
    def test_set(self) -> Utterances | None:
        """The rows to test on; None if there are none."""
        return self._rows("test")

    @property
    def speakers(self) -> tuple[str, ...]:
        """Sorted names of the speakers of `data`; a batch's "speaker" is a place in it.

        While `data` was not needed, as in a process that only tests, those of the rows that were.
        """
        return self._sets.speakers

    @property
    def report(self) -> Report:
        """What was left out of the sources that were prepared so far, and why."""
        return Report.joined(list(self._sets.reports().values()))

    def statistics(self) -> dict[str, Any]:
        """Return figures of the training rows.

        Returns:
            "utterances", "seconds", "speakers", "frames", "characters", "unigram_entropy" (nats, of each codebook) and
            "padding_share" (of the first epoch's batches).
        """
        padding = self._sampler().padding_share(0)
        return {**describe_utterances(self.train_set, self.codec.codebook_size), "padding_share": padding}

    # -- loaders --------------------------------------------------------------------------------------------------
    @override
    def train_dataloader(self) -> Any:
        misfit = self.misfit()
        if misfit is not None:
            return misfit
        options = {**self._loader_options(), "position": self.position}
        return ResumableLoader(self.train_set, sampler=self._sampler(), **options)

    def _sampler(self) -> LengthBatchSampler:
        rows = self.train_set
        return LengthBatchSampler(rows.frames, rows.voices, **self._batching(), seed=self.seed)

    def _batching(self) -> dict[str, Any]:
        longest = max(1, int(self._sets.preparation.max_seconds * self.codec.frame_rate_hz))
        limits = {"tokens_per_batch": self.tokens_per_batch, "max_batch_size": self.max_batch_size}
        joins = {"join_probability": self.join_probability, "max_joined": self.max_joined, "max_frames": longest}
        return {**limits, **joins}

    def _loader_options(self) -> dict[str, Any]:
        shared = {"batch_size": None, "collate_fn": as_is, "pin_memory": self.pin_memory}
        return {**shared, "num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}

    @override
    def val_dataloader(self) -> Any:
        return self._eval_loader("val", self.val_set)

    @override
    def test_dataloader(self) -> Any:
        return self._eval_loader("test", self.test_set)

    @override
    def predict_dataloader(self) -> Any:
        return self._eval_loader("data", self.train_set if self.val_set is None else self.val_set)

    def _eval_loader(self, name: str, rows: Utterances | None) -> Any:
        if rows is None:
            remedy = f"Pass a manifest or rows as `{name}`."
            return compat.RaisesWhenUsed(MisconfigurationException(problem(name, "given", None, remedy)))
        ranks, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        limits = {"tokens_per_batch": self.tokens_per_batch, "max_batch_size": self.max_batch_size}
        sampler = FixedBatches(rows.frames, num_replicas=ranks, rank=rank, **limits)
        return DataLoader(rows, sampler=sampler, **self._loader_options())

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def _fingerprint(self) -> dict[str, Any]:
        rows, batching = self.train_set, self._batching()
        ranks = 1 if self.trainer is None else self.trainer.world_size
        return {
            "rows": len(rows),
            "utterances": rows.digest,
            "codec": str(self.codec.fingerprint),
            "tokenizer": str(self.tokenizer.fingerprint),
            "seed": self.seed,
            "tokens of a global batch": batching.pop("tokens_per_batch") * ranks,
            "global batch": batching.pop("max_batch_size") * ranks,
            **batching,
        }
