"""Texts that Python holds and stores, screens or pages do not, or do not as they are."""

NASTY = {
    "half an emoji": "looks great \ud83d",
    "the other half": "\ude00 looks great",
    "halves in the wrong order": "\ude00\ud83d",
    "a NUL": "before\x00after",
    "an escape sequence": "\x1b[2J\x1b]0;title\x07gone",
    "an escape sequence of one character": "\x9b31mred",
    "carriage returns and backspaces": "good\rbad\b\b\b",
    "other ends of lines": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "a turned direction": "score \u202e52\u2066 of 25",
    "what XML does not know": "\ufffe\uffff\x0b",
    "the end of a script": "</script><script>alert(1)</script>",
    "a page": '<img src=x onerror="alert(1)"> & &amp; <!-- ',
    "markup": "[red]stop[/red] [/] [link=http://x] \\[ :bomb: [bold",
    "a closing tag without a beginning": "[/]",
    "a format": "{x} %s %(name)s {{ 7 * 7 }} {% raw %}",
    "a megabyte": "so good " * 131_072,
    "a megabyte of halves": "\ud83d" * 1_000_000,
    "a megabyte without a space": "\U0001f600" * 1_000_000,
    "nothing": "",
}
