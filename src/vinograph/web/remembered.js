// The browser's memory of the page: the tab, the model, the prompt, and the settings of each model.
// A page reads it once, when it opens, so that two pages don't change each other.
(() => {
  const KEY = "vinograph";
  const MOST_MODELS = 50;
  const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
  const read = () => {
    try {
      const stored = JSON.parse(localStorage.getItem(KEY) ?? "{}");
      return isObject(stored) ? { ...stored, models: isObject(stored.models) ? stored.models : {} } : { models: {} };
    } catch {
      return { models: {} }; // no storage, as in a private window, or something else lies there
    }
  };
  const own = read();
  let settled = null; // the model whose settings the controls show
  let timer = 0;

  const write = () => {
    clearTimeout(timer);
    timer = 0;
    const models = { ...read().models };
    if (own.model) delete models[own.model];
    const others = Object.entries(models).slice(-(MOST_MODELS - 1));
    const mine = own.model ? [[own.model, own.models[own.model]]] : [];
    try {
      localStorage.setItem(KEY, JSON.stringify({ ...own, models: Object.fromEntries([...others, ...mine]) }));
    } catch {
      // The page works without.
    }
  };
  const later = () => {
    if (!timer) timer = setTimeout(write, 200);
  };
  const take = (names, values) => {
    const { model, prompt, ...settings } = Object.fromEntries(names.map((name, index) => [name, values[index]]));
    if (model !== settled) return;
    own.model = model;
    own.prompt = prompt;
    own.models[model] = settings;
    later();
  };
  const openTab = (name) => {
    const tab = [...document.querySelectorAll("[role=tab]")].find((each) => each.textContent.trim() === name);
    if (tab && tab.getAttribute("aria-selected") !== "true") tab.click();
  };
  let opened = false;

  window.vinograph = {
    ...window.vinograph,
    openTab,
    // What a function of the server gets of the memory: of the last model, or of the one that is chosen.
    recalled: (model) => {
      const name = model ?? own.model;
      return JSON.stringify(name ? { model: name, prompt: model ? null : own.prompt, values: own.models[name] } : {});
    },
    // A control has changed.
    remember: take,
    // A function of the server has set the controls.
    settle: (names, values) => {
      settled = values[names.indexOf("model")];
      document.body.dataset.settled = settled; // from now on the controls keep what is typed
      take(names, values);
      if (!opened && own.tab) openTab(own.tab);
      opened = true;
    },
    // The settings of a picture of the gallery are restored: show them.
    use: (names, values) => {
      settled = values[names.indexOf("model")];
      take(names, values);
      openTab("Generate");
    },
  };
  document.addEventListener("click", (event) => {
    const tab = event.target.closest?.("[role=tab]");
    if (!tab || !opened) return;
    own.tab = tab.textContent.trim();
    later();
  });
  window.addEventListener("pagehide", () => {
    if (timer) write();
  });
})();
