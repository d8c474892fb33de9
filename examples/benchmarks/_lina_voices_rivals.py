"""Ways to make a model speak like somebody: a prompt, tuned initial states, LoRA and fine-tuning, at equal steps."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any, NamedTuple

import _lina_voices_data as d
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt._shared.forward import evaluating
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.data.utterances import pad_batch
from lightning_adapt.lina_speech.held_out import BestWeights, trained_parameters
from lightning_adapt.lina_speech.inference.sampling import SamplingOptions, draw, stream_key, stream_uniforms
from lightning_adapt.lina_speech.model.delay import BOA, CODE_OFFSET, EOA
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning
from lightning_adapt.lina_speech.voices.voice import Voice

LORA_RANK = 8
LORA_LAYERS = ["project", "output", "expand", "reduce", "qkv", "query", "key", "value"]
TUNING: dict[str, Any] = {}  # further arguments of the callback; a test puts a control here


class Speaks(NamedTuple):
    """A model that speaks like somebody, and what that took."""

    module: LinaSpeechModule
    voice: Voice | None
    cost: dict[str, float]


# -- initial states ----------------------------------------------------------------------------------------------------
def tuned(base: d.Base, data: TextSpeechDataModule, rank: Any, seed: int, steps: int, **how: Any) -> Speaks:
    """Tune initial states by the callback; the voice is the one in the file that it wrote.

    Args:
        base: Whose weights stay as they are.
        data: What to learn, and to choose the best step by.
        rank: As in `InitialStateTuning`.
        seed: Likewise.
        steps: Optimizer steps.
        how: "every" (steps between validations, None for none) and arguments of the callback.
    """
    path, every = base.path.with_name("voice.safetensors"), how.pop("every", None)
    before = weights_fingerprint(base.module)
    options = {"patience": None, "out": path, "seed": seed, **how, **TUNING}
    tuning = InitialStateTuning("somebody", rank=rank, **options)
    with warnings.catch_warnings():
        # the base is kept then, which is what a row of three utterances is there to show
        warnings.filterwarnings("ignore", message="Nothing that was tuned was better")
        took = _fitted(base.module, data, [tuning], steps, every)
    voice = Voice.load(path)
    unchanged = float(weights_fingerprint(base.module) == before)
    cost = {"seconds": took, "bytes": path.stat().st_size, "parameters": voice.nbytes / 4, "unchanged": unchanged}
    return Speaks(base.module, voice, cost)


def _fitted(
    module: LinaSpeechModule, data: TextSpeechDataModule, callbacks: list[Callback], steps: int, every: int | None
) -> float:
    """Train, and return the seconds of it."""
    looks = {"limit_val_batches": 0} if every is None else {"val_check_interval": every}
    trainer = quiet_trainer(
        callbacks,
        max_steps=steps,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        **looks,  # type: ignore[arg-type]
    )
    began = time.perf_counter()
    trainer.fit(module.train(), datamodule=data)
    took = time.perf_counter() - began
    module.eval()
    return took


# -- weights -----------------------------------------------------------------------------------------------------------
def fine_tuned(base: d.Base, data: TextSpeechDataModule, rate: float, steps: int, every: int) -> Speaks:
    """Train all weights, as the base was trained, from its checkpoint."""
    module = d.loaded(base.path, learning_rate=rate, warmup_steps=steps // 10)
    return _with_trained_weights(module, data, steps, every)


def with_lora(base: d.Base, data: TextSpeechDataModule, rate: float, steps: int, every: int, seed: int) -> Speaks:
    """Train low-rank additions to the linear maps; the two of the gate, which is computed in float32, have none."""
    from peft import LoraConfig, inject_adapter_in_model

    module = d.loaded(base.path, learning_rate=rate, warmup_steps=steps // 10, weight_decay=0.0)
    settings = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=LORA_LAYERS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, module.model)
    return _with_trained_weights(module, data, steps, every)


def _with_trained_weights(module: LinaSpeechModule, data: TextSpeechDataModule, steps: int, every: int) -> Speaks:
    best = BestWeights(d.cross_entropy(module, list(data.val_dataloader())))
    took = _fitted(module, data, [best], steps, every)
    count = sum(value.numel() for value in trained_parameters(module).values())
    return Speaks(module, None, {"seconds": took, "bytes": 4.0 * count, "parameters": float(count)})


# -- prompts -----------------------------------------------------------------------------------------------------------
def prompt_state(base: d.Base, person: d.Person, number: int) -> Speaks:
    """Keep the state after one recording as a voice: nothing is trained."""
    row, path = person.rows[number], base.path.with_name("prompt.safetensors")
    began = time.perf_counter()
    rate = {"sample_rate_hz": row["sample_rate_hz"]} if "sample_rate_hz" in row else {}
    voice = base.module.voice_from_prompt(row["audio"], row["text"], **rate)
    took = time.perf_counter() - began
    voice.save(path)
    cost = {"seconds": took, "bytes": path.stat().st_size, "parameters": voice.nbytes / 4}
    return Speaks(base.module, voice, cost)


def prompts_of(person: d.Person, number: int, length: int, seed: int) -> list[dict[str, Any]]:
    """Return some utterances of the training data, other ones for each number."""
    known = person.data.train_set
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed)).tolist()
    return [known[order[(number * length + place) % len(order)]] for place in range(length)]


def continued_loss(base: d.Base, person: d.Person, length: int, seed: int) -> float:
    """Return the loss of what is measured on, each utterance as the continuation of `length` others, on it alone."""
    total = count = 0.0
    for number in range(len(person.data.test_set)):
        row = person.data.test_set[number]
        prompts = prompts_of(person, number, length, seed)
        batch = pad_batch([_joined(base.module, [*prompts, row])])
        losses, counted = d.column_losses(base.module, batch, None)
        start = sum(prompt["codes"].shape[1] for prompt in prompts)
        total += float(losses[:, start:].double().sum())
        count += float(counted[:, start:].sum())
    return total / count


def _joined(module: LinaSpeechModule, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Join texts and codes as training does."""
    text = module.tokenizer.encode(" ".join(row["text"] for row in rows))
    return {"text": text, "codes": torch.cat([row["codes"] for row in rows], 1), "index": 0, "speaker": 0}


def continue_prompt(
    module: LinaSpeechModule, prompts: list[dict[str, Any]], text: str, *, seconds: float, seed: int
) -> tuple[Tensor, bool]:
    """Let a model of one codebook hear recordings, and go on with a text: its codes are forced, then free.

    Args:
        module: The model.
        prompts: Utterances with "text" and "codes".
        text: What is to be said next.
        seconds: Longest continuation.
        seed: Of what is drawn.

    Returns:
        Audio of the continuation, shape (S,), and whether it ended by itself.
    """
    heard = _joined(module, [*prompts, {"text": text, "codes": torch.empty(1, 0, dtype=torch.int64)}])
    ids = torch.tensor([heard["text"]])
    columns = torch.cat([torch.tensor([BOA]), heard["codes"][0] + CODE_OFFSET])
    limit = max(1, int(seconds * module.codec.frame_rate_hz))
    uniforms = stream_uniforms([stream_key(seed)], limit, 1)
    forbidden = torch.zeros(module.config.n_audio_ids)
    forbidden[:EOA] = -math.inf
    said: list[Tensor] = []
    with evaluating(module), torch.inference_mode():
        memory = module.model.encode_text(ids, torch.tensor([ids.shape[1]]))
        after = module.model.forward_audio(memory, columns[None, :-1, None], output_state=True)
        state, latest = after.state, columns[-1:]
        for step in range(limit):
            made = module.model.step(latest[None], memory, state)
            state, ruled_out = made.state, forbidden.clone()
            if step == 0:  # as in generation without a prompt, the first frame cannot be the end
                ruled_out[EOA] = -math.inf
            latest = draw(made.logits[:, 0] + ruled_out, uniforms[:, step, 0], SamplingOptions())
            if int(latest) == EOA:
                break
            said.append(latest - CODE_OFFSET)
        audio: Tensor = module.codec.decode(torch.stack(said, 1))
    return audio.clone(), int(latest) == EOA
