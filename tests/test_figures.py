import csv
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from tiny_imagenet.errors import PredictionsError, TinyImageNetError
from tiny_imagenet.evaluation import ensemble, metrics, predictions
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import confusion_figure, curves_figure, figures

ROOT = Path(__file__).parent.parent


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


def beyond(axis):
    """The labels of an axis that are not drawn: of ticks beyond its ends."""
    low, high = sorted(axis.get_view_interval())
    return [label for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels()) if not low <= place <= high]


def overlapping(figure):
    """Pairs of texts in a figure, as it is drawn, that overlap by more than a pixel; and those that are outside."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    hidden = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in beyond(axis)}
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in hidden]
    boxes = [text.get_window_extent(renderer).padded(-0.5) for text in shown]
    pairs = [
        (one.get_text(), other.get_text())
        for index, one in enumerate(shown)
        for place, other in enumerate(shown[:index])
        if boxes[index].overlaps(boxes[place])
    ]
    outside = [text.get_text() for text, box in zip(shown, boxes) if box.x0 < -1 or box.x1 > figure.bbox.x1 + 1]
    return pairs + outside


def texts(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


# --- curves ---


def test_curves_show_what_was_recorded():
    figure = curves_figure.curves({"model1": records(), "model2": records(rate=0.2)})
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["model1", "model2"]
    assert loss.lines[0].get_xydata()[0] == pytest.approx([10, 2 * np.exp(-0.1)])
    assert len(loss.lines[0].get_xdata()) == 50
    assert accuracy.lines[1].get_xdata() == pytest.approx([100, 200, 300, 400, 500])
    assert accuracy.lines[1].get_ydata()[0] == pytest.approx(100 * (1 - np.exp(-2)))


def test_a_single_record_is_seen():
    (axes,) = curves_figure.curves({"a": [{"iteration": 20, "train_loss": 2.0}]}, ["loss"]).axes
    assert axes.lines[0].get_marker() == "o"  # a line of one point is none


def test_curves_leave_out_what_is_not_a_number_and_mend_a_resumed_log():
    given = [
        {"iteration": 1, "train_loss": 3.0},
        {"iteration": 2, "train_loss": float("nan")},
        {"iteration": 3, "train_loss": "high"},
        {"iteration": 4},
        {"train_loss": 1.0},
        {"iteration": 6, "train_loss": 9.0},
        {"iteration": 5, "train_loss": 2.0},
        {"iteration": 6, "train_loss": 1.5},
    ]
    (axes,) = curves_figure.curves({"run": given}, ["loss"]).axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 3], [5, 2], [6, 1.5]]


def test_a_long_curve_keeps_its_means():
    given = [{"iteration": index, "train_loss": float(index % 7)} for index in range(10_000)]
    (axes,) = curves_figure.curves({"run": given}, ["loss"]).axes
    iterations, values = axes.lines[0].get_data()
    assert len(values) == curves_figure.POINTS
    assert values.mean() == pytest.approx(np.mean([record["train_loss"] for record in given]))
    assert iterations[:2] == pytest.approx([12, 37])


def test_many_runs_can_be_told_apart():
    (axes,) = curves_figure.curves({f"model{number}": records() for number in range(1, 10)}, ["loss"]).axes
    looks = {(line.get_color(), str(line.get_linestyle()), str(line._dash_pattern)) for line in axes.lines}
    assert len(looks) == 9


@pytest.mark.parametrize("width", [7, 3.3])
def test_more_runs_than_looks_are_small_axes_of_each_model(width):
    def line(model, seed):
        return curves_figure.Line(f"model{model}", f"seed{seed}", records(rate=0.01 * (model + seed)))

    few = [line(model, seed) for model in range(1, 8) for seed in range(3)]
    assert len(curves_figure.draw(few, width).axes) == 2
    many = [*few, *(line(model, seed) for model in (8, 9) for seed in range(3))]
    many[0] = curves_figure.Line("model1", "seed0", records(rate=1))  # the best, in grey below others
    figure = curves_figure.draw(many, width)
    assert figure.get_figwidth() == width and len(figure.axes) == 18 and not overlapping(figure)
    assert figure.get_figheight() < 7.5  # a page's
    (legend,) = figure.legends  # of all: seed0 looks alike in each
    assert [text.get_text() for text in legend.get_texts()] == ["seed0", "seed1", "seed2"]
    numbered = [len("".join(text.get_text() for text in axes.get_xticklabels())) > 0 for axes in figure.axes]
    assert 0 < sum(numbered) < 18  # those at the lower edge
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == 2 * [f"model{model}" for model in range(1, 10)]
    for axes in figure.axes:
        looks = {(line.get_color(), line.get_linestyle(), line.get_alpha()) for line in axes.lines}
        first = axes.get_title(loc="left") == "model1"
        assert len(looks) == len(axes.lines) == (3 if first else 4)
        assert axes.lines[1].get_label() == "seed1"
    for half in (figure.axes[:9], figure.axes[9:]):
        assert len({(axes.get_xlim(), axes.get_ylim()) for axes in half}) == 1
        best = half[0].lines[0].get_xydata()
        assert all((axes.lines[-1].get_xydata() == best).all() for axes in half[1:])
    odd = [curves_figure.Line(line.model, line.detail + line.model, line.records) for line in many]
    figure = curves_figure.draw(odd, width)
    assert len(figure.axes) == 18 and not figure.legends and not overlapping(figure)  # each has its own
    with pytest.raises(TinyImageNetError, match=r"tools/train\.py"):
        curves_figure.draw([curves_figure.Line("a", str(number), []) for number in range(22)])


def test_the_legend_is_below_the_curves_and_the_figure_a_page_wide():
    figure = curves_figure.curves({f"model{number}": records() for number in range(1, 10)})
    assert figure.get_figwidth() <= 7
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"model{number}" for number in range(1, 10)]
    assert legend.get_window_extent(renderer).y1 <= min(axes.get_tightbbox(renderer).y0 for axes in figure.axes)
    assert legend.get_window_extent(renderer).width <= figure.bbox.width
    assert not curves_figure.curves({"model1": records()}).legends


def test_a_run_that_has_no_record_yet_says_so():
    figure = curves_figure.curves({"model1": records(), "model2": [{"iteration": 1}]})
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["model1", "model2 (no record yet)"]


def test_a_narrow_figure_has_its_panels_below_each_other_on_one_scale():
    runs = {"model1": records(), "model2": records(30)}
    wide, narrow = curves_figure.curves(runs), curves_figure.curves(runs, width=3.3)
    assert (wide.get_figwidth(), narrow.get_figwidth()) == (7, 3.3)
    for figure in (wide, narrow):
        assert not overlapping(figure)
        assert [axes.get_xlim() for axes in figure.axes] == [(0, 510)] * 2  # of a point alone, too, and from the start
        for axes in figure.axes:
            assert axes.get_ylim()[1] > 1.01 * max(line.get_ydata().max() for line in axes.lines)
    upper, lower = (axes.get_position() for axes in narrow.axes)
    assert upper.y0 > lower.y1 and upper.x0 == pytest.approx(lower.x0, abs=0.01)
    assert curves_figure.curves({"a": [{"iteration": 0, "top1": 0.1}]}, ["top1"]).axes[0].get_xlim()[1] > 1


def test_nothing_to_draw_is_an_error():
    for runs in ({}, {"model1": []}, {"model1": [{"iteration": 1}]}):
        with pytest.raises(TinyImageNetError, match=r"tools/train\.py"):
            curves_figure.curves(runs)


# --- confusion ---


def test_confusion_shows_counts_and_names():
    given = some_predictions(4)
    counts = metrics.confusion(given)
    figure = confusion_figure.matrix(given, ["cat, true cat", "dog", "a very long name of a class", "fish"])
    drawn = {tuple(map(int, text.get_position()[::-1])): int(text.get_text()) for text in figure.axes[0].texts}
    assert drawn == {(row, column): counts[row, column] for row, column in zip(*np.nonzero(counts))}
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["cat", "dog", "a very long name …", "fish"]
    image = figure.axes[0].images[0].get_array()
    assert np.asarray(image.sum(axis=1)) == pytest.approx(np.ones(4))


def test_confusion_of_many_classes_and_of_empty_ones():
    assert not confusion_figure.matrix(some_predictions(200, 50)).axes[0].texts


def test_200_classes_have_neither_names_nor_counts_and_fit_a_page():
    given = some_predictions(200, 2000)
    figure = confusion_figure.matrix(given, [f"class {index}" for index in range(200)])
    axes = figure.axes[0]
    assert figure.get_figwidth() <= 7 and not axes.texts
    labels = {text.get_text() for text in [*axes.get_xticklabels(), *axes.get_yticklabels()]}
    assert not any("class" in label for label in labels) and "100" in labels
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class (number)", "True class (number)")
    axes = confusion_figure.matrix(given, similar=True).axes[0]
    assert axes.get_xlabel() == "Predicted class (place by similarity)" and axes.get_xticks().size


def test_the_figure_says_what_it_shows():
    given = many_predictions()
    top1 = 100 * np.mean(given.probabilities.argmax(1) == given.labels)
    figure = confusion_figure.draw(given)
    title = f"model9, val split, centre crop: top-1 {top1:.2f} % of 800 images"
    assert figure.get_suptitle().replace("\N{NO-BREAK SPACE}", " ") == title
    title = confusion_figure.draw(ensemble.average([given, given])).get_suptitle()
    assert title.startswith("ensemble of model9 + model9, val split")


@pytest.mark.parametrize("similar", [False, True])
def test_the_list_says_which_class_stands_where(similar):
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
    alone = Predictions(given.keys, given.labels, given.probabilities)
    assert confusion_figure.listing(alone).splitlines()[1] == "0,0,,"


@pytest.mark.parametrize("width", [3.3, 5, 7])
@pytest.mark.parametrize("classes", [2, 10, 14, 30, 40])
def test_names_and_counts_have_room_at_any_width(classes, width):
    given = some_predictions(classes, 200 * classes)
    names = [("German short-haired pointer", "cat", "steel arch bridge")[index % 3] for index in range(classes)]
    given = Predictions(given.keys, given.labels, given.probabilities, {"class_names": names})
    given.meta["model"] = "an ensemble of the models 1, 2, 3, 4 and 5"
    figure = confusion_figure.draw(given, width=width)
    assert figure.get_figwidth() <= width and not overlapping(figure)
    named = bool(figure.axes[0].texts)
    assert named == (confusion_figure.listing(given, width=width) == "")
    assert named == (classes < 40 and (width == 7 or classes <= {3.3: 2, 5: 14}[width]))


def test_counts_can_be_read_on_any_blue():
    """WCAG's contrast of each count's colour with its cell's, on white ground; it asks for 3 of large text."""

    def luminance(colour):
        channels = np.array(colour[:3])
        return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ (
            0.2126,
            0.7152,
            0.0722,
        )

    labels = np.repeat(np.arange(2), 100)
    for share in range(101):
        probabilities = np.full((200, 2), 0.1, np.float32)
        probabilities[np.arange(200), np.where(np.arange(200) % 100 < share, labels, 1 - labels)] = 0.9
        axes = confusion_figure.matrix(Predictions(np.arange(200).astype(str), labels, probabilities)).axes[0]
        image = axes.images[0]
        for text in axes.texts:
            column, row = map(int, text.get_position())
            *colour, alpha = image.cmap(image.norm(image.get_array()[row, column]))
            ground = luminance(np.array(colour) * alpha + 1 - alpha)
            ink = luminance(to_rgb(text.get_color()))
            assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 3.8


def test_similar_classes_can_stand_side_by_side():
    partner = {0: 5, 5: 0, 1: 4, 4: 1, 2: 3, 3: 2}
    labels = np.repeat(np.arange(6), 20)
    probabilities = np.full((120, 6), 0.02, np.float32)
    for row, label in enumerate(labels):
        probabilities[row, partner[label] if row % 20 < 8 else label] = 0.9
    given = Predictions(np.array([f"{row:08d}" for row in range(120)]), labels, probabilities)
    counts = metrics.confusion(given)
    order = confusion_figure.similar_order(counts / 20)
    assert sorted(order) == list(range(6))
    places = {label: place for place, label in enumerate(order.tolist())}
    assert all(abs(places[label] - places[other]) == 1 for label, other in partner.items())
    axes = confusion_figure.matrix(given, list("abcdef"), similar=True).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["abcdef"[label] for label in order] == [label.get_text() for label in axes.get_xticklabels()]
    drawn = {tuple(map(int, text.get_position()[::-1])): int(text.get_text()) for text in axes.texts}
    assert drawn == {(places[row], places[column]): counts[row, column] for row, column in zip(*np.nonzero(counts))}
    assert [confusion_figure.similar_order(np.eye(classes)).tolist() for classes in (1, 2)] == [[0], [0, 1]]


def test_confusion_refuses_what_does_not_fit():
    with pytest.raises(TinyImageNetError, match="2 class names for 10 classes"):
        confusion_figure.matrix(some_predictions(), ["a", "b"])
    given = some_predictions()
    unknown = Predictions(given.keys, np.full(200, -1), given.probabilities)
    with pytest.raises(PredictionsError, match="no image has a known label"):
        confusion_figure.matrix(unknown)


# --- files ---


def test_names_are_text_not_markup():
    names = ["a $x^{ 5$", "_hidden", "<b>&", "数字"]
    runs = {name: records() for name in names}
    svg = figures.svg(curves_figure.curves(runs, ["loss"]))
    assert [text.strip() for text in texts(svg) if text.strip() in names] == names


@pytest.mark.parametrize("ending", [".png", ".svg", ".PNG"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, ending):
    content = []
    for name in ("a", "b"):
        figures.save(curves_figure.curves({"数字": records(), "model2": records(rate=0.3)}), tmp_path / (name + ending))
        content.append((tmp_path / (name + ending)).read_bytes())
    assert content[0] == content[1]
    assert len(list(tmp_path.iterdir())) == 2
    if ending.lower() == ".png":
        image = cv2.imread(str(tmp_path / ("a" + ending)))
        assert image.shape[1] > 1000 and (image[0, 0] == 255).all() and len(np.unique(image)) > 10
    else:
        assert "model2" in texts(content[0].decode())


def test_a_file_with_another_ending_is_refused(tmp_path):
    figure = confusion_figure.matrix(some_predictions())
    for name in ("a.pdf", "a", "png"):
        with pytest.raises(TinyImageNetError, match=r"ends in \.png or \.svg"):
            figures.save(figure, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_global_state_of_pyplot_is_not_touched(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from tiny_imagenet.report import curves_figure, figures\n"
        "figure = curves_figure.curves({'a': [{'iteration': 1, 'train_loss': 1.0}]})\n"
        f"figures.save(figure, {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the script ---


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "model1"
    folder.mkdir()
    (folder / "run.json").write_text('{"model": "model1"}')
    (folder / "metrics.jsonl").write_text('{"iteration": 1, "train_loss": 2.0}\n{"iteration": 2, "train_loss": 1.0}\n')
    predictions.save(folder / "predictions.npz", some_predictions())
    return folder


def script(*arguments, cwd):
    command = [sys.executable, str(ROOT / "tools" / "visualize.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_script_draws(run, tmp_path):
    for arguments in (
        ["curves", run],
        ["curves", run, "--width", "3.3"],
        ["confusion", run / "predictions.npz", "--order", "similar"],
        ["confusion", run],
    ):
        done = script(*arguments, "--out", "a.png", cwd=tmp_path)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "a.png\n")
        assert cv2.imread(str(tmp_path / "a.png")) is not None


def test_the_script_lists_classes_that_it_cannot_name(tmp_path):
    given = many_predictions()
    predictions.save(tmp_path / "p.npz", given)
    done = script("confusion", "p.npz", "--order", "similar", "--out", "new/a.svg", cwd=tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "new/a.svg\nnew/a_classes.csv\n")
    assert (tmp_path / "new" / "a_classes.csv").read_text() == confusion_figure.listing(given, True)
    (tmp_path / "b_classes.csv").mkdir()
    done = script("confusion", "p.npz", "--out", "b.png", cwd=tmp_path)
    assert done.returncode == 1 and "b_classes.csv is a folder" in done.stderr and not (tmp_path / "b.png").exists()
    shown = texts((tmp_path / "new" / "a.svg").read_text())
    assert {"True class (place by similarity)", "30"} <= set(shown) and any("model9, val split" in t for t in shown)


def test_the_script_draws_a_training_under_way_and_its_stages(run, tmp_path):
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write('{"iteration": 3, "train_lo')  # half a line: it is being written
    stage = run / "stages" / "1"
    stage.mkdir(parents=True)
    (stage / "run.json").write_text('{"model": "model1_stage1"}')
    (stage / "metrics.jsonl").write_text('{"iteration": 1, "train_loss": 2.0, "top1": 0.5}\n')
    done = script("curves", run, run / "stages" / "1", "--out", "a.svg", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"model1", "model1_stage1"} <= set(texts((tmp_path / "a.svg").read_text()))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "KIND"),
        (["curves", "model1"], 2, "visualize.py curves: error: "),
        (
            ["curves", "none", "--out", "a.pdf"],
            2,
            "a.pdf: figures are written to a file whose name ends in .png or .svg",
        ),
        (
            ["curves", "none", "--out", "model1/run.json/a.png"],
            2,
            "cannot write model1/run.json/a.png: Not a directory",
        ),
        (["curves", "none", "--out", "model1/folder.png"], 2, "model1/folder.png is a folder: name a file in it"),
        (["curves", "none", "--out", "x" * 300 + ".png"], 2, "File name too long"),
        (["curves", "none", "--out", "a.png", "--width", "2"], 2, "'2' is not from 3 to 7 inches"),
        (["curves", "none", "--out", "a.png", "--width", "wide"], 2, "'wide' is not from 3 to 7 inches"),
        (
            ["filters", "--net", "a", "--weights", "b", "--checkpoint", "last", "--out", "a.png"],
            2,
            "one of a run folder",
        ),
        (["curves", "none", "--out", "a.png"], 1, "none: no such run folder"),
        (["confusion", "none.npz", "--out", "a.png"], 1, "none.npz: no such file"),
        (["confusion", "model1/folder.png", "--out", "a.png"], 1, "not a run folder (it has no run.json)"),
        (["confusion", "model1/empty", "--out", "a.png"], 1, "has no predictions.npz: make it with tools/evaluate.py"),
    ],
)
def test_the_script_refuses_in_one_line_and_leaves_nothing(run, tmp_path, arguments, status, message):
    (run / "folder.png").mkdir()
    (run / "empty").mkdir()
    (run / "empty" / "run.json").write_text("{}")
    done = script(*arguments, cwd=tmp_path)
    assert done.returncode == status and done.stdout == ""
    assert done.stderr.startswith("visualize.py") and done.stderr.count("\n") == 1 and message in done.stderr
    assert list(tmp_path.iterdir()) == [run]


def test_the_help_has_examples(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "tools")
    main = runpy.run_path(str(ROOT / "tools" / "visualize.py"))["main"]
    for kind in ("", "curves", "confusion", "errors", "tsne", "filters", "slopes", "screening"):
        monkeypatch.setattr(sys, "argv", ["visualize.py", *([kind] if kind else []), "--help"])
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr().out
        assert end.value.code == 0 and f"example:\n  tools/visualize.py {kind or 'curves'} " in shown
        assert "--out FILE" in shown or not kind
