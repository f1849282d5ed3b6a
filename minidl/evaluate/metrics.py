"""Classification measures, by scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.errors import ArgumentError, ShapeError

_NO_DENOMINATOR: Any = {"zero_division": 0}


def binary_metrics(y_true: Any, scores: Any, threshold: float = 0.5) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and ROC AUC of a two-class model.

    y_true: (N,) 0 or 1, 1 being positive; scores: (N,), positive where >= `threshold`. A ratio
    whose denominator is zero is 0; the ROC AUC of one class alone is NaN.
    """
    from sklearn import metrics

    y_true, scores = _same_length("binary_metrics", y_true, scores)
    if not np.isin(y_true, (0, 1)).all() or not np.isfinite(scores).all():
        raise ArgumentError("y_true must be 0 or 1, scores finite", operator="binary_metrics")
    predicted = (scores >= threshold).astype(np.int64)
    both = 0 < y_true.sum() < len(y_true)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        y_true, predicted, average="binary", **_NO_DENOMINATOR
    )
    return {
        "accuracy": float(metrics.accuracy_score(y_true, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(metrics.roc_auc_score(y_true, scores)) if both else float("nan"),
    }


def multiclass_metrics(y_true: Any, predicted: Any) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 averaged over the classes with equal weight.

    y_true, predicted: (N,) class indices.
    """
    from sklearn import metrics

    y_true, predicted = _same_length("multiclass_metrics", y_true, predicted)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        y_true, predicted, average="macro", **_NO_DENOMINATOR
    )
    return {
        "accuracy": float(metrics.accuracy_score(y_true, predicted)),
        "precision_macro": float(precision),
        "recall_macro": float(recall),
        "f1_macro": float(f1),
    }


def confusion(y_true: Any, predicted: Any, classes: int) -> np.ndarray:
    """Counts (classes, classes) int64: rows are the true class, columns the predicted one.

    y_true, predicted: (N,) class indices in [0, classes).
    """
    from sklearn import metrics

    y_true, predicted = _same_length("confusion", y_true, predicted)
    low, high = min(y_true.min(), predicted.min()), max(y_true.max(), predicted.max())
    if low < 0 or high >= classes:  # scikit-learn would leave them out of the counts
        rule = f"class indices must lie in [0, {classes})"
        raise ArgumentError(rule, operator="confusion", got=f"{low} to {high}")
    return metrics.confusion_matrix(y_true, predicted, labels=np.arange(classes))


def _same_length(name: str, y_true: Any, other: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(y_true), np.asarray(other)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ShapeError(
            "both must be one axis of the same length, not empty",
            operator=name,
            got=f"{a.shape} and {b.shape}",
        )
    return a, b
