// The mask editor: a brush over the init image. The component's value is the mask as a data URL of a PNG, empty without paint.
const frame = element.querySelector(".frame");
const canvas = element.querySelector("canvas");
const size = element.querySelector("input");
const brush = canvas.getContext("2d");
let last = null;

const clear = () => {
  const picture = element.querySelector("img");
  canvas.width = picture.naturalWidth || 1;
  canvas.height = picture.naturalHeight || 1;
  props.value = "";
  trigger("change");
};
const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
};
const stroke = (event) => {
  const [x, y] = at(event);
  brush.strokeStyle = "#fff";
  brush.lineWidth = (size.value / 100) * Math.max(canvas.width, canvas.height);
  brush.lineCap = brush.lineJoin = "round";
  brush.beginPath();
  brush.moveTo(...(last ?? [x, y]));
  brush.lineTo(x, y);
  brush.stroke();
  last = [x, y];
};
frame.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  frame.setPointerCapture(event.pointerId);
  last = null;
  stroke(event);
});
frame.addEventListener("pointermove", (event) => {
  if (frame.hasPointerCapture(event.pointerId)) stroke(event);
});
frame.addEventListener("pointerup", () => {
  props.value = canvas.toDataURL("image/png");
  trigger("change");
});
element.querySelector("button").addEventListener("click", clear);
element.querySelector("img").addEventListener("load", clear);
