"""The keys of `validation`: what is measured on the way, and which model is the best."""

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from codec.config_model import Section
from codec.evaluation.judges import DEFAULT, METRICS, known_metric

PositiveWeight = Annotated[float, Field(gt=0)]
MetricName = Annotated[
    str, AfterValidator(known_metric), Field(json_schema_extra={"enum": sorted(METRICS)})
]


class ValidationConfig(Section):
    """What is measured on held-out clips, and how often."""

    every: int = Field(1000, gt=0)
    clips: int = Field(16, gt=0)
    seconds: float = Field(4.0, gt=0)
    """Longest part of a clip that is scored."""
    kbps: list[float] | None = Field(None, min_length=1)
    """Rates to score; none: the default rate and half of it."""
    logged_clips: int = Field(3, ge=0)
    """Clips whose audio and spectrograms go to TensorBoard."""
    metrics: list[MetricName] = Field(list(DEFAULT), min_length=1)
    """What to score by: a curve each. Those of `best_by` are scored as well."""
    best_by: MetricName | dict[MetricName, PositiveWeight] = Field({"stoi": 10.0, "flutter": 0.1})
    """What decides, at the highest scored rate, which model is the best: a metric, or weights of
    several, whose sum it is; what should be small counts against. 0.01 of STOI weighs as 1 dB of
    flutter does: what is said, and no frame to be heard in it. Neither needs a package, and no loss
    is made of them."""
    workers: int = Field(2, ge=0)
    """Processes that score."""

    @property
    def best_weights(self) -> dict[str, float]:
        """`best_by` as weights by metric."""
        return {self.best_by: 1.0} if isinstance(self.best_by, str) else dict(self.best_by)

    @property
    def scored_metrics(self) -> list[str]:
        """`metrics` and those of `best_by`."""
        return list(dict.fromkeys([*self.metrics, *self.best_weights]))

    @field_validator("best_by")
    @classmethod
    def _of_something(cls, best_by: str | dict[str, float]) -> str | dict[str, float]:
        if not best_by:
            raise ValueError("name a metric, or weights of some, such as {stoi: 10, visqol: 1}")
        return best_by
