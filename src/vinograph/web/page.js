// Ctrl-Enter, or Cmd-Enter, clicks the visible tab's main button.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const button = [...document.querySelectorAll("button.go")].find((each) => each.offsetParent !== null);
  if (!button) return;
  event.preventDefault();
  document.activeElement?.dispatchEvent(new Event("change", { bubbles: true }));
  button.click();
});
