// Controls that need the kernel: the strip of images, part, mask, layers and heads. A page without a kernel has none.

const GONE = "The kernel is gone: run the cell again. Clicks, keys and the look of the maps still work.";
const SOON = 1500, LATE = 6000;

/** Ask the kernel, and say so when it does not answer. `tell(line)`: "" means that all is well. */
function kernelOf(model, tell) {
  const open = new Map(), answered = new Map();
  let count = 0;
  const busy = () => model.widget_manager?.kernel?.status === "busy";
  const late = (id) => {
    if (busy()) { tell("Waiting for the kernel, which is busy ..."); open.set(id, [setTimeout(() => late(id), LATE)]); }
    else tell(GONE);
  };
  model.on("msg:custom", (content) => {
    if (content?.kind !== "answer") return;
    for (const timer of open.get(content.id) ?? []) clearTimeout(timer);
    answered.get(content.id)?.(content.error);
    open.delete(content.id); answered.delete(content.id); tell(content.error);
  });
  return {
    /** Resolves to the error in the answer, "" where there is none. */
    ask(message, buffers = undefined) {
      const id = ++count;
      open.set(id, [setTimeout(() => tell("Waiting for the kernel ..."), SOON), setTimeout(() => late(id), LATE)]);
      try { model.send({ ...message, id }, undefined, buffers); } catch { tell(GONE); }
      return new Promise((resolve) => { answered.set(id, resolve); });
    },
    stop() { for (const timers of open.values()) timers.forEach(clearTimeout); },
  };
}

/** A row of small pictures with their names, a field that finds a name, and a button for one's own pictures. Returns what
 * brings it up to date. */
function stripOf(root, model, ask, open) {
  const wrap = node("div", "lcmae-kernel-image", root), find = node("div", "lcmae-find", wrap);
  const field = node("input", "lcmae-search", find, { type: "search", "aria-label": "Find an image by its name" });
  fileButton(find, open);
  const row = node("div", "lcmae-strip", wrap, { role: "group", "aria-label": "Images" });
  let shown = null, names = [], buttons = [];
  const filter = () => {
    const wanted = field.value.trim().toLowerCase();
    buttons.forEach((made, i) => { made.hidden = !names[i].toLowerCase().includes(wanted); });
  };
  field.addEventListener("input", filter);
  function build() {
    shown = model.get("strip") ?? {}; names = shown.names ?? [];
    const { side, thumbs } = shown, bytes = thumbs ? bytesOf(thumbs) : [], size = side * side * 3;
    row.replaceChildren();
    buttons = names.map((name, i) => {
      const made = node("button", "lcmae-thumb", row, { type: "button", title: name, "aria-label": `Image ${name}` });
      if ((i + 1) * size <= bytes.length) made.append(picture(bytes.subarray(i * size, (i + 1) * size), side, side));
      node("span", "", made).textContent = name;
      made.addEventListener("click", () => ask({ kind: "choose", changes: { image: i } }));
      return made;
    });
    field.placeholder = `find among ${names.length} images`;
    field.hidden = row.hidden = names.length < 2;
    filter();
  }
  return ({ image }) => {
    if (shown !== model.get("strip")) build();
    buttons.forEach((made, i) => {
      const chosen = i === image;
      if (chosen && made.getAttribute("aria-pressed") !== "true") {
        row.scrollLeft = made.offsetLeft - row.offsetLeft - (row.clientWidth - made.offsetWidth) / 2;
      }
      made.setAttribute("aria-pressed", chosen);
    });
  };
}

/** Part, layers, heads and mask; returns what brings them up to date, or null without a kernel. */
function kernelBar(root, model, ask, open) {
  if (!model.get("panel")?.parts) return null;
  const follow = stripOf(root, model, ask, open);
  const bar = node("div", "lcmae-bar", root, { role: "toolbar", "aria-label": "What is computed" });
  const choose = (name, value) => ask({ kind: "choose", changes: { [name]: value } });
  const field = (name, label, tag, attributes) => {
    const wrap = node("label", `lcmae-control lcmae-kernel-${name}`, bar);
    const words = attributes.type === "checkbox" ? null : wrap.append(`${label} `), made = node(tag, "", wrap, attributes);
    if (words === null) wrap.append(` ${label}`);
    made.addEventListener("change", () => choose(name, attributes.type === "checkbox" ? made.checked : made.value));
    return made;
  };
  const list = { type: "text", size: "9", placeholder: "all, or 1-3, 8", title: "counted from 1: all, or such as 1-3, 8" };
  const part = field("part", "Part", "select", {}), layers = field("layers", "Layers", "input", list);
  const heads = field("heads", "Heads", "input", list), masked = field("masked", "mask the encoder", "input", { type: "checkbox" });
  const ratio = field("ratio", "Mask ratio", "input", { type: "number", min: "0.01", max: "0.99", step: "any" });
  const seed = field("seed", "Mask seed", "input", { type: "number", min: "0", step: "1" });
  const button = (name, words, title, run) => {
    const made = node("button", `lcmae-kernel-${name}`, bar, { type: "button", title });
    made.textContent = words; made.addEventListener("click", run);
    return made;
  };
  const redraw = button("redraw", "Re-draw", "Draw another mask: the next seed", () => choose("seed", +seed.value + 1));
  const paint = button("paint", "Paint mask", "Clicking a patch (or Space at the cursor) hides or shows it", () => {
    model.set("paint", !model.get("paint")); model.save_changes();
  });
  return () => {
    const panel = model.get("panel");
    follow(panel);
    part.replaceChildren(...panel.parts.map((name) => new Option(name, name)));
    part.value = panel.part; part.parentElement.hidden = panel.parts.length < 2;
    layers.value = panel.layers; heads.value = panel.heads; masked.checked = panel.masked; ratio.value = panel.ratio;
    seed.value = panel.seed; masked.disabled = panel.part === "decoder";
    for (const made of [ratio, seed, redraw, paint]) made.disabled = !panel.mask;
    ratio.title = panel.painted ? "as painted; another ratio draws a new mask" : "share of hidden patches";
    paint.setAttribute("aria-pressed", model.get("paint"));
  };
}
