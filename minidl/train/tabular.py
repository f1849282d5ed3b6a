"""Recipe `breast-cancer`: an MLP beside logistic regression on the same folds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minidl.nn.functional as F
import minidl.ops as ops
from minidl.evaluate import binary_metrics, confusion
from minidl.models import MLP, Standardize
from minidl.optim import SGD
from minidl.serialization import save
from minidl.train.loop import Line, Outcome, Run, fit, mean_and_deviation, predict
from minidl.train.plots import Panel, confusions, curves
from minidl.train.progress import Progress
from minidl.train.settings import BreastCancer

_FEATURES = 30
_MARGIN = 0.005
_OURS, _BASELINE = "MLP", "logistic regression"
_LABELS = ("benign", "malignant")


def check_breast_cancer(settings: BreastCancer) -> None:
    """Refuse a model that cannot be, before any recipe has started."""
    MLP((_FEATURES, *settings.hidden, 1), settings.activation)


def run_breast_cancer(run: Run) -> Outcome:
    """Cross-validate on the Wisconsin diagnostic data, malignant being the positive class.

    Scaling is fitted on the training folds alone; both models see the same numbers. The weights
    that are written come from a last fit on all rows, after Ctrl-C from the last complete one.
    """
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import StratifiedKFold

    settings: BreastCancer = run.settings
    x, y = load_breast_cancer(return_X_y=True)
    x, y = x.astype(np.float32), 1 - y.astype(np.int64)  # scikit-learn has benign as 1
    folds = StratifiedKFold(settings.folds, shuffle=True, random_state=settings.seed).split(x, y)
    scores: dict[str, list[dict[str, float]]] = {_OURS: [], _BASELINE: []}
    matrices = {name: np.zeros((2, 2), dtype=np.int64) for name in scores}

    def judge(name: str, rows: np.ndarray, probability: np.ndarray) -> None:
        scores[name].append(binary_metrics(y[rows], probability))
        matrices[name] += confusion(y[rows], (probability >= 0.5).astype(np.int64), 2)

    with Progress(run.recipe, _steps(settings, len(y))) as progress:
        for number, (inside, outside) in enumerate(folds, 1):
            trained = _train(run, progress, x, y, inside, outside, number)
            if run.stop and scores[_OURS]:
                break  # a fold cut short says nothing beside complete ones
            model = trained
            judge(_OURS, outside, _probability(model, x[outside]))
            scaled = model.scaler(ops.tensor(x)).numpy()
            judge(_BASELINE, outside, _baseline(scaled[inside], y[inside], scaled[outside]))
        if not run.stop:
            trained = _train(run, progress, x, y, np.arange(len(y)), None, 0)
            model = model if run.stop else trained
        save(model.state_dict(), run.folder.path / "model.safetensors")
    summary = {
        name: {key: mean_and_deviation([s[key] for s in rows]) for key in rows[0]}
        for name, rows in scores.items()
    }
    _draw(run, matrices)
    ours, other = (summary[name]["f1"]["mean"] for name in (_OURS, _BASELINE))
    count = len(scores[_OURS])
    folds_said = f"mean of {count} folds" if count > 1 else "one fold"
    line = Line(f"F1, {folds_said}", ours, _BASELINE, other, ours >= other - _MARGIN)
    metrics = {"models": summary, "confusion": matrices, "margin": _MARGIN, "folds": count}
    return Outcome(metrics, [line], _table(summary))


def _steps(settings: BreastCancer, rows: int) -> int:
    """The updates of all folds, which differ by one row at most, and of the fit on all rows."""
    inside = math.ceil((rows - rows // settings.folds) / settings.batch_size)
    everything = math.ceil(rows / settings.batch_size)
    return settings.epochs * (settings.folds * inside + everything)


def _train(
    run: Run,
    progress: Progress,
    x: np.ndarray,
    y: np.ndarray,
    inside: np.ndarray,
    outside: np.ndarray | None,
    fold: int,
) -> MLP:
    """Train on the rows `inside`; with `outside`, measure those after every epoch."""
    settings: BreastCancer = run.settings
    ops.manual_seed(settings.seed + fold)
    scaler = Standardize.fit(x[inside])
    model = MLP((x.shape[1], *settings.hidden, 1), settings.activation, scaler=scaler)
    optimizer = SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )

    def after_epoch() -> dict[str, Any]:
        if outside is None:
            return {"fit": "all rows"}
        logits, target = predict(model, x[outside]), _column(y[outside])
        loss = F.binary_cross_entropy_with_logits(ops.tensor(logits), ops.tensor(target)).item()
        accuracy = float(((logits > 0) == target).mean())
        return {"fold": fold, "test_loss": loss, "test_accuracy": accuracy}

    loss = F.binary_cross_entropy_with_logits
    target = _column(y[inside])
    fit(run, progress, model, loss, x[inside], target, optimizer, None, after_epoch)
    return model


def _column(y: np.ndarray) -> np.ndarray:
    return y[:, None].astype(np.float32)


def _probability(model: MLP, x: np.ndarray) -> np.ndarray:
    return ops.sigmoid(ops.tensor(predict(model, x)[:, 0])).numpy()


def _baseline(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Logistic regression fitted on `x`, `y`: its probability of class 1 for `x_test`."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000).fit(x, y).predict_proba(x_test)[:, 1]


def _draw(run: Run, matrices: dict[str, np.ndarray]) -> None:
    rows = [row for row in run.folder.rows if "fold" in row]
    losses = Panel(
        "binary cross entropy, nats", {"train_loss": "training", "test_loss": "held-out fold"}
    )
    accuracy = Panel("accuracy", {"test_accuracy": "held-out fold"})
    picture = curves(run.recipe, "epoch", rows, "fold", [losses, accuracy])
    run.folder.write("curves.png", picture)
    title = f"{run.recipe}: held-out rows of all folds"
    run.folder.write("confusion.png", confusions(title, matrices, _LABELS))


def _table(summary: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The measures of both models, mean and deviation over the folds."""
    lines = ["mean and deviation over the folds:"]
    lines.append(f"{'':12}" + "".join(f"{name:>22}" for name in summary))
    for key in summary[_OURS]:
        cells = []
        for name in summary:
            cell = summary[name][key]
            spread = "" if cell["std"] is None else f" +- {cell['std']:.4f}"
            cells.append(f"{cell['mean']:.4f}{spread}".rjust(22))
        lines.append(f"{key:12}" + "".join(cells))
    return "\n".join(lines)
