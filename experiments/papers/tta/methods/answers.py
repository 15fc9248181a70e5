"""Sentences that answer the paper's claims about methods, with numbers from records."""

from __future__ import annotations

from collections.abc import Sequence

from adaptive_nets.ensembling import deep_ensemble_equivalent
from experiments.papers.tta.methods.table import (
    AUGMENTED,
    NAMES,
    ORDER,
    Comparison,
    comparisons,
    paper_scores,
    rank_correlation,
)
from experiments.shared.ensembling.scores import CLL
from experiments.suite.records import Record
from experiments.suite.registry import load_paper

_NOT_RUN = "Not run: there is no record of a deep ensemble.\n"


def answers(records: Sequence[Record]) -> str:
    """Says what the records of the largest preset show about both claims."""
    found = comparisons(records)
    if not found or len(found[0].methods) < 3:
        return _NOT_RUN
    comparison = found[0]
    lines = [_single_network(comparison), _paper_single_network(), _ranking(comparison)]
    return "".join(f"- {line}\n" for line in lines if line)


def _listed(names: Sequence[str]) -> str:
    words = [NAMES[name] for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _single_network(comparison: Comparison) -> str:
    """Compares the single network with augmentation to every method without it."""
    single, ensemble = comparison.methods.get("single"), comparison.methods["de"]
    if single is None:
        return ""
    count, cll = single.counts[-1], single.last(CLL, AUGMENTED)
    own = comparison.steps("single")
    costly = [n for n in comparison.methods if n != "single" and comparison.steps(n) > own]
    matched = [n for n in costly if cll >= comparison.methods[n].last(CLL)]
    ahead = [n for n in costly if n not in matched]
    size = deep_ensemble_equivalent([cll], ensemble.curve("reference/mean"))[0]
    limit = ensemble.counts[-1]
    equivalent = f"at least {limit}" if size >= limit else f"{size:.1f}"
    text = (
        f"**A single network with augmentation beside methods that cost more** ({comparison.runs}; "
        f"{comparison.status}). With {count} views its CLL is {cll:.4f}, without views "
        f"{single.last(CLL):.4f}. It reaches {len(matched)} of {len(costly)} methods that train "
        "longer and predict the images as they are"
    )
    if matched:
        text += f" ({_listed(matched)})"
    if ahead:
        text += f"; {_listed(ahead)} {'is' if len(ahead) == 1 else 'are'} better"
    text += f". It equals a deep ensemble without augmentation of {equivalent} "
    text += "member." if equivalent == "1.0" else "members."
    gains = [n for n, m in comparison.methods.items() if m.last(CLL, AUGMENTED) > m.last(CLL)]
    losses = [n for n in comparison.methods if n not in gains]
    text += f" Augmentation improves the CLL of {len(gains)} of {len(comparison.methods)} methods"
    return text + (f", not of {_listed(losses)}." if losses else ".")


def _paper_single_network() -> str:
    """Says the same of the paper's ResNet50 on ImageNet."""
    rows = load_paper("tta").rows
    measure = "error.50"
    with_views = rows.get("imagenet.resnet50-single-tta")
    error = with_views.number(measure) if with_views else None
    others = {
        name: value
        for name in ORDER
        if name != "single" and (row := rows.get(f"imagenet.resnet50-{name}")) is not None
        and (value := row.number(measure)) is not None
    }  # fmt: skip
    if error is None or not others:
        return ""
    matched = [name for name, value in others.items() if error <= value]
    ahead = [name for name in others if name not in matched]
    return (
        f"**The paper's ResNet50 on ImageNet.** A single network with 50 views has {error:.2f} % "
        f"error; it reaches {len(matched)} of {len(others)} methods of 50 samples without views"
        + (f" ({_listed(matched)})" if matched else "")
        + (
            f"; {_listed(ahead)} {'has' if len(ahead) == 1 else 'have'} less "
            f"({', '.join(f'{others[name]:.2f} %' for name in ahead)})."
            if ahead
            else "."
        )
    )


def _ranking(comparison: Comparison) -> str:
    """Says whether methods have another order by LL than by CLL."""
    parts = []
    for prefix, words in (("", "the images as they are"), (AUGMENTED, "augmentation")):
        methods = comparison.methods
        lls = {name: method.last("ll", prefix) for name, method in methods.items()}
        clls = {name: method.last(CLL, prefix) for name, method in methods.items()}
        found = rank_correlation(list(lls.values()), list(clls.values()))
        if found is None:
            continue
        by_ll, by_cll = (sorted(v, key=lambda n: -v[n]) for v in (lls, clls))
        moved = sum(a != b for a, b in zip(by_ll, by_cll, strict=True))
        parts.append(
            f"with {words} the order by LL "
            + (f"differs from that by CLL at {moved} of {len(lls)} places" if moved else
               "is that by CLL")
            + f" (rank correlation {found:.2f})"
        )  # fmt: skip
    if not parts:
        return ""
    text = f"**Order by LL and by CLL** ({comparison.status}). "
    text += "; ".join(parts)[:1].upper() + "; ".join(parts)[1:] + "."
    paper = [
        value
        for lls, clls, _ in paper_scores().values()
        if (value := rank_correlation(lls, clls)) is not None
    ]
    if paper:
        text += (
            f" The paper's {len(paper)} networks on CIFAR-100 have rank correlations of "
            f"{min(paper):.2f} to {max(paper):.2f}."
        )
    return text
