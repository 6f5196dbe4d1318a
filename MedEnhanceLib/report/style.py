"""The look of the page, light and dark, on screens and on paper."""

#: Of drawings, which are dark on either kind of page.
INK, MUTED, PAPER = "#f2f4f7", "#9aa4b2", "#0b0d10"

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f5f7fa; --line: #dfe4ea; --ink: #1b2430; --muted: #5b6776;
  --accent: #0b66c3; --notice: #8a5300; --notice-paper: #fff4dc;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0f1318; --panel: #171d25; --line: #2a333f; --ink: #e8edf3; --muted: #9aa7b5;
    --accent: #6cb6ff; --notice: #ffd58a; --notice-paper: #33270f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main, footer { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding: 36px 0 8px; }
h1 { font-size: 2rem; line-height: 1.2; margin: .3em 0 .4em; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.2em 0 .7em; }
h3 { font-size: 1rem; margin: 0 0 .6em; font-weight: 600; }
p { margin: .5em 0; max-width: 75ch; }
a { color: var(--accent); }
.mark {
  color: var(--muted); font-weight: 600; display: flex; flex-wrap: wrap; gap: 12px;
  max-width: none;
}
.notice {
  color: var(--notice); background: var(--notice-paper); border-radius: 999px;
  padding: 1px 12px; font-size: .85rem; font-weight: 500;
}
.lead { font-size: 1.15rem; }
.warnings {
  margin: 1em 0; padding: 10px 16px 10px 32px; background: var(--notice-paper);
  color: var(--notice); border-radius: 8px;
}
.about { display: flex; flex-wrap: wrap; gap: 6px 32px; margin: 1.2em 0 0; }
.about dt { color: var(--muted); font-size: .8rem; }
.about dd { margin: 0; overflow-wrap: anywhere; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px;
  margin: 1.6em 0 0;
}
.facts div {
  background: var(--panel); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px;
}
.facts strong {
  display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums;
}
.facts span { color: var(--muted); font-size: .85rem; }
.scroll {
  overflow-x: auto; width: fit-content; max-width: 100%;
  border: 1px solid var(--line); border-radius: 10px;
}
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td {
  padding: 8px 18px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line);
}
tbody tr:last-child > * { border-bottom: 0; }
thead th { background: var(--panel); color: var(--muted); font-size: .85rem; font-weight: 600; }
th:first-child { text-align: left; }
tbody th { font-weight: 500; }
td.words, th.words { text-align: left; white-space: normal; }
.note { color: var(--muted); font-size: .88rem; }
figure { margin: 28px 0; }
ul.plain { margin: .5em 0; padding-left: 1.2em; max-width: 80ch; }
figure img {
  display: block; max-width: 100%; height: auto; border-radius: 10px; background: #0b0d10;
  border: 1px solid var(--line);
}
figcaption { color: var(--muted); font-size: .88rem; margin-top: 8px; max-width: 90ch; }
details { border: 1px solid var(--line); border-radius: 10px; padding: 8px 16px; margin: 0 0 10px; }
summary { cursor: pointer; font-weight: 500; }
pre { overflow-x: auto; font-size: .82rem; line-height: 1.45; }
footer { color: var(--muted); font-size: .85rem; padding-top: 28px; padding-bottom: 40px; }
@media print {
  details, figure, tr { break-inside: avoid; }
  .facts { grid-template-columns: repeat(4, 1fr); }
}
"""
