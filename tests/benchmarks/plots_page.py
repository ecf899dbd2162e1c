"""A page of plots, in the browser's own light or dark."""

from html import escape

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>
:root {{ color-scheme: light dark; --grid: #d9dce0; --series-1: #1f6fb4; --series-2: #c2570c;
  --series-3: #2d8a4e; }}
@media (prefers-color-scheme: dark) {{ :root {{ --grid: #363c44; --series-1: #6db3f2;
  --series-2: #f59a52; --series-3: #6cc58a; }} }}
body {{ margin: 0 auto; max-width: 44rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }}
svg {{ width: 100%; height: auto; }}</style><h1>{title}</h1>
<p>{about}</p>
{figures}</html>
"""


def page(title: str, about: str, figures: str) -> str:
    """`figures` are HTML as they stand, title and what is said above them are text."""
    return _PAGE.format(title=escape(title), about=escape(about), figures=figures)
