import copy

import pytest

from codec.config_files import parse_config

TINY = {
    "name": "tiny",
    "threads": 1,
    "model": {
        "hop_length": 20,
        "strides": [4, 5],
        "dimension": 8,
        "encoder": {"channels": 4, "dilations": [1]},
        "decoder": {"channels": 4, "dilations": [1]},
        "quantizer": {"n_quantizers": 3, "codebook_size": 16},
        "default_kbps": 6.4,
    },
    "codebooks": {"revive_every": 4, "cache_vectors": 256},
    "data": {"source": "fixed", "segment_samples": 800, "batch_size": 2, "workers": 0},
    "discriminators": {"stft": {"n_ffts": [64], "channels": 4}},
    "losses": {"mel": {"n_ffts": [64, 256]}, "adversarial": {"start_step": 3}},
    "optimizer": {"warmup_steps": 2, "learning_rate": 1e-3},
    "training": {"steps": 12, "checkpoint_every": 100, "log_every": 2},
    "validation": {"every": 6, "clips": 1, "seconds": 1.0, "workers": 0},
}


@pytest.fixture
def tiny(tmp_path):
    """Makes a small config; arguments replace keys of its sections."""

    def make(**sections):
        values = copy.deepcopy(TINY) | {"output": str(tmp_path)}
        for name, keys in sections.items():
            if isinstance(keys, dict):
                values[name] = values.get(name, {}) | keys
            else:
                values[name] = keys
        return parse_config(values, source="test")

    return make
