import numpy as np
import pytest
import torch
from rich.progress import Progress

from codec.entropy_learning import ContextNetwork, learn_tables, round_to_tables
from codec.errors import DataError

SMALL = {"block_frames": 20, "lags": 1, "hidden": 8, "mixed": 8}


def chain(frames, *, seed, n_quantizers=2, size=8):
    """Codes that mostly follow the last by 1; each book mostly repeats the one below it."""
    random = np.random.default_rng(seed)
    first = np.cumsum(np.where(random.random(frames) < 0.8, 1, random.integers(0, size, frames)))
    books = [first % size]
    for _ in range(n_quantizers - 1):
        noise = random.integers(0, size, frames)
        books.append(np.where(random.random(frames) < 0.8, books[-1], noise))
    return np.stack(books).astype(np.uint16)


def bits_a_code(tables, codes, n_quantizers=2):
    blocks = [codes[None, :n_quantizers, i : i + 20] for i in range(0, codes.shape[1], 20)]
    return 8 * sum(map(len, tables.encode(blocks))) / codes[:n_quantizers].size


@pytest.fixture(scope="module")
def tables():
    torch.set_num_threads(1)
    return learn_tables([chain(400, seed=i) for i in range(8)], 8, passes=12, **SMALL)


def test_what_follows_is_learned_and_what_is_unlikely_still_coded(tables):
    unseen = chain(1000, seed=100)
    # 0.825 for the successor and 0.025 for each other one make 1.16 bits. Of 20 codes the first
    # costs 3, and the end half a byte: 1.45 bits.
    assert bits_a_code(tables, unseen, 1) < 1.8
    assert bits_a_code(tables, unseen, 2) < 1.8
    uniform = np.random.default_rng(0).integers(0, 8, (1, 2, 20)).astype(np.uint16)
    assert np.array_equal(tables.decode(tables.encode([uniform]), [uniform.shape])[0], uniform)


def test_codes_without_structure_cost_no_more_than_the_fixed_rate():
    random = np.random.default_rng(0)
    codes = [random.integers(0, 8, (2, 400)).astype(np.uint16) for _ in range(4)]
    tables = learn_tables(codes, 8, passes=3, **SMALL)
    assert bits_a_code(tables, random.integers(0, 8, (2, 1000)).astype(np.uint16)) < 3 * 1.05


def test_sizes_are_those_asked_for(tables):
    assert (tables.n_quantizers, tables.codebook_size, tables.lags) == (2, 8, 1)
    assert tables.contexts.shape == (2, 2, 9, 8)
    assert tables.output.shape == (2, 8, 8)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_integers_say_what_the_floats_said(scale):
    network = ContextNetwork(2, 8, lags=2, hidden=16, mixed=12, seed=0)
    with torch.no_grad():
        for table in network.contexts:
            table.mul_(10 * scale)
        network.output.mul_(20)
        network.output_bias.normal_(generator=torch.Generator().manual_seed(1))
    blocks = torch.from_numpy(np.stack([chain(20, seed=i) for i in range(30)]).astype(np.int64))
    tables = round_to_tables(network, blocks)
    contexts = tables.contexts.astype(np.int32)
    with torch.no_grad():
        hidden = network.hidden(blocks)
        for k in range(2):
            logits = network.mixed(hidden[k], k) @ network.output[k] + network.output_bias[k]
            expected = logits.softmax(1).numpy()
            unit = float(max(table.abs().max() for table in network.contexts)) / 127
            sums = (hidden[k] / unit).round().numpy().astype(np.int32)
            got = (tables.shares(k, sums) + 1) / 2**24
            # Kullback-Leibler divergence, in nats: what rounding costs.
            cost = (expected * np.log(np.maximum(expected, 1e-12) / got)).sum(1)
            assert cost.mean() < 0.01
    assert contexts.any()


def test_learning_leaves_the_random_state_alone_and_can_be_repeated():
    codes = [chain(200, seed=i) for i in range(2)]
    before = torch.get_rng_state()
    prints = {learn_tables(codes, 8, passes=1, seed=3, **SMALL).fingerprint for _ in range(2)}
    assert len(prints) == 1
    assert torch.equal(before, torch.get_rng_state())


def test_one_short_recording_is_enough_not_to_fail():
    tables = learn_tables([chain(7, seed=0)], 8, passes=1, **SMALL)
    codes = chain(7, seed=0)[None]
    assert np.array_equal(tables.decode(tables.encode([codes]), [codes.shape])[0], codes)


def test_progress_is_shown():
    with Progress(disable=True) as progress:
        learn_tables([chain(200, seed=0)], 8, passes=2, progress=progress, **SMALL)
        assert progress.finished
        assert "bits a code" in progress.tasks[0].description


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ([], "no codes"),
        ([np.zeros((2, 0), np.uint16)], "no codes"),
        ([np.zeros((2, 9), np.uint16), np.zeros((3, 9), np.uint16)], "same n_quantizers"),
        ([np.zeros((1, 2, 9), np.uint16)], "same n_quantizers"),
        ([np.full((2, 9), 8, np.uint16)], "8 to 8"),
    ],
    ids=["none", "empty", "different", "three-dimensions", "out-of-range"],
)
def test_impossible_codes_are_refused(codes, told):
    with pytest.raises(DataError, match=told):
        learn_tables(codes, 8, **SMALL)
