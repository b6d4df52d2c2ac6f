"""Tables of an evaluation as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from naflow_fx.evaluation.metrics import METRICS
from naflow_fx.evaluation.result import Evaluation
from naflow_fx.evaluation.sanity import TITLE


def markdown(rows: Sequence[Sequence[str]], right: bool = True) -> str:
    """Rows of text, the first one the head, as a table; columns but the first to the right."""
    head, *body = rows
    rule = ["---", *(["---:" if right else "---"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *body)) + "\n"


def page(result: Evaluation, checks: Sequence[Sequence[str]] = ()) -> str:
    """All tables, and one of sanity checks, `sanity.rows`, if there is one."""
    parts = [f"# {result.dataset}: {len(result.images)} images\n", means(result, result.metrics)]
    parts += [
        f"\n## {metric}, by fifths of the depth\n\n{fifths(result, metric)}"
        for metric in result.metrics
    ]
    if checks:
        parts.append(f"\n## {TITLE}\n\n{markdown(checks)}")
    return "\n".join(parts)


def means(result: Evaluation, metrics: Sequence[str]) -> str:
    """Each method's means with their intervals; the best of a column is bold."""
    rows = result.rows(metrics)
    for column, metric in enumerate(metrics, start=1):
        sign = {"higher": 1, "lower": -1}.get(METRICS[metric].better)
        having = [i for i, name in enumerate(result.methods, 1) if metric in result.scores[name]]
        if sign and having:
            best = max(having, key=lambda i: sign * result.mean(rows[i][0], metric).mean)  # noqa: B023
            rows[best][column] = f"**{rows[best][column]}**"
    return markdown(rows)


def fifths(result: Evaluation, metric: str) -> str:
    """Each method's mean in each fifth of the depth; the best of a column is bold."""
    rows = result.fifths(metric)
    if METRICS[metric].better:
        choose = max if METRICS[metric].better == "higher" else min
        for column in range(1, len(rows[0])):
            filled = [row for row in rows[1:] if row[column]]
            best = choose((row[column] for row in filled), key=float, default="")
            for row in filled:
                if row[column] == best:
                    row[column] = f"**{best}**"
    return markdown(rows)
