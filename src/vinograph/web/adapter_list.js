// The adapters of a drawing: a row for each with its weight. The component's value is "NAME:WEIGHT, …", as the field takes it.
const rows = element.querySelector(".adapter-rows");
const add = element.querySelector("select");
const names = JSON.parse(element.querySelector(".adapter-list").dataset.names);

const changed = () => {
  props.value = [...rows.children].map((row) => `${row.dataset.name}:${row.querySelector("input").value}`).join(", ");
  offer();
  trigger("change");
};
const offer = () => {
  const used = new Set([...rows.children].map((row) => row.dataset.name));
  add.replaceChildren(
    new Option("Add an adapter …", ""),
    ...names.filter((name) => !used.has(name)).map((name) => new Option(name, name)),
  );
};
const append = (name, weight) => {
  const row = document.createElement("div");
  row.className = "adapter-row";
  row.dataset.name = name;
  const label = document.createElement("label");
  const text = document.createElement("span");
  text.textContent = name;
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: -1, max: 2, step: 0.05, value: weight });
  const shown = document.createElement("output");
  shown.textContent = slider.value;
  label.append(text, slider, shown);
  const remove = document.createElement("button");
  Object.assign(remove, { type: "button", textContent: "Remove" });
  remove.setAttribute("aria-label", `Remove ${name}`);
  slider.addEventListener("input", () => { shown.textContent = slider.value; });
  slider.addEventListener("change", changed);
  remove.addEventListener("click", () => { row.remove(); changed(); add.focus(); });
  row.append(label, remove);
  rows.append(row);
};
const read = (value) => {
  rows.replaceChildren();
  for (const part of (value || "").split(",").map((each) => each.trim()).filter(Boolean)) {
    const colon = part.lastIndexOf(":");
    const name = colon > 0 ? part.slice(0, colon) : part;
    if (names.includes(name)) append(name, colon > 0 ? part.slice(colon + 1) : 1);
  }
  offer();
};
add.addEventListener("change", () => {
  if (!add.value) return;
  append(add.value, 1);
  changed();
});
read(props.value);
watch("value", () => read(props.value));
