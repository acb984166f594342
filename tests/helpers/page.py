"""A page of HTML as tests look at it."""

import re
from base64 import b64decode
from html.parser import HTMLParser

_VOID = {"meta", "img", "source", "br", "link", "input"}


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag that is opened is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.html, self.tags, self.text, self.errors, self._open = html, [], "", [], []
        self.feed(html)
        self.errors += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.errors.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        self.text += data.replace("\n", "")

    def having(self, tag, **attrs):
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in attrs.items())]

    def figures(self):
        """The SVG figures as text."""
        start = "data:image/svg+xml;base64,"
        uris = [attrs["src"] for attrs in self.having("img", **{"class": "figure"})]
        return [b64decode(uri.removeprefix(start)).decode("utf-8") for uri in uris]

    def stands_alone(self):
        """Well-formed, fetches nothing, runs nothing, and every image has a text."""
        assert self.errors == []
        for tag, attrs in self.tags:
            assert tag not in {"script", "link", "iframe", "object"}
            for key in ("src", "srcset", "href"):
                assert attrs.get(key, "data:").startswith("data:"), (tag, attrs[key][:80])
            assert not any(key.startswith("on") for key in attrs)
        assert "url(" not in self.html
        assert "@import" not in self.html
        assert self.having("img")
        assert all(attrs.get("alt") for attrs in self.having("img"))
        for figure in self.figures():
            assert "@media (prefers-color-scheme: dark)" in figure
            drawn = figure.partition("</style>")[2]
            assert not re.findall("#[0-9a-fA-F]{6}", drawn), "a colour that is not in the palette"
        return True
