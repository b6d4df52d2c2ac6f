"""The style of the page about a run, light and dark."""

STYLE = """
:root{--ink:#1c1e21;--soft:#667;--line:#dde0e5;--paper:#fff;--card:#f6f7f9;--accent:#b4472d}
@media(prefers-color-scheme:dark){:root{--ink:#e6e7ea;--soft:#9aa0aa;--line:#363a41;--paper:#16181c;
--card:#1f2227;--accent:#f0885f}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}main{max-width:1120px;margin:0 auto;padding:32px 24px 80px}
h1{font-size:26px;margin:0 0 16px;line-height:1.2}h2{font-size:19px;margin:48px 0 4px}
p{color:var(--soft);margin:0 0 16px;max-width:76ch}.note{color:var(--accent)}
.tiles{display:flex;flex-wrap:wrap;gap:12px}.tiles div{background:var(--card);border-radius:8px;
padding:12px 18px;color:var(--soft);font-size:13px}.tiles b{display:block;font-size:24px;
color:var(--ink);line-height:1.2}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:6px 10px 6px 0;border-bottom:1px solid var(--line);
overflow-wrap:anywhere}th{font-size:12px;color:var(--soft);font-weight:600;vertical-align:bottom}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.maps td:first-child{
min-width:190px;overflow-wrap:normal}.maps td{font-size:13px;color:var(--soft)}.maps td b{
color:var(--ink);font-size:15px}.maps th{width:92px}img{display:block;border-radius:4px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:20px 28px}
figure{margin:0}figcaption{font-size:13px;color:var(--soft)}figcaption b{color:var(--ink)}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}
.grid{stroke:var(--line)}.mean{fill:none;stroke:var(--accent);stroke-width:1.8}
.wideband{fill:var(--accent);opacity:.14}.band{fill:var(--accent);opacity:.38}
.hit{fill:transparent}.hit:hover{fill:var(--ink);opacity:.09}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(470px,1fr));gap:14px}
.card{display:flex;gap:14px;background:var(--card);border-radius:8px;padding:12px;
overflow-wrap:anywhere}.card>img{align-self:flex-start}small{color:var(--soft)}
.row{display:flex;gap:6px;margin-top:8px}.bars{width:36%}.bar{background:var(--accent);height:10px;
border-radius:2px;min-width:1px}pre{font-size:12px;overflow-x:auto}summary{color:var(--soft);
cursor:pointer}@media(max-width:560px){.cards{grid-template-columns:1fr}.card{flex-wrap:wrap}}
"""
