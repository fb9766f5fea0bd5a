"""Residual vector quantization: each codebook quantizes what the ones before it left over."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.nn.codebook import Lookup, VectorQuantizer, reset_moments
from codec.nn.collectives import gather_rows, is_first_process, sum_over_processes
from codec.nn.dropout import chance, drawn_depths
from codec.nn.statistics import (
    CodebookUsage,
    Learning,
    Revival,
    dimensions_in_use,
    evenly_spaced,
    usage_of,
)

# Vectors that the codebooks are started from, at most.
_START_VECTORS = 16384
_FIT_VECTORS = 32768


@dataclass
class QuantizerOutput:
    """What `ResidualVectorQuantizer.forward` returns.

    Attributes:
        quantized: (batch, dimension, frames) float32. Its value is the sum of the chosen rows; to
            the latent its gradient is the identity (straight-through, once around the whole sum).
        codes: (batch, n_quantizers, frames) int64; -1 where an item did not use the codebook.
        commitment: scalar float32, the mean of ‖residual − row‖² / dimension over frames and all
            pairs of item and codebook in use, so its scale does not grow with n_quantizers or
            with how many are dropped. Its gradient reaches the latent from every codebook.
        codebook_loss: scalar float32, the same with the gradient to the rows instead; 0 for EMA.
    """

    quantized: Tensor
    codes: Tensor
    commitment: Tensor
    codebook_loss: Tensor


class ResidualVectorQuantizer(nn.Module):
    """Residual vector quantizer (Zeghidour et al. 2021) whose every codebook really learns.

    The residual subtracts detached rows, so each codebook's commitment loss reaches the encoder.
    All arithmetic is float32, under autocast too. State that only training needs lies in
    submodules named `statistics`; the codebooks and projections are all that inference needs.

    The first forward in training mode starts the codebooks from random vectors of that batch, each
    from its own residuals. From then on rows learn by EMA or gradient, and `revive_dead_codes`
    replaces unused ones. In eval mode, nothing changes. With several processes, every training
    forward and every revival is a collective call: all ranks make it, with batches of their own,
    and end with equal codebooks; the caches are each rank's own.

    Args:
        dimension: of the latent.
        n_quantizers: codebooks.
        codebook_size: rows of each.
        codebook_dimension, l2_normalize, learning, decay, cache_vectors: see `VectorQuantizer`.
        dropout: probability, 0 to 1, that an item of a training batch uses only the first n
            codebooks, n drawn uniformly from 1..n_quantizers (Kumar et al. 2023).
        continuous: probability, 0 to 1, that an item of a training batch is returned as it came
            in; its codes are learnt from all the same. The encoder then gets a gradient that no
            quantization error disturbs (JHCodec does so for a tenth).

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        dimension: int,
        n_quantizers: int,
        codebook_size: int,
        codebook_dimension: int | None = None,
        l2_normalize: bool = False,
        learning: Learning = "ema",
        decay: float = 0.99,
        dropout: float = 0.5,
        continuous: float = 0.0,
        cache_vectors: int = 8192,
    ) -> None:
        super().__init__()
        if n_quantizers < 1:
            raise ValueError(f"n_quantizers = {n_quantizers}: give 1 or more")
        for name, share in (("dropout", dropout), ("continuous", continuous)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} = {share}: give a probability, 0 to 1")
        self.dimension = dimension
        self.n_quantizers = n_quantizers
        self.codebook_size = codebook_size
        self.dropout = dropout
        self.continuous = continuous
        self.codebooks = nn.ModuleList(
            VectorQuantizer(
                dimension=dimension,
                codebook_size=codebook_size,
                codebook_dimension=codebook_dimension,
                l2_normalize=l2_normalize,
                learning=learning,
                decay=decay,
                cache_vectors=cache_vectors,
            )
            for _ in range(n_quantizers)
        )
        self.frozen = False  # True: training forwards draw dropout but change nothing
        self._started = False  # whether `initialized` was seen True: it lies on the device

    def layers(self) -> list[VectorQuantizer]:
        """The codebooks in order."""
        return [layer for layer in self.codebooks if isinstance(layer, VectorQuantizer)]

    def forward(
        self,
        latent: Tensor,
        *,
        n_quantizers: Tensor | int | None = None,
        generator: torch.Generator | None = None,
    ) -> QuantizerOutput:
        """Quantize a latent; in training mode also learn from it.

        Args:
            latent: (batch, dimension, frames), any float dtype. Where it is not finite, the
                statistics take in nothing of this batch.
            n_quantizers: codebooks to use, 1..n_quantizers: for all items, or (batch,) int64 for
                each. None for all, and in training mode for quantizer dropout.
            generator: source of all draws; the global CPU generator when None.

        Raises:
            ValueError: `n_quantizers` is out of range.
        """
        with torch.autocast(latent.device.type, enabled=False):
            vectors = latent.float().transpose(1, 2)
            learns = self.training and not self.frozen
            starting = learns and self._start(vectors.detach(), generator)
            depths = self._depths(latent.shape[0], n_quantizers, generator)
            # Deepest items first: those that a codebook serves are then the first of the batch.
            order = depths.argsort(descending=True, stable=True)
            in_order = bool((order[1:] > order[:-1]).all())
            places = order.to(latent.device)
            served = [int((depths > layer).sum()) for layer in range(self.n_quantizers)]
            lookups, total, codes = self._quantize(vectors if in_order else vectors[places], served)
            if not in_order:
                back = places.argsort()
                total, codes = total[back], codes[back]
            if learns and not starting:
                self._learn(lookups, torch.isfinite(vectors).all())
            # The straight-through term is exactly 0, so the value is that of `decode`.
            quantized = total + (vectors - vectors.detach())
            if self.training and self.continuous:
                likely = chance(latent.shape[0], generator).to(latent.device)
                quantized = torch.where(
                    (likely < self.continuous)[:, None, None], vectors, quantized
                )
            quantized = quantized.transpose(1, 2)
            pairs = max(1, sum(served) * latent.shape[2])
            commitment = torch.stack([lookup.commitment for lookup in lookups]).sum() / pairs
            codebook_loss = torch.stack([lookup.codebook_loss for lookup in lookups]).sum() / pairs
        return QuantizerOutput(quantized, codes, commitment, codebook_loss)

    @torch.no_grad()
    def fit(
        self, latent: Tensor, *, iterations: int = 10, generator: torch.Generator | None = None
    ) -> None:
        """Start the codebooks by residual k-means on a latent, instead of the first batch's rows.

        Args:
            latent: (batch, dimension, frames), finite, with several frames for each row; of every
                process, the first one's counts.
            iterations: of k-means, at most.
            generator: source of the draws; the global CPU generator when None.
        """
        points = latent.detach().float().transpose(1, 2).flatten(0, 1)
        if is_first_process():
            points = evenly_spaced(points, _FIT_VECTORS)
            for layer in self.layers():
                points = layer.fit(points, iterations=iterations, generator=generator)
        for layer in self.layers():
            layer.copy_codebook_from_first_process()
            layer.statistics.initialized.fill_(True)
        self._started = True

    @torch.no_grad()
    def squared_norms(self) -> list[Tensor]:
        """Of the rows of each codebook: for `encode`, as long as no codebook changes."""
        return [layer.squared_norms() for layer in self.layers()]

    @torch.no_grad()
    def encode(
        self,
        latent: Tensor,
        n_quantizers: int | None = None,
        norms: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Codes of the first `n_quantizers` codebooks, all when None.

        Args:
            latent: (batch, dimension, frames), any float dtype.
            n_quantizers: 1..self.n_quantizers.
            norms: `squared_norms`, where frames come one by one: computing them anew takes longer
                than the search for one frame. The codes are the same.

        Returns:
            (batch, n_quantizers, frames) int64.

        Raises:
            ValueError: `n_quantizers` is out of range.
        """
        depth = self.n_quantizers if n_quantizers is None else n_quantizers
        self._check_depth(depth, depth)
        batch, dimension, frames = latent.shape
        with torch.autocast(latent.device.type, enabled=False):
            residual = latent.float().transpose(1, 2).reshape(batch * frames, dimension)
            codes: list[Tensor] = []
            for index, layer in enumerate(self.layers()[:depth]):
                if codes:
                    residual = residual - self.layers()[index - 1].decode(codes[-1])
                codes.append(layer.encode(residual, None if norms is None else norms[index]))
        return torch.stack(codes).view(depth, batch, frames).transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Latent (batch, dimension, frames) float32 of codes.

        Args:
            codes: (batch, k, frames) int64, of the first k codebooks, 1 <= k <= n_quantizers.

        Raises:
            ValueError: k or a code is out of range.
        """
        depth = codes.shape[1]
        self._check_depth(depth, depth)
        if codes.numel() and not torch.compiler.is_compiling():
            lowest, highest = (int(code) for code in torch.aminmax(codes))
            if lowest < 0 or highest >= self.codebook_size:
                raise ValueError(
                    f"codes from {lowest} to {highest}: this quantizer has 0 to "
                    f"{self.codebook_size - 1}"
                )
        with torch.autocast(codes.device.type, enabled=False):
            total = self.layers()[0].decode(codes[:, 0])
            for index, layer in enumerate(self.layers()[1:depth], start=1):
                total = total + layer.decode(codes[:, index])
        return total.transpose(1, 2)

    @torch.no_grad()
    def revive_dead_codes(
        self,
        *,
        iterations: int = 10,
        dead_below: int = 1,
        vectors_per_code: float = 8.0,
        generator: torch.Generator | None = None,
    ) -> Revival:
        """Replace dead rows by frozen k-means, layer by layer, and start counting hits anew.

        A row is dead if it was hit fewer than `dead_below` times since its layer's last revival
        (over all processes). Rows in use stay bit-identical, their averages too. The dead ones are
        seeded by k-means++ on the layer's cache of recent residuals and moved by Lloyd's
        iterations while the live rows compete for the vectors; then sum and count are set so that
        a row stays where it was placed. Rows for which there is no further vector stay dead. With
        gradient codebooks, call `reset_moments` next.

        Each layer's cache holds residuals as they were when met. Those of later layers are not
        computed again after an earlier layer is revived: that changes only vectors that the
        revived rows take over, and the next few steps replace them.

        Args:
            iterations: of k-means, at most.
            dead_below: hits, 1 or more.
            vectors_per_code: the cool-down. A layer that has seen fewer vectors per row since its
                last revival is left alone and goes on counting: at 8, an evenly used row
                is taken for dead once in 3,000 times.
            generator: source of all draws; the global CPU generator when None.
        """
        return Revival(
            [
                layer.revive(
                    iterations=iterations,
                    dead_below=dead_below,
                    vectors_per_code=vectors_per_code,
                    generator=generator,
                )
                for layer in self.layers()
            ]
        )

    def reset_moments(self, optimizer: torch.optim.Optimizer, revival: Revival) -> None:
        """Forget the optimizer's moments of replaced rows; nothing to do for EMA codebooks."""
        for layer, rows in zip(self.layers(), revival.rows, strict=True):
            reset_moments(optimizer, layer.codebook, rows)

    def usage(self) -> list[CodebookUsage]:
        """Usage of each codebook since the last revival or reset, over all processes.

        Not a collective call. `revive_dead_codes` starts the counts anew: ask before it.
        """
        return [usage_of(layer.statistics.hits) for layer in self.layers()]

    def dimensions_in_use(self) -> int:
        """Principal components that hold 90 % of the power of recent latents; 0 before any.

        Not a collective call: of this process's cache. Few of many are a latent that has collapsed:
        bits lie idle then.
        """
        return dimensions_in_use(self.layers()[0].statistics.cache.contents())

    def reset_usage(self) -> None:
        """Start counting hits anew; rows hit before count as unused for the next revival."""
        for layer in self.layers():
            layer.statistics.hits.zero_()

    def _quantize(self, vectors: Tensor, served: list[int]) -> tuple[list[Lookup], Tensor, Tensor]:
        """Quantize (batch, frames, dimension), layer i its first served[i] items only.

        Returns the lookups, the sum of rows (batch, frames, dimension) and codes
        (batch, n_quantizers, frames).
        """
        batch, frames, dimension = vectors.shape
        codes = vectors.new_full((batch, self.n_quantizers, frames), -1, dtype=torch.int64)
        residual, total = vectors, torch.zeros_like(vectors)
        lookups = []
        for index, (layer, items) in enumerate(zip(self.layers(), served, strict=True)):
            residual = residual[:items]
            # A layer that serves no item is run all the same: its parameters get a gradient of 0
            # in every process, as the averaging of gradients needs.
            lookup = layer(residual.reshape(items * frames, dimension))
            quantized = lookup.quantized.view(items, frames, dimension)
            codes[:items, index] = lookup.codes.view(items, frames)
            residual = residual - quantized.detach()
            if index == 0:
                total = quantized  # every item uses the first codebook
            elif items == batch:
                total = total + quantized
            else:
                total = torch.cat([total[:items] + quantized, total[items:]])
            lookups.append(lookup)
        return lookups, total, codes

    @torch.no_grad()
    def _learn(self, lookups: list[Lookup], finite: Tensor) -> None:
        """Take in a step's hits and vectors, summed over processes, unless not `finite`."""
        layers = self.layers()
        averaged = layers[0].learning == "ema"
        weight = finite.float()
        hits = weight.new_zeros(len(layers), self.codebook_size)
        sums = weight.new_zeros(len(layers) if averaged else 0, *layers[0].codebook.shape)
        for index, lookup in enumerate(lookups):
            hits[index].index_add_(0, lookup.codes, weight.expand(lookup.codes.shape[0]))
            if averaged:
                vectors = torch.where(finite, lookup.vectors, 0.0)
                sums[index].index_add_(0, lookup.codes, vectors)
        sum_over_processes(hits)
        if averaged:
            sum_over_processes(sums)
        for index, (layer, lookup) in enumerate(zip(layers, lookups, strict=True)):
            layer.learn(hits[index], sums[index] if averaged else None)
            layer.statistics.cache.append(lookup.vectors, finite)

    @torch.no_grad()
    def _start(self, vectors: Tensor, generator: torch.Generator | None) -> bool:
        """Start all codebooks from the first batch's own residuals, the same on every process.

        Returns whether it did. Such a batch teaches nothing more: it lies on the rows themselves,
        and what later codebooks get to see of it is next to nothing.
        """
        if not self._started:
            self._started = bool(self.layers()[0].statistics.initialized)
        if self._started:
            return False
        points = gather_rows(vectors.flatten(0, 1))
        points = points[torch.isfinite(points).all(1)]
        if points.shape[0] == 0:
            return True
        if is_first_process():
            points = evenly_spaced(points, _START_VECTORS)
            for layer in self.layers():
                points = layer.initialize(points, generator)
        for layer in self.layers():
            layer.copy_codebook_from_first_process()
            layer.statistics.initialized.fill_(True)
        self._started = True
        return True

    def _depths(
        self, batch: int, n_quantizers: Tensor | int | None, generator: torch.Generator | None
    ) -> Tensor:
        """Codebooks that each item uses: (batch,) int64 on the CPU."""
        everything = torch.full((batch,), self.n_quantizers)
        if n_quantizers is not None:
            depths = torch.as_tensor(n_quantizers).cpu()
            if depths.shape not in ((), (batch,)):
                raise ValueError(
                    f"n_quantizers of shape {tuple(depths.shape)}: give one number, or one for "
                    f"each of the {batch} items"
                )
            depths = depths.expand(batch)
            if batch:
                self._check_depth(int(depths.min()), int(depths.max()))
            return depths
        if not self.training or self.dropout == 0:
            return everything
        return drawn_depths(batch, self.n_quantizers, self.dropout, generator)

    def _check_depth(self, lowest: int, highest: int) -> None:
        if lowest < 1 or highest > self.n_quantizers:
            wrong = lowest if lowest < 1 else highest
            raise ValueError(
                f"{wrong} codebooks: this quantizer has {self.n_quantizers}, give 1 to "
                f"{self.n_quantizers}"
            )

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._started = False
