"""The report in a browser: headless Chromium without a network."""

import re
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from tiny_imagenet.evaluation.evaluate import evaluate_run
from tiny_imagenet.report import page as report
from tiny_imagenet.runs import Run

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome")
PLAIN = '<meta http-equiv="Content-Security-Policy"'
TILE = re.compile(r'<li data-class="([^"]*)" data-predicted="([^"]*)"( hidden="")?>')


class Browser:
    """Opens pages; returns their DOM, console messages and requests."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def open(self, file, fragment=""):
        log = self.folder / "net.json"
        command = [
            *(self.program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
            *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}", "--window-size=1280,844"),
            *(f"--user-data-dir={self.folder / 'profile'}", "--virtual-time-budget=1000"),
            *("--dump-dom", Path(file).as_uri() + fragment),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        messages = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        lines = log.read_text().splitlines() if log.exists() else []
        # The browser's own requests have "not an origin"
        asked = [line for line in lines if '"initiator":"' in line and '"initiator":"not an origin"' not in line]
        return done.stdout, messages, [re.search(r'"url":"([^"]*)', line)[1] for line in asked if '"url":"' in line]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"Chromium is not installed ({', '.join(NAMES)})")
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "try.html"
    page.write_text('<img src="http://outside.test/"><script>console.error("hello"); document.title = "ran"</script>')
    found = Browser(program, folder)
    text, messages, asked = found.open(page)
    if "<title>ran</title>" not in text:
        pytest.skip(f"{program} does not start")
    assert any('"hello"' in line for line in messages) and asked == ["http://outside.test/"]  # the checks work
    return found


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    """A report of two runs."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("one", "two"):
        shutil.copytree(trained, folder / name, symlinks=True)
        evaluate_run(Run(folder / name))
    report.build([folder / "one", folder / "two"], folder / "report.html")
    return folder / "report.html"


def shown(text):
    """The true and the predicted class of the visible tiles."""
    return [(label, predicted) for label, predicted, hidden in TILE.findall(text) if not hidden]


def altered(page, script):
    """The page with another script at its end and without its policy."""
    text = re.sub(PLAIN + "[^>]*>", "", page.read_text(encoding="utf-8"))
    copy = page.with_name("altered.html")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return copy


def test_the_page_has_no_messages_or_requests(browser, page):
    text, messages, asked = browser.open(page)
    assert messages == [] and asked == []
    assert len(shown(text)) == len(TILE.findall(text)) > 10
    assert f">{len(shown(text))} errors</output>" in text and '<form class="filter" id="filter" aria-label' in text
    assert 'hidden="">' not in re.search(r"<form[^>]*>", text)[0]


def test_the_url_selects_class_and_run(browser, page):
    every = shown(page.read_text(encoding="utf-8"))
    label, predicted = every[0]
    query = urllib.parse.quote_plus
    text, log, _ = browser.open(page, f"#class={query(label)}")
    assert log == [] and shown(text) == [one for one in every if one[0] == label]
    assert len(TILE.findall(text)) == len(every)
    assert shown(browser.open(page, f"#predicted={query(predicted)}")[0]) == [
        one for one in every if one[1] == predicted
    ]
    text, *_ = browser.open(page, f"#class={query(label)}&predicted={query(predicted)}")
    both = [one for one in every if one == (label, predicted)]
    assert shown(text) == both and f">{len(both)} errors</output>" in text
    text, *_ = browser.open(page, f"#class={query(label)}&run=1")
    assert re.findall(r'<details class="run" data-run="(\d)"[^>]* hidden=""', text) == ["0"]
    for wrong in ("#class=nothing", "#class=&run=", "#predicted=no", "#results"):
        assert len(shown(browser.open(page, wrong)[0])) == len(every)


def test_a_choice_filters_and_is_stored_in_the_url(browser, page):
    label = TILE.findall(page.read_text(encoding="utf-8"))[0][0]
    script = (
        f'const select = document.getElementById("filter-class"); select.focus(); select.value = "{label}";'
        'select.dispatchEvent(new Event("change", {bubbles: true}));'
        "document.title = location.hash + ' ' + document.activeElement.id;"
    )
    text, messages, _ = browser.open(altered(page, script))
    assert messages == [] and {one for one, _ in shown(text)} == {label}
    assert f"<title>#class={urllib.parse.quote_plus(label)} filter-class</title>" in text


def test_without_its_script_everything_is_shown(browser, page):
    copy = page.with_name("scriptless.html")
    copy.write_text(re.sub("<script>.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL))
    text, messages, _ = browser.open(copy, "#class=1")
    assert messages == [] and len(shown(text)) == len(TILE.findall(text)) > 10
    assert 'hidden=""' in re.search(r"<form[^>]*>", text)[0]


def in_frame(browser, page, width, script):
    """The message that `script` posts from the page in a frame `width` pixels wide."""
    altered(page, script)
    frame = page.with_name("frame.html")
    frame.write_text(
        "<title></title><script>onmessage = (event) => { document.title = event.data; }</script>"
        f'<iframe src="altered.html" style="border: 0; width: {width}px; height: 844px"></iframe>'
    )
    return re.search(r"<title>(.*)</title>", browser.open(frame)[0])[1]


def test_a_phone_has_hints_at_tables_and_no_bars(browser, page):
    script = (
        "const display = (what) => getComputedStyle(document.querySelector(what)).display;"
        'parent.postMessage([display(".mark"), display(".bars"), display(".hint")].join(), "*")'
    )
    assert in_frame(browser, page, 375, script) == "none,none,block"
    assert in_frame(browser, page, 1280, script) == "inline-block,inline,none"


def test_a_drawing_is_whole_and_dark_in_dark_mode(browser, page):
    text = page.read_text(encoding="utf-8")
    if 'class="card"' not in text:
        pytest.skip("graphviz is not installed")
    script = (
        'document.querySelectorAll("details").forEach((one) => { one.open = true; });'
        'const card = document.querySelector(".card"), svg = card.querySelector("svg");'
        "const fits = svg.getBoundingClientRect().bottom <= card.getBoundingClientRect().bottom;"
        'parent.postMessage([fits, card.scrollHeight <= card.clientHeight].join(), "*")'
    )
    assert in_frame(browser, page, 1280, script) == "true,true"
    dark = text[text.index("@media (prefers-color-scheme: dark) {\n  figure") :]
    assert ".card { filter: invert(" in dark[: dark.index("\n}")]


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(browser, page, width):
    script = (
        'document.querySelectorAll("details").forEach((one) => { one.open = true; });'
        'parent.postMessage([document.documentElement.scrollWidth, innerWidth].join(), "*")'
    )
    inside, window = map(int, in_frame(browser, page, width, script).split(","))
    assert inside <= window and width - 20 <= window <= width


def test_scrolling_regions_have_a_name_and_keyboard_focus(browser, page):
    script = (
        'document.querySelectorAll("details").forEach((one) => { one.open = true; });'
        'const bad = [...document.querySelectorAll(".scroll")].filter((one) => one.tabIndex !== 0 ||'
        ' !(one.ariaLabel || document.getElementById(one.getAttribute("aria-labelledby"))));'
        'document.title = "bad " + bad.length'
    )
    assert "<title>bad 0</title>" in browser.open(altered(page, script))[0]
