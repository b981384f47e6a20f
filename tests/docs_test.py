"""The documents: links and anchors that lead somewhere, commands that exist, pictures in use."""

import itertools
import pkgutil
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import zoo
from tools import tutorials
from zoo import command_line, registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    itertools.chain(
        ROOT.glob("*.md"),
        ROOT.glob("docs/**/*.md"),
        ROOT.glob("zoo/weights/*.md"),
        ROOT.glob("zoo_datasets/*/README.md"),
    )
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\]\([^)]*\))*?\]\(([^()\s]+)\)")


def prose(page: Path) -> str:
    """A page's text without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = next(n for n in itertools.count() if f"{text}-{n}".removesuffix("-0") not in found)
        found.add(f"{text}-{number}".removesuffix("-0"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(prose(page)):
        if re.match(r"https?://|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target == ROOT or ROOT in target.parents, link
        if anchor:
            assert anchor in anchors(target), link


def test_a_link_and_an_anchor_that_lead_nowhere_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`: three\n\n# A\n\n# A\n\n```\n# no\n```\n\n[![b](c.png)](d.md#e) [f](#g)"
    )
    assert anchors(page) == {"one-two-three", "a", "a-1"}
    assert set(LINK.findall(prose(page))) == {"d.md#e", "#g"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_project_that_are_named_exist(page):
    folders = "zoo|zoo_datasets|tests|tools|examples|benchmarks|docs"
    named = re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_picture_is_shown():
    shown = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    pictures = {path.resolve() for path in (ROOT / "docs").rglob("*.*") if path.suffix != ".md"}
    assert pictures <= shown, pictures - shown


def test_the_readme_is_short_and_names_everything():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 160
    for entries in registry.index().values():
        for name, entry in entries.items():
            assert entry["owner"] != "zoo" or f"`{name}`" in readme, name
    for page in ROOT.glob("docs/*.md"):
        assert f"(docs/{page.name})" in readme, page.name


def commands() -> list[tuple[str, str]]:
    """Every `zoo …` of the documents: in blocks of code, and between backquotes in the text."""
    found = []
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]:
        text = page.read_text(encoding="utf-8")
        blocks = "\n".join(body.replace("\\\n", " ") for _, body in FENCE.findall(text))
        lines = re.findall(r"^\s*(?:\$ |exec )?zoo (.+?)'?$", blocks, re.MULTILINE)
        lines += re.findall(r"`zoo\s([^`]+)`", prose(page))
        found += [(page.name, re.sub(r"\s+", " ", line)) for line in lines]
    return found


@pytest.fixture
def flags():
    """The command line's flags, as if none had been given."""
    yield command_line.FLAGS
    command_line.FLAGS.unparse_flags()
    for name in command_line.FLAGS:
        command_line.FLAGS[name].unparse()


def check(flags, line: str) -> None:
    """Fails where a command, a flag, a name or a recipe field of the command does not exist."""
    words = [word for word in shlex.split(line, comments=True) if word != "…"]
    for name in flags:
        flags[name].unparse()
    command, *rest = flags(["zoo", *words])[1:] or ["--help"]
    assert flags.help or command in command_line._COMMANDS
    assert not rest or command == "describe"
    assert command in ("--help",) or {n for n in flags if flags[n].present} <= set(
        command_line.USED[command]
    )
    index = registry.index()
    if rest and rest[0] != "NAME":
        registry.describe(rest[0])
    if flags.dataset and flags.dataset != "NAME/CONFIG":
        name, _, config = flags.dataset.partition("/")
        assert config in ("", *index["datasets"][name]["configs"])
    names = [name for name in (flags.model, flags.init) if name and not name.startswith("runs/")]
    assert all(name in index["models"] or name in index["pretrained"] for name in names)
    if command == "train" and names:
        asked = {"steps": flags.steps, "batch_size": flags.batch_size}
        asked = {field: value for field, value in asked.items() if value}
        registry.lookup(names[0], flags.dataset, "small", asked, flags.set)


def test_commands_in_the_documents_exist(flags):
    found = commands()
    assert len(found) > 20
    for page, line in found:
        try:
            check(flags, line)
        except Exception as error:
            raise AssertionError(f"{page}: zoo {line}: {error!r}") from error


@pytest.mark.parametrize(
    "line",
    [
        "tarin --model=pix2pix --dataset=ldct",
        "train --model=pix2pox --dataset=ldct",
        "train --model=pix2pix --dataset=ldct/none",
        "train --model=pix2pix --dataset=ldct --set nothing=1",
        "train --model=pix2pix --dataset=ldct --count=3",
    ],
)
def test_a_command_that_does_not_exist_is_found(flags, line):
    with pytest.raises((AssertionError, KeyError, ValueError, registry.UnknownName)):
        check(flags, line)


def test_the_scripts_in_the_docs_parse():
    for page in PAGES:
        for language, script in FENCE.findall(page.read_text(encoding="utf-8")):
            if language == "sh":
                done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
                assert done.returncode == 0, done.stderr


def test_a_tutorial_shows_what_its_blocks_print(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- made by -->\n\n*Made by nobody.*\n\n"
        "```sh\necho $((6 * 7)) >number; cat number\n```\n\n"
        "```text\nstale\n```\n\n```python\nprint(open('number').read(), end='')\n```\n\nEnd.\n"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    text = tutorials.run(page, folder)
    assert text.count("```text\n42\n```") == 2
    assert "stale" not in text and "nobody" not in text and text.endswith("\n\nEnd.\n")
    assert "cores of" in text
    page.write_text(text)
    shutil.rmtree(folder)
    folder.mkdir()
    assert tutorials.run(page, folder) == text


def test_a_tutorial_that_fails_says_where(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```sh\necho before; false; echo after\n```\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(RuntimeError, match="(?s)ended with 1:.before") as caught:
        tutorials.run(page, folder)
    assert "after\n" not in str(caught.value).partition("ended with")[2]


def test_the_tutorials_show_what_a_run_printed():
    for page in (ROOT / "docs" / "tutorials").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        made = r"\*Made by `make tutorials` in \d+ min of processor time, on \d+ cores of "
        assert re.search(made, text), page
        assert text.count("```text") >= 5, page


def test_the_reference_names_what_exists_and_all_that_is_public():
    pages = (ROOT / "docs" / "api").glob("*.md")
    texts = "".join(page.read_text(encoding="utf-8") for page in pages)
    names = re.findall(r"^::: (\S+)$", texts, re.MULTILINE)
    for name in names:
        assert pkgutil.resolve_name(name).__doc__, name
    assert {name.rpartition(".")[2] for name in names} >= set(zoo.__all__)
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in ROOT.glob("docs/**/*.md"):
        assert f"{page.relative_to(ROOT / 'docs')}\n" in site, f"{page.name} is not in mkdocs.yml"


def test_figures_of_the_survey_are_those_of_the_results_and_cards():
    """Each number with a decimal point of "reached here" stands in one of the pages it is from."""
    sources = "".join(
        (ROOT / "docs" / name).read_text(encoding="utf-8")
        for name in ("results.md", "pretrained.md")
    )
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in (ROOT / "docs" / "survey.md").read_text(encoding="utf-8").splitlines()
        if re.match(r"\| .*`zoo ", line)
    ]
    numbers = [number for row in rows for number in re.findall(r"\d+\.\d+", row[1])]
    assert len(rows) >= 15 and len(numbers) > 30
    assert not [n for n in numbers if not re.search(rf"(?<![\d.]){re.escape(n)}0?(?!\d)", sources)]
