"""A browser without a screen: keeps cookies and follows redirects. browser.py URL visits it, and says where it ended."""

import http.cookiejar
import sys
import urllib.error
import urllib.parse
import urllib.request


def visit(url, end=None):
    """Where `url` leads: the first address that begins with `end`, else the last one."""
    jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    browser = urllib.request.build_opener(jar, Stay(), urllib.request.ProxyHandler({}))
    for _ in range(20):
        try:
            with browser.open(url, timeout=20) as answer:
                answer.read()
            return url
        except urllib.error.HTTPError as answer:
            if answer.code not in (301, 302, 303, 307, 308):
                raise RuntimeError(f"{url}: {answer.code} {answer.read(2000)}") from None
            url = urllib.parse.urljoin(url, answer.headers["Location"])
        if end and url.startswith(end):
            return url
    raise RuntimeError(f"{url} goes in circles")


class Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are for the caller to see."""

    def redirect_request(self, *_):
        return None


if __name__ == "__main__":
    print(visit(sys.argv[1]))
