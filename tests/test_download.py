import contextlib
import hashlib
import io
import os
import pty
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import wait_for
from tiny_imagenet.data import download, safe_zip
from tiny_imagenet.errors import DatasetError

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "download.py"
NOISE = random.Random(0).randbytes(400_000)  # does not shrink: the archive is a little larger
FILES = {
    "wnids.txt": b"n00000000\n",
    "words.txt": b"n00000000\tzero\n",
    "train/n00000000/n00000000_boxes.txt": b"a.JPEG\t0\t0\t9\t9\n",
    "train/n00000000/images/a.JPEG": NOISE,
    "val/val_annotations.txt": b"b.JPEG\tn00000000\t0\t0\t9\t9\n",
    "val/images/b.JPEG": b"b",
    "test/images/c.JPEG": b"",
}


def build(files=FILES, top="tiny-imagenet-200/", extra=(), compression=zipfile.ZIP_DEFLATED):
    """An archive's bytes; `extra` has further entries, (name or ZipInfo, bytes), as they are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about a name that is there already
        for name, content in [*((top + name, content) for name, content in files.items()), *extra]:
            archive.writestr(name, content)
    return stream.getvalue()


BODY = build()
MD5 = hashlib.md5(BODY).hexdigest()


class Site:
    """A server on this machine. Each request takes the next of `steps`, then the last of them again and again.

    A step may have: body, etag, modified (header values), ranges (False: Range is ignored), heeds_if_range, stop (cut
    the connection after so many bytes), length (the Content-Length or the Content-Range's size to claim; None: do not
    say), shift (start so many bytes later than asked), status, location, kind (the content type), stall (send no more
    after so many bytes), until (the same, counted from the beginning of the body), pause (seconds after each 16 KiB).
    """

    def __init__(self):
        self.steps = [{}]
        self.ranges = []  # of the requests, and their If-Range
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
        body, etag = step.get("body", BODY), step.get("etag", '"one"')
        wanted = self.headers.get("Range")
        site.ranges.append((wanted, self.headers.get("If-Range")))
        start, status = 0, step.get("status", 200)
        same = self.headers.get("If-Range") in (None, etag, step.get("modified")) or not step.get(
            "heeds_if_range", True
        )
        if wanted and same and status == 200 and step.get("ranges", True):
            start = int(wanted[len("bytes=") : -1])
            status = 206 if start < len(body) else 416
        size = step.get("length", len(body))
        self.send_response(status)
        self.send_header("Content-Type", step.get("kind", "application/zip"))
        for name, value in [
            ("ETag", etag),
            ("Last-Modified", step.get("modified")),
            ("Location", step.get("location")),
        ]:
            if value:
                self.send_header(name, value)
        if status == 206:
            start += step.get("shift", 0)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{'*' if size is None else size}")
        if size is not None:
            self.send_header("Content-Length", size - start if status in (200, 206) else 0)
        self.end_headers()
        if status in (200, 206):
            stall = step.get("stall", step.get("until", len(body)) - start)
            self.send(body[start : start + step.get("stop", len(body))], stall, step.get("pause", 0))

    def send(self, body, stall, pause):
        piece = 16 << 10
        with contextlib.suppress(ConnectionError):
            for first in range(0, len(body), piece):
                if first >= stall:
                    self.site.going.wait(20)
                    return
                self.wfile.write(body[first : first + piece])
                self.site.sent += len(body[first : first + piece])
                time.sleep(pause)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    with Site() as running:
        yield running


def fetch(site, out, **options):
    return download.download(out, **{"url": site.url, "md5": MD5, "timeout": 10, "tries": 3, **options})


def unpacked(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hidden(out):
    return out.parent / f".{out.name}.download"


def check_whole(out, files=FILES):
    assert unpacked(out) == files
    assert not hidden(out).exists()


# --- fetching ---


def test_the_archive_is_fetched_and_its_top_folder_left_out(site, tmp_path):
    assert fetch(site, tmp_path / "new" / "data") is None
    check_whole(tmp_path / "new" / "data")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data"]
    assert site.sent == len(BODY)
    with pytest.raises(DatasetError, match=r"data exists and is not empty: name another"):
        fetch(site, tmp_path / "new" / "data")


@pytest.mark.parametrize(
    ("headers", "if_range"),
    [
        ({}, '"one"'),
        ({"etag": None, "modified": "Tue, 01 Dec 2015 00:00:00 GMT"}, "Tue, 01 Dec 2015 00:00:00 GMT"),
        ({"etag": 'W/"one"'}, None),
        ({"etag": None}, None),
    ],
)
def test_a_broken_download_goes_on(site, tmp_path, headers, if_range):
    site.steps = [{"stop": 100_000, **headers}, {"stop": 50_000, **headers}, headers]
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")
    assert site.ranges == [(None, None), ("bytes=100000-", if_range), ("bytes=150000-", if_range)]
    assert site.sent == len(BODY)


def test_the_next_run_goes_on(site, tmp_path):
    site.steps = [{"stop": 200_000}, {"status": 503}]
    with pytest.raises(
        DatasetError, match=r"503 Service Unavailable \(2 tries in a row.*0\.2 MB are kept: run the same"
    ):
        fetch(site, tmp_path / "data", tries=2)
    assert list(tmp_path.iterdir()) == [hidden(tmp_path / "data")]
    site.steps = [{}]
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")
    assert site.sent == len(BODY)


def test_without_ranges_it_starts_again(site, tmp_path):
    site.steps = [{"ranges": False, "stop": 100_000}, {"ranges": False}]
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")
    assert site.sent == len(BODY) + 100_000


def test_tries_end_where_nothing_is_gained_and_begin_anew_where_something_is(site, tmp_path, monkeypatch):
    site.steps = [{"ranges": False, "stop": 100_000}]
    with pytest.raises(DatasetError, match=r"broke off at 100,000 of .* \(3 tries in a row"):
        fetch(site, tmp_path / "data")
    assert len(site.ranges) == 3
    monkeypatch.setattr(download, "_STEP", 50_000)
    site.steps = [{"ranges": False, "stop": stop} for stop in (160_000, 10_000, 160_000, 10_000)]
    with pytest.raises(DatasetError, match=r"\(3 tries in a row"):
        fetch(site, tmp_path / "data")
    assert len(site.ranges) == 3 + 3
    site.steps = [{"stop": 50_000}]
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")
    assert len(site.ranges) > 6 + 3


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_another_file_on_the_server_is_fetched_from_its_start(site, tmp_path, heeds_if_range):
    other = build({**FILES, "words.txt": b"another text"})
    new = {"body": other, "etag": '"two"', "heeds_if_range": heeds_if_range}
    site.steps = [{"stop": 100_000}, new, new]
    fetch(site, tmp_path / "data", md5=hashlib.md5(other).hexdigest())
    check_whole(tmp_path / "data", {**FILES, "words.txt": b"another text"})
    assert site.ranges[1] == ("bytes=100000-", '"one"')


def test_another_size_is_another_file(site, tmp_path):
    site.steps = [{"stop": 100_000, "etag": None}, {"etag": None, "length": len(BODY) + 1}, {"etag": None}]
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")
    assert [wanted for wanted, _ in site.ranges] == [None, "bytes=100000-", None]


def test_a_range_that_was_not_asked_for_is_not_taken(site, tmp_path):
    site.steps = [{"stop": 100_000}, {"shift": 5}, {}]
    fetch(site, tmp_path / "data", md5=None)
    check_whole(tmp_path / "data")
    assert [wanted for wanted, _ in site.ranges] == [None, "bytes=100000-", None]


def test_another_address_is_another_file(site, tmp_path):
    site.steps = [{"stop": 100_000}, {"status": 404}, {}]
    with pytest.raises(DatasetError, match="404"):
        fetch(site, tmp_path / "data")
    fetch(site, tmp_path / "data", url=site.url + "?mirror")
    check_whole(tmp_path / "data")
    assert site.ranges[-1] == (None, None)


def test_a_size_that_is_not_told(site, tmp_path):
    site.steps = [{"length": None}]
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")


def test_a_length_too_long_is_a_broken_download(site, tmp_path):
    site.steps = [{"length": len(BODY) + 10}]
    with pytest.raises(DatasetError, match=rf"(broke off at {len(BODY):,} of {len(BODY) + 10:,}|416)"):
        fetch(site, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_length_too_short_is_a_wrong_checksum(site, tmp_path):
    site.steps = [{"length": len(BODY) - 10}]
    for md5, message in ((MD5, f"not {MD5}"), (None, "damaged")):
        with pytest.raises(DatasetError, match=message):
            fetch(site, tmp_path / "data", md5=md5)
        assert not list(tmp_path.iterdir())  # what is wrong is not kept


def test_a_part_that_was_spoilt_is_fetched_again(site, tmp_path, capsys):
    site.steps = [{"stop": 100_000}, {"status": 404}, {}]
    with pytest.raises(DatasetError):
        fetch(site, tmp_path / "data")
    part = hidden(tmp_path / "data") / "archive.zip"
    part.write_bytes(part.read_bytes()[:50_000] + bytes(50_000))
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")
    assert "fetching it whole" in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["", "{}", "[]", "null", '{"url": 1}', "\udcff"])
def test_without_a_record_of_its_source_a_part_is_fetched_again(site, tmp_path, spoil):
    site.steps = [{"stop": 100_000}, {"status": 404}, {}]
    with pytest.raises(DatasetError):
        fetch(site, tmp_path / "data")
    (hidden(tmp_path / "data") / "source.json").write_text(spoil, errors="surrogateescape")
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")
    assert site.ranges[-1] == (None, None)


def test_a_part_longer_than_the_file_is_fetched_again(site, tmp_path):
    site.steps = [{"length": None, "stop": 200_000}]  # ends early, which cannot be seen
    with pytest.raises(DatasetError, match="not " + MD5):
        fetch(site, tmp_path / "data")
    site.steps = [{"length": len(BODY) + 5}, {}, {}]  # 416 on the second
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")


@pytest.mark.parametrize(
    ("step", "message", "requests"),
    [
        ({"body": b"PK, but not what was asked for"}, f"the md5 of http.* is [0-9a-f]{{32}}, not {MD5}", 1),
        ({"body": b"\x1f\x8b anything"}, r"is not a zip archive \(it begins with", 1),
        ({"body": b""}, r"is not a zip archive \(it is empty\)", 1),
        ({"body": b"<html>", "kind": "text/html; charset=utf-8"}, "is a web page, not an archive", 1),
        ({"status": 404}, "404 Not Found: correct the address, name another --url", 1),
        ({"status": 403}, "403 Forbidden", 1),
        ({"status": 500}, r"500 Internal Server Error \(3 tries", 3),
        ({"status": 429}, r"429 Too Many Requests \(3 tries", 3),
        ({"status": 302, "location": "/tiny.zip"}, "302 .*infinite loop", None),
        ({"status": 302, "location": "file:///etc/passwd"}, "302 .*not allowed", 1),
        ({"length": safe_zip.LARGEST + 1}, "has more than 4,294,967,296 bytes", 1),
    ],
)
def test_what_is_not_the_archive_is_refused(site, tmp_path, step, message, requests):
    site.steps = [step]
    with pytest.raises(DatasetError, match=message):
        fetch(site, tmp_path / "data")
    assert requests in (None, len(site.ranges))
    assert not list(tmp_path.iterdir())


def test_a_web_page_in_between_costs_nothing(site, tmp_path):
    site.steps = [{"stop": 100_000}, {"body": b"<html>", "kind": "text/html", "ranges": False}, {}]
    with pytest.raises(DatasetError, match="web page"):
        fetch(site, tmp_path / "data")
    fetch(site, tmp_path / "data")
    assert site.ranges[-1] == ("bytes=100000-", '"one"')


def test_a_redirection_is_followed(site, tmp_path):
    site.steps = [{"status": 302, "location": "/moved.zip"}, {"stop": 100_000}, {"status": 302, "location": "/m"}, {}]
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")
    assert site.sent == len(BODY)


def test_a_server_that_stalls(site, tmp_path):
    site.steps = [{"stall": 100_000}, {"stall": 0}]
    start = time.monotonic()
    with pytest.raises(DatasetError, match=r"no byte from the server for 0\.5 seconds \(2 tries.*--timeout"):
        fetch(site, tmp_path / "data", timeout=0.5, tries=2)
    assert 1 <= time.monotonic() - start < 15  # it would wait 20 for the server
    assert (hidden(tmp_path / "data") / "archive.zip").stat().st_size == site.sent > 100_000


def test_a_slow_server_is_waited_for(site, tmp_path, monkeypatch, capsys):
    moments = iter(range(0, 10_000, 4))
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    site.steps = [{"pause": 0.001}]
    fetch(site, tmp_path / "data")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fetching: ")]
    assert 3 < len(lines) < 30 and lines[0].endswith(" of 0.4 MB")


def test_no_server(site, tmp_path):
    with Site() as gone:
        pass
    with pytest.raises(DatasetError, match=r"Connection refused\) \(3 tries"):
        fetch(gone, tmp_path / "data")
    for url, message in (
        ("file:///etc/passwd", "begins with http"),
        ("http://[x/", "cannot fetch"),
        ("http://a b/", "cannot fetch"),
    ):
        with pytest.raises(DatasetError, match=message):
            fetch(site, tmp_path / "data", url=url)
    assert not list(tmp_path.iterdir())


def test_the_archive_can_be_kept(site, tmp_path):
    assert fetch(site, tmp_path / "data", keep_archive=True) == tmp_path / "data.zip"
    assert (tmp_path / "data.zip").read_bytes() == BODY
    check_whole(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DatasetError, match=r"data\.zip exists: rename it, or unpack it with --archive"):
        fetch(site, tmp_path / "data", keep_archive=True)
    download.download(tmp_path / "data", archive=tmp_path / "data.zip", md5=MD5.upper())
    check_whole(tmp_path / "data")
    assert (tmp_path / "data.zip").read_bytes() == BODY
    assert len(site.ranges) == 1


# --- unpacking ---


def entry(name, mode=0):
    info = zipfile.ZipInfo()
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    return info


def patched(before, after):
    """BODY with bytes replaced, the same number of them."""
    assert len(before) == len(after) and before in BODY
    return BODY.replace(before, after)


def encrypted():
    body = bytearray(BODY)
    first = body.index(b"PK\x01\x02")
    body[first + 8] |= 1
    body[6] |= 1
    return bytes(body)


def crc_error():
    body = bytearray(build(compression=zipfile.ZIP_STORED))
    body[body.index(NOISE[:100])] ^= 1
    return bytes(body)


def bomb():
    body = bytearray(BODY)
    first = body.index(b"PK\x01\x02")
    for _ in range(2):  # each claims to be almost 4 GiB
        body[first + 24 : first + 28] = (2**32 - 2).to_bytes(4, "little")
        first = body.index(b"PK\x01\x02", first + 1)
    return bytes(body)


TOP = "tiny-imagenet-200/"
HOSTILE = {
    "dots": (build(extra=[("tiny-imagenet-200/../../outside", b"x")]), r"its name is not a plain path"),
    "dot": (build(extra=[("tiny-imagenet-200/./a", b"x")]), "plain path"),
    "absolute": (build(extra=[("/outside", b"x")]), "plain path"),
    "double slash": (build(extra=[(TOP + "a//b", b"x")]), "plain path"),
    "backslash": (build(extra=[(entry(TOP + "..\\..\\outside"), b"x")]), "plain path"),
    "zero byte": (patched(b"b.JPEG", b"b\0JPEG"), "plain path|damaged"),
    "escape": (build(extra=[(TOP + "\x1b[2J", b"x")]), "plain path"),
    "link": (build(extra=[(entry(TOP + "link", 0o120777), b"/etc/passwd")]), "a link or a device"),
    "link for a folder": (build(extra=[(entry(TOP + "link/", 0o120777), b"/etc")]), "a link or a device"),
    "device": (build(extra=[(entry(TOP + "null", 0o020666), b"")]), "a link or a device"),
    "pipe": (build(extra=[(entry(TOP + "pipe", 0o010666), b"")]), "a link or a device"),
    "twice": (build(extra=[(TOP + "words.txt", b"x")]), r"clashes with 'tiny-imagenet-200/words\.txt'"),
    "capitals": (build(extra=[(TOP + "WNIDS.txt", b"x")]), r"WNIDS\.txt': it clashes with 'tiny-imagenet-200/wnids"),
    "composed": (build(extra=[(TOP + "e\u0301", b"x"), (TOP + "\u00e9", b"y")]), "it clashes with"),
    "file as folder": (build(extra=[(TOP + "words.txt/a", b"x")]), r"clashes with 'tiny-imagenet-200/words\.txt'"),
    "folder as file": (build(extra=[(TOP + "train", b"x")]), "clashes with 'tiny-imagenet-200/train'"),
    "two tops": (build(extra=[("other/a", b"x")]), "a single top folder is needed"),
    "file on top": (build(extra=[("readme", b"x")]), "a single top folder is needed"),
    "no top": (build(top=""), "a single top folder is needed"),
    "no layout": (
        build({"a": b""}),
        r"lacks wnids\.txt, words\.txt, val/val_annotations\.txt, train, val/images, test",
    ),
    "no test": (build({name: b"" for name in FILES if "test" not in name}), r"lacks test/images in"),
    "nothing": (build({}), "lacks"),
    "bzip2": (build(compression=zipfile.ZIP_BZIP2), "not compressed by deflate"),
    "encrypted": (encrypted(), "it is encrypted, or not"),
    "bomb": (bomb(), "would unpack to 7 files of 8,590,.* bytes: at most"),
    "crc": (crc_error(), "damaged.*CRC"),
    "cut off": (BODY[:-30], "damaged"),
    "directory cut": (BODY[:300_000] + BODY[-22:], "damaged"),
    "other name inside": (BODY.replace(b"c.JPEG", b"d.JPEG", 1), "damaged"),
    "holes": (BODY[:1000] + bytes(5000) + BODY[6000:], "damaged"),
    "text": (b"hello", "is not a zip archive"),
    "deep": (build(extra=[(TOP + "a/" * 40 + "b", b"x")]), "more than 4096 characters or 32 parts"),
    "deeper": (build(extra=[(TOP + "a/" * 16000 + f"{number}", b"") for number in range(30)]), "4096 characters or 32"),
    "long": (build(extra=[(TOP + "a" * 5000, b"x")]), "more than 4096 characters or 32 parts"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_damaged_archive_leaves_nothing(tmp_path, kind):
    body, message = HOSTILE[kind]
    path = tmp_path / "given.zip"
    path.write_bytes(body)
    (tmp_path / "below").mkdir()
    with pytest.raises(DatasetError, match=message) as caught:
        download.download(tmp_path / "below" / "data", archive=path, md5=None)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == body
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "below", path]
    assert not Path("/outside").exists()


def test_an_entry_without_a_name_is_refused():
    with pytest.raises(DatasetError, match="plain path"):
        safe_zip._members([entry("")], "a.zip")


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_zip, "MOST_FILES", 6)
    (tmp_path / "a.zip").write_bytes(BODY)
    with pytest.raises(DatasetError, match="would unpack to 7 files"):
        download.download(tmp_path / "data", archive=tmp_path / "a.zip", md5=None)


def test_bytes_mangled_at_random_never_give_half_a_data_set(tmp_path):
    files = {**FILES, "train/n00000000/images/a.JPEG": NOISE[:100]}
    body, generator = build(files), random.Random(1)
    path, out = tmp_path / "a.zip", tmp_path / "data"
    for _ in range(150):
        mangled = bytearray(body)
        for _ in range(generator.choice((1, 3, 30))):
            mangled[generator.randrange(len(body))] = generator.randrange(256)
        path.write_bytes(mangled[: generator.choice((len(body), generator.randrange(len(body))))])
        with contextlib.suppress(DatasetError):
            download.download(out, archive=path, md5=None)
            assert {*FILES.values()} - {NOISE} < {*unpacked(out).values()}  # names and folders may be others
            shutil.rmtree(out)
        assert list(tmp_path.iterdir()) == [path]


def test_folders_links_and_permissions_of_the_archive(tmp_path):
    extra = [
        (entry(TOP, 0o040700), b""),
        (TOP + "empty/", b""),
        (entry(TOP + "run", 0o104777), b"x"),
        ("tiny-imagenet-200/a/b/c", b""),
    ]
    (tmp_path / "a.zip").write_bytes(build(extra=extra))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")  # an empty folder may be taken, by way of a link too
    download.download(tmp_path / "link", archive=tmp_path / "a.zip", md5=None)
    assert unpacked(tmp_path / "real") == {**FILES, "run": b"x", "a/b/c": b""}
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "empty").is_dir()
    assert (tmp_path / "real" / "run").stat().st_mode & 0o7111 == 0  # as any new file


@pytest.mark.parametrize("name", ["none.zip", "."])
def test_an_archive_that_cannot_be_read(tmp_path, name):
    with pytest.raises(DatasetError, match="cannot read .*: name a zip archive"):
        download.download(tmp_path / "data", archive=tmp_path / name)
    assert not list(tmp_path.iterdir())


# --- the folder and the disk ---


def test_what_is_in_the_way_is_named_before_anything_is_fetched(site, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    with pytest.raises(DatasetError, match="file exists and is not empty"):
        fetch(site, tmp_path / "file")
    with pytest.raises(DatasetError, match=r"cannot write .*file/data: .*: name a folder that can be written"):
        fetch(site, tmp_path / "file" / "data")
    with pytest.raises(DatasetError, match="/ exists and is not empty"):
        fetch(site, "/")
    (tmp_path / ".data.download").write_text("x")
    with pytest.raises(DatasetError, match="cannot write"):
        fetch(site, tmp_path / "data")
    assert site.ranges == []
    fetch(site, tmp_path / "dangling")
    check_whole(tmp_path / "nowhere" / "at" / "all")


def test_a_read_only_folder(site, tmp_path):
    tmp_path.chmod(0o555)
    user = os.geteuid()
    if user == 0:  # may write everywhere: be somebody else for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(DatasetError, match="cannot write .*data: Permission denied: name a folder that can be wr"):
            fetch(site, tmp_path / "data")
    finally:
        os.seteuid(user)
    assert not list(tmp_path.iterdir()) and not site.ranges


def test_only_one_run_at_a_time(site, tmp_path):
    site.steps = [{"stall": 100_000}]
    runner = threading.Thread(target=fetch, args=(site, tmp_path / "data"))
    runner.start()
    wait_for(lambda: site.sent >= 100_000)
    with pytest.raises(DatasetError, match="another run is fetching .*data: wait for it or name another"):
        fetch(site, tmp_path / "data")
    site.steps = [{}]
    site.going.set()
    runner.join()
    check_whole(tmp_path / "data")


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 600 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(disk)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a disk can be mounted by root alone")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(site, small_disk):
    out = small_disk / "data"
    with pytest.raises(DatasetError, match="disk is a mount point, which no folder can replace: name a folder in it"):
        fetch(site, small_disk)
    big = build({**FILES, "more": NOISE})
    site.steps = [{"body": big}]
    with pytest.raises(DatasetError, match=r"needs 0\.8 MB and its disk has 0\.6 MB left: free some and run the same"):
        fetch(site, out, md5=None)
    assert not list(small_disk.iterdir())
    site.steps = [{"body": big, "length": None}]
    with pytest.raises(DatasetError, match=r"cannot write .*: No space left on device: free some space.* goes on"):
        fetch(site, out, md5=None)
    assert list(small_disk.iterdir()) == [hidden(out)]
    shutil.rmtree(hidden(out))
    site.steps = [{}]  # fits, but not unpacked beside it
    with pytest.raises(DatasetError, match=r"needs 0\.4 MB and its disk has 0\.2 MB left"):
        fetch(site, out)
    assert [path.name for path in hidden(out).iterdir() if path.suffix == ".zip"] == ["archive.zip"]
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    sent = site.sent
    fetch(site, out)
    check_whole(out)
    assert site.sent == sent


def test_a_limit_on_the_size_of_files(site, tmp_path, start):
    limit = 200 << 10
    done = start(tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.wait() == 1
    lines = done.stderr.read().splitlines()
    assert len(lines) == 1 and lines[0].startswith("download.py: error: cannot write ") and "File too large" in lines[0]
    assert list(tmp_path.iterdir()) == [hidden(tmp_path / "data")]
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")
    assert site.ranges[-1] == (f"bytes={limit}-", '"one"')


# --- the script ---


@pytest.fixture
def start(site):
    """Start the script on `folder`/data."""
    with contextlib.ExitStack() as stack:

        def call(folder, *arguments, python=(), **options):
            command = [sys.executable, *python, SCRIPT, folder / "data", "--url", site.url, "--md5", MD5, *arguments]
            options = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options}
            options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
            process = subprocess.Popen(list(map(str, command)), text=True, **options)
            stack.callback(process.wait)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield call


def test_the_script(site, start, tmp_path, tool):
    process = start(tmp_path, "--keep-archive")
    assert process.wait() == 0, process.stderr.read()
    assert process.stdout.read() == f"wrote {tmp_path}/data, kept {tmp_path}/data.zip\n"
    assert process.stderr.read() == ""
    check_whole(tmp_path / "data")
    done = tool("download", tmp_path / "data", "--url", site.url, fails=1)
    assert (
        done.stderr
        == f"download.py: error: {tmp_path}/data exists and is not empty: name another folder or remove it first\n"
    )
    done = tool("download", tmp_path / "other", "--archive", tmp_path / "data.zip", "--md5", "none")
    assert done.stdout == f"wrote {tmp_path}/other\n"
    check_whole(tmp_path / "other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "OUT"),
        (["--url", "ftp://example.org/a.zip"], "'ftp://example.org/a.zip' does not begin with http:// or https://"),
        (["--md5", "123"], "'123' is neither 32 hexadecimal digits nor none"),
        (["--timeout", "0"], "'0' is not a number above 0"),
        (["--timeout", "1e9"], "at most 86400 seconds"),
        (["--tries", "0"], "'0' is not a whole number"),
        (["--archive", "a.zip", "--keep-archive"], "not with --archive"),
        (["--archive", "a.zip", "--url", "http://a/"], "not allowed with"),
    ],
)
def test_bad_use_is_status_2(tmp_path, tool, arguments, message):
    done = tool("download", *([tmp_path / "data"] if arguments else []), *arguments, fails=2)
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_killed_at_any_moment_the_next_run_goes_on(site, start, tmp_path):
    generator = random.Random(2)
    site.steps = [{"pause": 0.002, "until": len(BODY) - (16 << 10)}]  # else it might be done before it is killed
    for goal in sorted(generator.randrange(len(BODY) - (32 << 10)) for _ in range(4)):
        process = start(tmp_path)
        wait_for(lambda goal=goal: site.sent >= goal, process)
        process.kill()
        process.wait()
        assert [path.name for path in tmp_path.iterdir()] in ([], [".data.download"])
    site.steps = [{}]
    part = (hidden(tmp_path / "data") / "archive.zip").stat().st_size
    assert start(tmp_path).wait() == 0
    check_whole(tmp_path / "data")
    assert part > 0 and site.ranges[-1] == (f"bytes={part}-", '"one"')


# Runs the script, and kills it when it opens the so-manieth image.
KILLED = """
import os, runpy, signal, sys
left, script = int(sys.argv[1]), sys.argv[2]
def hook(event, arguments):
    global left
    if event == "open" and str(arguments[0]).endswith(".JPEG"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
sys.path.insert(0, os.path.dirname(script))
sys.argv = sys.argv[2:]
runpy.run_path(script, run_name="__main__")
"""


def test_killed_while_unpacking_the_next_run_fetches_nothing(site, start, tmp_path):
    files = {**FILES, **{f"train/n00000000/images/{number}.JPEG": b"x" for number in range(3000)}}
    body = build(files)
    site.steps = [{"body": body}]
    arguments = ["--md5", hashlib.md5(body).hexdigest()]
    for count in (1, 2, 1000):
        process = start(tmp_path, *arguments, python=["-c", KILLED, count])
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
        assert [path.name for path in tmp_path.iterdir()] == [".data.download"]
    assert start(tmp_path, *arguments).wait() == 0
    check_whole(tmp_path / "data", files)
    assert len(site.ranges) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_that_ended_at_the_last_step_is_completed(site, tmp_path, monkeypatch, moment):
    real = os.replace

    def replace(old, new):
        if moment == "after" or Path(new) != tmp_path / "data":
            real(old, new)
        if Path(new) == tmp_path / "data":
            raise KeyboardInterrupt

    monkeypatch.setattr(download.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        fetch(site, tmp_path / "data", keep_archive=True)
    monkeypatch.undo()
    assert (tmp_path / "data").exists() == (moment == "after") and hidden(tmp_path / "data").exists()
    assert fetch(site, tmp_path / "data", keep_archive=True) == tmp_path / "data.zip"
    check_whole(tmp_path / "data")
    assert (tmp_path / "data.zip").read_bytes() == BODY
    assert len(site.ranges) == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_interrupted_it_leaves_what_it_can_go_on_from(site, start, tmp_path, number, status):
    site.steps = [{"stall": 100_000}, {}]
    process = start(tmp_path)
    part = hidden(tmp_path / "data") / "archive.zip"
    wait_for(lambda: part.exists() and part.stat().st_size >= 50_000, process)
    process.send_signal(number)
    assert process.wait(60) == status
    kept = "0.1 MB are kept: run the same command again: it goes on from there"
    assert process.stderr.read() == (f"download.py: error: interrupted: {kept}\n" if status == 130 else "")
    assert [path.name for path in tmp_path.iterdir()] == [".data.download"]
    fetch(site, tmp_path / "data")
    check_whole(tmp_path / "data")


def test_a_terminal_sees_a_bar(site, start, tmp_path):
    site.steps = [{"pause": 0.01}]
    outer, inner = pty.openpty()
    process = start(tmp_path, stderr=inner)
    os.close(inner)
    shown = b""
    with contextlib.suppress(OSError), open(outer, "rb", 0) as stream:
        while piece := stream.read(4096):
            shown += piece
    assert process.wait() == 0
    assert b"fetching" in shown and b"kB" in shown
    check_whole(tmp_path / "data")


def test_an_archive_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(DatasetError, match=r"a\.zip: it is not a plain file: name a zip archive"):  # it waited before
        download.download(tmp_path / "data", archive=tmp_path / "a.zip")


@pytest.mark.parametrize("stdout", ["closed", "/dev/full", "ascii"])
def test_what_is_done_is_done_where_nobody_can_read_of_it(tmp_path, stdout):
    (tmp_path / "a.zip").write_bytes(BODY)
    out = tmp_path / ("data" if stdout != "ascii" else os.fsdecode(b"d\xff"))
    command = [sys.executable, SCRIPT, out, "--archive", tmp_path / "a.zip", "--md5", MD5]
    redirection = {"closed": ">&-", "/dev/full": ">/dev/full", "ascii": ""}[stdout]
    done = subprocess.run(["sh", "-c", f'"$@" {redirection}', "sh", *command], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (f"wrote {tmp_path}/d\\udcff\n".encode() if stdout == "ascii" else b"")
    check_whole(out)


# Runs a script, with Ctrl-C at the moment when it imports a module.
INTERRUPTED = """
import os, runpy, sys
script, name, *sys.argv[1:] = sys.argv[1:]
sys.path.insert(0, os.path.dirname(script))
class Finder:
    def find_spec(self, module, path=None, target=None):
        if module == name:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
"""


def test_interrupted_while_modules_load(tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, SCRIPT, "http.client", tmp_path / "data"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "download.py: error: interrupted\n")
