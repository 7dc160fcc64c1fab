"""How the report looks (CSS, light and dark) and the little it does under the pointer (plain JavaScript).

`CSS` and `SCRIPT` are for a page of its own. `LIGHT`, `DARK` (declarations) and `RULES` serve pages that hold parts of a
report; the script listens on the document, so it also serves charts that come later.
"""

from __future__ import annotations

LIGHT = """
--bg:#f5f6f8;--card:#fff;--line:#e3e6eb;--grid:#eceef2;--ink:#1b2230;--soft:#5d6879;--faint:#98a2b3;
--accent:#2f6fde;--good:#0d8a6c;--note:#fff7e0;--noteline:#e6c565;--plan:#1b2230;
--c0:#2f6fde;--c1:#dd7412;--c2:#0d9488;--c3:#c2418c;--c4:#7a5ad6;--c5:#a88400;--c6:#cf443f;--c7:#5b7083
"""

DARK = """
--bg:#0f131a;--card:#171d27;--line:#283141;--grid:#222b38;--ink:#e6eaf1;--soft:#a1adbf;--faint:#6d7a8d;
--accent:#6ea8ff;--good:#3ccaa4;--note:#2b2614;--noteline:#7d6a26;--plan:#fff;
--c0:#6ea8ff;--c1:#ffa04d;--c2:#35c9b8;--c3:#f27fc0;--c4:#b09aff;--c5:#dfbd3f;--c6:#ff7d76;--c7:#9fb3c6
"""

RULES = """
*{box-sizing:border-box}
section{scroll-margin-top:48px}
h2{font-size:20px;margin:36px 0 12px;letter-spacing:-.01em}h3{font-size:15px;margin:22px 0 8px}
h2 small,h3 small{font-weight:400;color:var(--soft);font-size:13px;margin-left:8px}
.card,.tile{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(180px,1fr));gap:12px;margin-top:20px}
.tile{padding:12px 16px;min-width:0}
.tile.wide{grid-column:span 2}
@media(max-width:520px){.tile.wide{grid-column:span 1}}
.tile label{display:block;color:var(--soft);font-size:13px}
.tile strong{display:block;font-size:24px;line-height:1.25;font-weight:650;letter-spacing:-.02em;overflow-wrap:anywhere}
.tile span.sub{color:var(--soft);font-size:13px;display:block}
.tile .track{width:100%;margin:7px 0 5px}
.notes{background:var(--note);border:1px solid var(--noteline);border-radius:10px;padding:10px 16px;margin:16px 0 0;
font-size:14px}
.notes ul{margin:0;padding-left:18px}
.grid2>.scroll{align-self:start}
.grid2{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:14px}
figure.chart{margin:0;padding:12px 14px 10px;position:relative;min-width:0}
figcaption{font-size:14px;font-weight:600;margin-bottom:2px}figcaption small{font-weight:400;color:var(--soft);margin-left:6px}
svg{display:block;width:100%;height:auto;overflow:visible}
svg svg{overflow:hidden}
.grid{stroke:var(--grid);fill:none}.base{stroke:var(--faint);fill:none}.tick{fill:var(--soft);font-size:11px;
font-variant-numeric:tabular-nums}
.axis{fill:var(--soft);font-size:11px}
.band{fill:var(--faint);font-size:10.5px}.stage{stroke:var(--faint);stroke-dasharray:2 3;fill:none}
.cross{stroke:var(--faint);fill:none;pointer-events:none}
.ink{--k:var(--ink)}.c0{--k:var(--c0)}.c1{--k:var(--c1)}.c2{--k:var(--c2)}.c3{--k:var(--c3)}.c4{--k:var(--c4)}.c5{--k:var(--c5)}
.c6{--k:var(--c6)}.c7{--k:var(--c7)}
.line{stroke:var(--k);stroke-width:1.9;fill:none;stroke-linejoin:round;stroke-linecap:round}
.ink .line{stroke-width:2.2}.dash .line{stroke-dasharray:6 4}
.raw{stroke:var(--k);stroke-width:1;opacity:.2;fill:none}.whisker{stroke:var(--k);stroke-width:1.6;opacity:.55;fill:none}
circle{fill:var(--k);stroke:var(--card);stroke-width:1.2}.area{fill:var(--k);opacity:.72}
.dash .area{opacity:.4}.planned{stroke:var(--plan);stroke-width:1.4;stroke-dasharray:4 3;fill:none;opacity:.8}
g.off{display:none}
.legend{display:flex;flex-wrap:wrap;gap:2px 12px;font-size:12.5px;margin-top:4px}
.legend button{all:unset;cursor:pointer;color:var(--soft);display:inline-flex;align-items:center;gap:5px}
.legend button:focus-visible{outline:2px solid var(--accent);border-radius:3px}
.legend button.off{opacity:.4;text-decoration:line-through}.legend i{width:12px;height:3px;border-radius:2px;
background:var(--k)}
.legend .dash i{background:repeating-linear-gradient(90deg,var(--k) 0 4px,transparent 4px 6px)}
.tip{position:absolute;pointer-events:none;background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:6px 10px;
font-size:12.5px;box-shadow:0 4px 16px #0003;z-index:3;display:none;white-space:nowrap;font-variant-numeric:tabular-nums}
.tip b{display:block;color:var(--soft);font-weight:500}.tip i{display:inline-block;width:9px;height:9px;border-radius:2px;
background:var(--k);
margin-right:6px}.tip div{display:flex;align-items:center}.tip em{margin-left:auto;padding-left:14px;font-style:normal;
font-weight:600}
.scroll{overflow-x:auto;padding:2px 0}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:7px 14px;border-bottom:1px solid var(--line);vertical-align:middle}
tr:last-child>td,tr:last-child>th{border-bottom:0}
tbody th,thead th:first-child{position:sticky;left:0;background:var(--card);z-index:1}
tbody th{min-width:124px}
td.g,th.g{border-left:1px solid var(--line)}
thead th{color:var(--soft);font-weight:500;font-size:13px;white-space:nowrap}
td.n,th.n{text-align:right}tbody th{font-weight:500}td.miss{color:var(--faint)}tr.sum>*{font-weight:600}
.differs td,.differs th{white-space:nowrap;padding:7px 9px}.differs .track{min-width:56px}
.rate{display:flex;align-items:center;gap:8px;flex-wrap:wrap;min-width:150px}.rate b{min-width:44px;font-weight:600}
.rate small{flex-basis:100%;color:var(--soft);font-size:12px;margin-top:-5px;white-space:nowrap;font-weight:400}
.track{position:relative;display:inline-block;flex:1;min-width:80px;height:8px;border-radius:4px;background:var(--grid)}
.track .iv{position:absolute;top:0;bottom:0;border-radius:4px;background:var(--accent);opacity:.32}
.track .dot{position:absolute;top:-2px;width:4px;height:12px;margin-left:-2px;border-radius:2px;background:var(--accent)}
.base0 .iv,.base0 .dot{background:var(--faint)}
.strip{display:flex;flex-wrap:wrap;gap:14px;padding:2px 0 10px}
.strip figure{margin:0}.strip figcaption{font-weight:400;color:var(--soft);font-size:13px;margin-top:4px}
.strip img,.strip video{display:block;max-width:min(580px,88vw);max-height:380px;border-radius:8px;border:1px solid var(--line);
cursor:zoom-in}
.strip.many img,.strip.many video{max-width:min(380px,88vw)}
.strip img.small{image-rendering:pixelated;min-width:160px}
img.big{position:fixed!important;inset:0;margin:auto;max-width:96vw!important;max-height:96vh!important;width:auto;
height:auto;z-index:20;
box-shadow:0 0 0 100vmax #000c;cursor:zoom-out}
details.card{padding:10px 16px;margin-top:10px}summary{cursor:pointer;
color:var(--soft)}details[open]>summary{margin-bottom:10px}
pre{margin:0;overflow:auto;max-height:70vh;font:12.5px/1.5 ui-monospace,"SF Mono",Menlo,"DejaVu Sans Mono",monospace}
.empty{color:var(--soft);padding:14px 16px}
footer{margin-top:48px;color:var(--faint);font-size:13px}
@media print{nav{position:static}.card,.tile{break-inside:avoid}}
"""

CSS = f"""
:root{{color-scheme:light dark;{LIGHT}}}
@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}
"""
CSS += """
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1240px;margin:0 auto;padding:28px 24px 64px}
header h1{font-size:30px;line-height:1.2;margin:0 0 4px;letter-spacing:-.02em;overflow-wrap:anywhere}
header p{margin:0;color:var(--soft)}
nav{position:sticky;top:0;z-index:5;background:var(--bg);border-bottom:1px solid var(--line);margin:16px -24px 0;
padding:8px 24px;
display:flex;gap:4px 18px;flex-wrap:wrap;font-size:14px}
nav a{color:var(--soft);text-decoration:none}nav a:hover{color:var(--accent)}
"""
CSS += RULES

SCRIPT = r"""
const text=(v,p)=>p?(v*100).toFixed(1)+' %':v===0?'0':(Math.abs(v)<1e-3||Math.abs(v)>=1e7)?v.toExponential(2):
 Math.abs(v)>=1000?v.toLocaleString('en',{maximumFractionDigits:1}):String(+v.toPrecision(4));
function near(xs,x){let a=0,b=xs.length-1;while(a<b){const m=(a+b)>>1;xs[m]<x?a=m+1:b=m}
 return a>0&&x-xs[a-1]<xs[a]-x?a-1:a}
let shown=null;
function hide(){if(shown){shown.querySelector('.tip')?.remove();shown.querySelector('.cross')?.setAttribute('d','');shown=null}}
function values(svg,h,best){
 const [x0,x1]=h.x,reach=(x1-x0)/40,rows=[];
 h.series.forEach((s,k)=>{if(!s[2].length||svg.querySelector('g[data-k="'+k+'"]').classList.contains('off'))return;
  const i=near(s[2],best);if(Math.abs(s[2][i]-best)>reach)return;
  const row=document.createElement('div'),dot=document.createElement('i'),value=document.createElement('em');row.className=s[1];
  value.textContent=text(s[3][i],h.percent);row.append(dot,s[0],value);rows.push(row)});
 return rows}
document.addEventListener('pointermove',e=>{
 const svg=e.target.closest?.('svg[data-hover]');
 if(!svg)return hide();
 const h=JSON.parse(svg.dataset.hover),[l,r,t,b]=h.box,[x0,x1]=h.x,figure=svg.closest('figure');
 const box=svg.getBoundingClientRect(),scale=svg.viewBox.baseVal.width/box.width,px=(e.clientX-box.left)*scale;
 if(px<l-4||px>r+4)return hide();
 const want=x0+(px-l)/(r-l)*(x1-x0);
 let best=null;
 h.series.forEach((s,k)=>{if(!s[2].length||svg.querySelector('g[data-k="'+k+'"]').classList.contains('off'))return;
  const x=s[2][near(s[2],want)];if(best===null||Math.abs(x-want)<Math.abs(best-want))best=x});
 if(best===null)return hide();
 if(shown!==figure)hide();
 shown=figure;
 let tip=figure.querySelector('.tip');
 if(!tip){tip=document.createElement('div');tip.className='tip';figure.append(tip)}
 const head=document.createElement('b');head.textContent='step '+best.toLocaleString('en');
 tip.replaceChildren(head,...values(svg,h,best));
 const at=l+(best-x0)/(x1-x0)*(r-l);svg.querySelector('.cross').setAttribute('d','M'+at+','+t+'V'+b);
 tip.style.display='block';
 const f=figure.getBoundingClientRect(),left=box.left-f.left+at/scale;
 tip.style.left=(left+tip.offsetWidth+18>f.width?left-tip.offsetWidth-12:left+12)+'px';
 tip.style.top=(e.clientY-f.top+14)+'px'});
addEventListener('click',e=>{
 const button=e.target.closest?.('.legend button');
 if(button){button.classList.toggle('off');button.setAttribute('aria-pressed',!button.classList.contains('off'));
  button.closest('figure').querySelectorAll('svg g[data-k="'+button.dataset.k+'"]').forEach(g=>g.classList.toggle('off'))}
 const open=document.querySelector('img.big');
 if(open)open.classList.remove('big');else if(e.target.matches?.('.strip img'))e.target.classList.add('big')});
addEventListener('keydown',e=>{if(e.key==='Escape')document.querySelector('img.big')?.classList.remove('big')});
"""
