"""Other people's convolutional decoders, driven in chunks without a sample's difference.

`layers` says what a network's outputs read, `describe` finds that out from its modules, `check`
holds it against the gradient, `chunked` streams by it; `encodec` and `dac` are adapters for the
PyPI packages of these names, which are imported only when one of them is asked for.
"""
