"""Fetching and unpacking the archive, from a server on this machine."""

import contextlib
import hashlib
import io
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import wait_for
from tiny_imagenet.data import download
from tiny_imagenet.errors import DatasetError, TinyImageNetError

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "download.py"
NOISE = random.Random(0).randbytes(3 << 20)  # does not compress
FILES = {
    "wnids.txt": b"n00000000\n",
    "words.txt": b"n00000000\tzero\n",
    "train/n00000000/n00000000_boxes.txt": b"a.JPEG\t0\t0\t9\t9\n",
    "train/n00000000/images/a.JPEG": NOISE,
    "val/val_annotations.txt": b"b.JPEG\tn00000000\t0\t0\t9\t9\n",
    "val/images/b.JPEG": b"b",
    "test/images/c.JPEG": b"",
}
TOP = "tiny-imagenet-200/"
MIB = 1 << 20


def build(files=FILES, top=TOP, extra=(), compression=zipfile.ZIP_DEFLATED):
    """Return an archive; `extra` has further entries as (name or ZipInfo, bytes)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in [*((top + name, content) for name, content in files.items()), *extra]:
            archive.writestr(name, content)
    return stream.getvalue()


BODY = build()
MD5 = hashlib.md5(BODY).hexdigest()


class Site:
    """A server. Each request takes the next of `steps`, and the last one again and again.

    A step may have: body, ranges (False: Range is ignored), stop (bytes after which the connection is cut), stall
    (bytes after which nothing more is sent), length (Content-Length to claim; None: none), status, location, kind
    (content type).
    """

    def __init__(self):
        self.steps = [{}]
        self.ranges = []
        self.sent = 0  # bytes of bodies
        self.going = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"site": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/tiny.zip"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.going.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *_):
        pass

    def do_GET(self):
        site = self.site
        step = site.steps.pop(0) if len(site.steps) > 1 else site.steps[0]
        body, wanted = step.get("body", BODY), self.headers.get("Range")
        site.ranges.append(wanted)
        start, status = 0, step.get("status", 200)
        if wanted and status == 200 and step.get("ranges", True):
            start = int(wanted[len("bytes=") : -1])
            status = 206 if start < len(body) else 416
        size = step.get("length", len(body))
        self.send_response(status)
        self.send_header("Content-Type", step.get("kind", "application/zip"))
        if "location" in step:
            self.send_header("Location", step["location"])
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if size is not None:
            self.send_header("Content-Length", size - start if status in (200, 206) else 0)
        self.end_headers()
        if status in (200, 206):
            body = body[start : start + step.get("stop", len(body))]
            with contextlib.suppress(ConnectionError):
                part = body[: step.get("stall", len(body))]
                self.wfile.write(part)
                site.sent += len(part)
                if "stall" in step:
                    site.going.wait(60)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    with Site() as running:
        yield running


def fetch(site, out, **options):
    return download.fetch(out, **{"url": site.url, "md5": MD5, "timeout": 30, "tries": 3, **options})


def part(out):
    return out.parent / f".{out.name}.zip.part"


def check_complete(out, files=FILES):
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == files
    assert not part(out).exists()


def test_the_archive_is_fetched_and_its_top_folder_left_out(site, tmp_path):
    assert fetch(site, tmp_path / "new" / "data") is None
    check_complete(tmp_path / "new" / "data")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data"]
    with pytest.raises(TinyImageNetError, match="data"):
        fetch(site, tmp_path / "new" / "data")
    assert len(site.ranges) == 1


def test_a_broken_download_is_resumed(site, tmp_path):
    site.steps = [{"stop": MIB}, {"status": 503}, {"stop": MIB}, {}]
    fetch(site, tmp_path / "data")
    check_complete(tmp_path / "data")
    assert site.ranges == [None, f"bytes={MIB}-", f"bytes={MIB}-", f"bytes={2 * MIB}-"]
    assert site.sent == len(BODY)


def test_the_next_run_resumes(site, tmp_path):
    site.steps = [{"stop": MIB}, {"status": 503}]
    with pytest.raises(DatasetError, match=r"503.*same command"):
        fetch(site, tmp_path / "data", tries=2)
    assert list(tmp_path.iterdir()) == [part(tmp_path / "data")]
    site.steps = [{}]
    fetch(site, tmp_path / "data")
    check_complete(tmp_path / "data")
    assert site.sent == len(BODY)


@pytest.mark.parametrize("step", [{"ranges": False}, {"length": None, "ranges": False}])
def test_a_server_without_ranges_starts_from_the_beginning(site, tmp_path, step):
    site.steps = [{"stop": MIB}, step]
    fetch(site, tmp_path / "data")
    check_complete(tmp_path / "data")
    assert site.sent == len(BODY) + MIB


def test_a_complete_archive_is_not_fetched_again(site, tmp_path):
    part(tmp_path / "data").write_bytes(BODY)
    fetch(site, tmp_path / "data")
    check_complete(tmp_path / "data")
    assert site.sent == 0


def test_only_tries_without_progress_are_counted(site, tmp_path):
    site.steps = [{"stop": 100_000}, {"ranges": False, "stop": 100_000}]
    with pytest.raises(DatasetError, match="100,000"):
        fetch(site, tmp_path / "data")
    assert len(site.ranges) == 3
    site.steps = [{"stop": 400_000}]
    fetch(site, tmp_path / "data")  # takes more than three tries, each with progress
    check_complete(tmp_path / "data")


def test_parts_of_different_files_are_not_kept(site, tmp_path):
    other = build({**FILES, "words.txt": b"another text"})
    site.steps = [{"stop": 2 * MIB, "body": other}, {}]
    with pytest.raises(DatasetError, match=MD5):
        fetch(site, tmp_path / "data")
    assert not list(tmp_path.iterdir())
    fetch(site, tmp_path / "data")
    check_complete(tmp_path / "data")


@pytest.mark.parametrize(
    ("step", "message", "requests"),
    [
        ({"body": b"PK, but something else"}, MD5, 1),
        ({"body": b"\x1f\x8b anything"}, "zip", 1),
        ({"body": b""}, "zip", 1),
        ({"body": b"<html>", "kind": "text/html; charset=utf-8"}, "web page", 1),
        ({"status": 404}, "404", 1),
        ({"status": 403}, "403", 1),
        ({"status": 500}, "500", 3),
        ({"status": 429}, "429", 3),
        ({"status": 302, "location": "file:///etc/passwd"}, "302", 1),
    ],
)
def test_another_answer_is_refused(site, tmp_path, step, message, requests):
    site.steps = [step]
    with pytest.raises(DatasetError, match=message):
        fetch(site, tmp_path / "data")
    assert len(site.ranges) == requests
    assert not list(tmp_path.iterdir())


def test_a_web_page_of_a_login_does_not_replace_what_was_fetched(site, tmp_path):
    site.steps = [{"stop": MIB}, {"body": b"<html>", "kind": "text/html", "ranges": False}, {}]
    with pytest.raises(DatasetError):
        fetch(site, tmp_path / "data")
    fetch(site, tmp_path / "data")
    assert site.ranges[-1] == f"bytes={MIB}-"


def test_a_redirection_is_followed(site, tmp_path):
    site.steps = [{"status": 302, "location": "/moved.zip"}, {"stop": MIB}, {"status": 302, "location": "/m"}, {}]
    fetch(site, tmp_path / "data")
    check_complete(tmp_path / "data")
    assert site.sent == len(BODY)


def test_a_server_that_stalls_is_a_timeout(site, tmp_path):
    site.steps = [{"stall": MIB}, {"stall": 0}]
    with pytest.raises(DatasetError, match="timed out"):
        fetch(site, tmp_path / "data", timeout=0.5, tries=2)
    assert part(tmp_path / "data").stat().st_size == MIB


def test_a_server_that_is_down(tmp_path):
    with Site() as gone:
        pass
    with pytest.raises(DatasetError, match="refused"):
        fetch(gone, tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_the_archive_can_be_kept(site, tmp_path):
    assert fetch(site, tmp_path / "data", keep_archive=True) == tmp_path / "data.zip"
    assert (tmp_path / "data.zip").read_bytes() == BODY
    check_complete(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DatasetError, match=r"data\.zip"):
        fetch(site, tmp_path / "data", keep_archive=True)
    download.unpack(tmp_path / "data.zip", tmp_path / "data", MD5.upper())
    check_complete(tmp_path / "data")
    assert (tmp_path / "data.zip").read_bytes() == BODY
    assert len(site.ranges) == 1


def test_a_full_disk_is_one_line_and_the_part_is_kept(site, tmp_path):
    command = [sys.executable, SCRIPT, tmp_path / "data", "--url", site.url, "--md5", MD5]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "File too large" in done.stderr
    assert part(tmp_path / "data").stat().st_size == MIB
    fetch(site, tmp_path / "data")
    check_complete(tmp_path / "data")


def entry(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def with_wrong_crc():
    body = bytearray(build(compression=zipfile.ZIP_STORED))
    body[body.index(NOISE[:100])] ^= 1
    return bytes(body)


UNSAFE = {
    "dots": (build(extra=[(TOP + "../../outside", b"x")]), "outside"),
    "absolute": (build(extra=[("/outside", b"x")]), "outside"),
    "link": (build(extra=[(entry(TOP + "link", 0o120777), b"/etc/passwd")]), "link"),
    "device": (build(extra=[(entry(TOP + "null", 0o020666), b"")]), "null"),
    "no layout": (build({"a": b""}), "wnids.txt"),
    "no test": (build({name: b"" for name in FILES if "test" not in name}), "test/images"),
    "empty": (build({}), "wnids.txt"),
    "wrong checksum inside": (with_wrong_crc(), "damaged"),
    "cut off": (BODY[:-30], "damaged"),
    "hole": (BODY[:1000] + bytes(5000) + BODY[6000:], "damaged"),
    "text": (b"hello", "zip"),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_an_unsafe_or_damaged_archive_leaves_nothing(tmp_path, kind):
    body, message = UNSAFE[kind]
    path = tmp_path / "given.zip"
    path.write_bytes(body)
    (tmp_path / "below").mkdir()
    with pytest.raises(DatasetError, match=message) as caught:
        download.unpack(path, tmp_path / "below" / "data", None)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == body
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "below", path]


@pytest.mark.parametrize("top", [TOP, "", "train/"])
def test_the_layout_may_be_in_any_top_folder(tmp_path, top):
    (tmp_path / "a.zip").write_bytes(build(top=top))
    download.unpack(tmp_path / "a.zip", tmp_path / "data", None)
    check_complete(tmp_path / "data")


def test_an_archive_that_cannot_be_read(tmp_path, tool):
    done = tool("download", tmp_path / "data", "--archive", tmp_path / "none.zip", fails=1)
    assert "none.zip" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture
def start(site):
    """Start the script on `folder`/data."""
    with contextlib.ExitStack() as stack:

        def call(folder):
            command = [sys.executable, SCRIPT, folder / "data", "--url", site.url, "--md5", MD5]
            handler = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
            options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": handler}
            process = subprocess.Popen(list(map(str, command)), **options)
            stack.callback(process.wait)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield call


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_script_resumes(site, start, tmp_path, number):
    site.steps = [{"stall": 2 * MIB + 1000}, {}]
    process = start(tmp_path)
    kept = part(tmp_path / "data")
    wait_for(lambda: kept.exists() and kept.stat().st_size == 2 * MIB, process)
    process.send_signal(number)
    assert process.wait(60) == (130 if number == signal.SIGINT else -number)
    assert process.stderr.read().count("\n") == (number == signal.SIGINT)
    process = start(tmp_path)
    assert process.wait(60) == 0
    assert process.stdout.read() == f"wrote {tmp_path}/data\n"
    check_complete(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert site.ranges == [None, f"bytes={2 * MIB}-"]


def test_the_script_unpacks_a_file(tmp_path, tool):
    (tmp_path / "a.zip").write_bytes(BODY)
    done = tool("download", tmp_path / "data", "--archive", tmp_path / "a.zip", "--md5", "none")
    assert (done.stdout, done.stderr) == (f"wrote {tmp_path}/data\n", "")
    check_complete(tmp_path / "data")
    done = tool("download", tmp_path / "data", "--archive", tmp_path / "a.zip", fails=1)
    assert str(tmp_path / "data") in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "ftp://example.org/a.zip"],
        ["--md5", "123"],
        ["--timeout", "0"],
        ["--timeout", "1e9"],
        ["--tries", "0"],
        ["--keep-archive", "--archive", "a.zip"],
        ["--url", "http://a/", "--archive", "a.zip"],
    ],
)
def test_bad_use_names_the_flag(tmp_path, tool, arguments):
    done = tool("download", tmp_path / "data", *arguments, fails=2)
    assert arguments[0] in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
