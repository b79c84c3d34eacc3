"""A card as its readers see it: the YAML through huggingface_hub, the rest through a CommonMark parser, and HTML's."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

from huggingface_hub.repocard import RepoCard

HOSTILE = (
    "road | --- |",
    "---\nlicense: mit\n---",
    "<script>alert(1)</script>",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png)",
    "`code` *bold* _it_ ~no~ $x$ &amp; \\",
    "http://evil.example www.evil.example a@evil.example",
    "{{ 7 * 7 }}: !!python/object/apply:os.system [ls]",
    "\u202egnirts\u202c \x1b[31mred\x00",
    "# not a heading",
    "😀 ß 道路",
    "x" * 5000,
    "' \" : - ? , @",
    "--> ]]> </td></table>",
)
SEEN = (  # what is left to be seen of them
    "road | --- |",
    "--- license: mit ---",
    HOSTILE[2],
    "[click](javascript:alert(1)) ![x](http:\u200b//evil.example/x.png)",
    HOSTILE[4],
    "http:\u200b//evil.example www\u200b.evil.example a@\u200bevil.example",
    HOSTILE[6],
    "gnirts �[31mred�",
    HOSTILE[8],
    "😀 ß 道路",
    "x" * 199 + "…",
    "' \" : - ? , @\u200b",
    HOSTILE[12],
)


@dataclass
class Page(HTMLParser):
    """What stands in the HTML of a card."""

    tags: set[str] = field(default_factory=set)
    headings: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    """Every row of every table, as the words in its cells."""
    code: list[str] = field(default_factory=list)
    """What stands in fences."""
    text: str = ""
    attributes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        about = dict(attrs)
        if tag == "img":
            self.images.append(str(about["src"]))
            return
        if tag == "a":
            self.links.append(str(about["href"]))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
        if tag == "pre":
            self.code.append("")
        self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "pre" in self._open:
            self.code[-1] += data
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data
        if {"h1", "h2", "h3"} & set(self._open):
            self.headings[-1] += data


def read(card: RepoCard) -> Page:
    """Return what a card shows."""
    from markdown_it import MarkdownIt

    page = Page()
    page.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text))
    page.close()
    return page
