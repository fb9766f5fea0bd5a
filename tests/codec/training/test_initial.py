import pytest
import torch
from accelerate import Accelerator

from codec.codec import Codec
from codec.data.batches import Batch
from codec.errors import ConfigError
from codec.training.learner import Learner

SHALLOW = {"kind": "convnext", "channels": [6, 8], "blocks": [1, 2]}


@pytest.fixture
def config_of(tiny):
    """Makes the config of a small ConvNeXt model; arguments replace keys of its halves."""

    def make(encoder, decoder):
        return tiny(model={"encoder": SHALLOW | encoder, "decoder": SHALLOW | decoder})

    return make


def learner_of(config, initial_model=None):
    return Learner(config, Accelerator(cpu=True), initial_model)


@pytest.fixture
def shallow(config_of, tmp_path):
    """A model file of a learner that has made a few steps, so that no tensor is as it began."""
    learner = learner_of(config_of({}, {}))
    for step in range(4):
        learner.step(step, batch(step))
    path = tmp_path / "shallow.safetensors"
    learner.codec().save(path)
    return str(path)


def batch(seed=0):
    return Batch(0.1 * torch.randn(2, 1, 800, generator=torch.Generator().manual_seed(seed)))


DEEPER = [
    ({}, {}),
    ({}, {"blocks": [3, 2]}),
    ({"blocks": [2, 2]}, {}),
    ({"blocks": [1, 4]}, {"blocks": [2, 5]}),
    ({}, {"noise_channels": 4}),
    ({}, {"blocks": [2, 2], "noise_channels": 4}),
]


@pytest.mark.parametrize(("encoder", "decoder"), DEEPER)
def test_a_deeper_model_begins_as_the_file_it_starts_from(config_of, shallow, encoder, decoder):
    learner = learner_of(config_of(encoder, decoder), shallow)
    wave = batch(9).wave
    theirs, ours = Codec.load(shallow), learner.codec()
    codes = theirs.encode(wave)
    assert torch.equal(ours.encode(wave), codes)
    torch.testing.assert_close(ours.decode(codes), theirs.decode(codes), rtol=0, atol=1e-6)


def test_what_was_added_learns(config_of, shallow):
    learner = learner_of(config_of({}, {"blocks": [2, 3], "noise_channels": 4}), shallow)
    before = {name: p.detach().clone() for name, p in learner.model.decoder.named_parameters()}
    for step in range(4):
        learner.step(step, batch(step))
    still = {n for n, p in learner.model.decoder.named_parameters() if torch.equal(before[n], p)}
    assert not still


def test_a_shallower_model_cannot_start_from_a_deeper_one(config_of, shallow):
    with pytest.raises(ConfigError, match=r"model\.decoder is .*ConvNeXt blocks may be more"):
        learner_of(config_of({}, {"blocks": [1, 1]}), shallow)


def test_noise_goes_on_as_the_file_has_it(config_of, tmp_path):
    config = config_of({}, {"noise_channels": 4})
    first = learner_of(config)
    with torch.no_grad():
        first.model.decoder.layers[0].projection.mul_(0.5)
    first.codec().save(tmp_path / "noisy.safetensors")
    second = learner_of(config, str(tmp_path / "noisy.safetensors"))
    codes = torch.randint(8, (1, 2, 20), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(second.codec().decode(codes), first.codec().decode(codes))


def test_noise_does_not_get_more_or_less(config_of, tmp_path):
    learner_of(config_of({}, {"noise_channels": 4})).codec().save(tmp_path / "4.safetensors")
    for channels in (0, 6):
        with pytest.raises(ConfigError, match=r"model\.decoder is .*noise_channels new"):
            learner_of(config_of({}, {"noise_channels": channels}), str(tmp_path / "4.safetensors"))


def test_a_wider_model_cannot_start_from_a_narrower_one(config_of, shallow):
    with pytest.raises(ConfigError, match=r"model\.encoder is .*make them equal"):
        learner_of(config_of({"channels": [6, 10]}, {}), shallow)


def test_a_seanet_cannot_start_from_a_convnext(tiny, shallow):
    with pytest.raises(ConfigError, match=r"model\.encoder is"):
        learner_of(tiny(), shallow)
