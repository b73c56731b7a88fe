// Restores a request: from a picture that is chosen or dropped, or to the model's defaults.
const chooser = element.querySelector("input");
const status = element.querySelector("[role=status]");

const restore = async (file) => {
  status.textContent = "";
  try {
    const { path } = await upload(file);
    trigger("click", { picture: { path } });
  } catch {
    status.textContent = `${file.name} could not be uploaded.`;
  }
};
chooser.addEventListener("change", () => {
  if (chooser.files.length) restore(chooser.files[0]);
  chooser.value = "";
});
element.querySelector("[data-act=restore]").addEventListener("click", () => chooser.click());
element.querySelector("[data-act=reset]").addEventListener("click", () => trigger("click", {}));

// Files that are dropped elsewhere on the tab; the init image has a place of its own.
const takes = (event) =>
  element.checkVisibility() &&
  [...(event.dataTransfer?.types ?? [])].includes("Files") &&
  !event.target.closest?.("#init-image");
document.addEventListener("dragover", (event) => {
  if (!takes(event)) return;
  event.preventDefault();
  document.body.classList.add("restoring");
});
for (const end of ["dragleave", "drop", "dragend"]) {
  document.addEventListener(end, () => document.body.classList.remove("restoring"), true);
}
document.addEventListener("drop", (event) => {
  if (!takes(event)) return;
  event.preventDefault();
  const file = [...event.dataTransfer.files].find((each) => each.type.startsWith("image/"));
  if (file) restore(file);
});
