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
        "font.size": 12,
        "axes.titlesize": 13,
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
  --page: #f4f6f9; --card: #ffffff; --ink: #1a2029; --soft: #525c6b; --line: #d6dbe2; --link: #0b57ad;
  --ours: #0b63c5; --ours-back: #e8f1fd; --control: #8a3a0a; --control-back: #fdf0e6;
  --baseline: #475160; --baseline-back: #eceff3; --code-back: #f4f6f9;
  --good: #146c33; --good-back: #e7f6ec; --bad: #a3241c; --bad-back: #fdeceb; --level: #6b4e00; --level-back: #fbf3d9;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #11151b; --card: #1a1f27; --ink: #e6eaf0; --soft: #a9b3c1; --line: #38424f; --link: #86c0ff;
    --ours: #8cc4ff; --ours-back: #162c47; --control: #ffb483; --control-back: #43291a;
    --baseline: #c3ccd8; --baseline-back: #2c343f; --code-back: #12161c;
    --good: #7fdca4; --good-back: #153324; --bad: #ffa39c; --bad-back: #45201f; --level: #f0d07a; --level-back: #3b3113;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
header, body > nav, main, footer { max-width: 88rem; margin: 0 auto; padding: 0 clamp(.75rem, 3vw, 2rem); }
header { padding-top: 1.75rem; }
main:focus { outline: none; }
h1 { font-size: clamp(1.5rem, 4vw, 2rem); line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.4rem; line-height: 1.3; margin: 0 0 .25rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
p { max-width: 100ch; margin: 0 0 .75rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 4px; }
.skip { position: absolute; left: 1rem; top: -4rem; background: var(--card); padding: .5rem 1rem; z-index: 2; }
.skip:focus { top: .5rem; }
.hidden {
  position: absolute; width: 1px; height: 1px; margin: -1px; padding: 0; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; border: 0;
}
.setting, .facts, .soft, .unit, footer { color: var(--soft); font-size: .875rem; }
.unit { font-weight: 400; white-space: nowrap; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem; margin: .75rem 0; padding: 0; }
body > nav { background: var(--page); }
nav a {
  display: block; padding: .2rem .8rem; border: 1px solid var(--line); border-radius: 2rem; background: var(--card);
  text-decoration: none; font-size: .95rem;
}
nav a:hover { border-color: var(--link); text-decoration: underline; }
@media (min-width: 64rem) and (min-height: 40rem) {
  html { scroll-padding-top: 4rem; }
  body > nav { position: sticky; top: 0; z-index: 1; }
  body > nav ul { margin: 0; padding: .55rem 0; }
}
.kinds {
  display: flex; flex-wrap: wrap; gap: .3rem .7rem; margin: .5rem 0 0; font-size: .875rem; color: var(--soft);
}
.kinds dd { margin: 0 1rem 0 0; }
main > section {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; margin: 0 0 1.25rem;
  padding: clamp(.9rem, 1.2vw, 1.1rem) clamp(.9rem, 2vw, 1.5rem); scroll-margin-top: 3.5rem;
}
.problem { color: var(--soft); }
.scroll { position: relative; overflow-x: auto; margin: 0; }  /* relative: hidden words must not widen the page */
table { border-collapse: collapse; width: 100%; min-width: 33rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: baseline; }
thead th { font-size: .85rem; color: var(--soft); vertical-align: bottom; line-height: 1.25; }
tbody th { font-weight: 500; }
.number { text-align: right; }
td.number { white-space: nowrap; }
tr.ours th, tr.ours td { background: var(--ours-back); }
tr.ours th { font-weight: 700; }
.badge {
  display: inline-block; padding: 0 .55rem; border-radius: 1rem; font-size: .8rem; line-height: 1.5;
  color: var(--baseline); background: var(--baseline-back); font-weight: 400; white-space: nowrap;
}
.badge.ours { color: var(--card); background: var(--ours); font-weight: 700; }
.badge.control { color: var(--control); background: var(--control-back); }
.badge.better { color: var(--good); background: var(--good-back); font-weight: 700; }
.badge.level { color: var(--level); background: var(--level-back); font-weight: 700; }
.badge.worse { color: var(--bad); background: var(--bad-back); font-weight: 700; }
.overview table { min-width: 58rem; }
.overview .soft { display: block; }
.overview .number { font-weight: 600; font-size: 1.1rem; text-align: left; }
.overview .number.ours { color: var(--ours); }
.usage { display: grid; gap: .75rem; margin-top: .5rem; grid-template-columns: minmax(0, 1fr); }
.finding { display: grid; gap: .75rem 1.75rem; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 64rem) {
  .finding { grid-template-columns: minmax(0, 1fr) minmax(0, 1.25fr); align-items: start; }
  .seen { grid-column: 1; grid-row: 1; }
  .read { grid-column: 2; grid-row: 1; }
  .finding.bare { grid-template-columns: minmax(0, 1fr); }
  .bare .seen, .bare .read { grid-column: 1; grid-row: auto; }
  .sounds { grid-column: 1 / -1; }
  .usage { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr) minmax(0, 1.06fr); }
}
.read table { font-size: .8125rem; }
.read tbody th { min-width: 9.5rem; width: 45%; line-height: 1.35; }
.read thead th { font-size: .8125rem; }
.read th, .read td { padding: .3rem .4rem; }
.read .plot { width: 5rem; padding-right: 0; vertical-align: middle; }
.plot svg { display: block; overflow: visible; }
.plot .axis { stroke: var(--line); stroke-width: 1; }
.plot .spread { stroke: currentColor; stroke-width: 2.5; }
.plot circle { fill: var(--baseline); }
tr.control .plot { color: var(--control); }
tr.control .plot circle { fill: var(--control); }
tr.ours .plot { color: var(--ours); }
tr.ours .plot circle { fill: var(--ours); }
.gained, .not-gained, .verdict {
  border-left: 4px solid var(--good); background: var(--good-back); padding: .45rem .8rem; margin: 0 0 .5rem;
  border-radius: 0 6px 6px 0; max-width: none; font-size: .95rem; line-height: 1.4;
}
.verdict { border-color: var(--ours); background: none; margin: 1rem 0; }
.not-gained { border-color: var(--level); background: var(--level-back); }
.gained strong { color: var(--good); }
.not-gained strong { color: var(--level); }
figure { margin: 0; }
main > section > figure { margin: 1.25rem 0; }
figure img { display: block; width: 100%; max-width: 50rem; height: auto; }
figure audio { display: block; width: 100%; height: 2.25rem; }
figcaption { color: var(--soft); font-size: .875rem; margin: .3rem 0; max-width: 70ch; }
.sounds { display: grid; gap: .5rem 1rem; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); }
.sounds figure { display: flex; flex-direction: column; justify-content: flex-end; }
details { padding-top: .2rem; font-size: .95rem; }
details figure { margin-top: 1rem; }
summary { cursor: pointer; color: var(--link); width: fit-content; padding: .15rem 0; }
details[open] summary { margin-bottom: .5rem; }
.code { display: flex; flex-direction: column; min-width: 0; }
.bar { display: flex; justify-content: space-between; align-items: center; min-height: 1.75rem; gap: 1rem; }
.bar h3 { margin: 0; font-size: .95rem; }
.copy {
  font: inherit; font-size: .85rem; padding: .05rem .7rem; border: 1px solid var(--line); border-radius: 1rem;
  min-height: 1.6rem; background: var(--card); color: var(--link); cursor: pointer;
}
.copy:hover { border-color: var(--link); }
pre {
  background: var(--code-back); border: 1px solid var(--line); border-radius: 8px; padding: .5rem .5rem; margin: 0;
  overflow-x: auto; flex: 1;
}
code { font: .75rem/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
p code { font-size: .875em; }
footer { padding-bottom: 3rem; }
footer code { white-space: nowrap; }
@media (max-width: 40rem) {
  th, td { padding: .4rem .4rem; font-size: .9rem; }
  .method table, .overview table { min-width: 0; }
  .read .plot { display: none; }
  .read th, .read td { padding: .35rem .2rem; font-size: .78rem; overflow-wrap: break-word; }
  .read tbody th { min-width: 5.5rem; }
  .read td.number, .unit { white-space: normal; }
  .overview :is(table, caption, tbody, tr, td, tbody th) { display: block; }
  .kinds { display: grid; grid-template-columns: auto 1fr; }
  .overview thead { display: none; }
  .overview tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  .overview td, .overview tbody th { border: 0; padding: .1rem 0; }
  .overview td::before { content: attr(data-head) ": "; color: var(--soft); font-size: .875rem; }
  .overview .soft { display: inline; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
}
@media print {
  .skip, nav, .copy, audio { display: none; }
  body { font-size: 10pt; }
  main > section { break-inside: avoid; border: 0; padding: 0; }
  .method { break-before: page; }
  .finding { grid-template-columns: minmax(0, 1fr); }
  .seen img { max-width: 34rem; }
  .scroll, pre { overflow: visible; }
  pre { white-space: pre-wrap; }
  table, .overview table { min-width: 0; }
  details::details-content { content-visibility: visible; }
}
"""
