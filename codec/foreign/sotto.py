"""Sotto's own decoders through the same streamer, to be held against other codecs in one way.

For files and long signals there is `Codec.decoder`, whose windows are long and equal to the bit;
for causal models `Codec.stream_decoder`, which needs no windows. This one lets a model that looks
ahead be streamed with the delay that is wanted.
"""

from codec.errors import SottoError
from codec.foreign.chunked import Chunked
from codec.foreign.layers import clipped
from codec.foreign.stream import ForeignDecoder
from codec.nn.autoencoder import Autoencoder
from codec.nn.halves import WaveDecoder


class DecoderLayers:
    """`Layers` of a decoder, whose own layers know what they read."""

    unit = 1

    def __init__(self, decoder: WaveDecoder) -> None:
        self.hop = decoder.hop_length
        self._decoder = decoder

    def length(self, n: int) -> int:
        """Whole hops."""
        return n * self.hop

    def input_span(self, first: int, last: int, length: int | None = None) -> tuple[int, int]:
        """See `Layers`."""
        return clipped(*self._decoder.input_span(first, last), length)


def sotto_decoder(autoencoder: Autoencoder, *, window: int, sample_rate: int) -> ForeignDecoder:
    """A stream of codes through a model's decoder, `window` frames at a time.

    Args:
        autoencoder: in evaluation mode; it is not changed.
        window: with fewer frames more is computed again, with more the delay is longer.
        sample_rate: Hz.

    Raises:
        SottoError: the decoder depends on all that came before, which no window has.
        ValueError: `window` is not positive.
    """
    decoder, quantizer = autoencoder.decoder, autoencoder.quantizer
    if decoder.memory is not None:
        raise SottoError(
            "a voice runs on a phase that adds up over all that came before, which no window has; "
            "use codec.stream_decoder() or codec.decoder()"
        )
    return ForeignDecoder(
        quantizer.decode,
        [Chunked(decoder, DecoderLayers(decoder), window=window)],
        window=window,
        sample_rate=sample_rate,
        channels=1,
        n_quantizers=quantizer.n_quantizers,
        codebook_size=quantizer.codebook_size,
    )
