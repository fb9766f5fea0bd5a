import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codec.nn.quantizer import ResidualVectorQuantizer
from tests.support.quantizers import generator, latents, make, started, state

KINDS: dict[str, dict[str, Any]] = {
    "ema": {},
    "gradient": {"learning": "gradient"},
    "factorised": {"codebook_dimension": 3},
    "cosine": {"codebook_dimension": 3, "l2_normalize": True},
    "cosine gradient": {"l2_normalize": True, "learning": "gradient"},
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def error(quantizer: ResidualVectorQuantizer, latent: Tensor) -> float:
    return (quantizer.decode(quantizer.encode(latent)) - latent).square().mean().item()


@every_kind
@pytest.mark.parametrize("n", [1, 2, 4])
def test_quantized_is_decode_of_codes_for_any_number_of_codebooks(
    kind: dict[str, Any], n: int
) -> None:
    quantizer = started(**kind).eval()
    output = quantizer(latents(1), n_quantizers=n)
    assert output.codes.shape == (4, 4, 20)
    assert output.codes.dtype == torch.int64
    assert bool((output.codes[:, n:] == -1).all())
    assert torch.equal(output.codes[:, :n], quantizer.encode(latents(1), n))
    assert torch.equal(output.codes[:, :n], quantizer.encode(latents(1))[:, :n])
    torch.testing.assert_close(output.quantized, quantizer.decode(output.codes[:, :n]))


@every_kind
def test_norms_that_were_kept_change_no_code_and_follow_the_rows(kind: dict[str, Any]) -> None:
    quantizer = started(**kind)
    for _ in range(2):
        norms = quantizer.squared_norms()
        for n in (1, 4):
            codes = quantizer.encode(latents(1), n, norms)
            assert torch.equal(codes, quantizer.encode(latents(1), n))
        for layer in quantizer.layers():
            with torch.no_grad():
                layer.codebook.mul_(torch.linspace(0.5, 2.0, len(layer.codebook))[:, None])
    far = [norm.index_fill(0, torch.tensor(3), -1e9) for norm in quantizer.squared_norms()]
    assert bool(
        (quantizer.encode(latents(1), norms=far) == 3).all()
    )  # they are what is searched by


@pytest.mark.parametrize("n_quantizers", [1, 3], ids=["VQ", "RVQ"])
@every_kind
def test_learns_given_data(kind: dict[str, Any], n_quantizers: int) -> None:
    mix = torch.randn(2, 6, generator=generator(5))

    def batch(seed: int) -> Tensor:
        return torch.einsum("btf,fd->bdt", torch.randn(4, 40, 2, generator=generator(seed)), mix)

    quantizer = make(n_quantizers=n_quantizers, decay=0.9, dropout=0.2, **kind)
    quantizer(batch(0), generator=generator())
    held_out, first = batch(999), error(quantizer, batch(999))
    parameters = list(quantizer.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.02) if parameters else None
    draws = generator()
    for step in range(1, 200):
        latent = batch(step)
        output = quantizer(latent, generator=draws)
        if optimizer is not None:
            optimizer.zero_grad()
            distortion = (output.quantized - latent).square().mean()
            (distortion + 0.25 * output.commitment + output.codebook_loss).backward()
            optimizer.step()
    assert error(quantizer, held_out) < 0.8 * first


@every_kind
def test_each_codebook_takes_something_off_the_error(kind: dict[str, Any]) -> None:
    quantizer = started(**kind)
    for seed in range(20):
        quantizer(latents(seed), generator=generator(seed))
    latent = latents(50)
    codes = quantizer.encode(latent)
    errors = [(quantizer.decode(codes[:, :n]) - latent).square().mean().item() for n in range(1, 5)]
    assert errors == sorted(errors, reverse=True)


def test_every_codebooks_commitment_reaches_the_encoder() -> None:
    """commitment(n) is a mean over codebooks, so n × mean − (n−1) × mean is the n-th's own."""
    quantizer = started().eval()
    latent = latents(1).requires_grad_()
    codes = quantizer.encode(latents(1))
    sums = [torch.zeros_like(latent)]
    for n in range(1, 5):
        (gradient,) = torch.autograd.grad(n * quantizer(latent, n_quantizers=n).commitment, latent)
        sums.append(gradient)
        expected = 2 * (latents(1) - quantizer.decode(codes[:, :n])) / latent.numel()
        torch.testing.assert_close(sums[n] - sums[n - 1], expected, atol=1e-7, rtol=1e-4)
        assert expected.abs().max() > 1e-4


@every_kind
def test_commitment_gradient_is_not_zero_from_any_codebook(kind: dict[str, Any]) -> None:
    quantizer = started(**kind).eval()
    latent = latents(1).requires_grad_()
    before = torch.zeros_like(latent)
    for n in range(1, 5):
        (total,) = torch.autograd.grad(n * quantizer(latent, n_quantizers=n).commitment, latent)
        assert (total - before).norm() > 1e-4
        before = total


def test_commitment_is_the_mean_over_items_and_codebooks_in_use() -> None:
    quantizer = started().eval()
    latent, depths = latents(1), torch.tensor([3, 1, 4, 2])
    codes = quantizer.encode(latent)
    errors = [
        (latent[item] - quantizer.decode(codes[item : item + 1, :n])[0]).square().mean()
        for item, depth in enumerate(depths.tolist())
        for n in range(1, depth + 1)
    ]
    output = quantizer(latent, n_quantizers=depths)
    torch.testing.assert_close(output.commitment, torch.stack(errors).mean())
    assert output.codebook_loss == 0


@every_kind
def test_latent_gets_the_gradient_of_quantized_as_it_is(kind: dict[str, Any]) -> None:
    quantizer = started(**kind)
    latent = latents(1).requires_grad_()
    weight = latents(2)
    (quantizer(latent).quantized * weight).sum().backward()
    assert torch.equal(latent.grad, weight)


@every_kind
def test_every_parameter_gets_a_gradient_even_if_no_item_uses_its_codebook(
    kind: dict[str, Any],
) -> None:
    quantizer = started(**kind)
    for n in (4, 1):
        quantizer.zero_grad()
        output = quantizer(latents(1).requires_grad_(), n_quantizers=n)
        (output.quantized.square().sum() + output.commitment + output.codebook_loss).backward()
        for name, parameter in quantizer.named_parameters():
            assert parameter.grad is not None, name
            used = int(name.split(".")[1]) < n
            assert bool(parameter.grad.any()) == used, name


@every_kind
def test_eval_changes_nothing(kind: dict[str, Any]) -> None:
    for quantizer in (make(**kind).eval(), started(**kind).eval()):
        before, draws = state(quantizer), torch.get_rng_state()
        quantizer(latents(1))
        quantizer.decode(quantizer.encode(latents(1)))
        quantizer.usage()
        assert_same(before, quantizer.state_dict())
        assert torch.equal(draws, torch.get_rng_state())


@every_kind
def test_all_is_float32_under_bfloat16_autocast(kind: dict[str, Any]) -> None:
    plain, mixed = started(**kind), started(**kind)
    expected = plain(latents(1), n_quantizers=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = mixed(latents(1), n_quantizers=4)
        codes = mixed.encode(latents(2))
        decoded = mixed.decode(codes)
    for name in ("quantized", "codes", "commitment", "codebook_loss"):
        assert torch.equal(getattr(output, name), getattr(expected, name)), name
    assert torch.equal(codes, plain.encode(latents(2)))
    assert torch.equal(decoded, plain.decode(codes))
    assert_same(plain.state_dict(), mixed.state_dict())
    half = mixed(latents(1).bfloat16())
    assert half.quantized.dtype == half.commitment.dtype == torch.float32


@every_kind
def test_goes_on_from_its_state_dict_bit_by_bit(kind: dict[str, Any]) -> None:
    def train(quantizer: ResidualVectorQuantizer, steps: range, draws: torch.Generator) -> None:
        for step in steps:
            quantizer(latents(step), generator=draws)
            if step % 3 == 2:
                quantizer.revive_dead_codes(vectors_per_code=1, dead_below=3, generator=draws)

    straight, draws = make(**kind), generator()
    train(straight, range(5), draws)
    saved, position = state(straight), draws.get_state()
    train(straight, range(5, 10), draws)

    resumed, other_draws = make(seed=1, **kind), generator(9)
    resumed(latents(77))  # whatever it did before
    resumed.load_state_dict(saved)
    other_draws.set_state(position)
    train(resumed, range(5, 10), other_draws)
    assert_same(straight.state_dict(), resumed.state_dict())


def test_a_state_from_before_the_start_starts_again() -> None:
    fresh = state(make())
    quantizer = started()
    quantizer.load_state_dict(fresh)
    quantizer(latents(100), generator=generator())
    assert_same(started().state_dict(), quantizer.state_dict())


def test_the_global_generator_serves_where_none_is_given() -> None:
    states = []
    for _ in range(2):
        quantizer = make()
        torch.manual_seed(3)
        for step in range(4):
            quantizer(latents(step))
        quantizer.revive_dead_codes(vectors_per_code=1, dead_below=4)
        states.append(state(quantizer))
    assert_same(*states)


def test_training_state_is_what_lies_under_statistics() -> None:
    quantizer = started(codebook_dimension=3)
    quantizer(latents(1))
    needed = {k: v for k, v in quantizer.state_dict().items() if ".statistics." not in k}
    assert {name.split(".", 2)[2] for name in needed} == {
        "codebook",
        *(f"project_{way}.{part}" for way in ("in", "out") for part in ("weight", "bias")),
    }
    other = make(seed=1, codebook_dimension=3)
    missing = other.load_state_dict(needed, strict=False)
    assert all(".statistics." in name for name in missing.missing_keys)
    assert torch.equal(other.encode(latents(2)), quantizer.encode(latents(2)))
    before = other.codebooks[0].codebook.clone()
    other(latents(2))  # training goes on, it does not start over
    assert (other.codebooks[0].codebook - before).norm() < 0.5 * before.norm()


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
@every_kind
def test_a_batch_that_is_not_finite_spoils_nothing(kind: dict[str, Any], value: float) -> None:
    bad = latents(1)
    bad[2, 3, 4] = value
    quantizer = started(**kind)
    clean = copy.deepcopy(quantizer)
    quantizer(bad, n_quantizers=4)
    for name, tensor in quantizer.state_dict().items():
        assert bool(tensor.isfinite().all()), name
        if not name.endswith(("sum", "count")):  # these decay alike, the row stays
            assert torch.equal(tensor, clean.state_dict()[name]), name
    first = make(**kind)
    first(bad)  # even as the first of all
    assert all(bool(tensor.isfinite().all()) for tensor in first.state_dict().values())


@pytest.mark.parametrize("k", [0, 5])
def test_numbers_of_codebooks_out_of_range_are_named(k: int) -> None:
    quantizer = make()
    calls = [
        lambda: quantizer.encode(latents(), k),
        lambda: quantizer.decode(torch.zeros(1, k, 3, dtype=torch.int64)),
        lambda: quantizer(latents(), n_quantizers=k),
        lambda: quantizer(latents(), n_quantizers=torch.tensor([1, 2, k, 4])),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"^{k} codebooks.*1 to 4"):
            call()


@pytest.mark.parametrize("code", [-1, 16])
def test_codes_out_of_range_are_named(code: int) -> None:
    with pytest.raises(ValueError, match=rf"codes from .*{code}.*0 to 15"):
        make().decode(torch.tensor([3, code, 5]).view(1, 1, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_quantizers": 0}, "n_quantizers = 0"),
        ({"dropout": 1.5}, "dropout = 1.5"),
        ({"continuous": -1.0}, "continuous = -1.0"),
    ],
    ids=["n_quantizers", "dropout", "continuous"],
)
def test_values_out_of_range_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**given)


@given(
    batch=st.integers(1, 4),
    frames=st.integers(0, 6),
    dimension=st.integers(1, 6),
    books=st.integers(1, 4),
    size=st.integers(1, 9),
    width=st.none() | st.integers(1, 8),
    l2_normalize=st.booleans(),
    learning=st.sampled_from(["ema", "gradient"]),
)
@settings(deadline=None, max_examples=40)
def test_any_shape_goes_through(
    batch: int,
    frames: int,
    dimension: int,
    books: int,
    size: int,
    width: int | None,
    l2_normalize: bool,
    learning: str,
) -> None:
    quantizer = make(
        dimension=dimension,
        n_quantizers=books,
        codebook_size=size,
        codebook_dimension=width,
        l2_normalize=l2_normalize,
        learning=learning,
        cache_vectors=5,
    )
    latent = latents(batch=batch, frames=frames, dimension=dimension)
    for _ in range(3):
        output = quantizer(latent)
        assert output.quantized.shape == latent.shape
        assert output.codes.shape == (batch, books, frames)
        assert bool(output.commitment.isfinite())
        quantizer.revive_dead_codes(vectors_per_code=0)
    for k in range(1, books + 1):
        codes = quantizer.encode(latent, k)
        assert codes.shape == (batch, k, frames)
        assert quantizer.decode(codes).shape == latent.shape
    assert all(bool(tensor.isfinite().all()) for tensor in quantizer.state_dict().values())


@pytest.mark.parametrize("used", [1, 3, 6])
def test_dimensions_in_use_are_those_that_hold_the_power(used):
    quantizer = ResidualVectorQuantizer(dimension=8, n_quantizers=1, codebook_size=4)
    quantizer.train()
    assert quantizer.dimensions_in_use() == 0
    generator = torch.Generator().manual_seed(0)
    latent = 0.01 * torch.randn(4, 8, 50, generator=generator)
    latent[:, :used] += torch.randn(4, used, 50, generator=generator)
    for _ in range(2):  # the first batch starts the rows and is not kept
        quantizer(latent)
    assert quantizer.dimensions_in_use() == max(used, 1)


def test_codebooks_fitted_by_k_means_leave_less_over_than_rows_of_one_batch():
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 4, 2000, generator=generator)
    errors = []
    for fitted in (False, True):
        torch.manual_seed(0)
        quantizer = ResidualVectorQuantizer(dimension=4, n_quantizers=2, codebook_size=16)
        if fitted:
            quantizer.fit(latent, generator=generator)
        quantizer.train()(latent, generator=generator)
        quantizer.eval()
        decoded = quantizer.decode(quantizer.encode(latent))
        errors.append(float((decoded - latent).square().mean()))
    assert errors[1] < 0.8 * errors[0]
