// Live drawing: asks for a drawing a moment after the last change, while the switch is on.
const PAUSE = 120; // milliseconds without a change
let timer = null;

const later = () => {
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (document.querySelector("#live input")?.checked) trigger("change");
  }, PAUSE);
};
document.addEventListener("vinograph-settings", later);
