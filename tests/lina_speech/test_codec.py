"""Codecs are told apart by their fingerprints, kept in plain states, and what is no codec is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_adapt._shared.state import check_plain
from lightning_adapt.lina_speech.codecs import wavtokenizer_config
from lightning_adapt.lina_speech.codecs.codec import (
    Codec,
    StreamDecoder,
    as_codec,
    check_codec,
    check_codec_like,
    codec_from_state,
)
from lightning_adapt.lina_speech.codecs.fingerprint import fingerprint_text, tensors_digest
from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec
from lightning_adapt.lina_speech.codecs.transformers_codec import TransformersCodec
from lightning_adapt.lina_speech.codecs.wavtokenizer import WavTokenizerCodec
from lightning_adapt.lina_speech.codecs.wavtokenizer_config import config_from
from tests.lina_speech.codec_parts import RATE
from tests.lina_speech.wavtokenizer_parts import SIZES, checkpoint, weights


@pytest.fixture(scope="module")
def codec():
    books = torch.randn(2, 4, 20, generator=torch.Generator().manual_seed(1))
    return KMeansMelCodec(books, sample_rate_hz=RATE)


def test_what_we_offer_is_what_the_protocols_ask_for(codec):
    assert isinstance(codec, Codec)
    assert isinstance(codec.stream_decoder(), StreamDecoder)
    assert check_codec_like(codec) is codec
    assert not isinstance(codec.stream_decoder(), Codec)


def test_a_state_is_plain_and_gives_the_same_codec_back(codec, tmp_path):
    state = codec.to_state()
    check_plain(state)
    torch.save(state, tmp_path / "state.pt")
    again = codec_from_state(
        torch.load(tmp_path / "state.pt", weights_only=True), expected_fingerprint=codec.fingerprint
    )
    assert type(again) is KMeansMelCodec
    assert again.fingerprint == codec.fingerprint
    codes = torch.randint(0, 4, (2, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.decode(codes), codec.decode(codes))


def test_a_state_shares_no_memory_with_the_codec(codec):
    before = codec.fingerprint
    codec.to_state()["codebooks"].zero_()
    assert codec.fingerprint == before


def test_another_codec_is_refused_with_both_fingerprints(codec):
    with pytest.raises(ValueError, match="silent-1x2-50hz-00") as caught:
        codec_from_state(codec.to_state(), expected_fingerprint="silent-1x2-50hz-00")
    assert codec.fingerprint in str(caught.value)
    with pytest.raises(ValueError, match=r"last\.ckpt was made with the codec other") as caught:
        check_codec(codec, "other", "last.ckpt")
    assert codec.fingerprint in str(caught.value)
    check_codec(codec, codec.fingerprint, "last.ckpt")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 2}, "version 2"),
        ({"version": None}, "version"),
        ({"class": "MyCodec"}, "'MyCodec'.*Pass the codec itself"),
        ({"class": None}, "Pass the codec itself"),
        ({"codebooks": None}, "not complete"),
        ({"codebooks": torch.full((1, 2, 3), torch.nan)}, "finite"),
        ({"frame_rate_hz": 3.3}, "frame_rate_hz"),
    ],
)
def test_unfit_states_are_refused(codec, changes, text):
    with pytest.raises(ValueError, match=text):
        codec_from_state({**codec.to_state(), **changes})


def test_incomplete_states_are_refused(codec):
    state = codec.to_state()
    del state["codebooks"]
    with pytest.raises(ValueError, match="codebooks"):
        codec_from_state(state)
    with pytest.raises(ValueError, match="not of TransformersCodec"):
        TransformersCodec.from_state(codec.to_state())


@pytest.mark.parametrize("value", [None, 3, "a name", object(), KMeansMelCodec])
def test_what_is_no_codec_is_refused(value):
    with pytest.raises(TypeError, match="`codec` must be a codec"):
        check_codec_like(value)


def test_the_text_says_what_is_missing(codec):
    class NoStream:
        sample_rate_hz, frame_rate_hz, n_codebooks, codebook_size, fingerprint = 1, 1.0, 1, 1, ""
        encode = decode = to_state = print

    with pytest.raises(TypeError, match=r"no stream_decoder\(\), which"):
        check_codec_like(NoStream())


def test_the_digest_sees_every_number_name_shape_and_setting():
    base = {"a": torch.arange(6.0).reshape(2, 3)}
    digests = {
        tensors_digest(base, {}),
        tensors_digest({"b": base["a"]}, {}),
        tensors_digest({"a": base["a"].t()}, {}),
        tensors_digest({"a": base["a"].reshape(3, 2)}, {}),
        tensors_digest(base, {"rate": 1}),
        tensors_digest(base, {"rate": 2}),
    }
    for place in range(6):
        changed = base["a"].clone()
        changed.view(-1)[place] += 1e-6
        digests.add(tensors_digest({"a": changed}, {}))
    assert len(digests) == 12
    assert all(len(digest) == 16 for digest in digests)
    assert tensors_digest({"a": base["a"].t().contiguous().t()}, {}) in digests  # strides are no content


def test_fingerprints_can_be_read():
    assert fingerprint_text("MyCodec", 4, 256, 50.0, "00ff") == "MyCodec-4x256-50hz-00ff"
    assert fingerprint_text("MyCodec", 8, 2048, 12.5, "00ff") == "MyCodec-8x2048-12.5hz-00ff"


class TestAsCodec:
    def test_an_object_comes_back(self, codec):
        assert as_codec(codec) is codec
        with pytest.raises(TypeError, match="`codec` must be a codec"):
            as_codec(7)

    def test_a_saved_file(self, codec, tmp_path, monkeypatch):
        codec.save(tmp_path / "a.safetensors")
        monkeypatch.setenv("HOME", str(tmp_path))
        for value in (tmp_path / "a.safetensors", str(tmp_path / "a.safetensors"), "~/a.safetensors"):
            assert as_codec(value).fingerprint == codec.fingerprint

    @pytest.mark.parametrize("value", ["nowhere.safetensors", "models/nowhere.pt", "nowhere", Path("no/where")])
    def test_the_error_lists_what_is_allowed(self, value):
        with pytest.raises(
            FileNotFoundError, match=r"`codec` must be a codec; the file .*'encodec:', 'dac:' or 'mimi:'"
        ):
            as_codec(value)

    def test_a_foreign_file_is_refused(self, tmp_path):
        save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=r"`codec` must be a codec; the file .*holds no WavTokenizer"):
            as_codec(tmp_path / "a.safetensors")
        (tmp_path / "b.safetensors").write_bytes(b"junk")
        with pytest.raises(ValueError, match=r"b.safetensors is no codec file \(or is cut off\)"):
            as_codec(tmp_path / "b.safetensors")

    def test_a_wavtokenizer_of_a_published_size(self, tmp_path, monkeypatch):
        monkeypatch.setattr(wavtokenizer_config, "PRESETS", {"small": config_from(SIZES)})
        path = checkpoint(tmp_path)
        expected = WavTokenizerCodec(path, config=SIZES).fingerprint
        assert as_codec(path).fingerprint == expected
        save_file({name: value.contiguous() for name, value in weights().items()}, tmp_path / "a.safetensors")
        monkeypatch.chdir(tmp_path)
        codec = as_codec("a.safetensors")
        assert codec.fingerprint == expected
        monkeypatch.chdir("/")
        assert codec_from_state(codec.to_state()).fingerprint == expected  # from wherever it is loaded
