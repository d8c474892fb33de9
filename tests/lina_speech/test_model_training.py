"""The model in training: gradients of states, activation checkpointing, dropout, autocast and torch.compile."""

from __future__ import annotations

import pytest
import torch

from tests.lina_speech.model_parts import KINDS, batch, biggest_gap, loss_of, small_model, walk

KIND_PAIRS = ["blind", "plain conv tied Q4", "blind conv Q4"]


@pytest.mark.parametrize("kind", KIND_PAIRS)
def test_gradients_of_the_first_state_are_those_of_finite_differences(kind):
    model = small_model(**KINDS[kind]).double()
    data = batch(model.config.n_codebooks)
    draw = torch.Generator().manual_seed(3)
    first = model.initial_state(1).map(
        lambda tensor: 0.3 * torch.randn(tensor.shape, generator=draw, dtype=torch.float64)
    )
    leaves = first.map(lambda tensor: tensor.clone().requires_grad_())
    loss_of(model, data, state=leaves).backward()
    for name, leaf in leaves.tensors().items():
        direction = torch.randn(leaf.shape, generator=draw, dtype=torch.float64)

        def shifted(step, name=name, direction=direction):
            tensors = {**first.tensors(), name: first.tensors()[name] + step * direction}
            with torch.no_grad():
                return float(loss_of(model, data, state=type(first).from_tensors(tensors)))

        slope = (shifted(1e-4) - shifted(-1e-4)) / 2e-4
        assert float((leaf.grad * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-9)
        assert slope != 0


def a_voice(model):
    """A random state of one stream that wants gradients."""
    draw = torch.Generator().manual_seed(3)
    return model.initial_state(1).map(
        lambda tensor: (0.3 * torch.randn(tensor.shape, generator=draw)).to(tensor.dtype).requires_grad_()
    )


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("kind", KIND_PAIRS)
def test_a_voice_of_one_stream_gets_the_sum_of_gradients_while_the_weights_are_frozen(kind, checkpoint):
    model = small_model(model_options={"checkpoint_activations": checkpoint}, **KINDS[kind]).requires_grad_(False)
    data, voice = batch(model.config.n_codebooks), a_voice(model)
    own = voice.expand(3).map(lambda tensor: tensor.detach().clone().requires_grad_())
    for state in (voice, own):
        loss_of(model, data, state=state).backward()
    for name, leaf in voice.tensors().items():
        assert leaf.grad.any(), name
        torch.testing.assert_close(leaf.grad, own.tensors()[name].grad.sum(0, keepdim=True), msg=name)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_flow_through_a_carried_state():
    model, data = small_model(), batch()
    text, text_lengths, inputs, _ = data
    whole = torch.autograd.grad(model(text, text_lengths, inputs).logits[:, 6:].square().sum(), model.embedding)[0]
    first = model(text, text_lengths, inputs[:, :6], output_state=True)
    second = model(text, text_lengths, inputs[:, 6:], state=first.state)
    pieces = torch.autograd.grad(second.logits.square().sum(), model.embedding)[0]
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind):
    model = small_model(**KINDS[kind]).train()
    loss_of(model, batch(model.config.n_codebooks)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", KIND_PAIRS)
def test_activation_checkpointing_gives_the_same_gradients(kind, dropout):
    options = {"dropout": dropout, "attention_dropout": dropout, "text_dropout": dropout, **KINDS[kind]}
    gradients = []
    for checkpoint in (False, True):
        model = small_model(model_options={"checkpoint_activations": checkpoint}, **options).train()
        leaves = model.initial_state(3).map(lambda tensor: tensor.clone().requires_grad_())
        torch.manual_seed(7)
        loss_of(model, batch(model.config.n_codebooks), state=leaves).backward()
        gradients.append([leaf.grad for leaf in (*leaves.gla, *model.parameters())])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)


def test_checkpointing_keeps_less_for_the_backward_pass():
    sizes = []
    for checkpoint in (False, True):
        model = small_model(model_options={"checkpoint_activations": checkpoint}).train()
        kept = []

        def keep(tensor, kept=kept):
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss_of(model, batch(n_steps=200))
        sizes.append(sum(kept))
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize("kind", KIND_PAIRS)
def test_dropout_acts_in_training_only(kind):
    model = small_model(dropout=0.3, attention_dropout=0.3, text_dropout=0.3, **KINDS[kind])
    data = batch(model.config.n_codebooks)
    assert torch.equal(model(*data).logits, model(*data).logits)
    model.train()
    assert not torch.allclose(model(*data).logits, model(*data).logits)


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "text_dropout"])
def test_each_dropout_acts_by_itself(name):
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "text_dropout": 0.0}
    quiet, noisy = (small_model(**{**rates, name: rate}).train() for rate in (0.0, 0.5))
    data = batch()
    assert torch.equal(quiet(*data).logits, quiet(*data).logits)
    assert not torch.allclose(noisy(*data).logits, noisy(*data).logits)


@pytest.mark.parametrize("kind", KIND_PAIRS)
def test_attention_is_given_in_training_too(kind):
    model = small_model(attention_dropout=0.0, text_dropout=0.0, **KINDS[kind])
    data = batch(model.config.n_codebooks)
    quiet = model(*data, output_attention=True).attention
    assert quiet.shape == (3, 11, 7)
    torch.testing.assert_close(model.train()(*data, output_attention=True).attention, quiet)
    torch.testing.assert_close(quiet.sum(-1), torch.ones(3, 11))
    assert model(*data).attention is None


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_stays_close_and_finite(kind):
    model = small_model(**KINDS[kind]).train()
    data = batch(model.config.n_codebooks)
    exact = loss_of(model.eval(), data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(*data, output_state=True)
        loss = loss_of(model, data)  # autocast computes it in float32
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert {tensor.dtype for tensor in out.state.tensors().values()} == {torch.float32}


@pytest.mark.parametrize("kind", KIND_PAIRS)
def test_steps_run_under_autocast(kind):
    model = small_model(**KINDS[kind])
    text, text_lengths, inputs, _ = batch(model.config.n_codebooks)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        memory = model.encode_text(text, text_lengths)
        whole = model.forward_audio(memory, inputs[:, :1], output_state=True)
        out = model.step(inputs[:, 0], memory, model.initial_state(3))
    torch.testing.assert_close(out.logits.float(), whole.logits[:, 0].float(), atol=0.1, rtol=0.1)
    assert {tensor.dtype for tensor in out.state.tensors().values()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bfloat16_model_runs_with_states_in_float32(kind):
    model = small_model(**KINDS[kind])
    text, text_lengths, inputs, _ = batch(model.config.n_codebooks)
    exact = model(text, text_lengths, inputs)
    model.bfloat16()
    whole = model(text, text_lengths, inputs, output_state=True)
    logits, _, state = walk(model, model.encode_text(text, text_lengths), inputs, model.initial_state(3))
    assert whole.logits.dtype == torch.bfloat16
    assert (whole.logits - exact.logits).abs().mean() < 0.1 * exact.logits.abs().mean()
    assert (logits - exact.logits).abs().mean() < 0.1 * exact.logits.abs().mean()
    assert {tensor.dtype for tensor in [*state.tensors().values(), *whole.state.tensors().values()]} == {torch.float32}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's tracer
def test_a_compiled_model_gives_the_same_with_checkpoints_and_a_voice():
    torch.compiler.reset()
    model = small_model(text_dropout=0.0, attention_dropout=0.0, n_encoder_layers=1, n_text_layers=1, n_codebooks=2)
    data, voice = batch(2), a_voice(model)
    leaves = [*voice.tensors().values(), *model.parameters()]
    exact = loss_of(model, data, state=voice)
    wanted = torch.autograd.grad(exact, leaves)
    model.checkpoint_activations = True
    loss = loss_of(torch.compile(model, backend="eager", fullgraph=True), data, state=voice)
    torch.testing.assert_close(loss, exact)
    for mine, theirs in zip(torch.autograd.grad(loss, leaves), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.compiler.reset()


def test_a_compiled_step_gives_the_same():
    """One graph, without breaks: with the default backend it takes a fraction of the time on few streams."""
    torch.compiler.reset()
    model = small_model(short_conv=True, n_encoder_layers=1, n_text_layers=1)
    text, text_lengths, inputs, _ = batch()
    with torch.inference_mode():
        memory, state = model.encode_text(text, text_lengths), model.initial_state(3)
        found = torch.compile(model.step, backend="eager", fullgraph=True)(inputs[:, 0], memory, state)
        wanted = model.step(inputs[:, 0], memory, state)
    torch.testing.assert_close(found.logits, wanted.logits)
    assert biggest_gap(found.state, wanted.state) <= 1e-6
    torch.compiler.reset()


def test_a_small_model_learns_a_text_by_heart():
    model, data = small_model(text_dropout=0.0, attention_dropout=0.0, n_encoder_layers=1).train(), batch(n_steps=12)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss = loss_of(model, data)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 2
    assert losses[-1] < 0.3
