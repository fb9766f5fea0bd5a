import math
import pickle

import pytest

from codec.config import LossesConfig
from codec.config_files import parse_config
from codec.errors import ConfigError
from codec.evaluation import judges
from codec.evaluation.judges import (
    DEFAULT,
    METRICS,
    Settings,
    chosen,
    formula,
    installed,
    learnt_from,
    merit,
)
from codec.extras import MissingPackageError
from tests.support.syllables import RATE, noisy, voiced


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_every_row_names_a_function_and_what_follows_from_it(metric):
    assert callable(metric._function)
    assert pickle.loads(pickle.dumps(metric)) == metric  # it goes to scoring processes
    assert set(metric.takes) <= set(Settings.__dataclass_fields__)
    assert len(metric.heading) <= 10, "tables are narrow"
    # `parameters` is what decoders with a source learn from.
    assert set(metric.losses) <= {*LossesConfig.model_fields, "parameters"}


@pytest.mark.parametrize("name", DEFAULT)
def test_what_is_scored_without_being_asked_for_hears_noise(name):
    """Each is defined on a voice with pauses, and best for the recording itself."""
    metric, settings = METRICS[name], Settings()
    wave = noisy(voiced(4), 1e-4)
    same, worse = (
        metric.merit(metric.score(wave, decoded, RATE, settings))
        for decoded in (wave, noisy(wave, 0.01))
    )
    assert same > worse or (name in ("buzz", "flutter", "f0") and same >= worse - 0.5)
    assert not DEFAULT[0].startswith("distill") and not metric.packages


def test_a_missing_package_is_told_with_what_brings_it(monkeypatch):
    monkeypatch.setattr(judges.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError) as caught:
        chosen(["stoi", "distillmos"])
    assert str(caught.value) == (
        "distillmos needs distillmos, which is not installed: pip install 'sotto[metrics]'"
    )
    assert installed() == list(DEFAULT)
    assert installed(Settings(whisper="base")) == [*DEFAULT, "dwer"]


def test_a_sum_takes_less_of_what_should_be_small():
    weights = {"stoi": 10.0, "flutter": 0.5, "periodicity": 1.0}
    assert formula(weights) == "10 stoi - 0.5 flutter - |periodicity|"
    assert formula({"mel_distance": 1.0}) == "- mel_distance"
    scores = {"stoi": 0.9, "flutter": 2.0, "periodicity": -0.25}
    assert merit(weights, scores) == pytest.approx(9 - 1 - 0.25)
    assert merit(weights, scores | {"periodicity": 0.25}) == pytest.approx(9 - 1 - 0.25)
    assert math.isnan(merit(weights, scores | {"flutter": math.nan}))


def test_it_is_told_what_was_learnt_from():
    pesq, stoi = METRICS["pesq_wb"], METRICS["stoi"]
    assert [pesq.learnt({"disturbance": 0.1}), pesq.learnt({"mel": 1.0})] == ["yes", "no"]
    assert [pesq.learnt(None), stoi.learnt(None)] == ["unknown", "no"]
    assert learnt_from(["stoi"], None) is None
    assert learnt_from(["pesq_wb", "mel_distance"], {"mel": 1.0}) == (
        "† learnt from, so no independent judge: mel (dB) (by mel or spectrum)"
    )


@pytest.mark.parametrize(
    ("validation", "told"),
    [
        ({"best_by": "pesk"}, "'pesk' is no metric"),
        ({"best_by": {"stoi": 0}}, "validation.best_by"),
        ({"best_by": {}}, "name a metric, or weights"),
        ({"best_by": {"stoi": 1, "mos": 2}}, "'mos' is no metric"),
        ({"metrics": []}, "validation.metrics"),
        ({"metrics": ["stoi", "mos"]}, "'mos' is no metric"),
    ],
)
def test_mistakes_in_a_configuration_are_named(validation, told):
    with pytest.raises(ConfigError) as caught:
        parse_config({"validation": validation}, source="test")
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_the_best_is_chosen_by_what_is_scored():
    config = parse_config(
        {"validation": {"metrics": ["stoi"], "best_by": {"buzz": 2, "stoi": 1}}}, source="test"
    )
    assert config.validation.scored_metrics == ["stoi", "buzz"]
    assert config.validation.best_weights == {"buzz": 2, "stoi": 1}
    plain = parse_config({"validation": {"best_by": "mel_distance"}}, source="test").validation
    assert plain.best_weights == {"mel_distance": 1}
    default = parse_config({}, source="test").validation
    assert "pesq_wb" not in default.best_weights
    assert not any(METRICS[name].losses or METRICS[name].packages for name in default.best_weights)
