"""The report's table of results: ensembles, means over seeds, several data sets, and the best rows."""

import json
import re
import statistics

import numpy as np
import pytest

from test_report import build, change, make_ensemble, make_run, row
from tiny_imagenet.evaluation import ensemble, predictions
from tiny_imagenet.report import folders, results

TEN = "ten: four corners, centre, and their mirrors"


def make_runs(folder, *names, **more):
    return [make_run(folder / name, name, seed=seed, **more) for seed, name in enumerate(names, 1)]


def relabel(run, **meta):
    """Change the meta of a run's predictions."""
    given = predictions.load(run / "predictions.npz")
    given.meta.update(meta)
    predictions.save(run / "predictions.npz", given)


def lede(text):
    return [
        " ".join(re.sub("<[^>]*>", "", part).split()) for part in re.findall('<p class="lede">(.*?)</p>', text, re.S)
    ]


def worst(page):
    """The runs in the header of the table of the worst classes."""
    return next(cells for cells in page.rows if cells[:2] == ["Class", "No."])[4:]


# --- scores ---


@pytest.mark.parametrize(
    ("meta", "about"),
    [
        ({"crops": TEN}, "ten crops"),
        ({"split": "train"}, "train split, centre crop"),
        ({"split": None}, "unknown split, centre crop"),
    ],
)
def test_only_a_centre_crop_of_the_validation_split_is_compared_with_the_paper(tmp_path, meta, about):
    runs = make_runs(tmp_path, "model8", "model9", classes=200)
    _text, page = build(tmp_path, runs, [make_ensemble(tmp_path / "e.json", *runs)])
    assert row(page, "Ensemble of model8 + model9")[5] == "61.23"
    for run in runs:
        relabel(run, **meta)
    _text, page = build(tmp_path, runs, [make_ensemble(tmp_path / "e.json", *runs)])
    assert row(page, f"Ensemble of model8 + model9 {about}")[5] == "-"


def test_an_ensemble_without_labels_has_no_scores(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9")
    members = [predictions.load(run / "predictions.npz") for run in runs]
    for member in members:
        member.labels[:] = -1
        member.meta["split"] = "test"
    (tmp_path / "e.json").write_text(json.dumps(ensemble.describe(members, ensemble.average(members))))
    cells = row(build(tmp_path, runs, [tmp_path / "e.json"])[1], "Ensemble of model8 + model9 test split, centre crop")
    assert len(cells) == 4 and "0" not in cells


def test_ten_crops_have_a_row_of_their_own_without_the_paper_s_result(tmp_path):
    (run,) = make_runs(tmp_path, "model8", classes=200)
    evaluation = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation_tencrop.json").write_text(json.dumps({**evaluation, "crops": TEN, "top1": 0.99}))
    text, page = build(tmp_path, [run])
    assert row(page, "model8")[5] == "46.45" and row(page, "model8 ten crops")[1:6:4] == ["99.00", "-"]
    assert "99.00" not in lede(text)[0]


def test_uneven_weights_are_not_compared_with_the_paper(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9", classes=200)
    file = make_ensemble(tmp_path / "e.json", *runs, weights=[3, 1])
    assert row(build(tmp_path, runs, [file])[1], "Ensemble of model8 + model9")[5:] == ["-", "weights 0.75, 0.25"]


def checkpoints(run, best):
    for iteration in (100, 200):
        (run / "checkpoints" / str(iteration)).mkdir(parents=True, exist_ok=True)
        (run / "checkpoints" / str(iteration) / "weights.caffemodel").write_text("")
    (run / "checkpoints" / "best").unlink(missing_ok=True)
    (run / "checkpoints" / "best").symlink_to(str(best))


def test_scores_of_an_earlier_best_are_marked(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9")
    file = make_ensemble(tmp_path / "e.json", *runs)
    evaluation = json.loads((runs[0] / "evaluation.json").read_text())
    (runs[0] / "evaluation_tencrop.json").write_text(json.dumps({**evaluation, "crops": TEN}))
    for run in runs:
        checkpoints(run, 200)
    assert "§" not in build(tmp_path, runs, [file])[0]
    checkpoints(runs[0], 100)
    text, page = build(tmp_path, runs, [file])
    assert row(page, "model8§") and row(page, "model8§ ten crops") and row(page, "model9")
    assert row(page, "Ensemble of model8 + model9§")
    assert f"tools/evaluate.py {runs[0]}." in text and f"tools/evaluate.py {runs[0]} --ten-crop." in text


def test_a_held_out_score_is_below_its_search(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9", classes=200)
    file = make_ensemble(tmp_path / "e.json", *runs, search=True)
    members = [predictions.load(run / "predictions.npz") for run in runs]
    held = ensemble.hold_out(members, 4, seed=3)
    change(file, held_out={"folds": [{}] * 4, "seed": 3, "top1": held.top1, "top1_interval": held.top1_interval})
    text, page = build(tmp_path, runs, [file])
    cells = row(page, "the same, 4 held-out folds")
    assert cells[1] == f"{100 * held.top1:.2f}" and cells[5] == "-"
    assert row(page, "Ensemble of model8 + model9‡")[5] == "-"
    assert "--search --folds 4 --seed 3 --json" in text
    assert "ensemble" not in lede(text)[0]  # an optimistic score is not ranked


# --- seeds ---


def test_runs_that_differ_only_in_their_seeds_are_grouped():
    info = {"batch": 50, "base_lr": 0.1}
    runs = [
        ("model1", {**info, "seed": 1}),
        ("model2", {**info, "seed": 1}),
        ("model1", {**info, "seed": 2}),
        ("model1", {**info, "seed": 3, "base_lr": 0.2}),
        ("model1", {**info, "seed": 1}),
        ("model1", {**info}),
    ]
    several = [folders.Folder(None, model, "", own, [], {}, {}, None) for model, own in runs]
    assert folders.groups(several) == [[0, 2], [1], [3], [4], [5]]


def test_the_mean_over_seeds_is_above_its_runs(tmp_path):
    runs = [make_run(tmp_path / "model8" / f"seed{seed}", "model8", 200, seed) for seed in (1, 2, 3)]
    runs.append(make_run(tmp_path / "model9", "model9", 200, 4))
    _text, page = build(tmp_path, runs)
    values = [100 * json.loads((run / "evaluation.json").read_text())["top1"] for run in runs]
    mean, deviation = statistics.fmean(values[:3]), statistics.stdev(values[:3])
    cells = row(page, "model8, mean of 3 seeds")
    assert cells[1:3] == [f"{mean:.2f}", f"± {deviation:.2f}"] and cells[5] == "46.45" and cells[-1] == "1, 2, 3"
    names = [cells[0] for cells in page.rows]
    at = names.index("model8, mean of 3 seeds")
    assert names[at + 1 : at + 5] == ["model8 (seed1)", "model8 (seed2)", "model8 (seed3)", "model9"]
    columns = sorted([(-mean, "model8, mean of 3 seeds"), (-values[3], "model9")])
    assert worst(page) == [name for _, name in columns]  # best first


def test_runs_with_other_settings_or_images_have_no_mean(tmp_path):
    runs = [make_run(tmp_path / f"{seed}", "model8", seed=seed, base_lr=seed) for seed in (1, 2)]
    assert "mean of" not in build(tmp_path, runs)[0]
    runs = [make_run(tmp_path / f"same{seed}", "model8", seed=seed) for seed in (1, 2)]
    assert "mean of 2 seeds" in build(tmp_path, runs)[0]
    other_images(runs[0])
    assert "mean of" not in build(tmp_path, runs)[0]


# --- several sets of images ---


def other_images(run):
    """Change the keys of a run's predictions."""
    given = predictions.load(run / "predictions.npz")
    keys = np.array([key.replace("val", "other") for key in given.keys.tolist()])
    other = predictions.Predictions(keys, given.labels, given.probabilities, given.meta)
    predictions.save(run / "predictions.npz", other)


def test_runs_on_other_images_are_ranked_separately(tmp_path):
    runs = make_runs(tmp_path, "model1", "model2", "model3")
    assert len(lede(build(tmp_path, runs)[0])) == 1
    other_images(runs[1])
    change(runs[1] / "evaluation.json", top1=0.999, data="elsewhere")
    text, page = build(tmp_path, runs)
    first, second = lede(text)
    assert first.startswith("On images 1") and second.startswith("On images 2") and "model2" in second
    assert row(page, "model2 images 2") and row(page, "model1 images 1") and row(page, "model3 images 1")
    assert "elsewhere" in text and text.count('class="run best"') == 2
    assert sorted(worst(page)) == ["model1", "model3"]


def test_unknown_images_are_taken_for_others_of_the_same_number(tmp_path):
    runs = make_runs(tmp_path, "model1", "model2")
    records = predictions.load(runs[1] / "predictions.npz").records
    (runs[0] / "predictions.npz").unlink()
    assert len(lede(build(tmp_path, runs)[0])) == 1
    for sha256, sets in ((records, 1), ("another", 2)):
        change(runs[0] / "run.json", lmdbs={"val": {"count": 200, "sha256": sha256}})
        assert len(lede(build(tmp_path, runs)[0])) == sets
    change(runs[0] / "evaluation.json", data="other data than in run.json")
    assert len(lede(build(tmp_path, runs)[0])) == 1
    change(runs[0] / "evaluation.json", count=199)
    assert len(lede(build(tmp_path, runs)[0])) == 2


def test_the_best_run_and_ensemble_are_in_the_first_sentences(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9")
    file = make_ensemble(tmp_path / "e.json", *runs)
    tops = [json.loads((run / "evaluation.json").read_text())["top1"] for run in runs]
    content = json.loads(file.read_text())
    best = ("model8", "model9")[int(np.argmax(tops))]
    for top1 in (0.999, 0.01):
        change(file, ensemble={**content["ensemble"], "top1": top1})
        (sentence,) = lede(build(tmp_path, runs, [file])[0])
        places = [sentence.index(what) for what in (f"{100 * top1:.2f}", f"{100 * max(tops):.2f}")]
        assert "model8 + model9" in sentence and best in sentence and (places[0] < places[1]) == (top1 > 0.5)


# --- names of ensembles ---


def test_ensembles_of_one_name_are_distinguished_and_long_ones_counted(tmp_path):
    runs = [make_run(tmp_path / f"seed{seed}", "model1", seed=seed) for seed in range(5)]
    for seed in (1, 2):
        (tmp_path / f"e{seed}").mkdir()
        make_ensemble(tmp_path / f"e{seed}" / "e.json", runs[0], runs[1])
    files = [tmp_path / "e1" / "e.json", tmp_path / "e2" / "e.json", make_ensemble(tmp_path / "all.json", *runs)]
    text, page = build(tmp_path, runs, files)
    for seed in (1, 2):
        assert row(page, f"Ensemble of model1 (seed0) + model1 (seed1) (e{seed}/e.json)")
    assert row(page, "Ensemble of 5 members")[-1] == "equal weights"
    assert "<dt>model1 (seed4)</dt><dd>0.2</dd>" in text


def test_the_command_of_an_ensemble_repeats_it(tmp_path, tool):
    runs = make_runs(tmp_path, "model8", "model9")
    file = make_ensemble(tmp_path / "e.json", *runs, weights=[3, 1])
    (one,) = results.ensembles([file])
    repeated = json.loads(tool("ensemble", *one.command.split()[1:]).stdout)
    assert repeated == json.loads(file.read_text())


@pytest.mark.slow
def test_a_page_of_many_runs(tmp_path):
    runs = [make_run(tmp_path / f"model{m}" / f"seed{s}", f"model{m}", seed=s) for m in range(1, 10) for s in range(3)]
    members = [runs[3 * m] for m in range(9)]
    _text, page = build(tmp_path, runs, [make_ensemble(tmp_path / "all.json", *members)])
    means = {cells[0]: float(cells[1]) for cells in page.rows if "mean of 3 seeds" in cells[0]}
    shown = [means[name] for name in worst(page)]
    assert len(shown) == 9 and shown == sorted(shown, reverse=True)
    assert row(page, "Ensemble of all nine models")[5] == "54†"
    assert len(page.ids) == len(set(page.ids))
