"""Configurations: presets have the sizes of the card, plain values survive, and wrong sizes are named."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lightning_adapt.lina_speech.model.config import PRESETS, LinaConfig, preset
from lightning_adapt.lina_speech.model.model import LinaModel
from tests.lina_speech.model_parts import KINDS, small_config

MILLIONS = {"tiny": 1.3, "60m": 59.9, "169m": 169.0, "230m": 232.6, "359m": 358.9}


def parameters_by_formula(config):
    """Parameters counted by hand, layer by layer, from the published description of the model."""

    def swiglu(width):
        inner = 4 * width // 3
        return 3 * width * inner + 2 * inner + width

    def block(width):
        keys, values = width * config.expand_k, width * config.expand_v
        mixer = width * (2 * keys + 3 * values) + config.gate_rank * width + (config.gate_rank + 1) * keys
        conv = 4 * (2 * keys + values) if config.short_conv else 0
        return mixer + values / config.n_heads + conv + swiglu(width) + 4 * width

    width = config.d_model
    text = 3 * width**2 + 3 * width + swiglu(width) + 4 * width
    tables = (1 if config.tie_embeddings else 2) * config.n_codebooks * (config.codebook_size + 3) * width
    cross = 3 * (width**2 + width) + 3 * 2 * width
    cross += block(config.d_blind) if config.cross_attention == "blind" else 0
    n_blocks = config.n_encoder_layers + config.n_decoder_layers
    return n_blocks * block(width) + config.n_text_layers * text + config.text_vocab_size * width + tables + cross


def n_parameters(config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in LinaModel(config).parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_parameters_that_its_name_says(name):
    assert n_parameters(preset(name)) == pytest.approx(1e6 * MILLIONS[name], rel=0.02)


@pytest.mark.parametrize("small_state", [False, True])
@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_those_of_the_formula(name, small_state):
    config = preset(name, small_state=small_state)
    assert n_parameters(config) == parameters_by_formula(config)


@pytest.mark.parametrize("kind", KINDS)
def test_the_formula_holds_for_every_kind(kind):
    config = small_config(**KINDS[kind])
    assert n_parameters(config) == parameters_by_formula(config)


@pytest.mark.parametrize("name", ["tiny", "60m", "230m", "359m"])
def test_a_small_state_is_a_quarter(name):
    with torch.device("meta"):
        full, small = (LinaModel(preset(name, small_state=on)).initial_state(1) for on in (False, True))
    elements = [
        sum(matrix.numel() for matrix in (*state.gla, state.position) if matrix is not None) for state in (full, small)
    ]
    assert elements[0] == 4 * elements[1]


def test_a_state_has_the_bytes_of_the_card():
    with torch.device("meta"):
        state = LinaModel(preset("230m")).initial_state(1)
    assert sum(4 * matrix.numel() for matrix in state.gla) == 12 * 4 * 256 * 512 * 4  # 25 MB


@pytest.mark.parametrize("overrides", [*KINDS.values(), {"gate_bias_init": (8, 512)}])
def test_plain_values_build_the_same_configuration(overrides):
    config = small_config(**overrides)
    values = json.loads(json.dumps(config.to_dict()))
    assert LinaConfig.from_dict(values) == config
    assert hash(LinaConfig.from_dict(values)) == hash(config)


def test_overrides_of_a_preset_win_over_it_and_over_small_state():
    config = preset("60m", small_state=True, expand_v=2.0, n_codebooks=8)
    assert (config.d_model, config.expand_k, config.expand_v, config.n_codebooks) == (512, 0.5, 2.0, 8)


def test_widths_are_those_of_all_heads():
    config = preset("60m", small_state=True)
    assert (config.key_width, config.value_width, config.n_layers, config.n_audio_ids) == (256, 512, 12, 1027)


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match=r"`preset` must be one of 'tiny'.*'359m'.*got '70m'"):
        preset("70m")


def test_small_state_is_a_switch():
    with pytest.raises(TypeError, match="small_state"):
        preset("tiny", small_state=1)


def test_unknown_saved_arguments_are_named():
    with pytest.raises(ValueError, match=r"\['d_modle'\]"):
        LinaConfig.from_dict({"d_modle": 3})


@pytest.mark.parametrize(
    ("overrides", "error", "named"),
    [
        ({"d_model": 0}, ValueError, "d_model"),
        ({"d_model": 32.0}, TypeError, "d_model"),
        ({"n_codebooks": 0}, ValueError, "n_codebooks"),
        ({"n_text_layers": 0}, ValueError, "n_text_layers"),
        ({"expand_k": 0.0}, ValueError, "expand_k"),
        ({"expand_k": 0.01}, ValueError, "d_model"),
        ({"expand_v": math.inf}, ValueError, "expand_v"),
        ({"n_heads": 5}, ValueError, "n_heads"),
        ({"n_heads": 4, "d_blind": 10}, ValueError, "d_blind"),
        ({"d_blind": 15, "n_heads": 1}, ValueError, "d_blind"),
        ({"n_text_heads": 3}, ValueError, "n_text_heads"),
        ({"n_text_heads": 16}, ValueError, "n_text_heads"),
        ({"cross_attention": "convblind"}, ValueError, "cross_attention"),
        ({"text_dropout": 1.0}, ValueError, "text_dropout"),
        ({"dropout": True}, TypeError, "dropout"),
        ({"attention_dropout": -0.1}, ValueError, "attention_dropout"),
        ({"short_conv": 1}, TypeError, "short_conv"),
        ({"gate_normalizer": 0}, ValueError, "gate_normalizer"),
        ({"gate_bias_init": 8}, TypeError, "gate_bias_init"),
        ({"gate_bias_init": (8, 2)}, ValueError, "gate_bias_init"),
        ({"gate_bias_init": (0, 2)}, ValueError, "gate_bias_init"),
    ],
)
def test_a_wrong_value_is_named(overrides, error, named):
    with pytest.raises(error, match=f"`{named}` must be "):
        small_config(**overrides)


def test_a_width_of_places_does_not_matter_to_plain_attention():
    assert small_config(cross_attention="plain", d_blind=15).d_blind == 15
