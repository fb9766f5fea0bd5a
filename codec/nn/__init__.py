"""Layers of the codec: convolutions, SEANet, quantizer, discriminators."""
