"""How good a model is: classification measures and baselines."""

from minidl.evaluate.metrics import binary_metrics, confusion, multiclass_metrics
from minidl.evaluate.ngram import CharTrigram

__all__ = ["CharTrigram", "binary_metrics", "confusion", "multiclass_metrics"]
