"""The tab of the gallery: its pictures, a search, and what can be done with them.

A script asks the guard's addresses for the list and shows it; see ``gallery.js``. Only the restoring
of a picture's settings is a function of the page.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from vinograph.errors import RequestError
from vinograph.web import fragments
from vinograph.web.controls import Updates
from vinograph.web.gallery_index import recipe_of
from vinograph.web.gallery_routes import identifier_in
from vinograph.web.gallery_store import GalleryStore
from vinograph.web.page_context import on
from vinograph.web.restoring import Restorer
from vinograph.web.sessions import Picture

_HERE = Path(__file__).parent

_LAYOUT = """
<div class="gallery-page">
<div class="gallery-bar">
<input type="search" maxlength="200" placeholder="Search prompt, model or seed" aria-label="Search the gallery">
<button type="button" class="chip" data-act="favourites" aria-pressed="false">Favourites</button>
<p class="count" role="status"></p>
</div>
<div class="gallery-notes notes"></div>
<div class="gallery-selection" hidden>
<p></p>
<button type="button" class="chip" data-act="delete">Delete …</button>
<button type="button" class="chip" data-act="clear">Clear selection</button>
</div>
<ul class="gallery-grid" aria-label="Pictures"></ul>
<p class="gallery-empty" hidden></p>
<button type="button" class="chip gallery-more" data-act="more" hidden>Show more</button>
<dialog class="gallery-dialog" aria-labelledby="gallery-question">
<p id="gallery-question"></p>
<div><button type="button" class="chip" data-act="keep">Cancel</button>
<button type="button" class="chip danger" data-act="confirm">Delete</button></div>
</dialog>
</div>
"""


class GalleryTab:
    """The layout of the tab, and what its button for settings does."""

    def __init__(self, store: GalleryStore, restorer: Restorer) -> None:
        """Lay the tab out inside the Gradio block that is open."""
        self._store = store
        self._restorer = restorer
        script = (_HERE / "gallery.js").read_text(encoding="utf-8")
        layout = gr.HTML(_LAYOUT, elem_id="gallery", js_on_load=script)
        restorer.then_remember(on(layout.click, self.use, restorer.state, restorer.outputs), "use")

    def use(self, model: str, init_image: str | None, shown: Picture | None, event: gr.EventData) -> Updates:
        """Restore the request of a picture on the first tab."""
        try:
            identifier = identifier_in(getattr(event, "chosen", None))
            entry = self._store.get(identifier or "")
            recipe = recipe_of(self._store.file(entry))
        except RequestError as error:
            return {self._restorer.notes: fragments.notes(str(error), kind="error")}
        return self._restorer.restore(recipe, entry.name, model, init_image, shown)
