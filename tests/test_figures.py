"""Style and files of all figures, training curves, confusion matrices, and the script."""

import csv
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest

from conftest import ROOT
from tiny_imagenet.errors import PredictionsError, TinyImageNetError
from tiny_imagenet.evaluation import ensemble, metrics, predictions
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import confusion_figure, curves_figure, figures
from tiny_imagenet.report.curves_figure import Line


def records(count=50, rate=0.1):
    lines = []
    for index in range(1, count + 1):
        line = {"iteration": 10 * index, "train_loss": 2 * np.exp(-rate * index), "top1": None}
        if index % 10 == 0:
            line.update(top1=1 - np.exp(-rate * index))
        lines.append(line)
    return lines


def some_predictions(classes=10, count=200):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, count)
    probabilities = generator.random((count, classes)) + 0.1
    probabilities[np.arange(count), labels] += 0.7
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    keys = np.array([f"{index:08d}" for index in range(count)])
    return Predictions(keys, labels, probabilities.astype(np.float32), {"model": "model1"})


def many_predictions():
    """40 classes in 4 groups that are taken for each other, in an order that mixes the groups."""
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(40), 20)
    probabilities = generator.random((800, 40)) + 0.5 * (np.arange(40) % 4 == labels[:, None] % 4)
    probabilities[np.arange(800), labels] += 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    keys = np.array([f"{index:08d}" for index in range(800)])
    names = [f"thing {index}, another" for index in range(40)]
    meta = {"model": "model9", "split": "val", "crops": "centre", "class_names": names}
    meta["wnids"] = [f"n{index:08d}" for index in range(40)]
    return Predictions(keys, labels, probabilities.astype(np.float32), meta)


def lines(**runs):
    return [Line(name, "", own) for name, own in runs.items()]


def texts(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


# --- curves ---


def test_curves_show_the_records():
    loss, accuracy = curves_figure.draw(lines(model1=records(), model2=records(rate=0.2))).axes
    assert [line.get_label() for line in loss.lines] == ["model1", "model2"]
    assert loss.lines[0].get_xydata()[0] == pytest.approx([10, 2 * np.exp(-0.1)])
    assert len(loss.lines[0].get_xdata()) == 50
    assert accuracy.lines[1].get_xdata() == pytest.approx([100, 200, 300, 400, 500])
    assert accuracy.lines[1].get_ydata()[0] == pytest.approx(100 * (1 - np.exp(-2)))


def test_missing_values_are_left_out_and_later_records_win():
    given = [
        {"iteration": 1, "train_loss": 3.0},
        {"iteration": 2, "train_loss": float("nan")},
        {"iteration": 4},
        {"iteration": 6, "train_loss": 9.0},
        {"iteration": 5, "train_loss": 2.0},
        {"iteration": 6, "train_loss": 1.5},
    ]
    (axes,) = curves_figure.draw(lines(run=given), ["train_loss"]).axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 3], [5, 2], [6, 1.5]]


def test_a_long_curve_is_averaged():
    given = [{"iteration": index, "train_loss": float(index % 7)} for index in range(10_000)]
    (axes,) = curves_figure.draw(lines(run=given), ["train_loss"]).axes
    iterations, values = axes.lines[0].get_data()
    assert len(values) == curves_figure.POINTS
    assert values.mean() == pytest.approx(np.mean([record["train_loss"] for record in given]))
    assert iterations[:2] == pytest.approx([12, 37])


def test_many_runs_have_different_looks():
    names = {f"m{number}": records() for number in range(curves_figure.MOST_LINES)}
    (axes,) = curves_figure.draw(lines(**names), ["train_loss"]).axes
    assert len({(line.get_color(), str(line._dash_pattern)) for line in axes.lines}) == curves_figure.MOST_LINES


@pytest.mark.parametrize("alike", [True, False])
def test_more_runs_are_drawn_per_model(alike):
    def line(model, seed):
        detail = f"seed{seed}" if alike else f"seed{seed} of {model}"
        return Line(f"model{model}", detail, records(rate=0.01 * (model + seed)))

    many = [line(model, seed) for model in range(1, 10) for seed in range(3)]
    many[0] = Line("model1", many[0].detail, records(rate=1))  # the best, in grey in the other axes
    figure = curves_figure.draw(many)
    assert len(figure.axes) == 18 and len(figure.legends) == alike
    assert [axes.get_title(loc="left") for axes in figure.axes] == 2 * [f"model{model}" for model in range(1, 10)]
    for half in (figure.axes[:9], figure.axes[9:]):
        assert [len(axes.lines) for axes in half] == [3] + 8 * [4]
        assert len({(axes.get_xlim(), axes.get_ylim()) for axes in half}) == 1
        best = half[0].lines[0].get_xydata()
        assert all((axes.lines[-1].get_xydata() == best).all() for axes in half[1:])


def test_a_legend_names_the_runs_and_those_without_records():
    figure = curves_figure.draw(lines(model1=records(), model2=[{"iteration": 1}]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["model1", "model2 (no record yet)"]
    figure = curves_figure.draw([Line("model1", "first", records())])
    assert not figure.legends and figure.get_suptitle() == "model1 (first)"


def test_a_narrow_figure_has_its_panels_below_each_other_on_one_scale():
    wide, narrow = (curves_figure.draw(lines(a=records(), b=records(30)), width=width) for width in (7, 3.3))
    assert (wide.get_figwidth(), narrow.get_figwidth()) == (7, 3.3)
    for figure in (wide, narrow):
        assert [axes.get_xlim() for axes in figure.axes] == [(0, 510)] * 2
    upper, lower = (axes.get_position() for axes in narrow.axes)
    assert upper.y0 > lower.y1


def test_nothing_to_draw_is_an_error():
    for runs in ({}, {"model1": []}, {"model1": [{"iteration": 1}]}):
        with pytest.raises(TinyImageNetError):
            curves_figure.draw(lines(**runs))


# --- confusion ---


def test_confusion_shows_counts_and_names():
    given = some_predictions(4)
    given.meta["class_names"] = ["cat, true cat", "dog", "a very long name of a class", "fish"]
    counts = metrics.confusion(given)
    figure = confusion_figure.draw(given)
    drawn = {tuple(map(int, text.get_position()[::-1])): int(text.get_text()) for text in figure.axes[0].texts}
    assert drawn == {(row, column): counts[row, column] for row, column in zip(*np.nonzero(counts))}
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["cat", "dog", "a very long name …", "fish"]
    image = figure.axes[0].images[0].get_array()
    assert np.asarray(image.sum(axis=1)) == pytest.approx(np.ones(4))


def test_the_title_has_name_images_and_score():
    given = many_predictions()
    top1 = 100 * np.mean(given.probabilities.argmax(1) == given.labels)
    title = confusion_figure.draw(given).get_suptitle().replace("\N{NO-BREAK SPACE}", " ")
    assert title == f"model9, val split, centre crop: top-1 {top1:.2f} % of 800 images"
    assert "model9 + model9" in confusion_figure.draw(ensemble.average([given, given])).get_suptitle()
    assert confusion_figure.draw(given, title="").get_suptitle() == ""


@pytest.mark.parametrize("similar", [False, True])
def test_the_listing_has_the_order_of_the_matrix(similar):
    given = many_predictions()
    image = np.asarray(confusion_figure.draw(given, similar).axes[0].images[0].get_array())
    rows = list(csv.DictReader(confusion_figure.listing(given, similar).splitlines()))
    assert [row["place"] for row in rows] == list(map(str, range(40)))
    counts = np.zeros((40, 40))
    np.add.at(counts, (given.labels, given.probabilities.argmax(axis=1)), 1)
    order = [int(row["number"]) for row in rows]
    assert image == pytest.approx(counts[np.ix_(order, order)] / 20)
    for row, number in zip(rows, order):
        assert (row["wnid"], row["words"]) == (f"n{number:08d}", f"thing {number}, another")
    groups = [number % 4 for number in order]
    assert sum(one != other for one, other in zip(groups, groups[1:])) == (3 if similar else 39)
    assert confusion_figure.listing(some_predictions()) == ""  # the axes have the names


@pytest.mark.parametrize(("classes", "width"), [(2, 3.3), (14, 3.3), (14, 5), (40, 7)])
def test_names_are_shown_if_they_fit(classes, width):
    given = some_predictions(classes, 200 * classes)
    names = ("German short-haired pointer", "cat", "steel arch bridge")
    given.meta["class_names"] = [names[index % 3] for index in range(classes)]
    figure = confusion_figure.draw(given, width=width)
    named = classes < 40 and (width > 3.3 or classes == 2)
    assert figure.get_figwidth() <= width and bool(figure.axes[0].texts) == named
    assert (confusion_figure.listing(given, width=width) == "") == named


def test_similar_classes_are_neighbours():
    partner = {0: 5, 5: 0, 1: 4, 4: 1, 2: 3, 3: 2}
    labels = np.repeat(np.arange(6), 20)
    probabilities = np.full((120, 6), 0.02, np.float32)
    for row, label in enumerate(labels):
        probabilities[row, partner[label] if row % 20 < 8 else label] = 0.9
    keys = np.array([f"{row:08d}" for row in range(120)])
    given = Predictions(keys, labels, probabilities, {"class_names": list("abcdef")})
    counts = metrics.confusion(given)
    order = confusion_figure.similar_order(counts / 20)
    assert sorted(order) == list(range(6))
    places = {label: place for place, label in enumerate(order.tolist())}
    assert all(abs(places[label] - places[other]) == 1 for label, other in partner.items())
    axes = confusion_figure.draw(given, similar=True).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["abcdef"[label] for label in order] == [label.get_text() for label in axes.get_xticklabels()]
    drawn = {tuple(map(int, text.get_position()[::-1])): int(text.get_text()) for text in axes.texts}
    assert drawn == {(places[row], places[column]): counts[row, column] for row, column in zip(*np.nonzero(counts))}
    assert [confusion_figure.similar_order(np.eye(classes)).tolist() for classes in (1, 2)] == [[0], [0, 1]]


def test_confusion_needs_labels():
    given = some_predictions()
    with pytest.raises(PredictionsError):
        confusion_figure.draw(Predictions(given.keys, np.full(200, -1), given.probabilities))


# --- files ---


def test_names_are_text_not_markup():
    names = ["a $x^{ 5$", "_hidden", "<b>&", "数字"]
    svg = figures.svg(curves_figure.draw([Line(name, "", records()) for name in names], ["train_loss"]))
    assert [text.strip() for text in texts(svg) if text.strip() in names] == names


@pytest.mark.parametrize("ending", [".png", ".svg", ".PNG"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, ending):
    content = []
    for name in ("a", "b"):
        figure = curves_figure.draw(lines(model1=records(), model2=records(rate=0.3)))
        figures.save(figure, tmp_path / (name + ending))
        content.append((tmp_path / (name + ending)).read_bytes())
    assert content[0] == content[1]
    if ending.lower() == ".png":
        assert cv2.imread(str(tmp_path / ("a" + ending))).shape[1] > 1000
    else:
        assert "model2" in texts(content[0].decode())


def test_other_endings_are_rejected(tmp_path):
    for name in ("a.pdf", "a"):
        with pytest.raises(TinyImageNetError, match=name):
            figures.save(confusion_figure.draw(some_predictions()), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_fraction_below_a_limit_never_reads_as_the_limit():
    shares = (0, 0.24999, 0.25, 0.99999, 1)
    assert [figures.percent(share) for share in shares] == ["0.0 %", "24.9 %", "25.0 %", "99.9 %", "100.0 %"]


def test_long_text_is_shortened_to_its_width():
    figure = figures.Figure()
    text = figure.text(0, 0, "a long name " * 20)
    figures.fit(text, 2)
    assert text.get_text().endswith("…")
    assert text.get_window_extent(figure.canvas.get_renderer()).width <= 2 * figure.dpi


def test_an_inline_figure_has_its_own_ids():
    drawn = figures.svg(curves_figure.draw(lines(model1=records())))
    one, other = (ElementTree.fromstring(figures.inline(drawn, name, "a label")) for name in ("one", "two"))
    ids = [{node.get("id") for node in root.iter() if node.get("id")} for root in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert one.get("viewBox") and one.get("width") is None and one.get("aria-label") == "a label"


# --- the script ---


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "model1"
    folder.mkdir()
    (folder / "run.json").write_text('{"model": "model1"}')
    (folder / "metrics.jsonl").write_text('{"iteration": 1, "train_loss": 2.0}\n{"iteration": 2, "train_loss": 1.0}\n')
    predictions.save(folder / "predictions.npz", some_predictions())
    return folder


def test_the_script_draws(run, tmp_path, tool):
    for arguments in (
        ["curves", run, "--width", "3.3"],
        ["confusion", run / "predictions.npz", "--order", "similar"],
        ["confusion", run],
    ):
        done = tool("visualize", *arguments, "--out", "a.png", cwd=tmp_path)
        assert (done.stderr, done.stdout) == ("", "a.png\n")
        assert cv2.imread(str(tmp_path / "a.png")) is not None


def test_the_script_lists_classes_without_room_for_names(tmp_path, tool):
    given = many_predictions()
    predictions.save(tmp_path / "p.npz", given)
    done = tool("visualize", "confusion", "p.npz", "--order", "similar", "--out", "new/a.svg", cwd=tmp_path)
    assert done.stdout == "new/a.svg\nnew/a_classes.csv\n"
    assert (tmp_path / "new" / "a_classes.csv").read_text() == confusion_figure.listing(given, True)
    (tmp_path / "b_classes.csv").mkdir()
    done = tool("visualize", "confusion", "p.npz", "--out", "b.png", cwd=tmp_path, fails=1)
    assert "b_classes.csv" in done.stderr and not (tmp_path / "b.png").exists()


def test_the_script_draws_a_running_training_and_its_stages(run, tmp_path, tool):
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write('{"iteration": 3, "train_lo')  # half a line: it is being written
    stage = run / "stages" / "1"
    stage.mkdir(parents=True)
    (stage / "run.json").write_text(json.dumps({"model": "stage"}))
    (stage / "metrics.jsonl").write_text('{"iteration": 1, "train_loss": 2.0, "top1": 0.5}\n')
    tool("visualize", "curves", run, stage, "--out", "a.svg", cwd=tmp_path)
    assert {"model1", "stage (1)"} <= set(texts((tmp_path / "a.svg").read_text()))


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        ([], 2, "KIND"),
        (["curvs", "model1"], 2, "'curves'"),
        (["curves", "model1"], 2, "--out"),
        (["curves", "none", "--out", "a.pdf"], 2, "a.pdf"),
        (["curves", "none", "--out", "a.png", "--width", "2"], 2, "'2'"),
        (["filters", "--net", "a", "--weights", "b", "--checkpoint", "last", "--out", "a.png"], 2, "--checkpoint"),
        (["filters", "model1", "--net", "a", "--weights", "b", "--out", "a.png"], 2, "--net"),
        (["curves", "none", "--out", "a.png"], 1, "none"),
        (["confusion", "none.npz", "--out", "a.png"], 1, "none.npz"),
        (["confusion", "model1/empty", "--out", "a.png"], 1, "tools/evaluate.py"),
        (["errors", "model1", "--rows", "21", "--out", "a.png"], 2, "'21'"),
        (["screening", "none", "--min-visible", "5/4", "--out", "a.png"], 2, "'5/4'"),
        (["screening", "none", "--out", "a.png"], 1, "none"),
    ],
)
def test_the_script_rejects_in_one_line_and_writes_nothing(run, tmp_path, arguments, status, named):
    (run / "empty").mkdir()
    (run / "empty" / "run.json").write_text("{}")
    command = [sys.executable, str(ROOT / "tools" / "visualize.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == status and done.stdout == ""
    assert done.stderr.startswith("visualize.py") and done.stderr.count("\n") == 1 and named in done.stderr
    assert list(tmp_path.iterdir()) == [run]
