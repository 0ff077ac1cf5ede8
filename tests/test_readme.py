"""What the README and docs/ promise exists: every command parses, every file, flag and heading that they name is there."""

import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from programs import PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "RESULTS.md", ROOT / "CONTRIBUTING.md", ROOT / "checkpoints" / "README.md", *PAGES]


def commands():
    for path in TEXTS:
        text = re.sub(r" *\\\n *", " ", path.read_text())  # a command may go on after a backslash
        for line in re.findall(
            r"(?:^ {4}|`)((?:[A-Z_]+=(?:\"[^\"]*\"|\S+) )*(?:python|bash|torchrun) [^`\n#]+)", text, re.M
        ):
            yield pytest.param(line.strip(), id=f"{path.relative_to(ROOT)}: {line.strip()[:70]}")


def parser_of(module):
    """What parses the command line of a module of options, data_gen or benchmarks; None where its main does it by itself."""
    for name in ("parse_args", "parse"):
        if hasattr(module, name):
            return getattr(module, name)
    return module.make_parser().parse_args if hasattr(module, "make_parser") else None


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_parses(command):
    words = [w for w in shlex.split(command) if not re.match(r"[A-Z_]+=", w)]
    if words[0] == "bash":
        assert (ROOT / words[1]).is_file()
        return
    words = [w for w in words[1:] if not w.startswith(("--nproc", "--standalone", "--local-addr"))]
    if words[:2] == ["-m", "engine.launch"]:
        words = words[4:]  # --processes K
    if words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).is_file() for word in words[2:] if word.endswith(".py"))
        return
    if words[0] == "-m":
        words = [words[1].replace(".", "/") + ".py", *words[2:]]
    assert (ROOT / words[0]).is_file(), words[0]
    if "[" in command or "..." in command or words[0].startswith("examples/"):
        return
    folder = words[0].rpartition("/")[0]
    held = PROGRAMS.get(words[0])
    name = f"options.{held}" if held else words[0].removesuffix(".py").replace("/", ".")
    parse = parser_of(importlib.import_module(name))
    if parse is None:
        assert folder == "benchmarks", f"{words[0]}: what parses its flags?"
        return
    try:
        parse(words[1:])
    except SystemExit as end:
        assert end.code == 0 and {"-h", "--help"} & set(words), f"{command} does not parse"


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_named_exists(path):
    text = path.read_text()
    names = set(
        re.findall(
            r"`((?:models|feeder|engine|options|utils|data_gen|tests|tools|benchmarks|examples)/[\w./-]*\w)`", text
        )
    )
    names |= set(re.findall(r"\]\(((?!http)[^)#]+)\)", text)) | set(re.findall(r"`(script_\w+\.sh|\w+\.py)`", text))
    for name in names:
        assert (ROOT / name).exists() or (path.parent / name).exists(), f"{path.name} names {name}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_into_a_text_finds_its_heading(path):
    for file, anchor in re.findall(r"\]\(((?!http)[^)#]*)#([^)]+)\)", path.read_text()):
        headings = re.findall(r"^#+ (.*)$", ((path.parent / file) if file else path).read_text(), re.M)
        assert anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings], f"{file}#{anchor}"


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda p: p.name)
def test_pages_are_short_and_narrow(path):
    """The README at most 200 lines, a page 150, a line 120 characters; the two original commands stand as they are."""
    lines = path.read_text().splitlines()
    assert len(lines) <= (200 if path.name == "README.md" else 150)
    wide = [line for line in lines if len(line) > 120 and not line.startswith("    CUDA_VISIBLE_DEVICES=")]
    assert not wide, wide


def test_the_readme_leads_to_every_page():
    text = (ROOT / "README.md").read_text()
    assert not [page.name for page in PAGES if f"](docs/{page.name})" not in text]


def test_where_is_what_is_complete():
    """Each program, script and folder, and each of tools/, has its place in the README's table."""
    table = (ROOT / "README.md").read_text().split("\n## Where is what\n")[1].split("\n## ")[0]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    tops = {name if "/" not in name else name.split("/")[0] + "/" for name in tracked if not name.startswith(".")}
    places = {top for top in tops if top.endswith((".py", "/")) or re.fullmatch(r"script_\w+\.sh", top)}
    places |= {name for name in PROGRAMS if name.startswith("tools/")}
    missing = {top for top in places - {"script_environment.sh"} if f"`{top}`" not in table}  # sourced by the others
    assert not missing, missing


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda p: p.name)
def test_flags_named_in_the_text_exist(path):
    """A flag in the text, outside of commands, belongs to some program."""
    flags = set(re.findall(r"`(--[a-z][a-z_-]+)", path.read_text()))
    parsers = [importlib.import_module(f"options.{name}").build_parser() for name in (*PROGRAMS.values(), "baselines")]
    known = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    others = "\n".join(p.read_text() for folder in ("data_gen", "engine") for p in (ROOT / folder).glob("*.py"))
    for flag in flags:
        assert flag in known or re.search(rf'"{flag}"|^{flag}\b', others, re.M), flag  # of argparse, of a table


def test_the_citation_names_the_paper_of_the_readme():
    """CITATION.cff (valid CFF 1.2.0 by cffconvert) and the README's bibtex are of one paper."""
    citation, readme = (ROOT / "CITATION.cff").read_text(), (ROOT / "README.md").read_text()
    title = re.search(r"title=\{(.+)\}", readme).group(1)
    authors = re.search(r"author=\{(.+)\}", readme).group(1).split(" and ")
    assert citation.startswith("cff-version: 1.2.0\n") and f'title: "{title}"' in citation and "2308.03975" in citation
    found = re.findall(r"- family-names: (\w+)\n +given-names: (\w+)", citation)
    assert [f"{family}, {given}" for family, given in found] == authors
