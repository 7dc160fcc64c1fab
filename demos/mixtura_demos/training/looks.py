"""Style and script of the tab's HTML parts: the report's own, light or dark as gradio's page is."""

from __future__ import annotations

from pathlib import Path

from mixtura.report.style import DARK, LIGHT, RULES, SCRIPT

HERE = Path(__file__).parent
REPORT_CSS = f"""
{LIGHT};color:var(--ink);font-size:15px;line-height:1.5;
{RULES}
code{{font-size:12.5px;overflow-wrap:anywhere}}
h3,h2{{font-weight:650}}
h3:first-child{{margin-top:4px}}
& > figure.chart{{max-width:760px}}
td.miss,span.miss{{color:var(--faint)}}
.dark & {{ {DARK} }}
"""
"""Nested in the component's own rule by gradio, so none of it reaches the rest of the page."""
REPORT_SCRIPT = f"if(!window.mixturaCharts){{window.mixturaCharts=true;{SCRIPT}}}"
FORM_CSS = (HERE / "form.css").read_text()
FORM_SCRIPT = (HERE / "form.js").read_text()
PROBLEMS_SCRIPT = (HERE / "problems.js").read_text()
