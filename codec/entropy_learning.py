"""Learns the integer tables of `codec/entropy.py` from codes of speech.

The network is trained in floats by cross entropy, every frame of a block at once, then rounded to
8-bit integers. No float of it is left when codes are coded.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from codec.entropy import ACTIVATION_MAX, EntropyTables
from codec.errors import DataError
from codec.range_coding import PRECISION

_LEARNING_RATE = 4e-3
_CONTEXTS_LEARN = 4  # times as fast: a batch meets few of their rows
_WARMUP_STEPS = 30
_BATCH_FRAMES = 1200  # or fewer, so that there are
_STEPS_A_PASS = 50
_HELD_OUT = 16  # one block in this many tells when to stop
_FRAMES_IN_ALL = 1_500_000  # read by default, however many times that reads the codes
_INT8_MAX = 127
_WEIGHT_STEPS = 1024
_FINEST_STEP = 1 / 64  # of a weight table, in nats; the coarsest is twice that
_LARGEST_WEIGHT = 2**20
_LARGEST_SUM = 2**23 - 2**16


def learn_tables(
    codes: Sequence[NDArray[np.integer]],
    codebook_size: int,
    *,
    block_frames: int = 50,
    lags: int = 2,
    hidden: int = 48,
    mixed: int = 64,
    passes: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> EntropyTables:
    """Learns how likely codes are after those before them.

    A sixteenth of the blocks is held out: the tables are those of the pass that coded it in the
    fewest bits, and passes end when one made it worse.

    Args:
        codes: of recordings, each (n_quantizers, frames) integers below codebook_size. An hour or
            more of speech, and the more the better.
        codebook_size: rows of a codebook, 2 to 65536.
        block_frames: frames that are coded without what lies before them.
        lags: frames back that the context reaches, 0 or more.
        hidden: first width of the network. The tables have n_quantizers * codebook_size *
            ((lags + 1) * hidden + mixed) bytes and a little more.
        mixed: its second width.
        passes: over the codes, at most; None: as many as 1.5 million frames make, 2 to 12.
        seed: of the start and the order; the same codes and seed give nearly the same tables.
        progress: shows passes and held-out bits a code.

    Raises:
        DataError: no codes, codes out of range, or recordings of different numbers of codebooks.
    """
    blocks = _blocks(codes, codebook_size, block_frames, seed)
    held_out = max(1, len(blocks) // _HELD_OUT)
    learn, judge = blocks[:-held_out] if len(blocks) > 1 else blocks, blocks[-held_out:]
    frames = len(learn) * block_frames
    passes = passes or min(12, max(2, round(_FRAMES_IN_ALL / frames)))
    network = ContextNetwork(
        blocks.shape[1], codebook_size, lags=lags, hidden=hidden, mixed=mixed, seed=seed
    )
    network.start_from(learn)
    _train(network, learn, judge, passes, seed, progress)
    return round_to_tables(network, judge)


class ContextNetwork(nn.Module):
    """The network of `codec/entropy.py` in floats.

    Args:
        n_quantizers, codebook_size, lags, hidden, mixed: as of `learn_tables`.
        seed: of the random start.
    """

    def __init__(
        self,
        n_quantizers: int,
        codebook_size: int,
        *,
        lags: int,
        hidden: int,
        mixed: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.lags = lags
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator) * scale)

        rows = n_quantizers * (codebook_size + 1)
        self.contexts = nn.ParameterList(
            [normal(rows, hidden, scale=0.05) for _ in range(lags + 1)]
        )
        self.hidden_bias = nn.Parameter(torch.zeros(n_quantizers, hidden))
        self.mixing = normal(n_quantizers, hidden, mixed, scale=hidden**-0.5)
        self.mixing_bias = nn.Parameter(torch.zeros(n_quantizers, mixed))
        self.output = normal(n_quantizers, mixed, codebook_size, scale=0.05)
        self.output_bias = nn.Parameter(torch.zeros(n_quantizers, codebook_size))

    @torch.no_grad()
    def start_from(self, blocks: Tensor) -> None:
        """Lets the output's bias say how often each row occurs in (blocks, n, frames) codes."""
        for k, bias in enumerate(self.output_bias):
            seen = blocks[:, k][blocks[:, k] >= 0]
            counts = torch.bincount(seen, minlength=self.codebook_size) + 0.5
            bias.copy_((counts / counts.sum()).log())

    def hidden(self, blocks: Tensor) -> Tensor:
        """What the context adds to the bias: (n, blocks * frames, hidden) float32."""
        none = self.codebook_size
        n_quantizers, frames = blocks.shape[1:]
        offsets = torch.arange(n_quantizers)[:, None] * (none + 1)
        codes = torch.where(blocks < 0, none, blocks)
        same = F.embedding(codes + offsets, self.contexts[0]).cumsum(1)
        total = F.pad(same[:, :-1], (0, 0, 0, 0, 1, 0))
        for lag in range(1, self.lags + 1):
            before = F.pad(codes, (lag, 0), value=none)[:, :, :frames]
            total = total + F.embedding(before + offsets, self.contexts[lag]).cumsum(1)
        return total.transpose(0, 1).flatten(1, 2)

    def mixed(self, hidden: Tensor, k: int) -> Tensor:
        """Activations (rows, mixed) of codebook k, of its (rows, hidden)."""
        hidden = F.relu(hidden + self.hidden_bias[k])
        return F.relu(hidden @ self.mixing[k] + self.mixing_bias[k])

    def forward(self, blocks: Tensor) -> Tensor:
        """Mean nats a code, (n_quantizers,), of (blocks, n, frames) codes; -1 does not count."""
        losses = []
        for k, hidden in enumerate(self.hidden(blocks)):
            logits = self.mixed(hidden, k) @ self.output[k] + self.output_bias[k]
            targets = blocks[:, k].flatten()
            losses.append(F.cross_entropy(logits, targets, ignore_index=-1))
        return torch.stack(losses)


@torch.no_grad()
def round_to_tables(network: ContextNetwork, blocks: Tensor) -> EntropyTables:
    """Rounds a network to integers.

    Args:
        network: in floats.
        blocks: (blocks, n, frames) codes that show how large activations become.
    """
    n_quantizers = len(network.hidden_bias)
    scale = max(1e-6, *(float(table.abs().max()) for table in network.contexts)) / _INT8_MAX
    contexts = torch.stack(list(network.contexts)).unflatten(1, (n_quantizers, -1)) / scale
    hidden = network.hidden(blocks)
    books = [
        _round_codebook(network, k, scale, float(network.mixed(hidden[k], k).max()))
        for k in range(n_quantizers)
    ]
    return EntropyTables(
        contexts=_int8(contexts),
        hidden_bias=_int32(network.hidden_bias / scale),
        mixing=np.stack([book.mixing for book in books]),
        mixing_bias=np.stack([book.mixing_bias for book in books]),
        output=np.stack([book.output for book in books]),
        output_bias=np.stack([book.output_bias for book in books]),
        weights=np.stack([book.weights for book in books]),
        shifts=np.array([book.shifts for book in books], np.int32),
    )


@dataclass
class _Book:
    """The tables of one codebook, as `EntropyTables` names them."""

    mixing: NDArray[np.int8]
    mixing_bias: NDArray[np.int32]
    output: NDArray[np.int8]
    output_bias: NDArray[np.int32]
    weights: NDArray[np.int32]
    shifts: tuple[int, int]


def _round_codebook(network: ContextNetwork, k: int, scale: float, largest: float) -> _Book:
    """Rounds what is codebook k's own; `scale` is that of the contexts, `largest` of `mixed`."""
    mixing_bias = network.mixing_bias[k]
    mixing_scale = _exact_scale(network.mixing[k], mixing_bias, scale)
    sum_scale = scale * mixing_scale
    shift = max(0, math.ceil(math.log2(max(1.0, largest / sum_scale / ACTIVATION_MAX))))
    half = 2 ** (shift - 1) if shift else 0  # is added, so that the floor rounds

    mixed_scale = sum_scale * 2**shift
    output_bias = network.output_bias[k] - network.output_bias[k].max()
    output_scale = _exact_scale(network.output[k], output_bias, mixed_scale)
    score_scale = mixed_scale * output_scale
    score_shift = min(PRECISION, max(0, math.ceil(math.log2(_FINEST_STEP / score_scale))))
    step = score_scale * 2**score_shift
    middle = np.arange(_WEIGHT_STEPS) + 0.5
    middle[0] = 0
    weights = np.round(_LARGEST_WEIGHT * np.exp(-step * middle)).astype(np.int32)
    return _Book(
        mixing=_int8(network.mixing[k] / mixing_scale),
        mixing_bias=_int32(mixing_bias / sum_scale + half),
        output=_int8(network.output[k] / output_scale),
        output_bias=_int32(output_bias / score_scale),
        weights=weights,
        shifts=(shift, score_shift),
    )


def _exact_scale(table: Tensor, bias: Tensor, scale: float) -> float:
    """The finest scale of an 8-bit table by which no sum over activations leaves the exact range.

    Args:
        table: (activations, sums).
        bias: (sums,).
        scale: of the activations.
    """
    finest = max(float(table.abs().max()), 1e-9) / _INT8_MAX
    while True:
        reach = ACTIVATION_MAX * (table / finest).round().abs().sum(0)
        if float((reach + (bias / (scale * finest)).abs()).max()) < _LARGEST_SUM:
            return finest
        finest *= 1.25


def _int8(values: Tensor) -> NDArray[np.int8]:
    return values.round().numpy().astype(np.int8)


def _int32(values: Tensor) -> NDArray[np.int32]:
    return values.round().numpy().astype(np.int32)


def _train(
    network: ContextNetwork,
    learn: Tensor,
    judge: Tensor,
    passes: int,
    seed: int,
    progress: Progress | None,
) -> None:
    """Trains and leaves the network as it was after the pass that was best on `judge`."""
    size = max(1, min(_BATCH_FRAMES // learn.shape[2], len(learn) // _STEPS_A_PASS))
    steps = passes * math.ceil(len(learn) / size)
    contexts = set(network.contexts)
    rest = [parameter for parameter in network.parameters() if parameter not in contexts]
    optimizer = torch.optim.Adam(
        [
            {"params": list(network.contexts), "lr": _CONTEXTS_LEARN * _LEARNING_RATE},
            {"params": rest, "lr": _LEARNING_RATE},
        ],
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / _WARMUP_STEPS, 1) * (1 - step / steps)
    )
    generator = torch.Generator().manual_seed(seed)
    best, best_state = math.inf, _copy(network)
    task = progress.add_task("learning probabilities", total=steps) if progress else None
    for _ in range(passes):
        for batch in _batches(learn, size, generator):
            optimizer.zero_grad()
            network(batch).sum().backward()
            optimizer.step()
            schedule.step()
            if progress and task is not None:
                progress.advance(task)
        bits = held_out_bits(network, judge)
        if progress and task is not None:
            progress.update(task, description=f"learning probabilities: {bits:.3f} bits a code")
        if not bits < best:
            break
        best, best_state = bits, _copy(network)
    network.load_state_dict(best_state)
    if progress and task is not None:
        progress.update(task, completed=steps)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def held_out_bits(network: ContextNetwork, blocks: Tensor) -> float:
    """Mean bits a code of (blocks, n, frames) codes."""
    parts = blocks.split(64)
    nats = sum(float(network(part).mean()) * len(part) for part in parts) / len(blocks)
    return nats / math.log(2)


def _batches(blocks: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    for chosen in torch.randperm(len(blocks), generator=generator).split(size):
        yield blocks[chosen]


def _blocks(
    codes: Sequence[NDArray[np.integer]], codebook_size: int, block_frames: int, seed: int
) -> Tensor:
    """All recordings cut into blocks: (blocks, n, frames) int64, -1 after a recording's end."""
    recordings = [np.asarray(one) for one in codes if np.asarray(one).size]
    if not recordings:
        raise DataError("no codes to learn probabilities from")
    if {one.ndim for one in recordings} != {2} or len({len(one) for one in recordings}) > 1:
        raise DataError("codes should be (n_quantizers, frames) with the same n_quantizers")
    lowest, highest = min(int(r.min()) for r in recordings), max(int(r.max()) for r in recordings)
    if lowest < 0 or highest >= codebook_size:
        raise DataError(f"codes from {lowest} to {highest}: expected 0 to {codebook_size - 1}")
    blocks = []
    for index in np.random.default_rng(seed).permutation(len(recordings)):
        one = recordings[index].astype(np.int64)
        padded = np.pad(one, ((0, 0), (0, -one.shape[1] % block_frames)), constant_values=-1)
        blocks.append(padded.reshape(len(one), -1, block_frames).transpose(1, 0, 2))
    return torch.from_numpy(np.concatenate(blocks))
