"""Errors that a user may meet: one clear line that says what to do."""


class SottoError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class ConfigError(SottoError):
    """A YAML file or a command-line override that cannot be used."""


class AudioError(SottoError):
    """A file that is no audio, is damaged, empty, or holds NaN samples."""


class DataError(SottoError):
    """A corpus that cannot be trained on: no files, none long enough."""


class ModelFileError(SottoError):
    """A model file that is damaged, foreign or of a newer version."""


class BitstreamError(SottoError):
    """An encoded file that is damaged, foreign, or made by another model."""


class TrainingError(SottoError):
    """A run that cannot go on: losses are not finite, the disk is full, a checkpoint is damaged."""


class ForeignCodecError(SottoError):
    """Another project's network that cannot be driven in chunks, or not in the way described."""
