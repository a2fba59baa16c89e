"""The type stub matches the module."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from caffe import _caffe

STUB = ast.parse((Path(_caffe.__file__).parent / "_caffe.pyi").read_text())
LISTS = {"BoolVec", "DtypeVec", "IntVec", "LayerVec", "NetVec", "RawBlobVec", "StringVec"}
ASSIGNED = {"Layer": {"param_str", "phase"}}  # by the net, to each Python layer


def names(body):
    """The public names of a module's or class's body, with their definitions."""
    found = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.AnnAssign):
            found[node.target.id] = []
        elif isinstance(node, ast.Assign):
            found[node.targets[0].id] = []
    return {name: nodes for name, nodes in found.items() if not name.startswith("_")}


CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def test_the_module_has_the_names_of_the_stub():
    assert set(names(STUB.body)) == {name for name in dir(_caffe) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"NCCL", "CaffeError"}))
def test_a_class_has_the_members_of_the_stub(name):
    cls = getattr(_caffe, name)
    in_stub = set(names(CLASSES[name].body)) - ASSIGNED.get(name, set())
    assert in_stub == {member for member in vars(cls) if not member.startswith("_")}
    assert [base.id for base in CLASSES[name].bases] == [
        b.__name__ for b in cls.__bases__ if b.__module__ == "caffe._caffe"
    ]


def upstreams(thing):
    """Whether it is defined in upstream's pycaffe.py, without docstrings of ours."""
    return inspect.isfunction(getattr(thing, "fget", thing))


def functions():
    for name, nodes in names(STUB.body).items():
        yield from ((name, node, getattr(_caffe, name)) for node in nodes if isinstance(node, ast.FunctionDef))
    for name, cls in CLASSES.items():
        for node in cls.body if name != "NCCL" else []:
            if isinstance(node, ast.FunctionDef) and not isinstance(
                getattr(_caffe, name).__dict__[node.name], property
            ):
                yield f"{name}.{node.name}", node, getattr(getattr(_caffe, name), node.name)


@pytest.mark.parametrize(("name", "node", "function"), [pytest.param(*item, id=item[0]) for item in functions()])
def test_the_arguments_have_the_names_of_the_stub(name, node, function):
    stub = [argument.arg for argument in node.args.args if argument.arg != "self"]
    if stub == ["nccl"] and not _caffe.has_nccl():
        return
    if upstreams(function):
        parameters = inspect.signature(function).parameters.values()
        assert stub == [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD and p.name != "self"]
        return
    heads = [line for line in function.__doc__.splitlines() if re.match(rf"(\d+\. )?{node.name}\(", line)]
    signatures = [line for line in heads if "*args, **kwargs" not in line]  # of overloads
    found = [re.findall(r"[(,] ?(?!self)(\w+): ", re.sub(r"\[[^()]*?\]", "", line)) for line in signatures]
    assert stub in found or (node.args.vararg and "*args" in function.__doc__)


def members():
    for name, cls in CLASSES.items():
        yield from (
            (f"{name}.{m}", getattr(getattr(_caffe, name), m))
            for m in vars(getattr(_caffe, name))
            if m in names(cls.body) and name != "CaffeError"  # described in its class
        )


def test_every_name_is_explained():
    things = [(name, getattr(_caffe, name)) for name in names(STUB.body) if name not in LISTS | {"LayerParameter"}]
    silent = [name for name, thing in [*things, *members()] if not upstreams(thing) and not inspect.getdoc(thing)]
    assert not silent
