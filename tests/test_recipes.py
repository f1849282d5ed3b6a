"""The parts of the recipes: models, baseline, measures, files; the quality bars are slow."""

import gzip
import json
import math
from collections import Counter

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.errors import ArgumentError, MinidlError, ShapeError
from minidl.evaluate import CharTrigram, binary_metrics, confusion, multiclass_metrics
from minidl.models import GPT, MLP, Standardize
from minidl.train import RECIPES, Stop, folder as folders, plots, resolve, run_recipe
from minidl.train.chars import Text, full_loss, grid, read_text, sample_batch
from minidl.train.images import read_idx
from minidl.train.loop import mean_and_deviation, predict, step
from minidl.train.plots import Panel, confusions, curves

WORDS = "the cat sat on the mat and the dog sat on the log; " * 12


def small_gpt(**changes) -> GPT:
    shape = {"vocab": 11, "context": 8, "layers": 2, "heads": 2, "width": 16}
    return GPT(**{**shape, **changes})


# Models


def test_gpt_shapes_and_count():
    model = small_gpt()
    logits = model(minidl.zeros((3, 5), dtype=minidl.int64))
    assert tuple(logits.shape) == (3, 5, 11)
    # Embeddings, per block 4 C^2 + 8 C^2 and two norms, the last norm; the output map is tied.
    assert sum(p.numel() for p in model.parameters()) == 11 * 16 + 8 * 16 + 2 * (12 * 256 + 32) + 16
    assert model.wte.weight is model.lm_head.weight


def test_gpt_starts_at_the_uniform_distribution():
    minidl.manual_seed(0)
    model = small_gpt(width=64)
    x = minidl.randint(0, 11, (16, 8))
    assert abs(model.loss(x, x.flip(1)).item() - math.log(11)) < 0.2
    deviation = {name: p.detach().numpy().std() for name, p in model.named_parameters()}
    assert abs(deviation["h.0.attn.c_attn.weight"] - 0.02) < 0.002
    assert abs(deviation["h.0.mlp.c_proj.weight"] - 0.01) < 0.001  # 0.02 / sqrt(2 * 2)


def test_gpt_looks_at_no_later_position():
    minidl.manual_seed(0)
    model = small_gpt()
    ids = minidl.randint(0, 11, (1, 8))
    changed = ids.clone()
    changed[0, 5] = (int(ids[0, 5].item()) + 1) % 11
    before, after = model(ids).detach().numpy(), model(changed).detach().numpy()
    assert np.array_equal(before[:, :5], after[:, :5])
    assert not np.allclose(before[:, 5:], after[:, 5:])


def test_gpt_generates():
    minidl.manual_seed(0)
    model = small_gpt(dropout=0.5)
    start = minidl.tensor([[3]])
    ids = model.generate(start, 20)
    assert tuple(ids.shape) == (1, 21) and ids.dtype == minidl.int64
    assert ids.numpy().min() >= 0 and ids.numpy().max() < 11
    assert model.training
    greedy, again, close = (model.generate(start, 6, t).numpy() for t in (0, 0, 1e-320))
    assert np.array_equal(greedy, again) and np.array_equal(greedy, close)
    with pytest.raises(ArgumentError, match="temperature"):
        model.generate(start, 1, temperature=-1)


def test_gpt_refuses_what_does_not_fit():
    with pytest.raises(ArgumentError, match="multiple of heads"):
        small_gpt(heads=3)
    with pytest.raises(ShapeError, match="length <= 8"):
        small_gpt()(minidl.zeros((1, 9), dtype=minidl.int64))
    with pytest.raises(ShapeError, match="a token to start from"):
        small_gpt().generate(minidl.zeros((1, 0), dtype=minidl.int64), 2)
    for name in ("vocab", "context", "layers", "heads"):
        with pytest.raises(ArgumentError, match=f"must be positive, got .*'{name}': 0"):
            small_gpt(**{name: 0})


def test_gpt_learns_a_cycle():
    minidl.manual_seed(0)
    model = small_gpt(width=32)
    optimizer = minidl.optim.AdamW(model.decay_groups(0.0), lr=1e-2)
    ids = (np.arange(9) + np.arange(11)[:, None]) % 11
    x, y = minidl.tensor(ids[:, :-1]), minidl.tensor(ids[:, 1:])
    losses = [step(model.loss(x, y), optimizer, clip=1.0) for _ in range(80)]
    assert losses[-1] < 0.1 < losses[0]
    assert model.generate(minidl.tensor([[4]]), 6, 0).numpy()[0].tolist() == [4, 5, 6, 7, 8, 9, 10]


def test_decay_groups_hold_every_parameter_once():
    model = small_gpt()
    matrices, vectors = model.decay_groups(0.1)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert {p.dim() for p in matrices["params"]} == {2}
    assert {p.dim() for p in vectors["params"]} == {1}
    together = {id(p) for p in matrices["params"] + vectors["params"]}
    assert together == {id(p) for p in model.parameters()}


def test_mlp_shapes_and_scaler():
    x = np.array([[1.0, 5.0, 7.0], [3.0, 5.0, 1.0]], dtype=np.float32)
    model = MLP((3, 4, 2), "sigmoid", scaler=Standardize.fit(x))
    assert tuple(model(minidl.tensor(x)).shape) == (2, 2)
    assert [type(layer).__name__ for layer in model.layers] == ["Linear", "Sigmoid", "Linear"]
    scaled = model.scaler(minidl.tensor(x)).numpy()
    assert np.allclose(scaled, [[-1, 0, 1], [1, 0, -1]])
    assert {"scaler.mean", "scaler.scale"} <= set(model.state_dict())
    assert [type(layer).__name__ for layer in MLP((3, 4, 2), dropout=0.5).layers] == [
        *("Linear", "ReLU", "Dropout", "Linear")
    ]


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: MLP((3,)), "at least an input"),
        (lambda: MLP((3, 0, 2)), "all positive"),
        (lambda: MLP((3, 2), "swish"), "must be one of gelu, relu"),
        (lambda: Standardize(np.zeros(2), np.array([1, 0])), "positive and finite"),
        (lambda: Standardize(np.zeros(2), np.array([1, np.nan])), "positive and finite"),
    ],
)
def test_mlp_refuses(call, rule):
    with pytest.raises(ArgumentError, match=rule):
        call()


def test_weights_come_back(tmp_path):
    minidl.manual_seed(0)
    model, other = small_gpt(), small_gpt()
    path = tmp_path / "model.safetensors"
    minidl.save(model.state_dict(), path)
    other.load_state_dict(minidl.load(path))
    ids = minidl.randint(0, 11, (2, 8))
    assert np.array_equal(model(ids).detach().numpy(), other(ids).detach().numpy())
    assert other.wte.weight is other.lm_head.weight
    with pytest.raises(MinidlError, match=r"wte\.weight"):
        small_gpt(width=32).load_state_dict(minidl.load(path))


# Baseline


def brute_force_trigram(ids: list[int], vocab: int, split: int) -> tuple[list[float], float]:
    """The same model by dictionaries: weights, and the loss over ids[split:]."""

    def counts(part):
        grams = [
            Counter(tuple(part[i : i + n]) for i in range(len(part) - n + 1)) for n in (1, 2, 3)
        ]
        contexts = [
            Counter(tuple(part[i : i + n]) for i in range(len(part) - n)) for n in (0, 1, 2)
        ]
        return grams, contexts

    def parts(tables, history, nxt):
        grams, contexts = tables
        found = []
        for n in (2, 1, 0):
            context = tuple(history[len(history) - n :])
            total = contexts[n][context]
            found.append(grams[n][(*context, nxt)] / total if total else 0.0)
        return [*found, 1 / vocab]

    train = ids[:split]
    inner = len(train) - int(0.1 * len(train))
    tables = counts(train[:inner])
    rows = [parts(tables, train[:i], train[i]) for i in range(inner, len(train))]
    weights = [0.25] * 4
    for _ in range(100):
        expected = [1.0] * 4
        for row in rows:
            shares = [w * p for w, p in zip(weights, row, strict=True)]
            for k in range(4):
                expected[k] += shares[k] / sum(shares)
        weights = [e / sum(expected) for e in expected]
    tables = counts(train)
    total = 0.0
    for i in range(split, len(ids)):
        row = parts(tables, ids[:i], ids[i])
        total -= math.log(sum(w * p for w, p in zip(weights, row, strict=True)))
    return weights, total / (len(ids) - split)


def test_trigram_equals_brute_force():
    rng = np.random.default_rng(0)
    text = Text(WORDS + "".join(rng.choice(list("abc xyz!"), 200)), 0.25, 4)
    model = CharTrigram(text.train, len(text.vocab))
    weights, loss = brute_force_trigram(text.ids.tolist(), len(text.vocab), text.split)
    assert np.allclose(model.weights, weights, rtol=1e-10)
    assert model.loss(text.ids, text.split) == pytest.approx(loss, rel=1e-10)


def test_trigram_is_a_distribution():
    text = Text(WORDS, 0.2, 4)
    vocab = len(text.vocab)
    model = CharTrigram(text.train, vocab)
    after = text.ids[:7]
    total = sum(model.probabilities(np.append(after, c), len(after))[0] for c in range(vocab))
    assert total == pytest.approx(1, abs=1e-12)


def test_trigram_survives_what_it_never_saw():
    model = CharTrigram(np.zeros(50, dtype=np.int64), vocab=3)
    assert 0 < model.probabilities(np.array([0, 1, 2]), 2)[0] < 0.1
    assert model.loss(np.array([0, 0, 0, 0]), 2) < 0.1
    with pytest.raises(ArgumentError, match="too few"):
        CharTrigram(np.array([0, 1, 0]), vocab=2)
    with pytest.raises(ArgumentError, match="two characters"):
        model.loss(np.array([0, 0, 0]), 1)


# Text


def test_text_is_cut_in_two():
    text = Text("abc" * 100, 0.1, 4)
    assert text.vocab == ["a", "b", "c"]
    assert (len(text.train), len(text.validation)) == (270, 30)
    assert "".join(text.vocab[i] for i in text.ids) == "abc" * 100


@pytest.mark.parametrize("bad", ["", "a", "ab" * 10, "a" * 1000])
def test_text_too_short(bad):
    with pytest.raises(ArgumentError, match="too short"):
        Text(bad, 0.1, 4)


def test_batches_are_windows_of_the_text():
    ids = np.arange(40)
    rng = np.random.default_rng(0)
    x, y = sample_batch(ids, 500, 8, rng)
    assert x.shape == y.shape == (500, 8)
    assert np.array_equal(y, x + 1) and np.array_equal(x[:, 1:], y[:, :-1])
    assert x.min() == 0 and y.max() == 39  # both ends are reached


def test_full_loss_counts_every_position_once():
    minidl.manual_seed(0)
    model = small_gpt()
    for length in (9, 16, 17, 18, 77):
        ids = np.random.default_rng(length).integers(0, 11, length)
        total = 0.0
        with minidl.no_grad():
            for i in range(0, length - 1, 8):
                x, y = ids[i : min(i + 8, length - 1)], ids[i + 1 : min(i + 9, length)]
                logits = model(minidl.tensor(x[None])).numpy()[0].astype(np.float64)
                total -= (logits[np.arange(len(y)), y] - np.log(np.exp(logits).sum(1))).sum()
        assert full_loss(model, ids) == pytest.approx(total / (length - 1), rel=1e-5)
    assert model.training


def test_grid_leaves_out_the_shorter_rest():
    x, y = grid(np.arange(10), 4)
    assert x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert np.array_equal(y, x + 1)


def test_default_text_is_python_s_own():
    text = read_text(None)
    assert len(text) > 300_000 and 'The "if" statement' in text


def test_texts_are_read_as_people_have_them(tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes("\ufeffé\r\nb\n".encode())
    assert read_text(str(file)) == "é\nb\n"
    file.write_bytes(b"abc\xff")
    with pytest.raises(ArgumentError, match="not UTF-8 text: .* at byte 3"):
        read_text(str(file))
    file.write_bytes(b"abc\0")
    with pytest.raises(ArgumentError, match="zero byte"):
        read_text(str(file))


# Measures


def test_binary_metrics_by_hand():
    y = [1, 1, 1, 0, 0, 0, 0, 1]
    scores = [0.9, 0.8, 0.2, 0.7, 0.1, 0.3, 0.5, 0.6]
    found = binary_metrics(y, scores)  # 3 true, 2 false positives; 1 false negative
    expected = {"accuracy": 5 / 8, "precision": 3 / 5, "recall": 3 / 4, "f1": 2 / 3}
    pairs = [(a > b) + (a == b) / 2 for a in (0.9, 0.8, 0.2, 0.6) for b in (0.7, 0.1, 0.3, 0.5)]
    expected["roc_auc"] = sum(pairs) / 16
    assert found == pytest.approx(expected)


def test_binary_metrics_of_one_class():
    found = binary_metrics([0, 0], [0.1, 0.2])
    assert found["accuracy"] == 1 and found["precision"] == found["f1"] == 0
    assert math.isnan(found["roc_auc"])


def test_multiclass_metrics_by_hand():
    y, predicted = [0, 0, 1, 2], [0, 1, 1, 0]
    found = multiclass_metrics(y, predicted)
    assert found["accuracy"] == 0.5
    assert found["precision_macro"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert found["recall_macro"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert confusion(y, predicted, 4).tolist() == [
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_measures_refuse_values():
    with pytest.raises(ArgumentError, match=r"lie in \[0, 2\), got 0 to 5"):
        confusion([0, 5], [0, 1], 2)
    for y, scores in (([0, 2], [0.1, 0.9]), ([0, 1], [0.1, math.nan])):
        with pytest.raises(ArgumentError, match="0 or 1, scores finite"):
            binary_metrics(y, scores)


@pytest.mark.parametrize("measure", [binary_metrics, multiclass_metrics])
@pytest.mark.parametrize("pair", [([], []), ([0, 1], [0]), ([[0]], [[0]])])
def test_measures_refuse_shapes(measure, pair):
    with pytest.raises(ShapeError, match="same length"):
        measure(*pair)


def test_mean_and_deviation():
    found = mean_and_deviation([1.0, 2.0, 3.0])
    assert (found["mean"], found["std"]) == (2.0, 1.0)
    assert mean_and_deviation([1.0])["std"] is None


# Loop


def test_divergence_is_said():
    model = nn.Linear(2, 1)
    optimizer = minidl.optim.SGD(model.parameters(), lr=0.5)
    before = model.weight.detach().numpy().copy()
    with pytest.raises(MinidlError, match="diverged: the loss is nan .* 0.5"):
        step(model(minidl.tensor([[math.nan, 0.0]])).sum(), optimizer)
    assert np.array_equal(model.weight.detach().numpy(), before)


def test_no_more_threads_than_cores(tmp_path, monkeypatch):
    import threadpoolctl

    asked = []

    class Enough(Exception):
        pass

    def limits(threads, user_api):
        asked.append(threads)
        raise Enough

    monkeypatch.setattr(threadpoolctl, "threadpool_limits", limits)
    for threads in (1, 10**6, None):
        settings = resolve("digits", {"threads": threads})
        with pytest.raises(Enough):
            run_recipe("digits", settings, tmp_path / str(threads), Stop())
    assert asked == [1, folders.cores(), None]


def test_predict_says_that_training_diverged():
    model = nn.Linear(2, 1)
    x = np.array([[1, np.inf]], dtype=np.float32)
    with pytest.raises(MinidlError, match="diverged: the model's outputs are not finite"):
        predict(model, x)


def test_predict_goes_by_batches():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.9))
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    together = predict(model, x)
    assert together.shape == (7, 2)
    assert np.allclose(together, predict(model, x, batch_size=2), atol=1e-6)
    assert np.allclose(
        together, x @ model[0].weight.detach().numpy().T + model[0].bias.detach().numpy(), atol=1e-6
    )


# Files and pictures


def test_json_is_plain():
    value = {"a": np.float32(0.5), "b": [math.nan, math.inf], "c": np.arange(2), 3: True, "é": None}
    assert json.loads(folders.to_json(value)) == {
        **{"a": 0.5, "b": [None, None], "c": [0, 1], "3": True, "é": None}
    }


def test_two_runs_in_one_second_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders.time, "strftime", lambda _: "20000101-000000")
    paths = [folders.RunFolder.create("chars", None).path.name for _ in range(3)]
    assert paths == ["20000101-000000-chars", "20000101-000000-chars-2", "20000101-000000-chars-3"]


def pixels(picture: bytes, tmp_path) -> np.ndarray:
    from matplotlib import image

    file = tmp_path / "picture.png"
    file.write_bytes(picture)
    return image.imread(file)


def test_curves_are_drawn(tmp_path):
    rows = [{"x": i, "seed": s, "a": i * s, "b": 1 / (i + 1)} for i in range(5) for s in (1, 2)]
    panels = [Panel("value", {"a": "first", "b": "second"}), Panel("bar", {"b": "b"}, {"bar": 0.5})]
    drawn = pixels(curves("title", "step", rows, "seed", panels), tmp_path)
    empty = pixels(curves("title", "step", [], "seed", panels), tmp_path)
    assert drawn.shape == empty.shape
    assert (drawn != empty).any()


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_epochs_are_whole_numbers_on_the_axis(monkeypatch, epochs):
    drawn = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *size: drawn.append(make(*size)) or drawn[0])
    rows = [{"x": i + 1, "seed": 0, "a": 0.5} for i in range(epochs)]
    curves("title", "epoch", rows, "seed", [Panel("value", {"a": "first"})])
    (axes,) = drawn[0].axes
    low, high = axes.get_xlim()
    shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert shown == [*range(1, epochs + 1)]


def test_confusions_are_drawn(tmp_path):
    one, other = np.array([[3, 1], [0, 4]]), np.array([[0, 4], [4, 0]])
    pictures = [pixels(confusions("t", {"m": m}, ["no", "yes"]), tmp_path) for m in (one, other)]
    assert (pictures[0] != pictures[1]).any()
    both = pixels(confusions("t", {"m": one, "n": other}, ["no", "yes"]), tmp_path)
    assert both.shape[1] > 1.5 * pictures[0].shape[1]
    confusions("t", {"m": np.zeros((2, 2), dtype=np.int64)}, ["no", "yes"])  # divides by no zero


def idx(magic: int, array: np.ndarray) -> bytes:
    header = np.array([magic, *array.shape], dtype=">i4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def test_idx_files(tmp_path):
    path = tmp_path / "images.gz"
    images = np.arange(24).reshape(2, 3, 4)
    path.write_bytes(idx(0x0803, images))
    assert np.array_equal(read_idx(path, 0x0803), images)
    whole = path.read_bytes()
    for bad, rule in [
        (b"plain", "gzip"),
        (whole[:-9], "gzip"),
        (idx(0x0801, images), "3 axes"),
        (gzip.compress(b"\0\0"), "3 axes"),
        (gzip.compress(gzip.decompress(whole)[:-1]), "holds 23 values"),
    ]:
        path.write_bytes(bad)
        with pytest.raises(ArgumentError, match=rule):
            read_idx(path, 0x0803)
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none.gz", 0x0803)


# The bars


def reach(name: str, tmp_path, preset: str | None = None, **values):
    settings = resolve(name, values, preset)
    with Stop() as stop:
        return run_recipe(name, settings, tmp_path / name, stop)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, r in RECIPES.items() if r.by_default])
def test_recipe_meets_its_bar(name, tmp_path):
    outcome = reach(name, tmp_path)
    assert outcome.judged
    (line,) = outcome.lines
    assert line.holds, line


@pytest.mark.slow
def test_mnist_meets_its_bar(data_dir, tmp_path):
    outcome = reach("mnist", tmp_path, data=str(data_dir / "mnist"))
    assert outcome.judged
    assert outcome.metrics["test"]["accuracy"]["mean"] >= 0.98


@pytest.mark.slow
def test_tinyshakespeare_reaches_the_published_loss(data_dir, tmp_path):
    """nanoGPT publishes 1.88 on sampled batches for this configuration."""
    text = str(data_dir / "tinyshakespeare/input.txt")
    outcome = reach("chars", tmp_path, "nanogpt", text=text, seeds=3)
    assert outcome.metrics["val_loss"]["mean"] <= 1.90
