"""The style sheet of a decomposition's page: light and dark, from a phone's width on."""

STYLE = """
:root {
  color-scheme: light dark;
  --back: #fbfafc; --card: #ffffff; --ink: #1d1a26; --soft: #625d70; --line: #dedae6;
  --accent: #7a2f8f; --plus: #b5443c; --minus: #2f6f9f; --track: #ebe8f0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #15131a; --card: #1e1b25; --ink: #eeebf4; --soft: #aaa4b8; --line: #383344;
    --accent: #d59be6; --plus: #f0826f; --minus: #74b3e0; --track: #322d3d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 60rem; padding: 1.5rem 1.25rem 4rem; background: var(--back);
  color: var(--ink); font: 1rem/1.45 system-ui, sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .6rem; overflow-wrap: anywhere; }
h1 em { font-style: normal; color: var(--accent); }
header p { max-width: 44rem; margin: 0 0 .8rem; }
dl { margin: 0 0 1.4rem; font-size: .87rem; color: var(--soft); }
dl div { display: flex; gap: .6rem; }
dt { flex: 0 0 3.6rem; font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
ul { list-style: none; margin: 0; padding: .15rem 0 .3rem 1.1rem; }
ul { border-left: 2px solid var(--line); margin-left: .55rem; }
summary, .leaf, .rest { display: flex; align-items: center; gap: .8rem; padding: .4rem .5rem; }
summary { cursor: pointer; border-radius: .6rem; }
summary::-webkit-details-marker { display: none; }
summary::marker { content: ""; }
summary::before {
  content: ""; flex: none; width: .5rem; height: .5rem; margin: 0 .1rem;
  border: solid var(--soft); border-width: 0 2px 2px 0; transform: rotate(-45deg);
}
details[open] > summary::before { transform: rotate(45deg); }
summary:hover { background: var(--card); }
summary:focus-visible { outline: 3px solid var(--accent); outline-offset: 1px; }
.leaf, .rest { padding-left: 1.95rem; }
.map, .patch {
  flex: none; background-image: var(--photo); border-radius: .35rem; overflow: hidden;
}
.map {
  position: relative; width: 6rem; aspect-ratio: var(--shape); background-size: 100% 100%;
}
details[open] > summary > .map { width: 8rem; }
.root > summary > .map, .root[open] > summary > .map { width: 11rem; }
.map img { display: block; width: 100%; height: 100%; }
.ring { position: absolute; border: 1.5px solid #fff; box-shadow: 0 0 0 1px #0009; }
.patch { width: 3.6rem; max-height: 6rem; background-repeat: no-repeat; }
.text { flex: 1; min-width: 0; display: grid; gap: .1rem; max-width: 26rem; }
.layer { color: var(--soft); font-size: .82rem; overflow-wrap: anywhere; }
.amount { font-variant-numeric: tabular-nums; }
.amount small { color: var(--soft); margin-left: .35rem; font-size: .82rem; }
.bar { height: .38rem; border-radius: 1rem; background: var(--track); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--plus); border-radius: inherit; }
.bar.minus i { background: var(--minus); }
.rest b { font-weight: 500; color: var(--soft); }
.root > summary b { font-size: 1.15rem; }
@media (max-width: 34rem) {
  body { padding: 1rem .6rem 3rem; }
  ul { padding-left: .3rem; margin-left: .2rem; }
  summary, .leaf, .rest { gap: .5rem; padding: .35rem .2rem; }
  .leaf, .rest { padding-left: 1.2rem; }
  .map, details[open] > summary > .map { width: 4.4rem; }
  .patch { width: 2.7rem; }
  .root > summary > .map, .root[open] > summary > .map { width: 8rem; }
}
"""
