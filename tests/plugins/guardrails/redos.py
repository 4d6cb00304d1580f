"""Regular expressions that have stalled programs, by where they were published, each with a text that stalls it.

The shapes are those of the sources, cut to the part that backtracks where the whole is long. A text is written as
``(before, pumped, behind)``: the more often the middle is repeated, the longer the search takes.

Sources:
    OWASP, "Regular expression Denial of Service - ReDoS",
    https://owasp.org/www-community/attacks/Regular_expression_Denial_of_Service_-_ReDoS
    J. Davis et al., "The Impact of Regular Expression Denial of Service (ReDoS) in Practice", ESEC/FSE 2018
    J. Kirrage et al., "Static Analysis for Regular Expression Denial-of-Service Attacks", NSS 2013
    N. Weideman et al., "Analyzing Matching Time Behavior of Backtracking Regular Expression Matchers by Using
    Ambiguity of NFA", CIAA 2016
    The advisories that are named beside the shapes: https://nvd.nist.gov/vuln/detail/CVE-…
"""

from __future__ import annotations

from typing import Final

__all__ = ["EVIL"]

Evil = tuple[str, tuple[str, str, str]]

_OWASP: Final[list[Evil]] = [
    (r"^(a+)+$", ("", "a", "!")),
    (r"^([a-zA-Z]+)*$", ("", "a", "!")),
    (r"^(a|aa)+$", ("", "a", "!")),
    (r"^(a|a?)+$", ("", "a", "!")),
    (r"^(.*a){12}$", ("", "a", "!")),
    (r"^(([a-z])+.)+[A-Z]([a-z])+$", ("", "a", "!")),
    (r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}[a-z]{2,3}$", ("", "a", "!")),
    (r"^[a-zA-Z]+(([\'\,\.\-][a-zA-Z ])?[a-zA-Z]*)*$", ("", "a", "!")),
    (r"^\d*[0-9](|.\d*[0-9]|)*$", ("", "1", "!")),
    (r"^((([a-zA-Z0-9]+)*)\.)+$", ("", "a", "!")),
]

_NESTED: Final[list[Evil]] = [  # Kirrage et al., Weideman et al.: exponential
    (r"(a*)*b", ("", "a", "c")),
    (r"(a+)*b", ("", "a", "c")),
    (r"(a*)+b", ("", "a", "c")),
    (r"(a|a)*b", ("", "a", "c")),
    (r"(a|b|ab)*c", ("", "ab", "d")),
    (r"(ab|a|b)+c", ("", "ab", "d")),
    (r"(a?a)*b", ("", "a", "c")),
    (r"(aa|a)*?b", ("", "a", "c")),
    (r"(?:a+?)+b", ("", "a", "c")),
    (r"(x+x+)+y", ("", "x", "z")),
    (r"(x+x+)*y", ("", "x", "z")),
    (r"(x*y*)+z", ("", "xy", "w")),
    (r"(\w+\w+)+!", ("", "a", "?")),
    (r"(\w|\d)+!", ("", "1", "?")),
    (r"(\w|_)+!", ("", "_", "?")),
    (r"(\d|[0-9a-f])+!", ("", "1", "?")),
    (r"(\s|\n)+!", ("", "\n", "?")),
    (r"(.|\s)*!", ("", " ", "?")),
    (r"(?:.|a)*!", ("", "a", "?")),
    (r"([^a]|b)+!", ("", "b", "?")),
    (r"([a-m]|[k-z])+!", ("", "l", "?")),
    (r"(a{1,4})+b", ("", "a", "c")),
    (r"(a{2,3}){2,}b", ("", "a", "c")),
    (r"(a+){10}y", ("", "a", "z")),
    (r"(a+){2,20}y", ("", "a", "z")),
    (r"((a+)b?)*c", ("", "a", "d")),
    (r"((ab)*)*c", ("", "ab", "d")),
    (r"((ab)+)+c", ("", "ab", "d")),
    (r"(([a-z]+)-?)+!", ("", "a", "?")),
    (r"(\w+-?)+!", ("", "a", "?")),
    (r"(\w*\.?)+!", ("", "a", "?")),
    (r"(\d+,?)+!", ("", "1", "?")),
    (r"(\S+\s*)+!$", ("", "a", "?")),
    (r"(\s*\S+)+!$", ("", "a", "?")),
    (r"(?:[ab]+[bc]+)+d", ("", "b", "e")),
    (r"(?:a*b*)*c", ("", "ab", "d")),
    (r"(?:(?:a|b)+)+c", ("", "ab", "d")),
    (r"(?:a|(?:a|b))+c", ("", "a", "d")),
    (r"(?:a(?:b|bb)*)+c", ("", "abb", "d")),
    (r"(?i:(a|A)+)b", ("", "a", "c")),
]

_BESIDE: Final[list[Evil]] = [  # Davis et al.: polynomial, of repeats that stand beside each other or begin anywhere
    (r"a*a*b", ("", "a", "c")),
    (r"a+a+b", ("", "a", "c")),
    (r"\d*\d*\d*x", ("", "1", "y")),
    (r"\w+\d+x", ("", "1", "y")),
    (r"\d+\w+!", ("", "1", "?")),
    (r".*.*x", ("", "a", "y")),
    (r".*a.*b.*c", ("", "ab", "d")),
    (r".+@.+x", ("", "@", "y")),
    (r"\s*\s*x", ("", " ", "y")),
    (r"\s+\s+$", ("", " ", "x")),
    (r"\s*,\s*x", ("", " ", "y")),
    (r"\s+x", ("", " ", "y")),
    (r"\d+x", ("", "1", "y")),
    (r"[a-z]+!", ("", "a", "?")),
    (r"[^,]+;", ("", "a", ",")),
    (r"(?:ab)+c", ("", "ab", "d")),
    (r"\w{0,60}\w{0,60}!", ("", "a", "?")),
    (r"a{0,40}a{0,40}a{0,40}b", ("", "a", "c")),
    (r"\s{1,80}\s{1,80}x", ("", " ", "y")),
    (r"[ab]{0,70}[bc]{0,70}d", ("", "b", "e")),
    (r".{0,90}a.{0,90}b", ("", "a", "c")),
    (r"[a-z]{1,60}[a-z0-9]{1,60}!", ("", "a", "?")),
    (r"(?:a{0,9}){0,9}b", ("", "a", "c")),
    (r"(?:a{1,5}b?){1,20}c", ("", "a", "d")),
    (r"(?:\w{1,20} ?){1,20}!", ("", "a", "?")),
    (r"(?:a?){24}b", ("", "a", "c")),
    (r"(?:a|aa){1,24}b", ("", "a", "c")),
    (r"(?:\d{1,3},?){1,20}!", ("", "1", "?")),
    (r"(?=.*a)(?=.*b).*c", ("", "ab", "d")),
    (r"(?=\w+!)x", ("x", "a", "?")),
]

_NODE: Final[list[Evil]] = [
    (r"^\s+|\s+$", ("x", " ", "y")),  # trim, CVE-2020-7753
    (r"[\s\u200c]+$", ("x", " ", "y")),  # Stack Overflow, outage of 20 July 2016
    (r"^((?:\d+)?\.?\d+) *(ms|seconds?|s)?$", ("", "1", "x")),  # ms, CVE-2015-8315
    (r"\{.*\}$", ("", "{", "x")),  # minimatch, CVE-2022-3517
    (r"(^|[^\\])([\{\[]|\([^\)]+$)", ("", "(", ")")),  # glob-parent, CVE-2020-28469
    (r"^((?:\w*\W*)*)x$", ("", "a", "!")),  # charset, CVE-2017-16098
    (r"(?:charset|encoding)\s*=\s*['\"]? *([\w\-]+)x", ("charset=", " ", "!")),
    (r"^(?:\s*\w+\s*)*;$", ("", "a", "!")),  # content, CVE-2017-16026
    (r"(\w+)\s*=\s*(\w+)\s*x", ("a=", "a", "!")),  # forwarded, CVE-2017-16118
    (r"\s*,\s*y", ("", " ", "x")),  # fresh, CVE-2017-16119
    (r"([\d]+)*n?$x", ("", "1", "!")),  # nth-check, CVE-2021-3803
    (r"^([+-]?\d*n)?\s*(?:([+-]?)\s*(\d+))?$x", ("", " ", "!")),
    (
        r"[\u001B\u009B][\[\]()#;?]*(?:[a-zA-Z\d]*(?:;[a-zA-Z\d]*)*)?\u0007",
        ("\x1b[", ";", "!"),
    ),  # ansi-regex, CVE-2021-3807
    (r"((?:[^:/?#]+:)?)(//)?([^/?#]*)([^?#]*)x", ("", "a", "!")),  # path-parse, CVE-2021-23343
    (r"^(\/?|)([\s\S]*?)((?:\.{1,2}|[^\/]+?|)(\.[^.\/]*|))(?:[\/]*)$x", ("", "/", "!")),
    (r"([^@]+@)?([^:]+:)?(.+)#x", ("", "a", "!")),  # hosted-git-info, CVE-2021-23362
    (r"<svg(?:.|\s)*?>x", ("<svg", " ", "!")),  # is-svg, CVE-2021-28092
    (r"^rgb\(\s*([+-]?\d*\.?\d+)\s*,\s*x", ("rgb(", "1", "!")),  # color-string, CVE-2021-29060
    (r"^data:(.*?),(.*?)(?:#(.*))?$x", ("data:", ",#", "!")),  # normalize-url, CVE-2021-33502
    (r"\s*(?:<|>)?=?\s*v?\s*\d+x", ("", " ", "!")),  # semver, CVE-2022-25883
    (r"(\\*)\"x", ("", "\\", "!")),  # cross-spawn, CVE-2024-21538
    (r"(?=(\\+?)?)\1$x", ("", "\\", "!")),
    (r"\s*;\s*([^=]+)\s*=x", (";", " ", "!")),  # http-cache-semantics, CVE-2022-25881
    (r"[\t ]*$x", ("", " ", "!")),  # word-wrap, CVE-2023-26115
    (r"(\S+\s+)*(\S+)$x", ("", "a ", "!")),
    (r"\n+$x", ("", "\n", "!")),  # trim-newlines, CVE-2021-33623
    (r",(?!,).*\}x", ("", ",a", "!")),  # brace-expansion, CVE-2025-5889
    (r"^(?:[^\n]+\n?)*x$", ("", "a", "!")),  # marked, CVE-2022-21681
    (r"(\*|_){1,2}(?:(?:[^*_]|\\.)+)+\1", ("**", "a", "!")),  # marked, CVE-2015-8854
    (r"((?:android|bb)[^;/]*)+;x", ("", "android", "!")),  # ua-parser-js, CVE-2020-7733
    (r"\s*([\w\s]+)\s*build/x", ("", " ", "!")),  # ua-parser-js, CVE-2021-27292
    (r"(?:[\w-]+\s*)+mobile!", ("", "a", "?")),  # useragent, CVE-2020-26311
    (r"(?:([^\"\\]|\\.)*)*\"x", ("", "a", "!")),  # eslint, CVE-2021-32640 and its like
    (r"(\d{1,2}|x)*\/(\d{1,2}|x)*!", ("", "11", "?")),  # moment, CVE-2017-18214
    (r"([\w.-]+)+@([\w-]+\.)+[a-z]{2,}$", ("", "a", "!")),  # validator, CVE-2021-3765
    (r"^([\w!#$%&'*+-]+(\.[\w!#$%&'*+-]+)*)+@x", ("", "a", "!")),
    (r"(?:\s*<[^>]*>\s*)*!", ("", "<a>", "?")),  # sanitize-html, CVE-2022-25887
    (r"^([a-z0-9+.-]+:)?//((([^:/]+)(:[^@]*)?@)*)x", ("//", "a@", "!")),  # url-parse, CVE-2021-27515 and its like
    (r"(#|\/\/)[^\n]*\n*x", ("", "#", "!")),  # strip-json-comments and its like
    (r"\[(.*?)\]\((.*?)\)x", ("", "[](", "!")),  # remarkable, CVE-2019-12041
    (r"[^\s]+:[^\s]+@", ("", "a:", "!")),  # tough-cookie, CVE-2016-1000232 and its like
    (r"^(?:(\S+)\s*;)*\s*(\S+)$x", ("", "a;", "!")),  # negotiator, CVE-2016-10539
    (r"(?:[a-z]+[\s-]?)+$!", ("", "a", "?")),  # slug, CVE-2017-16117
    (r"([A-Z]+[a-z]*)+_!", ("", "A", "?")),  # underscore.string, CVE-2017-20162 and its like
    (r"^(-?\w+[-.]?)*:$", ("", "a", "!")),  # timespan, CVE-2017-16115
]

_PYTHON: Final[list[Evil]] = [
    (r"\s*#?\s*$x", ("", " ", "!")),  # difflib, CVE-2018-1061
    (r"(?:.*,)*[ \t]*([^ \t]+)[ \t]+realm=x", ("", ",", "!")),  # urllib.request, CVE-2020-8492
    (r"(?:^|,)[ \t]*([^ \t,]+)[ \t]+realm=([\"']?)([^\"']*)\2", (",", " ", "!")),  # urllib.request, CVE-2021-3733
    (
        r"^(\d\d?)(?:\s+|[-/])(\w+)(?:\s+|[-/])(\d+)(?:(?:\s+|:)(\d\d?):(\d\d)(?::(\d\d))?)?\s*([-+]?\d{2,4})?\s*(?:\(\w+\))?\s*$x",
        ("1-a-1", " ", "!"),
    ),  # http.cookiejar, bpo-38804
    (r"([a-zA-Z0-9._-]+)@([a-zA-Z0-9._-]+\.[a-zA-Z0-9._-]+)x", ("a@", "a.", "!")),  # Jinja2, CVE-2020-28493
    (r"(\d+\s*)+=\s*(.*)x", ("", "1", "!")),  # tarfile, CVE-2024-6232
    (r"^(?:([^:/?#]+):)?(?://([^/?#]*@)*)?x", ("//", "@", "!")),  # urllib3, CVE-2021-33503
    (r"<.*?>|((?:\w[-\w]*|&.*?;)+)$", ("", "&", "!")),  # Django, CVE-2019-14232
    (r"(\s*--.*\n)+\s*x", ("", "--\n", "!")),  # sqlparse, CVE-2021-32839
    (r"(\r\n|\r|\n|\s)+x", ("", "\r\n", "!")),  # sqlparse, CVE-2023-30608
    (
        r"^(?P<namever>(?P<name>.+?)-(?P<ver>.*?))((-(?P<build>\d.*?))?-(?P<py>.+?)-(?P<abi>.+?)-(?P<plat>.+?)\.whl)$",
        ("", "-", "!"),
    ),  # wheel, CVE-2022-40898
    (r"(?:\s*<!--.*?-->\s*)*x", ("", "<!---->", "!")),  # setuptools, CVE-2022-40897 and its like
    (r"^Last Changed Rev:\s*(\d+)\s+.*\s+x", ("Last Changed Rev:1", " ", "!")),  # py, CVE-2022-42969
    (r"(\w+\s*)+\.\s*$", ("", "a", "!")),  # nltk, CVE-2021-3828
    (r"([^.]*\.)*[^.]+\?", ("", "a.", "!")),  # nltk, CVE-2021-43854
    (r"(?:\s*,?\s*\w+\s*=?)*>x", ("", "a", "!")),  # Pygments, CVE-2021-27291
    (r"(\"|')(?:\\.|(?!\1).)*x", ('"', "a", "!")),  # Pygments, CVE-2021-20270 and its like
    (r"style=\"(\s*[\w-]+\s*:\s*[^;]+;?)*\"", ('style="', "a:a", "!")),  # bleach, CVE-2020-6817
    (r"(`+)(.+?)(?<!`)\1(?!`)", ("", "`", "a")),  # markdown2, CVE-2021-26813
    (r"(\S+)\s*<(\S+@\S+)>", ("", "<@", "!")),  # pydantic, CVE-2024-3772
    (r"^(?:\w+://)?(?:[^/@]+@)*([^/:]+)x", ("", "a@", "!")),  # feedparser and its like
    (r"^\s*([\w.]+\s*)+\(", ("", "a", "!")),  # ipython's inputs and its like
    (r"^(\s*)def\s+\w+\s*\((.*,?)*\):", ("def a(", ",", "!")),
    (r"(?:[A-Za-z]+\s?)+\d!", ("", "a", "?")),  # dateparser, CVE-2021-33430 and its like
    (r"[\w-]+(?:\.[\w-]+)*\.x!", ("", "a.", "?")),
    (r"(;\s*\w+\s*=\s*(\w+|\"[^\"]*\")\s*)*$x", ("", ";a=a", "!")),  # aiohttp and Werkzeug, content types
]

_RUBY: Final[list[Evil]] = [
    (r"\A\s*(\w+)=((?:\w|\s)*)\s*;x", ("a=", " ", "!")),  # Rack, CVE-2022-44570 and its like
    (r"(?:\s*;\s*\w+=\w*)*!", ("", ";a=", "?")),  # Rack, CVE-2022-44572
    (r"\s*,\s*;x", ("", " ", "!")),  # Rack, CVE-2023-27530
    (r"(?:[\w+.-]+:)*(?://)?x!", ("", "a:", "?")),  # uri, CVE-2023-28755
    (r"\s*(\d{2,})?\s*([a-z]+)?\s*(\d{2}:\d{2})x", ("", " ", "!")),  # time, CVE-2023-28756
    (r"(?:\d+[./-]?)+[a-z]", ("", "1", "!")),  # date, CVE-2021-41817
    (r"^((?:[a-z0-9]+[-.])*[a-z0-9]+)+$", ("", "a", "!")),  # addressable, CVE-2021-32740
    (r"(?:\/\*(?:[^*]|\*)*\*\/|\s)*x", ("", "/**/", "!")),  # sass and its like
    (r"^(?:(?:\w+\s*)+,?)*$x", ("", "a", "!")),  # nokogiri's selectors and their like
    (r"(\S+\s+)+\d+\s*$", ("", "a ", "!")),  # bootstrap of log lines, Davis et al.
    (r"(.+)+\.log", ("", "a", "!")),
    (r"(?:\[[^\[\]]*\])*\]x", ("", "[]", "!")),
    (r"((\d+)\.?)+-x", ("", "1", "!")),
    (r"^(\+?\d+[\s-]?)+$x", ("", "1", "!")),  # libphonenumber and its like
    (r"^(?:(?:[0-9A-Fa-f]{1,4}:)*)*:$", ("", "a:", "!")),
    (r"(?:[0-9]+[A-F]?|[A-F0-9]+)+h", ("", "1", "!")),
    (r"([01]|[0-9])*2b", ("", "1", "!")),
    (r"(?:true|t|r|u|e)+!", ("", "true", "?")),
    (r"(?:https?://)?(?:www\.)?(?:\w+\.?)+/x!", ("", "a", "?")),
    (r"(?:(?:[a-z]|-)+\.)*[a-z]+@", ("", "a.", "!")),
    (r"(?:\\.|[^\\]|\\)*'", ("", "\\a", "")),
    (r"(?:''|[^']|')*;", ("", "'", "")),
    (r"(?:--[^\n]*\n|\s|-)*select", ("", "--\n", "!")),
    (r"(?:%[0-9a-f]{2}|[^&]|%)*&", ("", "%aa", "")),
    (r"(?:=[0-9A-F]{2}|.)*\?=", ("", "=AA", "!")),
    (r"(?:&\w+;|[^<]|&)*<", ("", "&a;", "")),
    (r"(?:\r?\n[ \t]|.)*\r\n\r\n", ("", "\n ", "!")),
    (r"^(?:[^\s,]+(?:\s[^\s,]+)*,?)+$x", ("", "a", "!")),
    (r"\b(?:\w+[ _])*\w+\b:", ("", "a_", "!")),
    (r"(\w+)+\[\]", ("", "a", "!")),
    (r"^(?:\w:)?(?:[\\/]?[\w .-]+)+$!", ("", "a", "?")),
    (r"(?:[^\x00-\x1f]+[ -]?)+\x00", ("", "a", "!")),
    (r"(?:[A-Z][A-Z0-9]*_?)+=", ("", "A", "!")),
    (r"(.*?=.*?)+;$", ("", "=", "!")),  # Cloudflare's of 2 July 2019, its last part
    (r"(?:0|[1-9]\d*|\d+)+;", ("", "1", "!")),
    (r"(?:\.\d+|\d+\.?|\d)+e", ("", "1", "!")),
]

EVIL: Final[tuple[Evil, ...]] = (*_OWASP, *_NESTED, *_BESIDE, *_NODE, *_PYTHON, *_RUBY)
