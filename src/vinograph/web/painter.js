// A brush over a picture. The component's value is the mask as an address that holds a PNG, empty where nothing is painted.
const paper = element.querySelector(".paper");
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
paper.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  paper.setPointerCapture(event.pointerId);
  last = null;
  stroke(event);
});
paper.addEventListener("pointermove", (event) => {
  if (paper.hasPointerCapture(event.pointerId)) stroke(event);
});
paper.addEventListener("pointerup", () => {
  props.value = canvas.toDataURL("image/png");
  trigger("change");
});
element.querySelector("button").addEventListener("click", clear);
element.querySelector("img").addEventListener("load", clear);
