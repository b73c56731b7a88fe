// The mask editor: a brush over the init image, with undo, zoom and full screen.
//
// The component's value is the mask as a data URL of a PNG, opaque where it is painted, and empty without paint. It
// has the size of props.picture. props.extend holds the borders around the picture as shares of its sides. The
// template never changes, so that Gradio leaves the elements here alone.
const editor = element.querySelector(".mask-editor");
const dialog = element.querySelector("dialog");
const home = editor.parentElement;
const frame = editor.querySelector(".frame");
const picture = editor.querySelector("img");
const canvas = editor.querySelector("canvas");
const ring = editor.querySelector(".brush");
const slider = editor.querySelector("input");
const says = editor.querySelector("[role=status]");

const mask = document.createElement("canvas");
const paint = mask.getContext("2d", { willReadFrequently: true });
const view = { scale: 1, x: 0, y: 0, zoom: 1 }; // CSS pixels for a pixel of the picture; where the sheet begins
const pointers = new Map(); // those that are down
const MOST_ZOOM = 16;
let done = []; // operations, of which the mask is the result
let undone = [];
let tool = "brush";
let stroke = null; // the operation under way
let panning = false;
let cursor = null; // where the brush is, in pixels of the mask

// The picture with its borders.
const sheet = () => {
  const [left, top, right, bottom] = props.extend ?? [0, 0, 0, 0];
  const [width, height] = [mask.width, mask.height];
  return {
    left: left * width,
    top: top * height,
    width: width * (1 + left + right),
    height: height * (1 + top + bottom),
  };
};
const brushSize = () => (slider.value / 100) * Math.max(mask.width, mask.height);

// Operations. A stroke is done again segment by segment, as it was painted, so that it gives the same pixels.
const segment = (operation, index) => {
  const [from, to] = [operation.points[Math.max(index - 1, 0)], operation.points[index]];
  paint.globalCompositeOperation = operation.erases ? "destination-out" : "source-over";
  paint.strokeStyle = paint.fillStyle = "#fff";
  paint.lineWidth = operation.size;
  paint.lineCap = paint.lineJoin = "round";
  paint.beginPath();
  if (index === 0) {
    paint.arc(...to, operation.size / 2, 0, 2 * Math.PI); // a line without length is not drawn
    paint.fill();
    return;
  }
  paint.moveTo(...from);
  paint.lineTo(...to);
  paint.stroke();
};
const perform = (operation) => {
  if (operation.points) operation.points.forEach((_, index) => segment(operation, index));
  else if (operation.image) paint.drawImage(operation.image, 0, 0, mask.width, mask.height);
  else if (operation.inverts) {
    paint.globalCompositeOperation = "source-out";
    paint.fillStyle = "#fff";
    paint.fillRect(0, 0, mask.width, mask.height);
  } else paint.clearRect(0, 0, mask.width, mask.height);
  paint.globalCompositeOperation = "source-over";
};
const replay = () => {
  paint.clearRect(0, 0, mask.width, mask.height);
  done.forEach(perform);
};
const isPainted = () => {
  const { data } = paint.getImageData(0, 0, mask.width, mask.height);
  for (let index = 3; index < data.length; index += 4) if (data[index] >= 128) return true;
  return false;
};
const send = () => {
  const value = isPainted() ? mask.toDataURL("image/png") : "";
  refresh();
  if (value === props.value) return;
  props.value = value;
  trigger("change");
};
const add = (operation) => {
  done.push(operation);
  undone = [];
  send();
};
const actions = {
  undo: () => {
    if (!done.length || done.at(-1).image) return;
    undone.push(done.pop());
    replay();
    send();
    say("Undone");
  },
  redo: () => {
    if (!undone.length) return;
    done.push(undone.pop());
    perform(done.at(-1));
    send();
    say("Redone");
  },
  clear: () => {
    if (!isPainted()) return;
    perform({});
    add({});
    say("Mask cleared");
  },
  invert: () => {
    perform({ inverts: true });
    add({ inverts: true });
    say("Mask inverted");
  },
  in: () => zoomTo(view.zoom * 1.5),
  out: () => zoomTo(view.zoom / 1.5),
  fit: () => zoomTo(1),
  full: () => (dialog.open ? leave() : enter()),
  done: () => leave(),
};
const say = (text) => {
  says.textContent = text;
};

// What is seen. The mask has a tint, stripes and an outline in two tones, so that no picture hides it.
const stripes = (context, density) => {
  const side = Math.round(10 * density);
  const tile = new OffscreenCanvas(side, side);
  const brush = tile.getContext("2d");
  brush.fillStyle = "rgb(214 40 110 / .5)";
  brush.fillRect(0, 0, side, side);
  for (const [colour, shift] of [["rgb(255 255 255 / .6)", 0], ["rgb(60 0 30 / .6)", 0.2]]) {
    brush.strokeStyle = colour;
    brush.lineWidth = 1.5 * density;
    brush.beginPath();
    for (const at of [-1, 0, 1, 2]) {
      brush.moveTo((at + shift) * side - side, side * 2);
      brush.lineTo((at + shift) * side + side * 2, -side);
    }
    brush.stroke();
  }
  return context.createPattern(tile, "repeat");
};
const layers = [0, 1, 2].map(() => document.createElement("canvas"));
// The shape, thicker by so many pixels, in a colour.
const thicker = (shape, by, colour) => {
  const target = layers[1].getContext("2d");
  target.globalCompositeOperation = "source-over";
  target.clearRect(0, 0, shape.width, shape.height);
  for (const x of [-by, 0, by]) for (const y of [-by, 0, by]) target.drawImage(shape, x, y);
  target.globalCompositeOperation = "source-in";
  target.fillStyle = colour;
  target.fillRect(0, 0, shape.width, shape.height);
  return layers[1];
};
const render = () => {
  const density = window.devicePixelRatio || 1;
  const [width, height] = [frame.clientWidth, frame.clientHeight].map((side) => Math.max(Math.round(side * density), 1));
  for (const each of [canvas, ...layers]) {
    if (each.width !== width) each.width = width;
    if (each.height !== height) each.height = height;
  }
  const whole = sheet();
  const at = (x, y) => [(view.x + x * view.scale) * density, (view.y + y * view.scale) * density];
  const sized = (side) => side * view.scale * density;
  const inner = [...at(whole.left, whole.top), sized(mask.width), sized(mask.height)];

  const shape = layers[0].getContext("2d");
  shape.globalCompositeOperation = "source-over";
  shape.clearRect(0, 0, width, height);
  if (props.extend?.some((each) => each > 0)) {
    shape.fillStyle = "#fff";
    shape.fillRect(...at(0, 0), sized(whole.width), sized(whole.height));
    shape.clearRect(...inner);
  }
  shape.drawImage(mask, ...inner);

  const outline = layers[2].getContext("2d");
  outline.globalCompositeOperation = "source-over";
  outline.clearRect(0, 0, width, height);
  outline.drawImage(thicker(layers[0], 2 * density, "#000"), 0, 0);
  outline.drawImage(thicker(layers[0], density, "#fff"), 0, 0);
  outline.globalCompositeOperation = "destination-out";
  outline.drawImage(layers[0], 0, 0);

  const shown = canvas.getContext("2d");
  shown.globalCompositeOperation = "source-over";
  shown.clearRect(0, 0, width, height);
  shown.drawImage(layers[0], 0, 0);
  shown.globalCompositeOperation = "source-in";
  shown.fillStyle = stripes(shown, density);
  shown.fillRect(0, 0, width, height);
  shown.globalCompositeOperation = "source-over";
  shown.drawImage(layers[2], 0, 0);
};
let waiting = 0;
const refresh = () => {
  waiting ||= requestAnimationFrame(() => {
    waiting = 0;
    const whole = sheet();
    Object.assign(picture.style, {
      left: `${view.x + whole.left * view.scale}px`,
      top: `${view.y + whole.top * view.scale}px`,
      width: `${mask.width * view.scale}px`,
      height: `${mask.height * view.scale}px`,
    });
    render();
    placeRing();
    for (const [name, on] of [["undo", done.length && !done.at(-1).image], ["redo", undone.length]])
      editor.querySelector(`[data-do=${name}]`).setAttribute("aria-disabled", String(!on));
  });
};
const placeRing = () => {
  ring.hidden = !cursor || tool === "move";
  if (ring.hidden) return;
  const [side, whole] = [brushSize() * view.scale, sheet()];
  const [x, y] = [view.x + (whole.left + cursor[0]) * view.scale, view.y + (whole.top + cursor[1]) * view.scale];
  Object.assign(ring.style, { width: `${side}px`, height: `${side}px`, transform: `translate(${x - side / 2}px, ${y - side / 2}px)` });
};

// The view.
const fitted = () => {
  const whole = sheet();
  return Math.min(frame.clientWidth / whole.width, frame.clientHeight / whole.height) || 1;
};
const clamp = () => {
  const whole = sheet();
  for (const [axis, side, room] of [["x", whole.width, frame.clientWidth], ["y", whole.height, frame.clientHeight]]) {
    const free = room - side * view.scale;
    view[axis] = free > 0 ? free / 2 : Math.min(Math.max(view[axis], free), 0);
  }
};
// Zoom so that the point of the frame (by default its middle) stays where it is.
const zoomTo = (zoom, x = frame.clientWidth / 2, y = frame.clientHeight / 2) => {
  view.zoom = Math.min(Math.max(zoom, 1), MOST_ZOOM);
  const scale = fitted() * view.zoom;
  view.x = x - ((x - view.x) / view.scale) * scale;
  view.y = y - ((y - view.y) / view.scale) * scale;
  view.scale = scale;
  clamp();
  refresh();
};
const pan = (x, y) => {
  view.x += x;
  view.y += y;
  clamp();
  refresh();
};
const layOut = () => {
  const whole = sheet();
  frame.style.setProperty("--shape", `${whole.width} / ${whole.height}`);
  if (frame.clientWidth) zoomTo(view.zoom);
};
const load = () => {
  [mask.width, mask.height] = [picture.naturalWidth || 1, picture.naturalHeight || 1];
  done = [];
  undone = [];
  cursor = stroke = null;
  view.zoom = 1;
  layOut();
  if (!props.value) return refresh();
  const earlier = new Image(); // the mask of a component that was shown before
  earlier.onload = () => {
    done = [{ image: earlier }];
    replay();
    refresh();
  };
  earlier.src = props.value;
};
const enter = () => {
  dialog.append(editor);
  dialog.showModal();
  document.documentElement.style.overflow = "hidden";
  editor.classList.add("full");
  view.zoom = 1;
  layOut();
  frame.focus();
};
const leave = () => dialog.close();
dialog.addEventListener("close", () => {
  home.insertBefore(editor, dialog);
  document.documentElement.style.overflow = "";
  editor.classList.remove("full");
  view.zoom = 1;
  layOut();
  editor.querySelector("[data-do=full]").focus();
});

// Pointers: one paints, or moves the view; two fingers move and zoom it.
const inFrame = (event) => {
  const box = frame.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
const inMask = (event) => {
  const [[x, y], whole] = [inFrame(event), sheet()];
  return [(x - view.x) / view.scale - whole.left, (y - view.y) / view.scale - whole.top];
};
const begin = (point, erases) => {
  stroke = { points: [point], size: brushSize(), erases };
  segment(stroke, 0);
};
const follow = (point) => {
  stroke.points.push(point);
  segment(stroke, stroke.points.length - 1);
};
const end = () => {
  const operation = stroke;
  stroke = null;
  if (operation) add(operation);
};
const giveUp = () => {
  if (!stroke) return;
  stroke = null;
  replay();
};
const pinch = () => {
  const [one, two] = [...pointers.values()];
  return { x: (one[0] + two[0]) / 2, y: (one[1] + two[1]) / 2, spread: Math.hypot(one[0] - two[0], one[1] - two[1]) || 1 };
};
frame.addEventListener("pointerdown", (event) => {
  if (event.button > 1 && event.pointerType === "mouse") return;
  event.preventDefault();
  frame.focus({ preventScroll: true });
  frame.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, inFrame(event));
  if (pointers.size > 1) {
    giveUp();
    panning = true;
  } else if (tool === "move" || event.button === 1) panning = true;
  else begin((cursor = inMask(event)), tool === "eraser" || event.buttons === 32); // 32: a pen's eraser
  frame.classList.toggle("panning", panning);
  refresh();
});
frame.addEventListener("pointermove", (event) => {
  cursor = inMask(event);
  if (!pointers.has(event.pointerId)) return placeRing();
  if (panning && pointers.size === 2) {
    const before = pinch();
    pointers.set(event.pointerId, inFrame(event));
    const after = pinch();
    pan(after.x - before.x, after.y - before.y);
    return zoomTo((view.zoom * after.spread) / before.spread, after.x, after.y);
  }
  const [x, y] = pointers.get(event.pointerId);
  pointers.set(event.pointerId, inFrame(event));
  if (panning) return pan(pointers.get(event.pointerId)[0] - x, pointers.get(event.pointerId)[1] - y);
  if (stroke) {
    const steps = event.getCoalescedEvents?.() ?? [];
    for (const each of steps.length ? steps : [event]) follow(inMask(each));
    refresh();
  }
});
const lift = (event) => {
  if (!pointers.delete(event.pointerId)) return;
  if (event.type === "pointercancel") giveUp();
  else end();
  if (!pointers.size) panning = false;
  frame.classList.toggle("panning", panning);
  if (event.pointerType === "touch") cursor = null;
  refresh();
};
frame.addEventListener("pointerup", lift);
frame.addEventListener("pointercancel", lift);
frame.addEventListener("pointerleave", () => {
  if (pointers.size) return;
  cursor = null;
  placeRing();
});
frame.addEventListener(
  "wheel",
  (event) => {
    const zooms = event.ctrlKey || event.metaKey;
    if (!zooms && !dialog.open) return; // the page scrolls
    event.preventDefault();
    if (zooms) zoomTo(view.zoom * 1.0015 ** -event.deltaY, ...inFrame(event));
    else pan(-event.deltaX, -event.deltaY);
  },
  { passive: false },
);

// Tools and keys.
const choose = (name) => {
  tool = name;
  frame.dataset.mode = name;
  for (const each of editor.querySelectorAll("[data-tool]")) each.setAttribute("aria-pressed", String(each.dataset.tool === name));
  placeRing();
};
const resize = (value) => {
  slider.value = value;
  editor.querySelector("output").textContent = `${slider.value}%`;
  placeRing();
};
editor.querySelector(".tools").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.tool) choose(button.dataset.tool);
  else if (button) actions[button.dataset.do]();
});
slider.addEventListener("input", () => resize(slider.value));

const step = (x, y, paints) => {
  const most = Math.max(mask.width, mask.height) / 50;
  const from = cursor ?? [mask.width / 2, mask.height / 2];
  cursor = [Math.min(Math.max(from[0] + x * most, 0), mask.width), Math.min(Math.max(from[1] + y * most, 0), mask.height)];
  if (!paints) return placeRing();
  begin(from, tool === "eraser");
  follow(cursor);
  end();
};
const KEYS = {
  b: () => choose("brush"),
  e: () => choose("eraser"),
  m: () => choose("move"),
  f: actions.full,
  0: actions.fit,
  "+": actions.in,
  "=": actions.in,
  "-": actions.out,
  "[": () => resize(slider.value - 1),
  "]": () => resize(+slider.value + 1),
};
const PAINTING_KEYS = {
  " ": () => step(0, 0, true),
  ArrowLeft: (paints) => step(-1, 0, paints),
  ArrowRight: (paints) => step(1, 0, paints),
  ArrowUp: (paints) => step(0, -1, paints),
  ArrowDown: (paints) => step(0, 1, paints),
};
// Whether keys are for the editor: it has the focus; or the pointer, where nothing else is typed in.
const isActive = () => {
  const focus = document.activeElement;
  if (editor.contains(focus)) return true;
  return editor.matches(":hover") && !focus?.closest("input, textarea, select, [contenteditable=true]");
};
const press = (event) => {
  if (!element.isConnected) return document.removeEventListener("keydown", press);
  if (!isActive() || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  let action = null;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") action = event.shiftKey ? actions.redo : actions.undo;
    if (key === "y") action = actions.redo;
  } else if (document.activeElement === frame && key in PAINTING_KEYS) action = () => PAINTING_KEYS[key](event.shiftKey);
  else if (Object.hasOwn(KEYS, key)) action = KEYS[key];
  if (!action) return;
  event.preventDefault();
  action();
};
document.addEventListener("keydown", press);

choose("brush");
picture.addEventListener("load", load);
const showPicture = () => {
  if (props.picture) picture.src = props.picture;
};
watch("picture", showPicture);
watch("extend", layOut);
new ResizeObserver(layOut).observe(frame);
showPicture();
