"""The architecture: imports go one way, help is instant, every flag is read, no path or call that ties it to one machine."""

import ast
import dataclasses
import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
# what each folder may import of ours
ALLOWED = {
    "utils": set(),
    "options": set(),
    "feeder": {"utils"},
    "models": {"utils"},
    "data_gen": {"utils", "options"},
    "engine": {"utils", "options", "feeder", "models", "data_gen"},
}
TOP = {p.stem for p in ROOT.glob("*.py")}
TOOLS = {p.stem for p in (ROOT / "tools").glob("*.py") if p.stem != "__init__"}
MOST_AT_THE_TOP = 7  # programs: the method and its tasks; everything else is started as python -m tools.NAME
OURS = {*ALLOWED, *TOP, "tools"}


@functools.cache
def sources():
    return [p for p in ROOT.rglob("*.py") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]


@functools.cache
def parsed(path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path) -> list[str]:
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [
                node.module,
                *(f"{node.module}.{alias.name}" for alias in node.names),
            ]  # `from engine import setup`
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_one_way(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            if top in OURS and top != folder and not name.startswith("utils.names"):
                assert top in ALLOWED[folder], f"{path.relative_to(ROOT)} imports {name}"
            if folder == "options":
                light = top in (*sys.stdlib_module_names, "options") or name.startswith("utils.names")
                assert light, f"{path.relative_to(ROOT)} imports {name}"


def test_the_top_holds_the_method_and_its_tasks():
    programs = {name.removesuffix(".py") for name in PROGRAMS if "/" not in name}
    assert TOP - programs == {"hubconf"}, "a module that is no program belongs into a folder"
    assert "pretrain_moco_mask" in programs and len(programs) <= MOST_AT_THE_TOP


def test_everything_in_tools_is_a_program_with_flags():
    assert {f"tools/{name}.py" for name in TOOLS} <= set(PROGRAMS)


def test_programs_are_imported_by_nothing():
    for path in [
        *(ROOT / "tools").glob("*.py"),
        *ROOT.glob("*.py"),
        *(p for f in ALLOWED for p in (ROOT / f).rglob("*.py")),
    ]:
        assert not {*TOP, "tools"} & {name.split(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize("program", sorted({*TOP, *(f"tools.{name}" for name in TOOLS)} - {"hubconf"}))
def test_help_is_instant(program):
    """--help answers before torch or numpy are imported, and names the program as it is started."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{program!r} + '.py', '--help']\n"
        f"try: runpy.run_module({program!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    shown = f"python -m {program}" if "." in program else f"{program}.py"
    assert ran.returncode == 0 and f"usage: {shown} " in ran.stdout, ran.stderr


def test_options_import_nothing_heavy():
    names = [f"options.{p.stem}" for p in (ROOT / "options").glob("*.py") if p.stem != "__init__"]
    code = f"import {', '.join(names)}, sys\nassert not {{'torch', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def module_file(name):
    """The file of one of our modules, None for others' and for folders."""
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def imported_by_programs_of(parser):
    """Files of the programs that import a module of options, and of what they import; of options `backbones` alone, whose
    encoder_flags reads the flags of the group that it adds."""
    programs = [path for path in sources() if path.parent.name not in ("options", "tests")]
    programs = [path for path in programs if re.search(rf"^from {parser} import .*parse", path.read_text(), re.M)]
    assert programs, f"no program reads {parser}"
    seen, todo = set(), programs
    while todo:
        path = todo.pop()
        seen.add(path)
        todo += {file for name in imports(path) if (file := module_file(name))} - seen
    return [path for path in seen if path.parent.name != "options" or path.stem == "backbones"]


def fields_from_flags(paths) -> set[str]:
    """Fields of the dataclasses that these modules fill by `from_flags(KIND, args, NO_FLAGS, OTHER=...)`, but for the others."""
    found = set()
    for path in paths:
        for node in (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)):
            if getattr(node.func, "id", "") == "from_flags":
                module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                names = {field.name for field in dataclasses.fields(getattr(module, node.args[0].id))}
                found |= names - {keyword.arg for keyword in node.keywords}
    return found


PARSERS = sorted(p.stem for p in (ROOT / "options").glob("*.py") if "def build_parser" in p.read_text())


@pytest.mark.parametrize("name", PARSERS)
def test_every_flag_is_read(name):
    """A flag that nothing reads is a lie: its name must be used as `args.NAME`, by name, or as a field that is filled
    `from_flags`, in a program of this parser or in what that imports. Flags that are only kept from older commands say so:
    their help begins with "accepted"."""
    parser = importlib.import_module(f"options.{name}").build_parser()
    modules = imported_by_programs_of(f"options.{name}")
    text, fields = "\n".join(path.read_text() for path in modules), fields_from_flags(modules)
    own = (ROOT / "options" / f"{name}.py").read_text()
    for action in parser._actions:
        if action.dest == "help" or (action.help or "").startswith("accepted"):
            continue
        used = re.search(rf"\bargs\.{action.dest}\b", text + own) or re.search(rf'"{action.dest}"', text + own)
        view = action.dest.endswith("_view") and '_view")' in own
        assert used or view or action.dest in fields, f"--{action.dest} of options/{name}.py is read by nothing"
        assert action.help, f"--{action.dest} of options/{name}.py has no help"


@pytest.mark.parametrize("name", PARSERS)
def test_long_help_begins_with_what_most_people_need(name):
    """Programs of many flags name at most ten first, once; no flag is lost on the page."""
    parser = importlib.import_module(f"options.{name}").build_parser()
    if len(parser._actions) < 25:
        return
    text = parser.format_help()
    assert 0 < len(parser.first) <= 10
    flags = [line for line in text.splitlines() if line.startswith("  -")]
    shown = {word.rstrip(",") for line in flags for word in line.split() if word.startswith("-")}
    for action in parser._actions:
        assert not action.option_strings or set(action.option_strings) & shown, action.dest
    head = text.split("what most people need:")[1].split("\n\n")[0]
    assert all(flag in head for flag in parser.first)


def test_nothing_is_tied_to_one_machine():
    for path in sources():
        text = path.read_text()
        where = path.relative_to(ROOT)
        if where.parts[0] != "tests":
            assert not re.search(r"\.cuda\(\)", text), f"{where}: take the device as a value"
            assert not re.search(r"(?<![\w.])/(home|root|mnt|work)/", text), f"{where}: a path of one machine"
            for call in re.finditer(r"torch\.load\([^\n]*", text):
                assert "weights_only=True" in call.group(), f"{where}: {call.group()}"


def test_what_pip_installs_is_every_package():
    """`pip install -e .`, so that engine.features can be imported from any folder."""
    packages = re.search(r"^packages = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.M)
    folders = {p.parent.relative_to(ROOT) for top in {*ALLOWED, "tools"} for p in (ROOT / top).rglob("__init__.py")}
    assert sorted(ast.literal_eval(packages[1])) == sorted(".".join(folder.parts) for folder in folders)


def test_no_file_is_large():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in tracked:
        path = ROOT / name
        large = {"data_gen/ui_prmd.xz": 5_000_000, "checkpoints/ui_prmd.pth": 4 * 2**20}
        limit = large.get(name, 1_000_000)
        assert not path.exists() or path.stat().st_size < limit, name


# read by torch, pickle and argparse
BY_OTHERS = {"extra_repr", "find_class", "dependencies", "allow_tf32", "_get_help_string"}
FOR_GOLDEN = {"apply_matrices"}  # shear as the released code computes it; what trains does the same on bands of rows


def public_names(tree):
    """Module-level functions, classes and constants, and the methods, fields and attributes of classes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from (part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name))


def test_every_name_is_read_outside_of_tests():
    """What only a test uses, or nothing, goes: a name counts as read where it is loaded, or given as a string (getattr)."""
    trees = [parsed(path) for path in sources() if path.relative_to(ROOT).parts[0] != "tests"]
    read = {*BY_OTHERS, *FOR_GOLDEN}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            read.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            read.add(node.value)
    entries = {
        node.name for node in ast.parse((ROOT / "hubconf.py").read_text()).body if isinstance(node, ast.FunctionDef)
    }
    names = {name for tree in trees for name in public_names(tree) if not name.startswith("__")}
    assert names - read - entries == set()
