"""WavTokenizer against the authors' numbers, and its files, sizes, lengths, streams, fingerprints and states."""

import json

import pytest
import torch
import yaml
from safetensors.torch import save_file

from lightning_adapt._shared.state import check_plain
from lightning_adapt.lina_speech.codecs.codec import Codec, codec_from_state
from lightning_adapt.lina_speech.codecs.wavtokenizer import WavTokenizerCodec
from lightning_adapt.lina_speech.codecs.wavtokenizer_config import PRESETS, WavTokenizerConfig, config_from
from lightning_adapt.lina_speech.codecs.wavtokenizer_model import WavTokenizerModel
from tests.lina_speech import wavtokenizer_parts as parts
from tests.lina_speech.codec_parts import PUSHES, streamed
from tests.lina_speech.wavtokenizer_parts import CODEBOOK, ENCODER, HOP, SIZES, audio_of, checkpoint

# What the authors' code (jishengpeng/WavTokenizer, commit 5cf440d, in float64) gives for the weights of
# wavtokenizer_parts, which it loaded under these very names and shapes.
CODES_OF_SAMPLES = {1: [5], 7: [17, 6], 60: [19, 19, 27, 27, 27, 6, 19, 25, 28, 17]}
CODES_OF_299 = [19, 19, 27, 27, 19, 19, 19, 19, 19, 27, 19, 19, 19, 9, 21, 19, 19, 27, 30, 19, 19, 19, 19, 19, 27]
CODES_OF_299 += [27, 19, 19, 19, 19, 19, 19, 19, 27, 19, 19, 19, 19, 19, 19, 19, 3, 19, 19, 19, 19, 27, 19, 19, 27]
SOME_CODES = [[0, 8, 18, 30, 12, 28, 14, 2, 24, 16, 10, 6, 4, 4, 6, 10, 16, 24, 2, 14]]
AUDIO_START = [-0.33703, -0.75371, -0.12911, -0.11975, -0.04892, 0.04004, 0.08513, -0.06935]
AUDIO_END = [-0.29412, 0.11861, 0.09446, -0.10583]
AUDIO_START_2 = [-0.90465, 0.01067, 0.07383, 0.04032, 0.16918, -0.23381, 0.38979, 0.02582]  # with bandwidth_id=2
AUDIO_OF_ONE_FRAME = [-0.50645, 0.63272, -0.17148, -1.0, -0.16888, 0.95802]  # -1.00715 before it is clipped
ENERGY, ENERGY_2 = 9.7483, 27.136
# parameters that the authors' code counts in its two published sizes, without the EnCodec decoder that it never uses
PARAMETERS = {"75 tokens per second": 71_750_146, "40 tokens per second": 72_111_714}


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    return parts.codec(tmp_path_factory.mktemp("wavtokenizer"))


def codes_of(n_frames, rows=None, seed=0):
    shape = (1, n_frames) if rows is None else (rows, 1, n_frames)
    return torch.randint(0, 32, shape, generator=torch.Generator().manual_seed(seed))


# -- the authors' numbers ----------------------------------------------------------------------------------------------
def test_codes_are_those_of_the_authors_code(codec):
    for n_samples, wanted in CODES_OF_SAMPLES.items():
        assert codec.encode(audio_of(n_samples)).tolist() == [wanted]
    assert codec.encode(audio_of(299)).tolist() == [CODES_OF_299]


def test_audio_is_that_of_the_authors_code(codec, tmp_path):
    audio = codec.decode(torch.tensor(SOME_CODES))
    assert torch.allclose(audio[:8], torch.tensor(AUDIO_START), atol=3e-5)
    assert torch.allclose(audio[-4:], torch.tensor(AUDIO_END), atol=3e-5)
    assert float(audio.square().sum()) == pytest.approx(ENERGY, abs=1e-3)
    one = codec.decode(torch.tensor([SOME_CODES[0][:1]]))
    assert torch.allclose(one, torch.tensor(AUDIO_OF_ONE_FRAME), atol=3e-5)
    other = parts.codec(tmp_path, bandwidth_id=2).decode(torch.tensor(SOME_CODES))
    assert torch.allclose(other[:8], torch.tensor(AUDIO_START_2), atol=3e-5)
    assert float(other.square().sum()) == pytest.approx(ENERGY_2, abs=1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_the_published_sizes_have_as_many_parameters_as_the_authors_code_counts(name):
    with torch.device("meta"):
        model = WavTokenizerModel(PRESETS[name])
    lengths = sum(len(part.weight) for part in model.encoder.modules() if isinstance(part, torch.nn.Conv1d))
    conditions = 3 * 2 * 768 * 13  # three of four conditions are left out, in 13 adaptive norms
    assert sum(value.numel() for value in model.parameters()) + lengths + conditions == PARAMETERS[name]


# -- geometry and lengths ----------------------------------------------------------------------------------------------
def test_geometry(codec):
    assert isinstance(codec, Codec)
    assert (codec.n_codebooks, codec.codebook_size, codec.hop_length, codec.sample_rate_hz) == (1, 32, HOP, 24_000)
    assert codec.frame_rate_hz == 4000
    assert not codec.model.training
    rates = {name: config.sample_rate_hz / config.hop_length for name, config in PRESETS.items()}
    assert rates == {"75 tokens per second": 75, "40 tokens per second": 40}


@pytest.mark.parametrize("n_samples", [1, 2, 5, 6, 7, 12, 59, 120, 121])
def test_frames_and_samples_fit_together(codec, n_samples):
    codes = codec.encode(audio_of(n_samples))
    n_frames = -(-n_samples // HOP)
    assert (codes.shape, codes.dtype) == ((1, n_frames), torch.int64)
    audio = codec.decode(codes)
    assert (audio.shape, audio.dtype) == ((n_frames * HOP,), torch.float32)
    assert bool((audio.abs() <= 1).all())
    assert audio[-HOP:].abs().max() > 0


def test_no_frame_is_no_sample(codec):
    assert codec.decode(codes_of(0)).shape == (0,)
    assert codec.decode(codes_of(0, 2)).shape == (2, 0)


def test_a_batch_is_its_rows(codec):
    audio = torch.stack([audio_of(100, seed) for seed in range(3)])
    codes = codec.encode(audio)
    assert codes.shape == (3, 1, 17)
    assert torch.equal(codes, torch.stack([codec.encode(row) for row in audio]))
    other = codes_of(17, 3)
    decoded = codec.decode(other)
    assert decoded.shape == (3, 17 * HOP)
    assert torch.allclose(decoded, torch.stack([codec.decode(row) for row in other]), atol=1e-5)


def test_neither_autocast_nor_double_changes_anything(tmp_path):
    codec, codes = parts.codec(tmp_path), codes_of(9)
    audio, again, before = codec.decode(codes), codec.encode(audio_of(99)), codec.fingerprint
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.decode(codes), audio)
        assert torch.equal(codec.encode(audio_of(99)), again)
    codec.model.double()
    assert codec.to("cpu") is codec
    assert codec.decode(codes).dtype == torch.float32
    assert torch.allclose(codec.decode(codes), audio, atol=1e-4)
    assert torch.equal(codec.encode(audio_of(99)), again)
    assert codec.fingerprint == before


def test_unfit_audio_and_codes_are_refused(codec):
    with pytest.raises(ValueError, match="stereo"):
        codec.encode(torch.zeros(1, 2, 100))
    with pytest.raises(ValueError, match="one row per codebook"):
        codec.decode(torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"0\.\.31"):
        codec.decode(torch.full((1, 2), 32))


def test_the_global_generator_is_left_alone(tmp_path):
    path, before = checkpoint(tmp_path), torch.get_rng_state()
    WavTokenizerCodec(path, config=SIZES)
    assert torch.equal(torch.get_rng_state(), before)


# -- streams -----------------------------------------------------------------------------------------------------------
def test_streams_are_one_audio_however_they_are_pushed(codec):
    codes = codes_of(30)
    sizes = {"block_frames": 7, "left_frames": 5, "right_frames": 2}
    ways = [streamed(codec, codes, how, **sizes) for how in PUSHES]
    assert ways[0].shape == (30 * HOP,)
    assert all(torch.equal(way, ways[0]) for way in ways)
    assert not torch.allclose(ways[0], codec.decode(codes), atol=1e-3)  # norms over time hear the whole: documented


def test_a_stream_shorter_than_the_window_is_the_whole(codec):
    codes = codes_of(30)
    assert torch.equal(streamed(codec, codes, "in threes"), codec.decode(codes))  # half a second is 2000 frames here
    wide = streamed(codec, codes, "ragged", block_frames=4, left_frames=30, right_frames=30)
    assert torch.allclose(wide, codec.decode(codes), atol=1e-5)


# -- files -------------------------------------------------------------------------------------------------------------
def new_names(state):
    """The names that a newer weight norm of torch would have given."""
    pairs = (("weight_g", "parametrizations.weight.original0"), ("weight_v", "parametrizations.weight.original1"))
    for old, new in pairs:
        state = {name.replace(old, new): value for name, value in state.items()}
    return state


def folded(state):
    """A state after remove_weight_norm, by torch's own function."""
    state = dict(state)
    for name in [name for name in state if name.endswith("weight_g")]:
        stem = name.removesuffix("_g")
        state[stem] = torch._weight_norm(state.pop(stem + "_v"), state.pop(name), 0)
    return state


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "old format", "new weight norm", "folded"])
def test_other_files_of_the_same_weights_give_the_same_codec(codec, tmp_path, kind):
    state = {"new weight norm": new_names, "folded": folded}.get(kind, dict)(parts.weights())
    path = tmp_path / ("small.safetensors" if kind == "safetensors" else "small.pt")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind != "old format")
    again = WavTokenizerCodec(path, config=SIZES)
    assert again.fingerprint == codec.fingerprint
    assert torch.equal(again.encode(audio_of(299)), codec.encode(audio_of(299)))
    assert torch.allclose(again.decode(codes_of(20)), codec.decode(codes_of(20)), atol=1e-5)


def test_plain_layer_norms_need_no_condition(codec, tmp_path):
    state = {}
    for name, value in parts.weights().items():
        adaptive = name.endswith((".norm.scale.weight", ".norm.shift.weight"))
        new = name.replace(".scale.weight", ".weight").replace(".shift.weight", ".bias")
        state[new if adaptive else name] = value[0] if adaptive else value
    torch.save(state, tmp_path / "plain.pt")
    plain = WavTokenizerCodec(tmp_path / "plain.pt", config=SIZES)
    assert torch.equal(plain.decode(codes_of(9)), codec.decode(codes_of(9)))


def test_missing_and_unexpected_tensors_are_listed_by_their_own_names(tmp_path):
    gone = ENCODER + "1.block.3.conv.conv.bias"
    second = CODEBOOK.replace("layers.0", "layers.1") + "embed"
    path = checkpoint(tmp_path, **{gone: None, CODEBOOK + "embed": torch.ones(32, 8), second: torch.ones(32, 16)})
    with pytest.raises(ValueError, match=r"small\.ckpt does not fit") as caught:
        WavTokenizerCodec(path, config=SIZES)
    text = str(caught.value)
    assert f"1 missing: {gone}" in text
    assert f"1 unexpected: {second}" in text
    assert f"1 of another shape: {CODEBOOK}embed (32, 8) for (32, 16)" in text
    half = ENCODER + "0.conv.conv.weight_v"
    with pytest.raises(ValueError, match="weight_g") as caught:
        WavTokenizerCodec(checkpoint(tmp_path, **{half: None}), config=SIZES)
    assert "1 missing: " + half.replace("_v", "") in str(caught.value)


class Foreign:
    """Something that only a pickle that runs code can bring back."""


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        WavTokenizerCodec(tmp_path / "none.ckpt", config=SIZES)
    torch.save({"state_dict": parts.weights(), "hyper_parameters": Foreign()}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"cannot be loaded as plain tensors .* write its 'state_dict' with"):
        WavTokenizerCodec(tmp_path / "foreign.ckpt", config=SIZES)
    for name in ("text.ckpt", "text.safetensors"):
        (tmp_path / name).write_text("no tensors here")
        with pytest.raises(ValueError, match=f"text.{name[5:]}"):
            WavTokenizerCodec(tmp_path / name, config=SIZES)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="no state dict"):
        WavTokenizerCodec(tmp_path / "list.pt", config=SIZES)
    torch.save({"layer.weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"holds no WavTokenizer: .* but layer\.weight"):
        WavTokenizerCodec(tmp_path / "other.pt", config=SIZES)


# -- sizes -------------------------------------------------------------------------------------------------------------
def authors_sizes(hop_length=6, padding="same", num_quantizers=1):
    """Sizes as in the authors' YAML files."""
    parts_of = {
        "feature_extractor": {"num_quantizers": num_quantizers, "dowmsamples": [3, 2], "vq_bins": 32, "vq_kmeans": 9},
        "backbone": {"input_channels": 16, "dim": 64, "intermediate_dim": 96, "num_layers": 2},
        "head": {"dim": 64, "n_fft": 24, "hop_length": hop_length, "padding": padding},
    }
    sizes = {name: {"class_path": "decoder.x", "init_args": arguments} for name, arguments in parts_of.items()}
    sizes["sample_rate"] = 24000
    return {"seed_everything": 1, "model": {"class_path": "decoder.experiment.WavTokenizer", "init_args": sizes}}


def test_sizes_come_as_dicts_and_as_files(codec, tmp_path):
    (tmp_path / "sizes.yaml").write_text(yaml.safe_dump(authors_sizes()))
    (tmp_path / "sizes.json").write_text(json.dumps(codec.config.to_dict()))
    assert config_from(tmp_path / "sizes.json") == config_from(codec.config) == config_from(SIZES)
    authors = config_from(str(tmp_path / "sizes.yaml"))
    assert authors == WavTokenizerConfig.from_dict({**SIZES, "n_filters": 32})  # the authors' files leave it at 32
    assert authors == config_from(authors_sizes()["model"]["init_args"])


def test_without_sizes_only_published_ones_are_taken(tmp_path):
    with pytest.raises(ValueError, match=r"a window of 24 samples; .* 1280 \(75 tokens per second\), 2400"):
        WavTokenizerCodec(checkpoint(tmp_path))
    published = {"head.out.weight": torch.ones(1282, 64)}
    with pytest.raises(ValueError, match=r"of another shape: .* and \d+ more"):
        WavTokenizerCodec(checkpoint(tmp_path, **published))
    with pytest.raises(ValueError, match=r"no head\.out\.weight"):
        WavTokenizerCodec(checkpoint(tmp_path, **{"head.out.weight": None}))


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({**SIZES, "n_fft": 25}, "n_fft"),
        ({**SIZES, "width": 65}, "multiple of 32"),
        ({**SIZES, "ratios": []}, "ratios"),
        ({**SIZES, "hop": 6}, "hop"),
        (authors_sizes(hop_length=8), "hop_length"),
        (authors_sizes(padding="center"), "padding"),
        (authors_sizes(num_quantizers=2), "num_quantizers"),
    ],
)
def test_unfit_sizes_are_refused(sizes, text):
    with pytest.raises(ValueError, match=text):
        config_from(sizes)


def test_unfit_arguments_are_refused(tmp_path):
    path = checkpoint(tmp_path)
    with pytest.raises(TypeError, match="config"):
        WavTokenizerCodec(path, config=3)
    with pytest.raises(TypeError, match="n_blocks"):
        WavTokenizerCodec(path, config={**SIZES, "n_blocks": 1.5})
    with pytest.raises(ValueError, match="`bandwidth_id` must be a whole number from 0 to 2"):
        WavTokenizerCodec(path, config=SIZES, bandwidth_id=3)


# -- fingerprints and states -------------------------------------------------------------------------------------------
def test_fingerprints_follow_codebook_and_geometry(codec, tmp_path):
    assert codec.fingerprint.startswith("WavTokenizerCodec-1x32-4000hz-")
    assert codec.fingerprint in repr(codec)
    assert parts.codec(tmp_path).fingerprint == codec.fingerprint
    assert parts.codec(tmp_path, seed=1).fingerprint != codec.fingerprint
    slower = WavTokenizerCodec(checkpoint(tmp_path), config={**SIZES, "sample_rate_hz": 16000})
    assert slower.fingerprint.split("-")[-1] != codec.fingerprint.split("-")[-1]


def test_a_state_names_the_file_and_loads_it_again(tmp_path):
    codec = parts.codec(tmp_path, bandwidth_id=1)
    state = codec.to_state()
    check_plain(state)
    again = codec_from_state(json.loads(json.dumps(state)), expected_fingerprint=codec.fingerprint)
    assert isinstance(again, WavTokenizerCodec)
    assert torch.equal(again.decode(codes_of(9)), codec.decode(codes_of(9)))
    with pytest.raises(ValueError, match="Use its own class"):
        WavTokenizerCodec.from_state({**state, "class": "KMeansMelCodec"})
    path = checkpoint(tmp_path, seed=1)  # the file holds others by now
    with pytest.raises(ValueError, match="was made with the codec WavTokenizerCodec"):
        codec_from_state(state)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        codec_from_state(state)
