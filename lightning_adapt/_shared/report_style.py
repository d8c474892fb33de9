"""Colours and layout of the demo's page, for light and dark screens; figures use the same colours."""

from __future__ import annotations

from typing import Any

# One colour per line of a plot, told apart also by people with the common colour-vision deficiencies; the plots add
# markers and line styles, so that none rests on colour alone.
_LIGHT_LINES = ["#0b63c5", "#c2410c", "#15803d", "#7e3fb8", "#5b6472"]
_DARK_LINES = ["#6cb2ff", "#ff9d5c", "#63d297", "#c9a5f7", "#a9b3c1"]


def _matplotlib_settings(page: str, ink: str, faint: str, lines: list[str]) -> dict[str, Any]:
    ink_keys = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor")
    faint_keys = ("axes.edgecolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), page),
        **dict.fromkeys(ink_keys, ink),
        **dict.fromkeys(faint_keys, faint),
        "grid.color": faint,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "axes.prop_cycle": f"cycler('color', {lines!r})",  # rcParams read the text of a matplotlibrc file
        "font.size": 11,
        "axes.titlesize": 12,
        "svg.fonttype": "path",  # the letters travel with the file: no font is needed, none is fetched
        "svg.hashsalt": "lightning_adapt",  # the same figure gives the same file
    }


SCHEMES: dict[str, Any] = {
    "light": _matplotlib_settings("#ffffff", "#1a2029", "#8a94a3", _LIGHT_LINES),
    "dark": _matplotlib_settings("#1a1f27", "#e6eaf0", "#7b8696", _DARK_LINES),
}

CSS = """\
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --ink: #1a2029; --soft: #525c6b; --line: #d6dbe2; --link: #0b57ad;
  --ours: #0b63c5; --ours-back: #e8f1fd; --control: #8a3a0a; --control-back: #fdf0e6;
  --baseline: #475160; --baseline-back: #eceff3; --code-back: #f1f3f6; --verdict: #15803d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11151b; --card: #1a1f27; --ink: #e6eaf0; --soft: #a9b3c1; --line: #333c48; --link: #86c0ff;
    --ours: #8cc4ff; --ours-back: #15304f; --control: #ffb483; --control-back: #43291a;
    --baseline: #c3ccd8; --baseline-back: #2c343f; --code-back: #12161c; --verdict: #63d297;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 0 clamp(1rem, 4vw, 2rem); }
header { padding-top: 2.5rem; }
main:focus { outline: none; }
h1 { font-size: clamp(1.7rem, 5vw, 2.3rem); line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.45rem; line-height: 1.3; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
p { max-width: 70ch; margin: 0 0 1rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 4px; }
.skip { position: absolute; left: 1rem; top: -4rem; background: var(--card); padding: .5rem 1rem; z-index: 1; }
.skip:focus { top: .5rem; }
.setting, .facts, footer { color: var(--soft); font-size: .875rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .5rem; margin: 1.25rem 0; padding: 0; }
nav a {
  display: block; padding: .35rem .9rem; border: 1px solid var(--line); border-radius: 2rem; background: var(--card);
  text-decoration: none;
}
nav a:hover { border-color: var(--link); text-decoration: underline; }
.kinds {
  display: grid; grid-template-columns: auto 1fr; gap: .3rem .8rem; margin: 0 0 1.5rem; font-size: .9rem;
  color: var(--soft);
}
.kinds dd { margin: 0; }
main > section {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; margin: 0 0 1.5rem;
  padding: clamp(1rem, 4vw, 2rem);
}
h2 { scroll-margin-top: 1.5rem; }
.problem { font-size: 1.1rem; }
.scroll { overflow-x: auto; margin: 0; }
table { border-collapse: collapse; width: 100%; min-width: 33rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { text-align: left; padding: .55rem .75rem; border-bottom: 1px solid var(--line); vertical-align: baseline; }
thead th { font-size: .85rem; color: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 500; }
.number { text-align: right; }
td.number { white-space: nowrap; }
tr.ours th, tr.ours td { background: var(--ours-back); }
tr.ours th { font-weight: 700; }
.badge {
  display: inline-block; padding: 0 .55rem; border-radius: 1rem; font-size: .8rem; line-height: 1.6;
  color: var(--baseline); background: var(--baseline-back); font-weight: 400;
}
.badge.ours { color: var(--card); background: var(--ours); font-weight: 700; }
.badge.control { color: var(--control); background: var(--control-back); }
.verdict { border-left: 4px solid var(--verdict); padding: .25rem 0 .25rem 1rem; margin: 1.5rem 0; }
figure { margin: 1.75rem 0; }
figure img { display: block; width: 100%; min-width: 26rem; max-width: 50rem; height: auto; }
figure audio { display: block; width: 100%; max-width: 30rem; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .4rem; max-width: 70ch; }
pre {
  background: var(--code-back); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; margin: 0;
  overflow-x: auto;
}
code { font: .875rem/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
footer { padding-bottom: 3rem; }
@media (max-width: 40rem) {
  th, td { padding: .5rem .45rem; font-size: .9rem; }
  table { min-width: 29rem; }
}
@media print { .skip, nav { display: none; } main > section { break-inside: avoid; border: 0; } }
"""
