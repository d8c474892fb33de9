"""EnCodec, DAC and Mimi with random weights: layouts, lengths, streams, fingerprints and states."""

import pytest
import torch
from transformers import (
    AutoModel,
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
    ViTConfig,
    ViTModel,
)

from lightning_adapt._shared.state import check_plain
from lightning_adapt.lina_speech.codecs.codec import Codec, as_codec, codec_from_state
from lightning_adapt.lina_speech.codecs.transformers_codec import TransformersCodec
from tests.lina_speech.codec_parts import PUSHES, streamed

KINDS = ["encodec", "dac", "dac, odd strides", "mimi"]
HOPS = {"encodec": 16, "dac": 16, "dac, odd strides": 15, "mimi": 16}


def build(kind, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "encodec":
            sizes = {"num_filters": 4, "hidden_size": 16, "codebook_size": 32, "num_lstm_layers": 1}
            rates = {"upsampling_ratios": [4, 2, 2], "target_bandwidths": [15.0, 30.0], "sampling_rate": 24_000}
            model = EncodecModel(EncodecConfig(**sizes, **rates))
            books = [layer.codebook.embed for layer in model.quantizer.layers]
        elif kind.startswith("dac"):
            strides = [5, 3] if "odd" in kind else [4, 2, 2]
            sizes = {"encoder_hidden_size": 8, "decoder_hidden_size": 32, "n_codebooks": 4, "codebook_size": 32}
            model = DacModel(DacConfig(**sizes, codebook_dim=4, downsampling_ratios=strides))
            books = []
        else:
            sizes = {"num_filters": 8, "hidden_size": 16, "codebook_size": 32, "codebook_dim": 16, "head_dim": 8}
            sizes |= {"vector_quantization_hidden_dimension": 16, "intermediate_size": 32, "upsample_groups": 16}
            counts = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "num_quantizers": 4}
            rates = {"upsampling_ratios": [4, 2], "sampling_rate": 1600, "sliding_window": 20}
            model = MimiModel(MimiConfig(**sizes, **counts, **rates))
            quantizer = model.quantizer
            halves = (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer)
            books = [layer.codebook.embed_sum for half in halves for layer in half.layers]
        for book in books:  # a fresh model has zeros there
            book.copy_(torch.randn(book.shape) * (0.02 if kind == "encodec" else 1.0))  # about the size of its latents
    return model


@pytest.fixture(scope="module")
def models():
    return {kind: build(kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def audio_of(n_samples, seed=0):
    return torch.rand(n_samples, generator=torch.Generator().manual_seed(seed)) - 0.5


def codes_of(codec, n_frames, seed=0):
    shape = (codec.n_codebooks, n_frames)
    return torch.randint(0, codec.codebook_size, shape, generator=torch.Generator().manual_seed(seed))


# -- layouts and lengths -----------------------------------------------------------------------------------------------
def test_geometry(models, kind):
    codec = TransformersCodec(models[kind])
    assert isinstance(codec, Codec)
    assert codec.hop_length == HOPS[kind]
    assert codec.sample_rate_hz == models[kind].config.sampling_rate
    assert codec.frame_rate_hz == pytest.approx(codec.sample_rate_hz / HOPS[kind])
    assert (codec.n_codebooks, codec.codebook_size) == (4, 32)
    assert not codec.model.training


@pytest.mark.parametrize("extra", [0, 1, -1])
def test_frames_and_samples_fit_together(models, kind, extra):
    codec = TransformersCodec(models[kind], n_codebooks=3)
    hop = codec.hop_length
    codes = codec.encode(audio_of(20 * hop + extra))
    n_frames = 21 if extra == 1 else 20
    assert codes.shape == (3, n_frames)
    assert codes.dtype == torch.int64
    assert codes.unique().numel() > 4
    audio = codec.decode(codes)
    assert audio.shape == (n_frames * hop,)
    assert audio.dtype == torch.float32
    assert bool((audio.abs() <= 1).all())
    assert audio[: -2 * hop].abs().max() > 0


def test_one_sample_and_no_frame(models, kind):
    codec = TransformersCodec(models[kind])
    assert codec.encode(audio_of(1)).shape == (4, 1)
    assert codec.decode(codes_of(codec, 1)).shape == (codec.hop_length,)
    assert codec.decode(codes_of(codec, 0)).shape == (0,)
    assert codec.decode(codes_of(codec, 0)[None]).shape == (1, 0)


def test_a_batch_is_its_rows(models, kind):
    codec = TransformersCodec(models[kind], n_codebooks=2)
    audio = torch.stack([audio_of(10 * codec.hop_length, seed) for seed in range(3)])
    codes = codec.encode(audio)
    assert codes.shape == (3, 2, 10)
    rows = torch.stack([codec.encode(row) for row in audio])
    assert (rows == codes).float().mean() > 0.95  # random weights put some frames between two centers
    decoded = codec.decode(codes)
    assert decoded.shape == audio.shape
    for row, alone in zip(decoded, codes, strict=True):
        assert torch.allclose(row, codec.decode(alone), atol=1e-5)


def test_codes_are_those_of_the_model_and_the_first_books_do_not_depend_on_the_rest(models, kind):
    model = models[kind]
    codec = TransformersCodec(model)
    audio = audio_of(20 * codec.hop_length)
    with torch.no_grad():
        wanted = {
            "encodec": lambda: model.encode(audio[None, None], bandwidth=30.0).audio_codes[0, 0],
            "mimi": lambda: model.encode(audio[None, None], num_quantizers=4).audio_codes[0],
        }.get(kind, lambda: model.encode(audio[None, None], n_quantizers=4).audio_codes[0])()
    codes = codec.encode(audio)
    assert torch.equal(codes, wanted)
    for count in (1, 2, 3):
        assert torch.equal(TransformersCodec(model, n_codebooks=count).encode(audio), codes[:count])
    with torch.no_grad():
        given = {"encodec": lambda: model.decode(codes[None, None], [None]), "mimi": lambda: model.decode(codes[None])}
        whole = given.get(kind, lambda: model.decode(audio_codes=codes[None]))().audio_values.reshape(-1)
    assert torch.equal(codec.decode(codes)[: len(whole)], whole.clamp(-1, 1))


def test_autocast_does_not_reach_the_model(models, kind):
    codec = TransformersCodec(models[kind])
    codes = codes_of(codec, 6)
    with torch.autocast("cpu", torch.bfloat16):
        audio = codec.decode(codes)
        again = codec.encode(audio)
    assert torch.equal(audio, codec.decode(codes))
    assert torch.equal(again, codec.encode(audio))


# -- streams -----------------------------------------------------------------------------------------------------------
def test_streams_are_one_audio_however_they_are_pushed(models, kind):
    codec = TransformersCodec(models[kind], n_codebooks=2)
    codes = codes_of(codec, 30)
    sizes = {"block_frames": 7, "left_frames": 5, "right_frames": 2}
    ways = [streamed(codec, codes, how, **sizes) for how in PUSHES]
    assert ways[0].shape == (30 * codec.hop_length,)
    assert all(torch.equal(way, ways[0]) for way in ways)


def test_the_usual_context_gives_the_whole_where_the_reach_is_finite(models, kind):
    codec = TransformersCodec(models[kind], n_codebooks=2)
    codes = codes_of(codec, 120)
    near = (streamed(codec, codes, "ragged", block_frames=11) - codec.decode(codes)).abs().max()
    loud = codec.decode(codes).abs().max()
    assert near <= (1e-4 if kind.startswith("dac") else 0.05 * loud)
    if kind.startswith("dac"):  # a control: without context it is not
        far = streamed(codec, codes, "ragged", block_frames=11, left_frames=0, right_frames=0) - codec.decode(codes)
        assert far.abs().max() > 1e-3 * loud


# -- fingerprints ------------------------------------------------------------------------------------------------------
def test_fingerprints_follow_the_codebooks_and_not_the_float_type(kind):
    codec, other = TransformersCodec(build(kind)), TransformersCodec(build(kind, seed=1))
    before = codec.fingerprint
    assert before != other.fingerprint
    assert before.startswith(f"TransformersCodec.{kind.split(',')[0]}-4x32-")
    assert TransformersCodec(build(kind)).fingerprint == before
    assert TransformersCodec(codec.model, n_codebooks=2).fingerprint != before
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert TransformersCodec(build(kind).to(dtype)).fingerprint == before


def test_a_used_model_can_be_moved(kind):
    codec = TransformersCodec(build(kind), n_codebooks=2)
    codes = codec.encode(audio_of(160))
    audio = codec.decode(codes)
    codec.model.double()  # as far as a move goes without a second device
    assert codec.to("cpu") is codec
    assert torch.allclose(codec.decode(codes), audio, atol=1e-4)
    assert codec.encode(audio_of(160)).shape == codes.shape


# -- states ------------------------------------------------------------------------------------------------------------
def test_a_state_names_the_weights_and_loads_them_again(models, kind, tmp_path):
    models[kind].save_pretrained(tmp_path / "model")
    codec = TransformersCodec(tmp_path / "model", n_codebooks=2)
    state = codec.to_state()
    check_plain(state)
    assert state["name"] == str(tmp_path / "model")
    assert state["fingerprint"] == TransformersCodec(models[kind], n_codebooks=2).fingerprint
    again = codec_from_state(state, expected_fingerprint=codec.fingerprint)
    codes = codes_of(codec, 8)
    assert torch.equal(again.decode(codes), codec.decode(codes))
    build(kind, seed=1).save_pretrained(tmp_path / "model")  # the folder holds others by now
    with pytest.raises(ValueError, match="was made with the codec TransformersCodec"):
        codec_from_state(state)


def test_a_state_without_a_name_says_what_to_do(models):
    state = TransformersCodec(models["dac"]).to_state()
    check_plain(state)
    with pytest.raises(ValueError, match="Pass the codec itself"):
        codec_from_state(state)


def test_what_is_no_codec_model_is_refused(models, tmp_path):
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    for unfit in (3, None, torch.nn.Linear(1, 1), ViTModel(ViTConfig(**small))):
        with pytest.raises(TypeError, match="`model` must be an EncodecModel"):
            TransformersCodec(unfit)
    stereo = {"audio_channels": 2, "num_filters": 2, "hidden_size": 4, "upsampling_ratios": [2], "codebook_size": 8}
    with pytest.raises(ValueError, match="mono"):
        TransformersCodec(EncodecModel(EncodecConfig(**stereo)))
    chunked = {**stereo, "audio_channels": 1, "chunk_length_s": 1.0, "overlap": 0.1}
    with pytest.raises(ValueError, match="as a whole"):
        TransformersCodec(EncodecModel(EncodecConfig(**chunked)))
    for count, error in ((0, ValueError), (5, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="n_codebooks"):
            TransformersCodec(models["dac"], n_codebooks=count)
    with pytest.raises(OSError, match="missing"):
        TransformersCodec(tmp_path / "missing")


def test_unfit_audio_and_codes_are_refused(models):
    codec = TransformersCodec(models["dac"])
    with pytest.raises(ValueError, match="stereo"):
        codec.encode(torch.zeros(1, 2, 100))
    with pytest.raises(ValueError, match="one row per codebook"):
        codec.decode(torch.zeros(3, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"0\.\.31"):
        codec.stream_decoder().push(torch.full((4, 2), 32))


def test_names_and_folders_are_taken_as_codecs(models, tmp_path, monkeypatch):
    models["mimi"].save_pretrained(tmp_path / "small")
    expected = TransformersCodec(models["mimi"]).fingerprint
    monkeypatch.chdir(tmp_path)
    for value in ("mimi:small", "small", tmp_path / "small"):
        assert as_codec(value).fingerprint == expected
    state = as_codec("mimi:small").to_state()
    monkeypatch.chdir("/")
    assert codec_from_state(state).fingerprint == expected  # from wherever it is loaded
    with pytest.raises(ValueError, match=r"`codec` must be a model of the kind 'dac', but got 'mimi'. Write 'mimi:"):
        as_codec(f"dac:{tmp_path / 'small'}")


def test_a_name_that_the_hub_does_not_have_is_refused_with_what_is_allowed(monkeypatch):
    def missing(name, **_):
        raise OSError(f"{name} is not there")

    monkeypatch.setattr(AutoModel, "from_pretrained", missing)
    for value in ("someone/something", "encodec:something"):
        with pytest.raises(OSError, match=r"`codec` must be a codec; .*Nothing can be loaded by that name: some"):
            as_codec(value)
