"""A report page that opens in any browser: one HTML file with its pictures and videos inside."""

import base64
import html
from pathlib import Path

from wmbench.files import write_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c20; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; }
th, td { padding: 0.35rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; font-weight: 600; position: sticky; left: 0; background: white; }
td:first-child { white-space: normal; min-width: 16rem; }
td:nth-last-child(-n+2) { white-space: normal; min-width: 45rem; text-align: left; }
td:nth-last-child(2) { min-width: 10rem; }
tr.baseline td { color: #777; }
figure { display: inline-block; margin: 0.5rem 1rem 0.5rem 0; vertical-align: top; }
figure.half { width: calc(50% - 1.3rem); }
figcaption { font-size: 0.85rem; color: #555; }
img, video { max-width: 100%; border-radius: 4px; }
code { background: #f1f1f4; padding: 0.1rem 0.3rem; border-radius: 3px; }
"""
SIGNATURES = {"image/png": (0, b"\x89PNG\r\n\x1a\n"), "video/mp4": (4, b"ftyp")}  # where, and what stands there


class Page:
    """Sections in the order in which they are added; style and script go into the page as they are."""

    def __init__(self, title: str, style: str = STYLE, script: str = ""):
        self._title, self._style, self._script = title, style, script
        self._parts = [f"<h1>{html.escape(title)}</h1>"]

    def section(self, title: str) -> None:
        self._parts.append(f"<h2>{html.escape(title)}</h2>")

    def text(self, text: str) -> None:
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def raw(self, markup: str) -> None:
        """Markup that is safe already, such as a table's."""
        self._parts.append(markup)

    def picture(self, path: Path, caption: str, columns: int = 1) -> None:
        self._figure(f'<img alt="{html.escape(caption)}" src="{inline(path, "image/png")}">', caption, columns)

    def video(self, path: Path, caption: str, columns: int = 1) -> None:
        source = inline(path, "video/mp4")
        self._figure(f'<video controls loop muted autoplay playsinline src="{source}"></video>', caption, columns)

    def write(self, path: Path) -> None:
        meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        head = f"<head>{meta}<title>{html.escape(self._title)}</title><style>{self._style}</style></head>"
        script = f"<script>{self._script}</script>" if self._script else ""
        body = "\n".join(self._parts) + script
        write_text(path, f"<!doctype html><html lang=en>{head}<body>\n{body}</body></html>\n")

    def _figure(self, markup: str, caption: str, columns: int) -> None:
        """With two columns, a figure shares its line with the next one."""
        width = " class=half" if columns == 2 else ""
        self._parts.append(f"<figure{width}>{markup}<figcaption>{html.escape(caption)}</figcaption></figure>")


def inline(path: Path, kind: str) -> str:
    """A file as an address that holds it.

    Raises:
        ValueError: a file of another kind, such as a link that would take a secret along.
    """
    content = path.read_bytes()
    if not content[SIGNATURES[kind][0] :].startswith(SIGNATURES[kind][1]):
        raise ValueError(f"{path} is no {kind} file, and is not put on a page; delete it")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
