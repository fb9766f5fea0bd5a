"""Speech to codes and back from a folder that `sotto export` wrote: ONNX Runtime and NumPy alone.

    from infer.runtime import Codec

    codec = Codec.load("exported")
    codes = codec.encode(wave)                      # int64 (n_quantizers, frames)
    with codec.stream_decoder() as stream:
        for frame in codes.T:
            play(stream.push(frame))                # hop_length samples, now

The interface is that of `codec.codec.Codec` with NumPy arrays in place of tensors. Nothing here,
and nothing that it imports, needs PyTorch.
"""

from infer.runtime.card import Card, read_card
from infer.runtime.codec import Codec
from infer.runtime.files import decode_sc, encode_sc
from infer.runtime.streams import StreamDecoder, StreamEncoder

__all__ = [
    "Card",
    "Codec",
    "StreamDecoder",
    "StreamEncoder",
    "decode_sc",
    "encode_sc",
    "read_card",
]
