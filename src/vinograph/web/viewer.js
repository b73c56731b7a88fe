// The viewer: a click on <button class="view" data-full data-caption data-group> opens that picture large.
// All elements with the same data-group are one group, in the order of the page; a picture that is there twice counts once.
(() => {
  const NEWEST_FIRST = ["history", "gallery"]; // in these groups the picture drawn before comes after
  const DRAG = 6; // pixels; less than that is a click
  const SWIPE = 60; // pixels
  const LARGEST = 16; // screen pixels for one of the picture

  let dialog, stage, image, members, index, opener, earlier; // "earlier" is the address looked at before
  let comparing = false;
  let view = { scale: 0, x: 0, y: 0 }; // a scale of 0 fits the picture to the window
  const pointers = new Map();

  const part = (name) => dialog.querySelector(`[data-part=${name}]`);

  const build = () => {
    dialog = document.createElement("dialog");
    dialog.className = "viewer";
    dialog.setAttribute("aria-label", "Picture viewer");
    dialog.innerHTML = `
      <div class="stage" data-part="stage" tabindex="-1"><img data-part="image" alt="" draggable="false"></div>
      <p class="badge" data-part="badge" hidden>Previous picture</p>
      <button type="button" class="turn before" data-do="before" aria-label="Previous">‹</button>
      <button type="button" class="turn after" data-do="after" aria-label="Next">›</button>
      <div class="viewer-bar">
        <p class="caption" data-part="caption" aria-live="polite"></p>
        <p class="hint" data-part="hint"><kbd>C</kbd> or <kbd>Space</kbd>: hold to compare with the previous picture</p>
        <div class="tools">
          <span data-part="count"></span>
          <button type="button" data-do="fit">100%</button>
          <button type="button" data-part="compare">Hold to compare</button>
          <a data-part="download" download>Download</a>
          <button type="button" data-do="init">Use as init image</button>
          <button type="button" data-do="close">Close</button>
        </div>
      </div>`;
    // Gradio applies rules within @media only to what lies in there.
    (document.querySelector(".gradio-container .contain") ?? document.body).append(dialog);
    stage = part("stage");
    image = part("image");
    dialog.addEventListener("click", onClick);
    dialog.addEventListener("keydown", onKey);
    dialog.addEventListener("keyup", onKeyUp);
    dialog.addEventListener("close", onClose);
    image.addEventListener("load", place);
    stage.addEventListener("wheel", onWheel, { passive: false });
    stage.addEventListener("pointerdown", onDown);
    stage.addEventListener("pointermove", onMove);
    stage.addEventListener("pointerup", onUp);
    stage.addEventListener("pointercancel", onUp);
    const compare = part("compare");
    compare.addEventListener("pointerdown", () => showPrevious(true));
    for (const end of ["pointerup", "pointerleave", "pointercancel", "blur"]) compare.addEventListener(end, () => showPrevious(false));
    compare.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch holds
    window.addEventListener("resize", () => dialog.open && place());
    window.addEventListener("blur", () => showPrevious(false));
  };

  // The pictures of a group. One that is shown twice stands where it is found last: in the history, not in the output.
  const groupOf = (name) => {
    const found = new Map();
    for (const each of document.querySelectorAll(`[data-full][data-group="${CSS.escape(name)}"]`)) {
      if (!each.checkVisibility()) continue; // on another tab
      found.delete(each.dataset.full);
      found.set(each.dataset.full, { full: each.dataset.full, caption: each.dataset.caption ?? "", alt: each.querySelector("img")?.alt ?? "", group: name });
    }
    return [...found.values()];
  };

  const open = (button) => {
    if (!dialog) build();
    opener = { element: button, full: button.dataset.full };
    members = groupOf(button.dataset.group ?? "");
    index = members.findIndex((each) => each.full === button.dataset.full);
    if (index < 0) {
      members = [{ full: button.dataset.full, caption: button.dataset.caption ?? "", alt: button.querySelector("img")?.alt ?? "" }];
      index = 0;
    }
    earlier = null;
    dialog.showModal();
    stage.focus();
    show();
  };

  // The picture to compare with: the one looked at before this one; at first, the one that was drawn before it.
  const previous = () => {
    if (members.length < 2) return null;
    const looked = members.find((each) => each.full === earlier);
    if (looked && looked !== members[index]) return looked;
    const back = NEWEST_FIRST.includes(members[index].group) ? 1 : -1;
    return members[(index + back + members.length) % members.length];
  };

  // The file name to save a picture under: the prompt's first words and the seed, or the name that the file has.
  const nameOf = ({ full, caption }) => {
    if (full.startsWith("data:")) return "picture.webp";
    const name = decodeURIComponent(full.split("/").pop());
    const words = caption.split("\n")[0].toLowerCase().match(/[\p{L}\p{N}]+/gu)?.slice(0, 8) ?? [];
    const seed = caption.match(/Seed (\d+)/);
    return name === "picture.png" && seed ? `${[...words, seed[1]].join("-")}.png` : name;
  };

  const show = () => {
    const shown = members[index];
    comparing = false;
    view = { scale: 0, x: 0, y: 0 };
    image.src = shown.full;
    image.alt = shown.alt;
    part("badge").hidden = true;
    part("caption").textContent = shown.caption;
    part("count").textContent = members.length > 1 ? `${index + 1} of ${members.length}` : "";
    const link = part("download");
    link.href = shown.full;
    link.download = nameOf(shown);
    const inFile = shown.full.includes("/file=");
    dialog.querySelector("[data-do=init]").hidden = !inFile;
    const several = members.length > 1;
    for (const each of [part("hint"), part("compare"), ...dialog.querySelectorAll(".turn")]) each.hidden = !several;
    place();
  };

  const showPrevious = (wanted) => {
    if (!dialog?.open || wanted === comparing) return;
    const other = previous();
    if (!other) return;
    comparing = wanted;
    image.src = wanted ? other.full : members[index].full;
    image.alt = wanted ? other.alt : members[index].alt;
    part("caption").textContent = wanted ? other.caption : members[index].caption;
    part("badge").hidden = !wanted;
  };

  const turn = (by) => {
    if (members.length < 2) return;
    earlier = members[index].full;
    index = (index + by + members.length) % members.length;
    show();
  };

  const fitting = () => {
    const box = stage.getBoundingClientRect();
    return Math.min(box.width / (image.naturalWidth || 1), box.height / (image.naturalHeight || 1));
  };

  const place = () => {
    const box = stage.getBoundingClientRect();
    const scale = view.scale || fitting();
    const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
    const slack = [Math.max(0, (width - box.width) / 2), Math.max(0, (height - box.height) / 2)];
    view.x = Math.min(slack[0], Math.max(-slack[0], view.x));
    view.y = Math.min(slack[1], Math.max(-slack[1], view.y));
    Object.assign(image.style, { width: `${width}px`, height: `${height}px`, transform: `translate(calc(${view.x}px - 50%), calc(${view.y}px - 50%))` });
    image.style.imageRendering = scale * window.devicePixelRatio >= 3 ? "pixelated" : "auto";
    stage.classList.toggle("zoomed", slack[0] > 0 || slack[1] > 0);
    dialog.querySelector("[data-do=fit]").textContent = view.scale ? "Fit" : "100%";
  };

  // Zoom so that the point of the picture under (x, y) stays there.
  const zoom = (scale, x, y) => {
    const before = view.scale || fitting();
    const box = stage.getBoundingClientRect();
    const after = Math.min(LARGEST, Math.max(Math.min(fitting(), 1), scale));
    const [dx, dy] = [x - box.x - box.width / 2, y - box.y - box.height / 2];
    view = { scale: after, x: dx - ((dx - view.x) * after) / before, y: dy - ((dy - view.y) * after) / before };
    place();
  };

  const center = () => {
    const box = stage.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };

  const fit = (at = center()) => {
    if (!view.scale) return zoom(1 / window.devicePixelRatio, ...at);
    view = { scale: 0, x: 0, y: 0 };
    place();
  };

  const useAsInitImage = () => {
    const address = members[index].full;
    dialog.close();
    [...document.querySelectorAll("[role=tab]")].find((each) => each.textContent.trim() === "Generate")?.click();
    document.dispatchEvent(new CustomEvent("use-as-init-image", { detail: address }));
  };

  const ACTIONS = { before: () => turn(-1), after: () => turn(1), fit: () => fit(), init: useAsInitImage, close: () => dialog.close() };

  const onClick = (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action) ACTIONS[action]();
  };

  const onKey = (event) => {
    const onButton = event.target.closest("button, a");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      ArrowLeft: () => turn(-1),
      ArrowRight: () => turn(1),
      "+": () => zoom((view.scale || fitting()) * 1.5, ...center()),
      "-": () => zoom((view.scale || fitting()) / 1.5, ...center()),
      0: () => fit(),
      c: () => showPrevious(true),
      C: () => showPrevious(true),
      ...(onButton ? {} : { " ": () => showPrevious(true) }), // on a button the space bar presses it
      Tab: () => moveFocus(event.shiftKey ? -1 : 1),
    };
    event.stopPropagation(); // the page's own shortcuts rest
    if (!keys[event.key]) return;
    event.preventDefault();
    if (!event.repeat || event.key.startsWith("Arrow")) keys[event.key]();
  };

  const onKeyUp = (event) => {
    if (["c", "C", " "].includes(event.key)) showPrevious(false);
  };

  const moveFocus = (by) => {
    const there = [...dialog.querySelectorAll("button, a")].filter((each) => each.checkVisibility());
    const at = there.indexOf(document.activeElement);
    there[at < 0 ? (by > 0 ? 0 : there.length - 1) : (at + by + there.length) % there.length].focus();
  };

  const onClose = () => {
    pointers.clear();
    image.removeAttribute("src");
    // The page may have drawn its pictures anew meanwhile.
    const again = [...document.querySelectorAll("button.view")].find((each) => each.dataset.full === opener.full);
    (opener.element.isConnected ? opener.element : again)?.focus();
  };

  const onWheel = (event) => {
    event.preventDefault();
    zoom((view.scale || fitting()) * Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
  };

  const spread = () => {
    const [a, b] = [...pointers.values()];
    return { distance: Math.hypot(a.x - b.x, a.y - b.y) || 1, x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  };

  let moved = 0;
  const onDown = (event) => {
    if (event.button) return;
    event.preventDefault();
    stage.focus();
    stage.setPointerCapture(event.pointerId);
    if (!pointers.size) moved = 0;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, from: event.clientX, at: event.target });
  };

  const onMove = (event) => {
    const held = pointers.get(event.pointerId);
    if (!held) return;
    const before = pointers.size > 1 ? spread() : null;
    const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
    moved += Math.hypot(dx, dy);
    held.x = event.clientX;
    held.y = event.clientY;
    if (before) {
      const now = spread();
      zoom(((view.scale || fitting()) * now.distance) / before.distance, now.x, now.y);
      moved = Infinity; // two fingers neither click nor swipe
    } else if (view.scale) {
      view.x += dx;
      view.y += dy;
      place();
    }
  };

  const onUp = (event) => {
    const held = pointers.get(event.pointerId);
    pointers.delete(event.pointerId);
    if (!held || pointers.size || event.type === "pointercancel" || moved === Infinity) return;
    const along = event.clientX - held.from;
    if (moved <= DRAG) {
      if (held.at === image) fit([event.clientX, event.clientY]);
      else dialog.close();
    } else if (!view.scale && Math.abs(along) >= SWIPE) turn(along < 0 ? 1 : -1);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button.view[data-full]");
    if (!button || event.defaultPrevented) return;
    open(button);
  });
})();
