"""InstructionTuningModule: LoRA, checkpoints that hold the adapters alone, folders for plain peft, exact resume."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_adapt.divconq.models.instruction_module import InstructionTuningModule
from tests.divconq.instruction_parts import tiny
from tests.divconq.tuning_parts import SMALL, batch_of, data, fit, module


def logits_of(tuned, batch):
    tuned.eval()
    with torch.no_grad():
        return tuned(batch["input_ids"], batch["attention_mask"])


def test_lora_trains_adapters_in_training_mode_and_nothing_else():
    tuned = module(lora=True)
    assert all(part.training for part in tuned.model.modules())
    assert {
        name.split(".lora_")[0].rsplit(".", 1)[-1] for name, value in tuned.named_parameters() if value.requires_grad
    } == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    config = tuned.model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (64, 16, 0.1)
    before = {name: value.clone() for name, value in tuned.named_parameters()}
    fit(tuned)
    moved = {name for name, value in tuned.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)


def test_a_checkpoint_holds_the_adapters_and_is_loaded_strictly(tmp_path):
    tuned, batch = module(), batch_of()
    fit(tuned, max_epochs=2).save_checkpoint("tuned.ckpt")
    saved = torch.load("tuned.ckpt", weights_only=True)
    assert all("lora_" in name for name in saved["state_dict"])
    loaded = InstructionTuningModule.load_from_checkpoint("tuned.ckpt", model=tiny()[0])
    assert torch.equal(logits_of(tuned, batch), logits_of(loaded, batch))
    assert not torch.equal(logits_of(module(), batch), logits_of(loaded, batch))
    assert loaded.hparams["lora"] == SMALL
    missing = copy.deepcopy(saved)
    missing["state_dict"].popitem()
    torch.save(missing, "missing.ckpt")
    with pytest.raises(RuntimeError, match="Missing key"):
        InstructionTuningModule.load_from_checkpoint("missing.ckpt", model=tiny()[0])


@pytest.mark.parametrize("by", ["load_from_checkpoint", "fit"])
def test_adapters_of_another_base_model_are_refused(by):
    fit(module()).save_checkpoint("tuned.ckpt")
    other = tiny()[0]
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight *= 1.02
    load = {
        "fit": lambda: fit(InstructionTuningModule(other, lora=SMALL), max_epochs=2, ckpt_path="tuned.ckpt"),
        "load_from_checkpoint": lambda: InstructionTuningModule.load_from_checkpoint("tuned.ckpt", model=other),
    }[by]
    with pytest.raises(ValueError, match=r"\(adapters\), on top of a base model"):
        load()


def test_adapters_that_would_act_with_another_strength_are_refused():
    fit(module()).save_checkpoint("tuned.ckpt")
    for change in ({"lora_alpha": 64}, {"use_rslora": True}, {"r": 8}):
        with pytest.raises(ValueError, match=r"`lora` must be as in the checkpoint.*another strength"):
            InstructionTuningModule.load_from_checkpoint("tuned.ckpt", model=tiny()[0], lora={**SMALL, **change})
    other = {**SMALL, "lora_dropout": 0.5}
    loaded = InstructionTuningModule.load_from_checkpoint("tuned.ckpt", model=tiny()[0], lora=other)
    assert loaded.model.peft_config["default"].lora_dropout == 0.5


def test_the_fingerprint_does_not_see_bfloat16():
    tuned, rounded = module(), InstructionTuningModule(tiny()[0].to(torch.bfloat16), lora=SMALL)
    assert tuned.base_fingerprint == rounded.base_fingerprint != ""
    assert module(lora=False).base_fingerprint == ""


def llama(**sizes):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**sizes))


def test_adapters_are_a_small_part_of_a_large_model():
    # Llama-2-7B; the optimizer keeps two more numbers per trained weight, so the share holds for whole checkpoints
    with torch.device("meta"):
        tuned = InstructionTuningModule(llama(), lora=True)
    trained = sum(value.numel() for value in tuned.parameters() if value.requires_grad)
    whole = sum(value.numel() for value in tuned.parameters())
    assert 6.7e9 < whole - trained < 6.8e9
    assert trained / whole < 0.03


def test_an_adapter_checkpoint_is_below_a_twentieth_of_a_whole_one(tmp_path):
    sizes = {"vocab_size": 1000, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 3}
    written = {}
    for name, lora in (("adapters", SMALL), ("whole", False)):
        tuned = InstructionTuningModule(llama(**sizes, num_attention_heads=4), lora=lora)
        path = tmp_path / f"{name}.ckpt"
        fit(tuned, max_steps=1).save_checkpoint(path)
        written[name] = path.stat().st_size
    assert written["adapters"] < 0.05 * written["whole"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21
def test_the_adapter_folder_is_one_of_plain_peft(tmp_path):
    from peft import PeftModel
    from transformers import AutoTokenizer

    tuned, batch = module(tokenizer=tiny()[1]), batch_of()
    fit(tuned, max_epochs=2)
    tuned.save_adapter(tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(tiny()[0], str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        plain = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.equal(plain, logits_of(tuned, batch))
    assert AutoTokenizer.from_pretrained(str(tmp_path / "adapter")).chat_template == tiny()[1].chat_template


def test_whole_models_are_tuned_saved_and_loaded_by_name(tmp_path):
    model, tokenizer = tiny()
    model.to(torch.bfloat16).save_pretrained(str(tmp_path / "base"))
    tokenizer.save_pretrained(str(tmp_path / "base"))
    tuned, batch = InstructionTuningModule(str(tmp_path / "base"), lora=False), batch_of()
    assert {value.dtype for value in tuned.parameters()} == {torch.float32}
    assert InstructionTuningModule(str(tmp_path / "base"), lora=SMALL).model.dtype == torch.bfloat16
    assert tuned.tokenizer.chat_template == tokenizer.chat_template
    fit(tuned).save_checkpoint("whole.ckpt")
    loaded = InstructionTuningModule.load_from_checkpoint("whole.ckpt", weights_only=True)
    assert torch.equal(logits_of(tuned, batch), logits_of(loaded, batch))


@pytest.mark.parametrize("steps", [6, 8])
def test_a_run_resumes_exactly_at_the_end_of_an_epoch_and_inside_one(steps, tmp_path):
    def keep():
        return ModelCheckpoint(str(tmp_path), "{step}", every_n_train_steps=steps, save_top_k=-1)

    options = {"max_epochs": 2, "enable_checkpointing": True}
    torch.manual_seed(0)
    tuned = module()
    fit(tuned, data(24), callbacks=[keep()], **options)
    torch.manual_seed(1)
    resumed = module()
    fit(resumed, data(24), callbacks=[keep()], ckpt_path=str(tmp_path / f"step={steps}.ckpt"), **options)
    for (name, value), again in zip(tuned.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, again), name
