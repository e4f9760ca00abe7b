// How a report looks: one column to read, two of charts where there is room, light and dark, and on paper.
#pragma once

#include <sotto/config.hpp>

namespace sotto::study::detail::inline SOTTO_ABI {

// Series colours are told apart with deficient colour vision too (blue, orange, green, violet ... of differing
// lightness), and reach 3:1 against their background.
inline constexpr char page_style[] = R"css(
:root{color-scheme:light dark;--paper:#fdfdfc;--ink:#1c1e21;--soft:#5d636b;--faint:#e4e4e0;--rule:#a9aca8;--panel:#fff;
--c0:#1f5fbf;--c1:#c2570c;--c2:#0f7d6c;--c3:#7a3fc0;--c4:#a8841a;--c5:#b8336a}
@media (prefers-color-scheme:dark){:root{--paper:#15171a;--ink:#e8e8e4;--soft:#a2a8b0;--faint:#2b2f34;--rule:#5c636b;--panel:#1b1e22;
--c0:#7aaeff;--c1:#f2994f;--c2:#45c4ae;--c3:#b894f5;--c4:#d9b74a;--c5:#f07fa8}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1320px;margin:0 auto;padding:clamp(20px,4vw,48px) clamp(14px,3vw,40px) 64px}
h1{font-size:clamp(1.5rem,1.2rem + 1.4vw,2.1rem);line-height:1.2;letter-spacing:-.015em;font-weight:650;margin:0}
.subtitle{color:var(--soft);margin:.4rem 0 0;max-width:72ch}
h2{font-size:1.2rem;font-weight:650;letter-spacing:-.005em;margin:2.4rem 0 .4rem}
p{max-width:72ch;margin:.7rem 0;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,210px),1fr));gap:1px;margin:1.6rem 0;background:var(--panel);border:1px solid var(--faint);border-radius:10px;overflow:hidden}
dl div{background:var(--panel);padding:.7rem .9rem;box-shadow:0 0 0 1px var(--faint)}
dt{color:var(--soft);font-size:.8rem}
dd{margin:.1rem 0 0;font-weight:600;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:20px;margin:1.6rem 0}
.figures.one{max-width:760px}
figure{margin:0;padding:16px 18px 12px;background:var(--panel);border:1px solid var(--faint);border-radius:10px;min-width:0;break-inside:avoid;container-type:inline-size}
figcaption{font-weight:600;margin-bottom:.35rem}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.2rem;margin:0 0 .7rem;padding:0;font-size:.86rem;color:var(--soft)}
.legend i{display:inline-block;width:18px;height:3px;border-radius:2px;background:var(--c);vertical-align:middle;margin-right:.45rem}
.legend b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}
.remark{font-size:.78rem;color:var(--soft);margin:.4rem 0 0}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}.plain{--c:var(--soft)}
svg{display:block;width:100%;height:auto;overflow:visible;font-family:inherit}
svg.narrow{display:none}
.tick{fill:var(--soft);font-size:12px;font-weight:400;font-variant-numeric:tabular-nums}
.label{fill:var(--soft);font-size:12.5px}
.name{fill:var(--ink);font-size:13.5px}
.value{font-weight:650;font-variant-numeric:tabular-nums}
.halo{paint-order:stroke;stroke:var(--panel);stroke-width:4px;stroke-linejoin:round}
.grid{stroke:var(--faint);fill:none}
.axis{stroke:var(--rule);fill:none}
.line{stroke:var(--c);fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.band{fill:var(--c);opacity:.16}
.dot{fill:var(--c);stroke:var(--panel);stroke-width:1.2}
.interval{stroke:var(--c);stroke-width:3;opacity:.55;fill:none}
.cap{stroke:var(--c);stroke-width:2;opacity:.75;fill:none}
.scroll{overflow-x:auto;margin:1.4rem 0}
table{border-collapse:collapse;font-size:.93rem;min-width:min(100%,420px)}
caption{text-align:left;font-weight:600;padding-bottom:.5rem}
th,td{padding:.42rem 1.5rem .42rem 0;text-align:left;border-bottom:1px solid var(--faint);vertical-align:top}
thead th{color:var(--soft);font-weight:500;font-size:.82rem;border-bottom-color:var(--rule)}
tbody th{font-weight:500}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
@container (max-width:470px){svg.wide{display:none}svg.narrow{display:block}}
@media (max-width:520px){figure{padding:12px 12px 8px}th,td{padding-right:1rem}}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--faint:#ddd;--rule:#888;--panel:#fff;--c0:#1f5fbf;--c1:#c2570c;--c2:#0f7d6c;--c3:#7a3fc0;--c4:#a8841a;--c5:#b8336a}
main{max-width:none;padding:0}.figures{grid-template-columns:1fr;max-width:560px}figure,dl,table{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
)css";

}  // namespace sotto::study::detail::inline SOTTO_ABI
