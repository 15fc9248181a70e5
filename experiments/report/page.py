"""The report page: head, contents, and the tables, figures and provenance of each paper."""

from __future__ import annotations

import datetime
import importlib.metadata
import itertools
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from adaptive_nets.runtime.errors import UserError
from experiments.report.charts import Figure, Missing, style_sheet
from experiments.report.gallery import figure_section
from experiments.report.interaction import filter_form, script, script_policy
from experiments.report.markup import Markup, code, element, folded, items, join
from experiments.report.provenance import provenance
from experiments.report.tables import SIGNS, comparison_table, status, tolerances
from experiments.suite import registry
from experiments.suite.comparison import VERDICT_RULES, Cell, compare
from experiments.suite.coverage import counts
from experiments.suite.experiment import Experiment
from experiments.suite.groups import Group, group_records
from experiments.suite.paper_values import Paper
from experiments.suite.records import Record, warn

TITLE = "Adaptive networks: reproduced results"
_STYLE = Path(__file__).with_name("style.css")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src "
_VERDICTS = ("reproduced", "differs", "measured", "reduced", "chosen", "not run")


def render(
    records: Sequence[Record],
    *,
    rendered: datetime.datetime,
    experiments: Sequence[Experiment] | None = None,
) -> str:
    """Renders the whole page.

    Args:
        records: All collected records, in any order.
        rendered: Time of rendering that the page states; it affects nothing else on the page.
        experiments: Experiments to report; None for all.

    Returns:
        One HTML document without external references.
    """
    records = sorted(records, key=lambda r: (*r.group, r.seed))
    chosen = list(registry.experiments().values()) if experiments is None else list(experiments)
    names = [name for name in registry.papers() if any(e.paper == name for e in chosen)]
    # Papers with records come first; otherwise the order is that of the registry.
    parts = sorted(
        (PaperPart(name, chosen, records) for name in names), key=lambda part: not part.records
    )
    # With a single paper, the tally of the head suffices.
    tallies = len(parts) > 1
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        # The browser enforces that the page runs no other script and loads nothing.
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY + script_policy()),
        element("title", TITLE),
        element("style", Markup(f"\n{_STYLE.read_text(encoding='utf-8')}{style_sheet()}\n")),
    )
    body = element(
        "body",
        element("a", "Skip to the results", href=f"#{parts[0].name}", class_="skip"),
        element("header", _head(records, parts, rendered)),
        _contents(parts),
        filter_form([(part.name, part.paper.title) for part in parts], SIGNS),
        element("main", *(part.section(tally=tallies) for part in parts), _unknown(records)),
        element(
            "footer",
            element(
                "p", f"adaptive-nets {importlib.metadata.version('adaptive-nets')}. Made by ",
                code("adaptive-nets report"), "; the file is self-contained.",
            ),
        ),
        script(),
    )  # fmt: skip
    return f"<!doctype html>\n{element('html', head, body, lang='en-GB')}\n"


class PaperPart:
    """Tables, figures and provenance of one paper.

    Args:
        name: Name of the paper's folder.
        experiments: Experiments to report.
        records: Records of all papers.
    """

    def __init__(self, name: str, experiments: Sequence[Experiment], records: Sequence[Record]):
        self.name = name
        self.paper: Paper = registry.load_paper(name)
        self.experiments: list[Experiment] = [e for e in experiments if e.paper == name]
        ids = {e.id for e in self.experiments}
        self.records = [r for r in records if r.experiment in ids]
        tables = compare(self.experiments, self.records).items()
        # Tables with records come first; otherwise the order is the paper's.
        self.tables: dict[str, list[Cell]] = {
            title.partition(": ")[2]: cells
            for title, cells in sorted(tables, key=lambda t: all(c.group is None for c in t[1]))
        }
        order = {e.id: i for i, e in enumerate(self.experiments)}
        # Stable sort: groups of one experiment stay in the order of the tables.
        self.groups: list[Group] = sorted(
            group_records(self.records), key=lambda g: order[g.records[0].experiment]
        )
        self.figures = [f for f in _figures(name, self.records) if _is_about(f, ids)]

    @property
    def cells(self) -> list[Cell]:
        """Cells of all tables."""
        return [cell for cells in self.tables.values() for cell in cells]

    def anchor(self, *parts: str) -> str:
        """Returns the HTML id of a part of the section."""
        words = re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")
        return f"{self.name}-{words}"

    def figure_sections(self) -> list[tuple[str, list[Figure | Missing]]]:
        """Groups the figures by heading; sections without a figure come last."""
        grouped = itertools.groupby(self.figures, key=lambda f: f.section)
        sections = [(title, list(figures)) for title, figures in grouped]
        return sorted(sections, key=lambda section: not _is_drawn(section[1]))

    def section(self, *, tally: bool) -> Markup:
        """Returns the paper's section of the page.

        Args:
            tally: Whether the section counts its own verdicts.
        """
        # Groups of cells are other objects than `self.groups`; the key matches them.
        by_key = {_key(g): self.anchor("origin", *_key(g)) for g in self.groups}
        anchors = {id(c.group): by_key[_key(c.group)] for c in self.cells if c.group is not None}
        rows = {e.row: e for e in self.experiments}
        parts = [
            element("h2", self.paper.title),
            element("p", self.paper.citation, class_="citation"),
            _tally(self.cells) if tally else None,
            element("h3", "Tables", id=self.anchor("tables")),
            element(
                "p",
                "The paper’s value, ours (mean ± standard deviation if there are several seeds), "
                "and the difference, ours minus the paper’s.",
            ),
        ]
        for title, cells in self.tables.items():
            table = comparison_table(title, cells, rows, anchors)
            parts.append(element("section", table, id=self.anchor(title), aria_label=title))
        parts.append(tolerances(self.paper.measures.values()))
        parts += [
            element("h3", "Figures", id=self.anchor("figures")),
            element(
                "p",
                "Lines are means over seeds; bands range from the lowest to the highest seed. The "
                "plotted numbers are below each figure.",
            ),
        ]
        absent = []
        for title, figures in self.figure_sections():
            heading = element("h4", title, id=self.anchor("figures", title))
            section = element("section", heading, *figure_section(figures))
            (parts if _is_drawn(figures) else absent).append(section)
        if absent:
            count = f"{len(absent)} section{'' if len(absent) == 1 else 's'}"
            parts.append(folded(f"Without a record: {count}", *absent, class_="absent"))
        parts.append(element("h3", "Provenance", id=self.anchor("provenance")))
        if self.groups:
            parts += [provenance(group, by_key[_key(group)]) for group in self.groups]
        parts.append(self._commands())
        return element("section", *parts, id=self.name, class_="of-paper")

    def _commands(self) -> Markup:
        """Returns the commands of experiments that have no record."""
        there = {r.experiment for r in self.records}
        missing = [e for e in self.experiments if e.id not in there]
        if not missing:
            return Markup("")
        lines = "\n".join(f"adaptive-nets run {e.id} --preset quick" for e in missing)
        data = ", ".join(sorted({e.data for e in missing}))
        return join(
            (
                element("p", "Not run yet:"),
                element("pre", lines, tabindex="0"),
                element(
                    "p", code("--preset paper"), " follows the paper’s own schedule and needs the "
                    f"complete data ({data}); ", code("adaptive-nets data list"),
                    " says where to put the data.",
                    class_="note",
                ),
            )
        )  # fmt: skip


def _key(group: Group) -> tuple[str, ...]:
    return tuple(part[:40] for part in group.records[0].group)


def _is_drawn(figures: Sequence[Figure | Missing]) -> bool:
    return any(isinstance(figure, Figure) for figure in figures)


def _figures(paper: str, records: Sequence[Record]) -> list[Figure | Missing]:
    """Returns the figures of a paper's own module ``figures``, or a note if it fails."""
    entry = registry.papers()[paper]
    try:
        module = entry.load("figures")
        return [] if module is None else module.figures(records)
    except Exception as error:
        reason = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        warn(f"figures of paper {paper!r} are left out: {reason}")
        return [Missing(f"The figures are left out: {reason}", ())]


def _is_about(figure: Figure | Missing, ids: Collection[str]) -> bool:
    """Returns whether a figure, or a note on a missing one, concerns the experiments of a page.

    A note concerns them if its commands run one of them.
    """
    if isinstance(figure, Figure) or not figure.commands:
        return True
    return any(word in ids for command in figure.commands for word in command.split())


def _head(
    records: Sequence[Record], papers: Sequence[PaperPart], rendered: datetime.datetime
) -> Markup:
    groups = len({r.group for r in records})
    plural = "" if len(records) == 1 else "s"
    about = (
        f"Rendered {rendered:%d %B %Y, %H:%M %Z} from {len(records)} record{plural} of "
        f"{groups} group{'' if groups == 1 else 's'} of runs."
        if records
        else f"Rendered {rendered:%d %B %Y, %H:%M %Z}. There is no record of a run yet."
    )
    return join(
        (
            element("h1", TITLE),
            element(
                "p",
                "Published results of papers on reducing the cost of convolutional networks, "
                "beside results and curves of our own runs. Our numbers are rendered from the "
                "records of runs, the papers’ from one file of values each; none is typed by "
                "hand.",
            ),
            element("p", about, class_="citation"),
            _tally([cell for part in papers for cell in part.cells]),
            items(join((status(verdict), " ", meaning)) for verdict, meaning in _meanings()),
        )
    )


def _meanings() -> list[tuple[str, str]]:
    """Splits `VERDICT_RULES` into verdicts and their meanings."""
    verdicts = SIGNS
    pattern = rf"({'|'.join(verdicts)}): (.*?)(?=(?: (?:{'|'.join(verdicts)}): )|$)"
    return [(m[1], m[2]) for m in re.finditer(pattern, VERDICT_RULES)]


def _tally(cells: Sequence[Cell]) -> Markup:
    found = counts(cells)
    total = sum(found[v] for v in _VERDICTS)
    chips = [status(v, f"{found[v]} {v}") for v in _VERDICTS if found[v] or v != "chosen"]
    return element("p", f"Of {total} numbers: ", join(chips, " "), class_="tally")


def _contents(papers: Sequence[PaperPart]) -> Markup:
    def link(text: str, anchor: str) -> Markup:
        return element("a", text, href=f"#{anchor}")

    entries = []
    for part in papers:
        tables = [link(title, part.anchor(title)) for title in part.tables]
        sections = [
            link(title, part.anchor("figures", title))
            for title, figures in part.figure_sections()
            if _is_drawn(figures)
        ]
        # Every paper has the same columns, so that they align over the whole list.
        columns = [
            element("li", link(name, part.anchor(name.lower())), items(links))
            for name, links in (("Tables", tables), ("Figures", sections), ("Provenance", ()))
        ]
        title = element("p", link(part.paper.title, part.name))
        entries.append(join((title, element("ul", *columns, class_="columns"))))
    return element("nav", element("h2", "Contents"), items(entries), aria_label="Contents")


def _unknown(records: Sequence[Record]) -> Markup:
    """Returns a note that names the experiments of records unknown to this version."""
    names = sorted({r.experiment for r in records} - set(registry.experiments()))
    if not names:
        return Markup("")
    return element(
        "p", f"Records of experiments that this version lacks are left out: {', '.join(names)}.",
        class_="note",
    )  # fmt: skip
