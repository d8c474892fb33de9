"""The choice of a backend, dtypes, autocast, compiled modules, and what is said about inputs that do not fit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_adapt.lina_speech.gla import blocks
from lightning_adapt.lina_speech.gla import fla as fla_module
from lightning_adapt.lina_speech.gla.backend import gla
from lightning_adapt.lina_speech.gla.chunked import chunked_gla
from lightning_adapt.lina_speech.gla.fla import fla_gla, why_not_fla
from lightning_adapt.lina_speech.gla.recurrent import gla_step
from tests.lina_speech.gla_parts import errors, everything, inputs, loop


@pytest.mark.parametrize("backend", ["auto", "chunked", "recurrent"])
def test_backends_that_run_here_agree(backend):
    parts = inputs(70)
    mask = torch.arange(70)[None] < torch.tensor([[70], [50]])
    found = everything(gla, parts, torch.float32, backend=backend, mask=mask, output_final_state=True)
    assert max(errors(found, everything(loop, parts, mask=mask)).values()) < 1e-5
    output, nothing = gla(*parts[:5], backend=backend, scale=2.0)
    assert nothing is None
    torch.testing.assert_close(output, loop(*parts[:5])[0] * 2 * 4)


@pytest.mark.parametrize("backend", ["chunked", "recurrent"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(backend, dtype):
    parts = [part.to(dtype) for part in inputs(70)[:3]] + [part.float() for part in inputs(70)[3:]]
    found = everything(gla, parts, dtype, state_dtype=torch.float32, backend=backend, output_final_state=True)
    assert [tensor.dtype for tensor in found] == [dtype, torch.float32, dtype, dtype, dtype, *[torch.float32] * 2]
    parts[5] = parts[5].to(dtype)
    wanted = everything(loop, [part.double() for part in parts])
    off = errors(found, wanted)
    assert off["state"] < 1e-6
    assert off["dh0"] < 1e-6
    assert max(off.values()) < (5e-3 if dtype == torch.bfloat16 else 1e-3)  # the rounding of the results alone


def test_autocast_does_not_reach_inside():
    parts = [part.float() for part in inputs(70)]
    plain = everything(gla, parts, torch.float32, output_final_state=True)
    step = [part[:, 0] for part in parts[:4]] + [parts[4]]
    wanted = gla_step(*step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = everything(gla, parts, torch.float32, output_final_state=True)
        stepped = gla_step(*step)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, plain, strict=True))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(stepped, wanted, strict=True))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(6, 32)

    def forward(self, x, state):
        q, k, v, gate = self.project(x).unflatten(-1, (2, 16)).chunk(4, -1)
        output, last = chunked_gla(q, k, v, F.logsigmoid(gate), state, output_final_state=True)
        return output.flatten(2).tanh(), last


def test_a_compiled_module_gives_the_same_and_one_graph_serves_all_lengths(monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(blocks, "SEGMENT_ELEMENTS", 1)  # the sequences have 1 to 4 segments
    mixer, generator = Mixer(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    state, graphs = torch.randn(2, 2, 4, 4, generator=generator), []
    compiled = torch.compile(mixer, backend=lambda graph, _: graphs.append(graph) or graph.forward, fullgraph=True)
    for steps in (70, 150, 300, 500):
        x, results = torch.randn(2, steps, 6, generator=generator), []
        for module in (mixer, compiled):
            mixer.zero_grad()
            start = state.clone().requires_grad_()
            output, last = module(x, start)
            (output.square().sum() + last.sum()).backward()
            results.append([output.detach(), last.detach(), start.grad, mixer.project.weight.grad.clone()])
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
    assert len(graphs) == 2  # that of the first length, and that of every other
    torch.compiler.reset()


def test_the_operators_tell_the_compiler_the_truth():
    q, k, v, log_decay, state, *_ = (part.float() for part in inputs(70, K=4, V=4))
    leaves = [tensor.requires_grad_() for tensor in (q, k, v, log_decay, state)]
    operator = torch.ops.lightning_adapt.chunked_gla.default
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, (*leaves, None, 0.5, 64, True), test_utils=tests)
    torch.library.opcheck(
        operator, (*leaves, torch.ones(2, 70, dtype=torch.bool), 0.5, 16, False), test_utils=tests[:1]
    )


def test_nothing_is_kept_without_gradients():
    q, k, v, log_decay, state, *_ = (part.requires_grad_() for part in inputs(5))
    with torch.no_grad():
        output, last = gla(q, k, v, log_decay, state, output_final_state=True)
    assert not output.requires_grad
    assert not last.requires_grad


def test_kernels_are_not_imported_on_a_cpu():
    code = (
        "import sys, torch\n"
        "from lightning_adapt.lina_speech.gla.backend import gla\n"
        "x = torch.zeros(1, 3, 1, 2)\n"
        "gla(x, x, x, x)\n"
        "assert not {'fla', 'triton', 'lightning', 'torch._dynamo'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fla_without_a_cuda_device_says_why():
    parts = [part.float() for part in inputs(5)[:5]]
    with pytest.raises(ValueError, match=r"`backend` must be one that can run here.*'cpu'.*CUDA devices only"):
        gla(*parts, backend="fla")
    with pytest.raises(ValueError, match="CUDA devices only"):
        fla_gla(*parts)


class OnCuda:
    device = torch.device("cuda")

    def __init__(self, width=16, dtype=torch.float32):
        self.shape, self.dtype = (1, 1, 1, width), dtype


def test_reasons_against_the_kernels(monkeypatch):
    tried = []

    def broken():
        tried.append(1)
        raise RuntimeError("0 active drivers")

    fits = OnCuda()
    monkeypatch.setattr(fla_module, "_FAILURES", [])
    monkeypatch.setattr(fla_module, "_kernels", lambda: (None, None))
    assert why_not_fla(fits, fits) is None
    assert "float64" in why_not_fla(OnCuda(dtype=torch.float64), fits)
    assert "16 channels" in why_not_fla(fits, OnCuda(8))
    assert "16 channels" in why_not_fla(OnCuda(8), fits)
    monkeypatch.setattr(fla_module, "_kernels", broken)
    with pytest.warns(UserWarning, match="importing fla-core failed: 0 active drivers.*slower"):
        assert why_not_fla(fits, fits) == "importing fla-core failed: 0 active drivers"
    assert why_not_fla(fits, fits) == "importing fla-core failed: 0 active drivers"
    assert len(tried) == 1
    monkeypatch.setattr(fla_module, "EXTRAS", {"speech": {"fla-core": False}})
    assert 'pip install "lightning-adapt[speech]"' in why_not_fla(fits, fits)


@pytest.mark.parametrize("steps", [3, 65])
def test_what_the_kernels_are_given(steps, monkeypatch):
    calls = []

    def kernel(name, gate):
        def run(q, k, v, *, scale, initial_state, output_final_state, **rest):
            calls.append((name, rest[gate], initial_state, k))
            return loop(q, k, v, rest[gate], initial_state)

        return run

    monkeypatch.setattr(fla_module, "_kernels", lambda: (kernel("chunks", "g"), kernel("steps", "gk")))
    monkeypatch.setattr(fla_module, "why_not_fla", lambda *given: None)
    parts = [part.float() for part in inputs(steps, resets=float("-inf"))]
    mask = torch.arange(steps)[None] < torch.tensor([[steps], [2]])
    output, last = fla_gla(*parts[:4], parts[4][:1], mask=mask, output_final_state=True)
    wanted = loop(*parts[:4], parts[4][:1].expand(2, -1, -1, -1), mask=mask)
    torch.testing.assert_close(output, wanted[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, wanted[1], rtol=1e-4, atol=1e-5)
    name, gates, state, keys = calls[0]
    assert name == ("steps" if steps == 3 else "chunks")
    assert bool(torch.isfinite(gates).all())
    assert state.is_contiguous()
    assert not keys[1, 2:].any()
    assert fla_gla(*parts[:4])[1] is None


BAD = {
    "q": lambda g: {**g, "q_BTHK": g["q_BTHK"][0]},
    "k": lambda g: {**g, "k_BTHK": g["k_BTHK"][:, :2]},
    "v": lambda g: {**g, "v_BTHV": g["v_BTHV"][:1]},
    "log_decay": lambda g: {**g, "log_decay_BTHK": g["log_decay_BTHK"][..., :1]},
    "initial_state": lambda g: {**g, "initial_state": g["initial_state"].transpose(2, 3)},
    "mask": lambda g: {**g, "mask": torch.ones(2, 5)},
    "backend": lambda g: {**g, "backend": "chunk"},
}


@pytest.mark.parametrize("name", BAD)
def test_inputs_that_do_not_fit_are_named(name):
    names = ("q_BTHK", "k_BTHK", "v_BTHV", "log_decay_BTHK", "initial_state")
    given = BAD[name](dict(zip(names, inputs(5)[:5], strict=True)))
    with pytest.raises(ValueError, match=f"^`{name}` must be .*, but got "):
        gla(given.pop("q_BTHK"), given.pop("k_BTHK"), given.pop("v_BTHV"), given.pop("log_decay_BTHK"), **given)


def test_whole_numbers_and_odd_chunks_are_refused():
    q, k, v, log_decay, state, *_ = inputs(5)
    with pytest.raises(TypeError, match="`k` must be of a floating point dtype"):
        gla(q, k.long(), v, log_decay)
    with pytest.raises(TypeError, match="`initial_state` must be of a floating point dtype"):
        gla(q, k, v, log_decay, state.long())
    for size in (4, 48):
        with pytest.raises(ValueError, match="`chunk_size` must be a power of two >= 8"):
            chunked_gla(q, k, v, log_decay, chunk_size=size)
