// The gallery: asks for the list in parts, shows the pictures, and sends what is to change.
const find = (selector) => element.querySelector(selector);
const grid = find(".gallery-grid");
const search = find("input[type=search]");
const count = find(".count");
const more = find(".gallery-more");
const empty = find(".gallery-empty");
const bar = find(".gallery-selection");
const dialog = find("dialog");
const favourites = find("[data-act=favourites]");
const selected = new Set();
let latest = 0; // the number of the last request for a list: answers to earlier ones come too late
let last = null; // the key of the last picture that is shown
let found = 0;
let busy = false;

const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};
const plural = (number) => `${number.toLocaleString()} ${number === 1 ? "picture" : "pictures"}`;
const say = (...texts) => {
  find(".gallery-notes").replaceChildren(
    ...texts.map((text) => {
      const note = make("p", { class: "note" });
      note.textContent = text;
      return note;
    })
  );
};
const post = async (what, value) => {
  const answer = await fetch(`gallery/${what}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(value),
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.detail);
  return told;
};

const card = (picture) => {
  const address = `gallery/picture/${picture.id}`;
  const words = picture.prompt || picture.name;
  const facts = [picture.seed && `Seed ${picture.seed}`, `${picture.width}×${picture.height}`, picture.model];
  const image = make("img", { src: `gallery/thumbnail/${picture.id}`, alt: words.slice(0, 200), loading: "lazy" });
  const caption = [words, facts.filter(Boolean).join(" · ")].join("\n");
  const view = { type: "button", class: "view", "data-full": address, "data-caption": caption, "data-group": "gallery" };
  const prompt = make("p", { class: "prompt", title: words.slice(0, 1000) });
  prompt.textContent = words;
  const told = make("p", { class: "told" });
  told.textContent = facts.filter(Boolean).join(" · ");
  const star = make("button", { type: "button", class: "star", "data-act": "star", "aria-label": "Favourite", title: "Favourite" });
  star.setAttribute("aria-pressed", String(picture.favourite));
  const use = make("button", { type: "button", class: "chip", "data-act": "use" }, "Use these settings");
  const link = make("a", { class: "chip", href: address, download: picture.name }, "Download");
  const box = make("input", { type: "checkbox", "data-act": "select", "aria-label": `Select ${picture.name}` });
  const item = make("li", { "data-id": picture.id }, make("button", view, image), box, star, prompt, told, make("div", { class: "acts" }, use, link));
  image.addEventListener("error", () => item.remove()); // its pixels can't be read
  return item;
};

const load = async (fresh) => {
  if (busy && !fresh) return;
  busy = true;
  const mine = ++latest;
  const query = new URLSearchParams({ search: search.value });
  if (favourites.getAttribute("aria-pressed") === "true") query.set("favourites", "1");
  if (!fresh && last) query.set("after", last);
  try {
    const answer = await fetch(`gallery/list?${query}`);
    const told = await answer.json();
    if (mine !== latest) return;
    if (!answer.ok) throw new Error(told.detail);
    const shown = new Set(fresh ? [] : [...grid.children].map((each) => each.dataset.id));
    const cards = told.pictures.filter((each) => !shown.has(each.id)).map(card);
    if (fresh) grid.replaceChildren(...cards);
    else grid.append(...cards);
    for (const item of grid.children) item.querySelector("[data-act=select]").checked = selected.has(item.dataset.id);
    last = told.pictures.at(-1)?.key ?? last;
    found = told.found;
    count.textContent = found === told.total ? plural(found) : `${found.toLocaleString()} of ${plural(told.total)}`;
    more.hidden = told.pictures.length === 0 || grid.children.length >= found;
    empty.hidden = found > 0;
    empty.textContent = told.total ? "No picture has these words." : "Pictures that are drawn appear here.";
    say(...told.notes);
  } catch (error) {
    if (mine === latest) say(`The gallery can't be read: ${error.message}`);
  } finally {
    if (mine === latest) busy = false;
  }
};
const showSelection = () => {
  bar.hidden = selected.size === 0;
  bar.querySelector("p").textContent = `${plural(selected.size)} selected`;
};
const clear = () => {
  selected.clear();
  for (const box of grid.querySelectorAll("[data-act=select]")) box.checked = false;
  showSelection();
};
const remove = async () => {
  try {
    const told = await post("delete", { pictures: [...selected] });
    clear();
    await load(true);
    if (told.problems.length) say(...told.problems);
  } catch (error) {
    say(`Not deleted: ${error.message}`);
  }
};
const star = async (item, button) => {
  const favourite = button.getAttribute("aria-pressed") !== "true";
  try {
    await post("favourite", { picture: item.dataset.id, favourite });
    button.setAttribute("aria-pressed", String(favourite));
  } catch (error) {
    say(`Not noted: ${error.message}`);
  }
};
const ask = () => {
  find("#gallery-question").textContent =
    `Delete ${plural(selected.size)}? They move into the gallery's folder “.trash”, for all who use the page.`;
  dialog.showModal();
};

element.addEventListener("click", (event) => {
  const pressed = event.target.closest("[data-act]");
  if (!pressed) return;
  const item = pressed.closest("li");
  const acts = {
    favourites: () => {
      pressed.setAttribute("aria-pressed", String(pressed.getAttribute("aria-pressed") !== "true"));
      load(true);
    },
    select: () => {
      if (pressed.checked) selected.add(item.dataset.id);
      else selected.delete(item.dataset.id);
      showSelection();
    },
    star: () => star(item, pressed),
    use: () => trigger("click", { chosen: `gallery/picture/${item.dataset.id}` }),
    delete: ask,
    clear,
    more: () => load(false),
    keep: () => dialog.close(),
    confirm: () => {
      dialog.close();
      remove();
    },
  };
  acts[pressed.dataset.act]?.();
});
let typing = 0;
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => load(true), 200);
});
// What was drawn meanwhile is there when the tab is shown; and the next part before the end is reached.
new IntersectionObserver(([seen]) => {
  if (seen.isIntersecting) load(true);
}).observe(find(".gallery-bar"));
new IntersectionObserver(
  ([seen]) => {
    if (seen.isIntersecting && !more.hidden) load(false);
  },
  { rootMargin: "600px" }
).observe(more);
