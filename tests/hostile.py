"""Forty texts that would run, fetch or break a layout if anything took them for more than text.

What would run sets ``window.pwned`` or opens a dialog; what would be fetched has ``leak`` in its address.
"""

from __future__ import annotations

LEAK = "http://127.0.0.1:9/leak"
RUN = "window.pwned=1"
LONG_LINE = 1_000_000

SHORT = (
    f"<script>{RUN};alert(1)</script>",
    f"</textarea></title></style></script><script>{RUN}</script>",
    f"<img src=leak onerror='{RUN}'>",
    f"\"><svg/onload={RUN}><image href='{LEAK}.svg'/></svg>",
    f"<iframe src='{LEAK}'></iframe><iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<object data='{LEAK}'></object><embed src='{LEAK}'>",
    f"<meta http-equiv=refresh content='0;url={LEAK}'>",
    "<base href='http://127.0.0.1:9/leak/'>",
    f"<form action='{LEAK}'><input name=q autofocus onfocus='{RUN}'><button>Send</button></form>",
    f"<a href='javascript:{RUN}' onmouseover='{RUN}' style='position:fixed;inset:0'>everywhere</a>",
    f"<style>@import '{LEAK}.css'; body{{display:none!important}} *{{background:url({LEAK}.png)}}</style>",
    f"<link rel=stylesheet href='{LEAK}.css'><link rel=prefetch href='{LEAK}'>",
    f"<video src='{LEAK}.mp4' autoplay onerror='{RUN}'></video><audio src='{LEAK}.mp3'>",
    f"<details open ontoggle='{RUN}'><marquee onstart='{RUN}'>x</marquee></details>",
    f"<![CDATA[<script>{RUN}</script>]]><!--<script>{RUN}</script>-->",
    f"<!DOCTYPE x [<!ENTITY e SYSTEM '{LEAK}'>]><x>&e; &lt;script&gt;{RUN}&lt;/script&gt; &#60;b&#62;</x>",
    f"<math><mtext><table><mglyph><style><img src=leak onerror={RUN}>",
    f"data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg== <a href='data:text/html,<script>{RUN}</script>'>d</a>",
    f"![picture]({LEAK}.png) ![again][r]\n\n[r]: {LEAK}.gif",
    f"[link](javascript:{RUN}) [other](data:text/html,x) <javascript:{RUN}> {LEAK} www.example.org/leak a@example.org",
    "# Heading\n\n* item\n\n> quote\n\n```html\n<b>code</b>\n```\n| a | b |\n|---|---|\n| **bold** | ~~gone~~ |\n***",
    f"$$\\href{{javascript:{RUN}}}{{x}} \\includegraphics{{{LEAK}.png}}$$ $x^2$ \\(y\\)",
    ":material/home: :red[red] :blue-background[blue] :rainbow[all] :smile: :streamlit: :small[tiny] :badge[new]",
    f"{{{{constructor.constructor('{RUN}')()}}}} ${{7*7}} <%= 7*7 %> #{{7*7}} %{{customdata[0]}} {{name}} %s %(x)s $x",
    f"=HYPERLINK(\"{LEAK}\",\"click\")",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0\t+1-1",
    "'; drop table decisions; -- \" \\ ` %00 ../../../etc/passwd C:\\nul",
    "\u202etxet desrever\u202c \u2066isolated\u2069 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "zero\u200bwidth\u200d\u2060\ufeffjoined\u00ad \u00a0\u2003\u3000 spaces \u115f\u3164 \U000e0041\U000e0042",
    "\ufeffBOM first\r\nWindows line\rold Mac line\u2028separator\u2029paragraph\x0bvertical\x0cfeed\x85next",
    "nul\x00byte bell\x07 escape\x1b[31mred\x1b[0m \x1b]8;;http://127.0.0.1:9/leak\x07link\x08 del\x7f c1\x9b",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031ea" + "\u0334\u0315\u0322\u0353" * 40,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f3f3\ufe0f\u200d\U0001f308" * 12,
    "\u0410dm\u0456n p\u0430ypal \uff1cscript\uff1e \u212a\u017f \ufdfa \ufffd \ufffe",
    "W" * 110,
    "\u65e5\u672c\u8a9e" * 36,
    "a/very/long/path/" * 7 + "without_any_space_in_it.jsonl",
    '{"__proto__": {"pwned": 1}, "constructor": {"prototype": {"pwned": 1}}, "toJSON": null} [[nested]] null NaN',
)  # fmt: skip
"""All but the longest: they fit where a name stands, most of them cut by the field's own limit."""

TEXTS = (*SHORT, "x" * LONG_LINE)
SURROGATE = "lone \ud800 surrogate \udfff"
"""No text at all: JSON can carry it, UTF-8 cannot."""
