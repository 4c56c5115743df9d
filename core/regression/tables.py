"""A fit as text for others: CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from core.formats import csv_cell

if TYPE_CHECKING:
    from core.regression.result import FitResult

_COEFFICIENT = ("value", "standard_error", "t", "p", "low", "high", "standardised", "vif")
_ROW = ("observed", "predicted", "residual", "loo_predicted", "leverage", "studentised", "cooks")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "^": r"\textasciicircum{}",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "%": r"\%",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def coefficients_csv(result: FitResult) -> str:
    """One row a coefficient, the intercept first; what does not exist is empty."""
    rows = ([csv_cell(one.name), *(_cell(getattr(one, name)) for name in _COEFFICIENT)] for one in result.coefficients)
    return _csv(("name", *_COEFFICIENT), rows)


def rows_csv(result: FitResult) -> str:
    """One row a run that went in, on the scale of the fit; what does not exist is empty."""
    rows = (
        [csv_cell(row.label), csv_cell(str(row.key)), *(_cell(getattr(row, name)) for name in _ROW)]
        for row in result.rows
    )
    return _csv(("label", "key", *_ROW), rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)


def latex(result: FitResult) -> str:
    """A table by booktabs: coefficients, standard errors, t, p, intervals, VIF; below it n and how well it fits."""
    spec = result.spec
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        f"{latex_text(spec.response_text)} & Coefficient & Std. error & $t$ & $p$ & "
        rf"{100 * spec.confidence:g}\,\% interval & VIF \\",
        r"\midrule",
    ]
    for one in result.coefficients:
        cells = [
            "Intercept" if one.name == "const" else latex_text(one.name),
            _number(one.value),
            _number(one.standard_error),
            "--" if one.t is None else f"${one.t:.2f}$",
            _p(one.p),
            f"[{_number(one.low)}, {_number(one.high)}]",
            "--" if one.vif is None else f"${one.vif:.2f}$",
        ]
        lines.append(" & ".join(cells) + r" \\")
    errors = "ordinary" if spec.robust is None else spec.robust
    fitted = [
        f"$n = {result.n}$",
        f"$R^2 = {result.r2:.3f}$",
        f"adjusted $R^2 = {result.r2_adjusted:.3f}$",
        "" if result.loo_r2 is None else f"leave-one-out $R^2 = {result.loo_r2:.3f}$",
        "" if result.f is None else f"$F = {result.f:.2f}$",
        "" if result.aic is None else f"AIC $= {result.aic:.1f}$",
        "" if result.bic is None else f"BIC $= {result.bic:.1f}$",
        f"standard errors: {errors}",
    ]
    lines += [
        r"\midrule",
        rf"\multicolumn{{7}}{{l}}{{{', '.join(text for text in fitted if text)}}} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def latex_text(text: Any) -> str:
    """``text`` as LaTeX shows it: what LaTeX reads as its own is escaped, line breaks are spaces."""
    return "".join(_LATEX.get(character, character) for character in " ".join(str(text).split()))


def _number(value: float) -> str:
    mantissa, found, exponent = f"{value:#.4g}".rstrip(".").partition("e")
    return rf"${mantissa} \times 10^{{{int(exponent)}}}$" if found else f"${mantissa}$"


def _p(value: float | None) -> str:
    if value is None:
        return "--"
    return "$<0.001$" if value < 0.001 else f"${value:.3f}$"
