import torch

from codec.building import build_autoencoder
from codec.training.averaging import WeightAverage


def test_average_against_its_closed_form_first_values_included(tiny):
    model = build_autoencoder(tiny().model)
    average = WeightAverage(model, decay=0.3)
    name, parameter = next(iter(model.decoder.named_parameters()))
    expected = parameter.detach().clone()
    for step, value in enumerate([1.0, -2.0, 5.0, 0.5, 3.0]):
        with torch.no_grad():
            parameter.fill_(value)
        average.update(model)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        torch.testing.assert_close(average.average[f"decoder.{name}"], expected)


def test_within_applied_the_model_is_the_average_and_afterwards_itself(tiny):
    model = build_autoencoder(tiny().model)
    average = WeightAverage(model, decay=0.5)
    start = {name: p.clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    moved = {name: p.clone() for name, p in model.named_parameters()}
    with average.applied(model):
        assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())
    assert all(torch.equal(p, moved[name]) for name, p in model.named_parameters())


def test_codebooks_are_not_averaged(tiny):
    for learning in ("ema", "gradient"):
        config = tiny(codebooks={"learning": learning})
        model = build_autoencoder(config.model, config.codebooks)
        average = WeightAverage(model, decay=0.5)
        assert average.average
        assert not [name for name in average.average if name.endswith("codebook")]
