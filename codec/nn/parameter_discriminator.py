"""A discriminator of parameters: tells the envelope of a real voice from a decoded one."""

from torch import Tensor, nn

from codec.nn.discriminator import DiscriminatorOutput, LayerStack, normed_convolution


class ParameterDiscriminator(nn.Module):
    """Judges the envelope as an image of its points by frames.

    Regression alone gives the mean of the envelopes that the latent leaves possible, a muffled
    one; this tells it from any single one. 13,000 values a second are all it sees: it is cheaper
    than any of waves that hears as much.

    Convolutions, points by frames, of 5 x 5, 5 x 5, 5 x 3 and 3 x 3, with strides of 2, 2 and 2
    over the points and, in the second, over the frames.

    Args:
        channels: of the first layer; the others have twice as many.
    """

    def __init__(self, *, channels: int = 16) -> None:
        super().__init__()
        wide = 2 * channels
        layers = [
            normed_convolution(1, channels, (5, 5), stride=(2, 1)),
            normed_convolution(channels, wide, (5, 5), stride=(2, 2)),
            normed_convolution(wide, wide, (5, 3), stride=(2, 1)),
            normed_convolution(wide, wide, (3, 3)),
        ]
        self.stack = LayerStack(layers, normed_convolution(wide, 1, (3, 3)), slope=0.2)

    def forward(self, envelope: Tensor) -> DiscriminatorOutput:
        """Judge `envelope` (batch, 64, frames): float32 log power, see `codec.nn.parameters`.

        Returns:
            One discriminator's logits (batch, 1, 8, frames / 2) and its four features (batch,
            channels, 32 / 16 / 8 / 8, frames / 1, 2, 2, 2), the quotients rounded up.
        """
        # Log power, brought near to what layers of unit variance expect.
        logits, features = self.stack((envelope[:, None] + 10) / 4)
        return DiscriminatorOutput([logits], [features])
