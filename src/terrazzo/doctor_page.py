"""The doctor's page: one HTML file with what a data set holds and what is wrong in it, with pictures.

The file needs nothing but itself: no script, no network, pictures inside. Names of files and classes are strangers',
so everything is escaped, and the page forbids what it does not need.
"""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from terrazzo.data.chart import Chart
from terrazzo.data.doctor import Diagnosis
from terrazzo.data.findings import Finding
from terrazzo.data.findings.finding import printable
from terrazzo.data.statistics import SplitStatistics
from terrazzo.doctor_pictures import Picture, pictures
from terrazzo.errors import ExistingOutputError
from terrazzo.storage import replacing

MARK = '<meta name="generator" content="terrazzo check">'
"""What tells a page of ours: a new one may take its place, and no other file's."""
_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --ink: #23211f; --soft: #6d6862; --line: #dedad3; --card: #fff;
  --error: #b3261e; --warning: #8a5a00; --ok: #1d6b3a; --bar: #8fb0c9; --code: #f1eee9; }
@media (prefers-color-scheme: dark) { :root { --paper: #181716; --ink: #e9e6e1; --soft: #a39d95; --line: #37342f;
  --card: #211f1d; --error: #ff8a80; --warning: #f0b860; --ok: #7bd49a; --bar: #41617a; --code: #2b2926; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; }
.soft { color: var(--soft); }
.sum { font-weight: 600; margin: .5rem 0 0; }
.error { color: var(--error); } .warning { color: var(--warning); } .ok { color: var(--ok); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); } th:first-child, td:first-child { text-align: left; }
td.name { max-width: 22rem; overflow: hidden; text-overflow: ellipsis; }
.swatch { display: inline-block; width: .9rem; height: .9rem; border: 1px solid var(--soft); border-radius: .2rem;
  vertical-align: -.1rem; margin-right: .5rem; }
.bar { display: inline-block; width: 3.5rem; text-align: left; vertical-align: middle; margin-left: .5rem; }
.bar i { display: block; height: .6rem; background: var(--bar); border-radius: .15rem; }
article { background: var(--card); border: 1px solid var(--line); border-left: .3rem solid currentColor;
  border-radius: .4rem; padding: 1rem 1.25rem; margin: 0 0 1rem; }
article > * { color: var(--ink); }
article h3 { font-size: 1rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
article p { margin: .4rem 0; overflow-wrap: anywhere; }
.kind { font-size: .8rem; font-weight: 600; margin: 0; letter-spacing: .02em; }
.kind.error { color: var(--error); } .kind.warning { color: var(--warning); }
code, pre { font: .85rem/1.5 ui-monospace, monospace; background: var(--code); border-radius: .25rem; }
code { padding: .05rem .3rem; overflow-wrap: anywhere; }
pre { padding: .6rem .8rem; margin: .5rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: .4rem 0; font-size: .95rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.overview { padding-left: 1.6rem; }
.overview a { color: inherit; text-underline-offset: .2em; overflow-wrap: anywhere; }
.overview span { font-size: .8rem; font-weight: 600; display: inline-block; min-width: 4rem; }
.pictures { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: flex-start; }
figure { margin: .8rem 0 0; max-width: 100%; }
figure img { max-width: 100%; height: auto; display: block; border-radius: .25rem; }
figcaption { font-size: .85rem; color: var(--soft); overflow-wrap: anywhere; margin-top: .25rem; }
"""


def write_page(path: Path | str, diagnosis: Diagnosis, chart: Chart) -> Path:
    """Write the page of an examined data set, whole or not at all, and return where it lies.

    A page that an earlier check wrote there gives way; any other file is an ExistingOutputError.
    """
    path = Path(path)
    refuse_other_files(path)
    text = page(diagnosis, chart)
    with replacing(path, durable=False) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")
    return path


def refuse_other_files(path: Path | str) -> None:
    """Raise ExistingOutputError where `path` is something else than a page of an earlier check."""
    path = Path(path)
    if not path.exists():
        return
    if path.is_file():
        with open(path, "rb") as file:
            if MARK.encode() in file.read(1000):
                return
    raise ExistingOutputError(
        f"{path} is there, and is no page of an earlier check.",
        expected="a new path, or such a page, which is replaced",
        hint="Nothing was overwritten. Choose another name after --html.",
    )


def page(diagnosis: Diagnosis, chart: Chart) -> str:
    """Return the page as HTML."""
    state = "error" if diagnosis.errors else "warning" if diagnosis.warnings else "ok"
    body = [
        f"<h1><bdi>{_safe(diagnosis.source)}</bdi></h1>",
        f'<p class="soft">{_safe(diagnosis.contents())}</p>',
        f'<p class="sum {state}">{_safe(diagnosis.summary())}</p>',
        *_overview(diagnosis),
        *_splits(diagnosis.splits),
        *_classes(diagnosis, chart),
        *_findings(diagnosis, chart),
        '<p class="soft">Written by terrazzo check. Nothing in the data set was changed.</p>',
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            MARK,
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">",
            f"<title>{_safe(diagnosis.source)}: what the doctor found</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )


def _findings(diagnosis: Diagnosis, chart: Chart) -> Iterator[str]:
    if diagnosis.findings:
        yield "<h2>Findings, the gravest first</h2>"
    for number, one in enumerate(diagnosis.findings, start=1):
        yield from _finding(number, one, chart)


def _overview(diagnosis: Diagnosis) -> Iterator[str]:
    """A line for every finding, which leads to it."""
    if not diagnosis.findings:
        return
    yield '<ol class="overview">'
    for number, one in enumerate(diagnosis.findings, start=1):
        kind = f'<span class="{one.severity}">{one.severity}</span>'
        yield f'<li>{kind} <a href="#finding-{number}">{_safe(one.what)}</a></li>'
    yield "</ol>"


def _finding(number: int, one: Finding, chart: Chart) -> Iterator[str]:
    yield f'<article class="{one.severity}" id="finding-{number}">'
    yield f'<p class="kind {one.severity}">{one.severity}: {_safe(one.kind)}</p>'
    yield f"<h3>{_safe(one.what)}</h3>"
    told = [("found", one.found), ("expected", one.expected)]
    rows = [f"<dt>{word}</dt><dd><bdi>{_safe(text)}</bdi></dd>" for word, text in told if text]
    if one.files:
        files = ", ".join(f"<code><bdi>{_safe(file)}</bdi></code>" for file in one.files)
        more = f", … ({one.count:,} in all)" if one.count > len(one.files) else ""
        rows.insert(0, f"<dt>where</dt><dd>{files}{more}</dd>")
    if rows:
        yield f"<dl>{''.join(rows)}</dl>"
    if one.hint:
        yield f"<p>{_safe(one.hint)}</p>"
    if one.command:
        yield f"<pre>{_safe(one.command)}</pre>"
    yield f'<div class="pictures">{"".join(map(_figure, pictures(one, chart)))}</div>'
    yield "</article>"


def _figure(picture: Picture) -> str:
    buffer = io.BytesIO()
    picture.image.save(buffer, format="JPEG", quality=82)
    source = base64.b64encode(buffer.getvalue()).decode("ascii")
    width, height = picture.image.size
    caption = _safe(picture.caption)
    size = f'width="{width}" height="{height}"'
    return (
        f'<figure style="width:{width}px"><img src="data:image/jpeg;base64,{source}" {size} alt="{caption}">'
        f"<figcaption><bdi>{caption}</bdi></figcaption></figure>"
    )


def _splits(splits: Sequence[SplitStatistics]) -> Iterator[str]:
    if not splits:
        return
    yield "<h2>Images</h2>"
    yield '<div class="scroll"><table>'
    heads = ("split", "images", "usable masks", "height x width", "channels", "mean", "std", "labelled")
    yield f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"
    for one in splits:
        sizes = [
            f"{high} x {wide}" + (f" ({n:,})" if len(one.sizes) > 1 else "") for high, wide, n in one.sizes
        ]
        sizes += [f"{one.other_sizes:,} others"] if one.other_sizes else []
        cells = (
            _safe(one.split or "all"),
            f"{one.images:,}",
            f"{one.masks:,}",
            "<br>".join(sizes) or "–",
            _safe(f"{' or '.join(map(str, one.channels))} of {' or '.join(one.dtypes)}")
            if one.channels
            else "–",
            " ".join(f"{value:.3f}" for value in one.mean) or "–",
            " ".join(f"{value:.3f}" for value in one.std) or "–",
            f"{one.labelled:.2%}" if one.labelled is not None else "–",
        )
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</table></div>"


def _classes(diagnosis: Diagnosis, chart: Chart) -> Iterator[str]:
    if not diagnosis.counts or chart.space is None:
        return
    splits = list(dict.fromkeys(one.split for one in diagnosis.counts))
    cells = {(one.split, one.name): one for one in diagnosis.counts}
    most = max(one.share for one in diagnosis.counts) or 1.0
    yield "<h2>Classes</h2>"
    yield '<div class="scroll"><table>'
    heads = "".join(
        f"<th>{_safe(f'{split} pixels'.strip())}</th><th>share</th><th>images</th>" for split in splits
    )
    yield f"<tr><th>class</th>{heads}</tr>"
    for name, (red, green, blue) in zip(chart.space.classes.names, chart.space.classes.colors, strict=True):
        row = [f'<td class="name"><span class="swatch" style="background:rgb({red},{green},{blue})"></span>'
               f"<bdi>{_safe(name)}</bdi></td>"]  # fmt: skip
        for split in splits:
            one = cells[split, name]
            bar = f'<span class="bar"><i style="width:{100 * one.share / most:.1f}%"></i></span>'
            row.append(f"<td>{one.pixels:,}</td><td>{one.share:.2%}{bar}</td><td>{one.images:,}</td>")
        yield f"<tr>{''.join(row)}</tr>"
    ignored = "".join(f"<td></td><td>{diagnosis.ignored[split]:.2%} of all</td><td></td>" for split in splits)
    yield f'<tr class="soft"><td>(ignored)</td>{ignored}</tr>'
    yield "</table></div>"


def _safe(text: str) -> str:
    """Text that can be nothing but text in a page: escaped, without control characters and half characters."""
    text = printable(text)
    return html.escape(text, quote=True)
