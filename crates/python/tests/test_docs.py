"""The programs of docs/python.md run, and its table of exceptions is true."""

import ast
import builtins
import inspect
import pathlib
import re

import pytest

import sealane

PAGE = (pathlib.Path(__file__).parents[3] / "docs/python.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs_run(script, number):
    script(PROGRAMS[number])


def test_exceptions_are_what_the_page_says():
    section = PAGE.split("## Exceptions")[1].split("\n## ")[0]
    named = set()
    for names, also, _meaning in re.findall(r"^\| (`.*?) \| (.*?) ?\| (.*?) \|$", section, re.M):
        for name in re.findall(r"`(\w+)`", names):
            named.add(name)
            kind = getattr(sealane, name)
            assert issubclass(kind, sealane.SealaneError)
            for base in re.findall(r"`(\w+)`", also):
                assert issubclass(kind, getattr(sealane, base, None) or getattr(builtins, base))
    there = {name for name in dir(sealane) if isinstance(getattr(sealane, name), type)}
    there = {name for name in there if issubclass(getattr(sealane, name), sealane.SealaneError)}
    assert named == there - {"SealaneError"}


def test_everything_has_a_sentence():
    for name in sealane.__all__:
        thing = getattr(sealane, name)
        assert thing.__doc__, name
        if isinstance(thing, type) and thing.__module__ == "sealane":
            for member in vars(thing):
                if not member.startswith("_"):
                    assert getattr(thing, member).__doc__, f"{name}.{member}"


def test_all_settings_are_in_the_table():
    rows = [line.strip() for line in sealane.Settings.__doc__.splitlines() if line.strip().startswith("|")]
    assert "\n".join(rows) in PAGE, "the page has the table of the docstring"
    names = [re.match(r"\| `(\w+)` \|", row)[1] for row in rows[2:]]
    assert names == list(sealane.Settings.__annotations__)
    for name in names:
        with pytest.raises((TypeError, ValueError)) as raised:
            sealane.pair(**{name: object()})
        assert str(raised.value).startswith(f"{name}: "), "the table has what the library takes"


def test_the_defaults_of_the_table_are_true(tmp_path):
    a, b = sealane.pair()
    assert a.limits == {"max_payload": (2 << 20) - 1088, "max_control": 64 << 10, "max_fds": 64, "max_requests": 1024}
    with sealane.publish(tmp_path / "frames") as publisher:
        assert publisher.limits["max_fds"] == 0 and publisher.limits["max_payload"] == a.limits["max_payload"]


def test_editors_show_the_sentences_of_the_module():
    stub = ast.parse((pathlib.Path(sealane.__file__).parent / "_native.pyi").read_text())

    def check(node, owner):
        count = 0
        for item in node.body:
            if not isinstance(item, (ast.ClassDef, ast.FunctionDef)) or item.name.startswith("_"):
                continue
            thing = inspect.getattr_static(owner, item.name)
            assert ast.get_docstring(item) == inspect.cleandoc(thing.__doc__ or ""), f"_native.pyi: {item.name}"
            count += 1 + (check(item, thing) if isinstance(item, ast.ClassDef) else 0)
        return count

    assert check(stub, sealane._native) > 100
