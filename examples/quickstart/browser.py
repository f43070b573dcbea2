"""A browser without a screen: keeps cookies, submits forms, follows redirects."""

import httpx


class PageError(Exception):
    """The page is an error page; what it says is the message."""


class Browser:
    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, follow_redirects=True)

    def open(self, path: str) -> str:
        return self._read(self._client.get(path))

    def submit(self, path: str, **fields: str) -> str:
        return self._read(self._client.post(path, data=fields))

    def close(self) -> None:
        self._client.close()

    def _read(self, page: httpx.Response) -> str:
        if page.is_error:
            raise PageError(page.json()["detail"])
        return page.text
