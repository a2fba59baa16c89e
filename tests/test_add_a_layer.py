"""Follows "Add a layer in five steps" of caffe_layers/README.md, word for word, in a copy of the checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def blocks():
    """The code of each step, in order."""
    text = (ROOT / "caffe_layers" / "README.md").read_text()
    steps = re.split(r"^\*\*\d\.\*\*", text[text.index("## Add a layer in five steps") :], flags=re.MULTILINE)[1:]
    assert len(steps) == 5
    return [re.findall(r"^```\w+\n(.*?)^```", step, re.MULTILINE | re.DOTALL) for step in steps]


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "build" / "CMakeCache.txt").exists(), reason="no build in build/: tools/setup.sh")
def test_the_five_steps(tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("CMakeLists.txt", "caffe_layers", "tests/cpp"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (checkout / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, checkout / name)
    (field, message), (header,), (source,), (test,), (python,) = blocks()

    proto = checkout / "caffe_layers" / "layers.proto"
    opening, ours = "message LayerParameter {\n", proto.read_text()
    assert opening in ours and field.strip().endswith("= 1001;")
    fields = ours[ours.index(opening) : ours.index("}", ours.index(opening))]
    free = max(int(number) for number in re.findall(r"= (\d+);", fields)) + 1
    proto.write_text(ours.replace(opening, opening + field.replace("1001", str(free))) + "\n" + message)
    (checkout / "caffe_layers" / "softsign_layer.hpp").write_text(header)
    (checkout / "caffe_layers" / "softsign_layer.cpp").write_text(source)
    (checkout / "tests" / "cpp" / "test_softsign_layer.cpp").write_text(test)

    build, installed = checkout / "build", tmp_path / "installed"
    named = re.search(r"^CAFFE_SOURCE_DIR:\w+=(.+)$", (ROOT / "build" / "CMakeCache.txt").read_text(), re.MULTILINE)
    caffe_source = named[1] if named else ROOT / "build" / "caffe-source"
    options = [f"-DCAFFE_SOURCE_DIR={caffe_source}", f"-DPython_EXECUTABLE={sys.executable}"]
    options += ["-DCMAKE_CXX_FLAGS_RELEASE=-O0 -DNDEBUG"]  # compiles in half the time
    run("cmake", "-B", build, "-S", checkout, "-G", "Ninja", *options)
    run("cmake", "--build", build, "--target", "_caffe", "caffe_layers_test")
    assert "100% tests passed, 0 tests failed out of 4" in run("ctest", "--test-dir", build, "-R", "Softsign")

    run("cmake", "--install", build, "--component", "python", "--prefix", installed)
    code = f"""{python}
import caffe, pathlib
net = caffe.NetSpec()
net.y = softsign
pathlib.Path({str(tmp_path / "net.prototxt")!r}).write_text(str(net.to_proto()))
net = caffe.Net({str(tmp_path / "net.prototxt")!r}, caffe.TEST)
print(net.layers[1].type, net.forward()["y"].shape, caffe.__file__)
"""
    # -S: without the checkout's own packages, which site-packages names
    path = f"{installed}{os.pathsep}{sysconfig.get_path('purelib')}"
    said = run(sys.executable, "-S", "-c", code, env={**os.environ, "PYTHONPATH": path})
    assert said.split() == ["Softsign", "(2,", "3)", str(installed / "caffe" / "__init__.py")]
