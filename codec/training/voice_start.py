"""Where the linear paths of a voice begin: principal components of what analysis found.

A latent that is learnt through codes from nothing collapses to few dimensions, and bits lie idle.
With linear paths that begin as the best linear code there is, it uses them from the first step on.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from codec.data.batches import Batch
from codec.nn.autoencoder import Autoencoder
from codec.nn.convolution import Conv1d, set_weight
from codec.nn.features import VoiceFeatures
from codec.nn.parameters import ENVELOPE
from codec.nn.voice_halves import ENVELOPE_SCALE, VoiceDecoder, VoiceEncoder

_COMPONENTS = 0.75  # of the latent's dimensions; the rest is free for pitch and noise
_RIDGE = 1e-3  # of the features' mean power: least squares with few batches stay tame


@torch.no_grad()
def begin_linear_paths(model: Autoencoder, batches: Iterable[Batch]) -> float:
    """Sets the linear paths of encoder and decoder from waves and their parameters.

    The decoder's gives the envelope of a frame, all its windows at once, from its principal
    components over 10; the encoder's finds these from its features by least squares. Biases of the
    decoder's head that told a typical envelope are set to nothing.

    Args:
        model: both halves are voices.
        batches: some, on the model's device; more of them are not better than a few hundred
            seconds.

    Returns:
        What the components leave unexplained of the envelope's power, 0 to 1.
    """
    encoder, decoder = model.encoder, model.decoder
    assert isinstance(encoder, VoiceEncoder) and isinstance(decoder, VoiceDecoder)
    features, envelopes = _pairs(encoder, decoder, batches)
    count = round(_COMPONENTS * decoder.dimension)
    mean = envelopes.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(envelopes.T))
    components = vectors[:, -count:].flip(1)
    latents = (envelopes - mean) @ components / ENVELOPE_SCALE
    weight, bias = _least_squares(features, latents)
    _set_encoder(encoder.linear, weight, bias)
    _set_decoder(decoder, components, mean)
    return float(1 - values[-count:].sum() / values.sum())


def _pairs(
    encoder: VoiceEncoder, decoder: VoiceDecoder, batches: Iterable[Batch]
) -> tuple[Tensor, Tensor]:
    """Of many frames, in float64: what the encoder's path sees, and the envelope to be told."""
    extractor = encoder.layers[0]
    assert isinstance(extractor, VoiceFeatures)
    frame, shift = decoder.trunk.stride, decoder.shift
    seen, told = [], []
    for batch in batches:
        assert batch.parameters is not None
        features = extractor(batch.wave)[:, :ENVELOPE]
        envelope = batch.parameters[:, :ENVELOPE]
        # Whole kernels and whole frames alone: the first and the last frames of a crop have none.
        for n in range(2, features.shape[-1] // frame - 1):
            first = n * frame
            seen.append(features[..., first - frame : first + frame].flatten(1))
            told.append(envelope[..., first - shift : first - shift + frame].flatten(1))
    return torch.cat(seen).double(), torch.cat(told).double()


def _least_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (inputs, outputs) and bias (outputs,) of y ≈ x @ weight + bias."""
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, x.T @ y)
    return weight, y_mean - x_mean @ weight


def _set_encoder(layer: Conv1d, weight: Tensor, bias: Tensor) -> None:
    """Rows of channels and taps; features other than the envelope's begin at nothing."""
    kernel = torch.zeros_like(layer.weight)
    count = weight.shape[1]
    by_taps = weight.T.reshape(count, ENVELOPE, -1)
    kernel[:count, :ENVELOPE] = by_taps.to(kernel)
    kernel[count:] = 0.01 * layer.weight[count:]  # dimensions that are free begin at random
    set_weight(layer, kernel)
    assert layer.bias is not None
    layer.bias.zero_()
    layer.bias[:count] = bias.to(layer.bias)


def _set_decoder(decoder: VoiceDecoder, components: Tensor, mean: Tensor) -> None:
    linear = decoder.trunk.linear
    stride, count = linear.stride, components.shape[1]
    weight = torch.zeros_like(linear.weight)  # (64, stride, dimension, 2), the earlier frame first
    weight[:, :, :count, 1] = components.reshape(ENVELOPE, stride, count).to(weight)
    set_weight(linear, weight)
    linear.bias.copy_(mean.reshape(ENVELOPE, stride).mean(dim=1) / ENVELOPE_SCALE)
    head = decoder.trunk.head
    assert head.bias is not None
    head.bias[:ENVELOPE] = 0.0
