"""What mkdocs.yml adds to mkdocs: pages from outside docs/, and a check of the finished site.

The model cards, the data sets' READMEs and the project's own files become pages under their own
paths; links between them and docs/ are written as GitHub follows them, and rewritten here.
"""

import html.parser
import itertools
import os
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
_OUTSIDE = (
    "*.md",
    "*.cff",
    "LICENSE",
    "registry.yaml",
    "examples/*.py",
    "zoo/weights/*.md",
    "zoo/weights/*.png",
    "zoo/weights/*.json",
    "zoo_datasets/*/README.md",
)
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s]+)\)")
_CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files, config):
    """Add the files from outside docs/."""
    for path in itertools.chain.from_iterable(ROOT.glob(pattern) for pattern in _OUTSIDE):
        if path != ROOT / "README.md":  # docs/index.md is the site's first page
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrite the links of a page from the project's paths to the site's."""
    name = page.file.src_uri
    inside = not page.file.generated_by
    start = posixpath.dirname(f"docs/{name}" if inside else name)

    def rewritten(match: re.Match) -> str:
        text, link = match.groups()
        path, mark, anchor = link.partition("#")
        if not path or urlsplit(link).scheme:
            return match[0]
        target = posixpath.normpath(posixpath.join(start, path))
        if target == "README.md":  # the site's first page is docs/index.md
            target = "docs/index.md"
        if (ROOT / target).exists() and not files.get_file_from_path(target.removeprefix("docs/")):
            return text  # a folder, or a file that the site does not hold
        relative = posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(name) or ".")
        return f"[{text}]({relative}{mark}{anchor})"

    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(rewritten, part) for part in parts[::2]]
    return "".join(parts)


class _Page(html.parser.HTMLParser):
    """The names of a page's places, where it leads, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.places: set[str] = {""}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        loads = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
        if tag in loads and loads[tag] in values:
            self.loaded.append(values[loads[tag]])


def on_post_build(config):
    """Fail where the site has a broken link or anchor, or loads anything from elsewhere.

    Raises:
        PluginError: which names all of them.
    """
    site = Path(config.site_dir)
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the server's root
            continue
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    wrong.append(f"{path.relative_to(site)} loads {link}")
                continue
            target = Path(os.path.normpath(path.parent / unquote(parts.path)))
            target = path if not parts.path else target
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].places if target in pages else {unquote(parts.fragment)}
            if not target.exists() or unquote(parts.fragment) not in known:
                wrong.append(f"{path.relative_to(site)} leads to {link}, which is not there")
    if wrong:
        raise PluginError("\n".join(wrong))
