// The queue: a click sends its button's value. When the list changes, another request may stand in the focused row: the focus goes
// with the request.
let focused = null; // the value of the button that has the focus, and its row

const place = (button) => ({ value: button.value, row: [...element.querySelectorAll("li")].indexOf(button.closest("li")) });
const found = ({ value, row }) => {
  const usable = (button) => button && !button.disabled;
  const same = [...element.querySelectorAll("button")].find((button) => button.value === value);
  if (usable(same)) return same;
  const rows = [...element.querySelectorAll("li")];
  const there = same?.closest("li") ?? rows[Math.min(row, rows.length - 1)];
  const action = value.split(":")[0];
  const buttons = [...(there ?? element).querySelectorAll("button")].filter(usable);
  return buttons.find((button) => button.value.startsWith(`${action}:`)) ?? buttons[0];
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  focused = place(button);
  trigger("click", { chosen: button.value });
});
element.addEventListener("focusin", (event) => {
  const button = event.target.closest("button");
  if (button) focused = place(button);
});
element.addEventListener("focusout", (event) => {
  const { target } = event;
  setTimeout(() => {
    if (target.isConnected) focused = null; // somebody went elsewhere
  });
});
new MutationObserver(() => {
  const active = document.activeElement ?? document.body;
  if (!focused || !(active === document.body || element.contains(active))) return;
  if (active.value !== focused.value || active.disabled) found(focused)?.focus();
}).observe(element, { childList: true, subtree: true, attributes: true });
